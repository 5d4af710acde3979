"""Acuris eventstore. Source: acuris-org/eventstore, eventstore-postgresql.

A writer locks the table, so that numbers become visible in their order, without gaps.
"""

from esx.layouts.foreign.kind import NO_ID, EventColumns, Reading, StoreKind, joined_ids
from esx.layouts.foreign.tables import UTC, StoreTables


def _reading(tables: StoreTables) -> Reading:
    stream_id, keys = joined_ids(tables.events, ("stream_category", "stream_id"))
    return Reading(
        EventColumns(
            global_seq="r.position",
            stream_id=stream_id,
            stream_seq="r.event_number",
            event_type="r.event_type",
            data=tables.events.payload("data"),
            metadata=tables.events.payload("metadata"),
            created_at=UTC.format("r.timestamp"),
            event_id=NO_ID,
        ),
        keys=keys,
    )


KIND = StoreKind(
    "acuris",
    "Acuris eventstore",
    has=("position", "stream_category", "stream_id", "event_number", "event_type", "data", "metadata", "timestamp"),
    reading=_reading,
)
