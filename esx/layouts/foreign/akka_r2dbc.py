"""Akka or Pekko Persistence R2DBC. Source: akka/akka-persistence-r2dbc, ddl-scripts/create_tables_postgres.sql.

Payloads are bytes or jsonb, as the application has chosen.
"""

from esx.layouts.foreign.akka_offsets import offsets, times
from esx.layouts.foreign.kind import NO_ID, UNNUMBERED, Checkpoints, EventColumns, Reading, StoreKind
from esx.layouts.foreign.tables import StoreTables


def _reading(tables: StoreTables) -> Reading:
    events = tables.events
    return Reading(
        EventColumns(
            global_seq=UNNUMBERED,
            stream_id="r.persistence_id",
            stream_seq="r.seq_nr",
            event_type="r.event_ser_manifest",
            data=events.payload("event_payload"),
            metadata=events.metadata("meta_payload"),
            created_at="r.db_timestamp",
            event_id=NO_ID,
        ),
        separator="|",
    )


KIND = StoreKind(
    "akka_r2dbc",
    "Akka or Pekko Persistence R2DBC",
    has=(
        "slice",
        "entity_type",
        "persistence_id",
        "seq_nr",
        "db_timestamp",
        "event_ser_id",
        "event_ser_manifest",
        "event_payload",
    ),
    reading=_reading,
    first=1,
    unordered="its events have times and slices, but no number among all streams",
    checkpoints=(
        Checkpoints(("projection_name", "projection_key", "current_offset"), offsets),
        Checkpoints(("projection_name", "projection_key", "timestamp_offset"), times),
    ),
)
