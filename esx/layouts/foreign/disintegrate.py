"""disintegrate (Rust). Source: disintegrate-es/disintegrate, event_store/sql.

It has no streams: an event has a column for each of its domain ids, which its payload has as well.
"""

from esx.layouts.foreign.kind import (
    NO_ID,
    NO_NUMBER,
    NO_STREAM,
    CheckpointColumns,
    Checkpoints,
    EventColumns,
    Reading,
    StoreKind,
    kept,
)
from esx.layouts.foreign.tables import NO_METADATA, UTC, StoreTable, StoreTables


def _reading(tables: StoreTables) -> Reading:
    return Reading(
        EventColumns(
            global_seq="r.event_id",
            stream_id=NO_STREAM,
            stream_seq=NO_NUMBER,
            event_type="r.event_type",
            data=tables.events.payload("payload"),
            metadata=NO_METADATA,
            created_at=UTC.format("r.inserted_at"),
            event_id=NO_ID,
        )
    )


def _listeners(_tables: StoreTables, table: StoreTable) -> CheckpointColumns:
    return CheckpointColumns("c.id", "c.last_processed_event_id", updated_at=kept(table, "updated_at"))


KIND = StoreKind(
    "disintegrate",
    "disintegrate (Rust)",
    has=("event_id", "event_type", "payload", "inserted_at"),
    beside={"event_listener": ("id", "last_processed_event_id")},
    reading=_reading,
    placed=False,
    checkpoints=(Checkpoints(("id", "last_processed_event_id"), _listeners),),
)
