"""cqrs-es. Source: serverlesstechnology/cqrs, persistence/postgres-es/db/init.sql.

The payload of an event is its data in an object with one key, which is the name of the event's variant in Rust.
"""

from esx.layouts.foreign.kind import NO_ID, NO_TIME, UNNUMBERED, EventColumns, Reading, StoreKind, joined_ids
from esx.layouts.foreign.source import looked_into
from esx.layouts.foreign.tables import StoreTables


def _unwrapped(json: str) -> str:
    """Return the expression for the data in the payload, for the payload as it is where it has another form."""
    payload = looked_into("r.payload::text", "r.payload")
    return (
        f"coalesce((SELECT pg_catalog.min(w.value::text) FROM pg_catalog.{json}_each(CASE WHEN "
        f"pg_catalog.{json}_typeof(r.payload) = 'object' THEN {payload} END) w HAVING pg_catalog.count(*) = 1 AND "
        "(pg_catalog.min(w.key) = r.event_type OR "
        f"(pg_catalog.min(w.key) ~ '^[A-Z]' AND pg_catalog.min(pg_catalog.{json}_typeof(w.value)) = 'object')))"
        f"::{json}, r.payload)"
    )


def _reading(tables: StoreTables) -> Reading:
    json = tables.events.columns["payload"]
    stream_id, keys = joined_ids(tables.events, ("aggregate_type", "aggregate_id"))
    return Reading(
        EventColumns(
            global_seq=UNNUMBERED,
            stream_id=stream_id,
            stream_seq="r.sequence",
            event_type="r.event_type",
            data=_unwrapped(json) if json in ("json", "jsonb") else tables.events.payload("payload"),
            metadata=tables.events.payload("metadata"),
            created_at=NO_TIME,
            event_id=NO_ID,
        ),
        keys=keys,
    )


KIND = StoreKind(
    "cqrs_es",
    "cqrs-es (Rust)",
    has=("aggregate_type", "aggregate_id", "sequence", "event_type", "event_version", "payload", "metadata"),
    reading=_reading,
    first=1,
    unordered="it keeps no order among streams",
)
