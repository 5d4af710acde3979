"""Broadway. Source: broadway/event-store-dbal, DBALEventStore.php.

Payloads and metadata are texts, JSON of the class and what it has. Times are texts.
"""

from esx.layouts.foreign.kind import NO_ID, EventColumns, Reading, StoreKind, time_of, uuid_or_text
from esx.layouts.foreign.source import looked_into, shallow
from esx.layouts.foreign.tables import Packed, StoreTables


def _inner(column: str) -> Packed:
    """Return what the object holds; the whole where that cannot be told."""
    text = f"r.{column}::text"
    inner = looked_into(text, f"({text}::json -> 'payload')::text")  # as json, to keep the order of members
    inner = f"CASE WHEN {shallow(text)} THEN {inner} END"
    return Packed(f"coalesce({inner}, {text})", "text")


def _reading(tables: StoreTables) -> Reading:
    stream_id, keys = uuid_or_text(tables.events, "uuid")
    return Reading(
        EventColumns(
            global_seq="r.id",
            stream_id=stream_id,
            stream_seq="r.playhead",
            event_type="r.type",
            data=_inner("payload"),
            metadata=_inner("metadata"),
            created_at=time_of("r.recorded_on"),
            event_id=NO_ID,
        ),
        keys=keys,
    )


KIND = StoreKind(
    "broadway",
    "Broadway",
    has=("id", "uuid", "playhead", "payload", "metadata", "recorded_on", "type"),
    reading=_reading,
)
