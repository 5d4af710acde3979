"""Patchlevel event sourcing, with aggregates. Source: patchlevel/event-sourcing, Store/DoctrineDbalStore.php.

A writer holds an advisory lock, so that numbers become visible in their order. Archived events are still there.
"""

from esx.layouts.foreign.kind import NO_ID, Checkpoints, EventColumns, Reading, StoreKind, joined_ids
from esx.layouts.foreign.patchlevel_subscriptions import subscriptions
from esx.layouts.foreign.tables import StoreTables


def _reading(tables: StoreTables) -> Reading:
    events = tables.events
    stream_id, keys = joined_ids(events, ("aggregate", "aggregate_id"), "-")
    return Reading(
        EventColumns(
            global_seq="r.id",
            stream_id=stream_id,
            stream_seq="r.playhead",
            event_type="r.event",
            data=events.payload("payload"),
            metadata=events.metadata("custom_headers"),
            created_at="r.recorded_on",
            event_id=NO_ID,
        ),
        keys=keys,
    )


KIND = StoreKind(
    "patchlevel",
    "Patchlevel event sourcing, an aggregate for each stream",
    has=("id", "aggregate", "aggregate_id", "playhead", "event", "payload", "recorded_on"),
    reading=_reading,
    first=1,
    checkpoints=(Checkpoints(("id", "group_name", "run_mode", "position", "status"), subscriptions),),
)
