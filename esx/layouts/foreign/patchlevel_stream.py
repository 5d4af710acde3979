"""Patchlevel event sourcing. Source: patchlevel/event-sourcing, Store/StreamDoctrineDbalStore.php.

A writer holds an advisory lock, so that numbers become visible in their order. An event can have no number in its
stream, and newer versions give it an id.
"""

from esx.layouts.foreign.kind import NO_ID, Checkpoints, EventColumns, Reading, StoreKind
from esx.layouts.foreign.patchlevel_subscriptions import subscriptions
from esx.layouts.foreign.tables import StoreTables
from esx.layouts.stream_keys import as_uuid


def _reading(tables: StoreTables) -> Reading:
    events = tables.events
    return Reading(
        EventColumns(
            global_seq="r.id",
            stream_id="r.stream",
            stream_seq="r.playhead",
            event_type="r.event",
            data=events.payload("payload"),
            metadata=events.metadata("custom_headers"),
            created_at="r.recorded_on",
            event_id=as_uuid("r.event_id") if "event_id" in events.columns else NO_ID,
        )
    )


KIND = StoreKind(
    "patchlevel_stream",
    "Patchlevel event sourcing",
    has=("id", "stream", "playhead", "event", "payload", "recorded_on"),
    lacks=("aggregate",),
    reading=_reading,
    first=1,
    checkpoints=(Checkpoints(("id", "group_name", "run_mode", "position", "status"), subscriptions),),
)
