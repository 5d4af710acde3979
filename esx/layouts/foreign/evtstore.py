"""evtstore. Source: Seikho/evtstore, provider/pg. An event is JSON in a text, which has its type too."""

from esx.layouts.foreign.kind import NO_ID, CheckpointColumns, Checkpoints, EventColumns, Reading, StoreKind, joined_ids
from esx.layouts.foreign.source import looked_into, shallow
from esx.layouts.foreign.tables import NO_METADATA, StoreTable, StoreTables

_VALID = looked_into("r.event::text", "r.event::text::jsonb ->> 'type'")
_START = """pg_catalog.substring(r.event::text, '^\\s*[{]\\s*"type"\\s*:\\s*"([^"\\\\]*)"')"""
_TYPE = f"CASE WHEN {shallow('r.event::text')} THEN {_VALID} ELSE {_START} END"


def _reading(tables: StoreTables) -> Reading:
    stream_id, keys = joined_ids(tables.events, ("stream", "aggregate_id"))
    return Reading(
        EventColumns(
            global_seq="r.position",
            stream_id=stream_id,
            stream_seq="r.version",
            event_type=_TYPE,
            data=tables.events.payload("event"),
            metadata=NO_METADATA,
            created_at="r.timestamp",
            event_id=NO_ID,
        ),
        keys=keys,
    )


def _bookmarks(_tables: StoreTables, _table: StoreTable) -> CheckpointColumns:
    return CheckpointColumns("c.bookmark", "c.position")


KIND = StoreKind(
    "evtstore",
    "evtstore",
    has=("position", "stream", "aggregate_id", "version", "timestamp", "event"),
    reading=_reading,
    first=1,
    checkpoints=(Checkpoints(("bookmark", "position"), _bookmarks),),
)
