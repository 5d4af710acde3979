"""Akka or Pekko Persistence JDBC. Source: akka/akka-persistence-jdbc, schema/postgres/postgres-create-schema.sql.

Times are milliseconds since 1970. Events that the application has deleted are still there, marked so.
"""

from esx.layouts.foreign.akka_offsets import offsets
from esx.layouts.foreign.kind import NO_ID, Checkpoints, EventColumns, Reading, StoreKind
from esx.layouts.foreign.tables import NO_METADATA, StoreTables

_YEARS = "r.write_timestamp BETWEEN -62135596800000 AND 253402300799999"  # 1 to 9999


def _reading(tables: StoreTables) -> Reading:
    return Reading(
        EventColumns(
            global_seq="r.ordering",
            stream_id="r.persistence_id",
            stream_seq="r.sequence_number",
            event_type="r.event_ser_manifest",
            data=tables.events.payload("event_payload"),
            metadata=NO_METADATA,
            created_at=f"CASE WHEN {_YEARS} THEN '1970-01-01Z'::timestamptz "
            "+ r.write_timestamp * '1 millisecond'::interval END",
            event_id=NO_ID,
        ),
        separator="|",
    )


KIND = StoreKind(
    "akka_jdbc",
    "Akka or Pekko Persistence JDBC",
    has=(
        "ordering",
        "persistence_id",
        "sequence_number",
        "deleted",
        "writer",
        "write_timestamp",
        "event_ser_id",
        "event_ser_manifest",
        "event_payload",
    ),
    reading=_reading,
    first=1,
    checkpoints=(Checkpoints(("projection_name", "projection_key", "current_offset"), offsets),),
)
