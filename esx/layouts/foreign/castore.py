"""Castore. Source: castore-dev/castore, event-storage-adapter-postgres. An event without data has NULL there."""

from esx.layouts.foreign.kind import NO_ID, EventColumns, Reading, StoreKind, joined_ids
from esx.layouts.foreign.tables import StoreTables


def _reading(tables: StoreTables) -> Reading:
    stream_id, keys = joined_ids(tables.events, ("aggregate_name", "aggregate_id"))
    return Reading(
        EventColumns(
            global_seq="r.id",
            stream_id=stream_id,
            stream_seq="r.version",
            event_type="r.type",
            data=tables.events.payload("data"),
            metadata=tables.events.payload("metadata"),
            created_at="r.timestamp",
            event_id=NO_ID,
        ),
        keys=keys,
    )


KIND = StoreKind(
    "castore",
    "Castore",
    has=("id", "aggregate_name", "aggregate_id", "version", "type", "data", "metadata", "timestamp"),
    reading=_reading,
    first=1,
)
