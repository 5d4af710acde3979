"""Spatie laravel-event-sourcing. Source: spatie/laravel-event-sourcing, create_stored_events_table.php.stub.

An event of no aggregate has neither stream nor version.
"""

from esx.layouts.foreign.kind import NO_ID, EventColumns, Reading, StoreKind, uuid_or_text
from esx.layouts.foreign.tables import UTC, StoreTables


def _reading(tables: StoreTables) -> Reading:
    stream_id, keys = uuid_or_text(tables.events, "aggregate_uuid")
    return Reading(
        EventColumns(
            global_seq="r.id",
            stream_id=stream_id,
            stream_seq="r.aggregate_version",
            event_type="r.event_class",
            data=tables.events.payload("event_properties"),
            metadata=tables.events.payload("meta_data"),
            created_at=UTC.format("r.created_at"),
            event_id=NO_ID,
        ),
        keys=keys,
    )


KIND = StoreKind(
    "spatie",
    "Spatie laravel-event-sourcing",
    has=("id", "aggregate_uuid", "aggregate_version", "event_class", "event_properties", "meta_data", "created_at"),
    reading=_reading,
    first=1,
)
