"""eventsourcing (Python), DCB. Source: pyeventsourcing/eventsourcing, dcb/postgres_tt.py.

It has no streams: an event has tags, and the events with a tag are read as a stream of that name. A writer locks the
table, so that numbers become visible in their order. Payloads are MessagePack, unless the application chose otherwise.
"""

from esx.layouts.foreign.kind import (
    NO_ID,
    NO_NUMBER,
    NO_STREAM,
    NO_TIME,
    Checkpoints,
    EventColumns,
    Names,
    Reading,
    StoreKind,
)
from esx.layouts.foreign.tables import NO_METADATA, StoreTables
from esx.layouts.foreign.tracking import tracking
from esx.layouts.stream_keys import ID, Made


def _reading(tables: StoreTables) -> Reading:
    events, tags = tables.events, tables.beside["*_tt_tag"]

    def columns(event: str, stream_id: str, stream_seq: str) -> EventColumns:
        return EventColumns(
            global_seq=f"{event}.id",
            stream_id=stream_id,
            stream_seq=stream_seq,
            event_type=f"{event}.type",
            data=events.payload("data", event),
            metadata=NO_METADATA,
            created_at=NO_TIME,
            event_id=NO_ID,
        )

    return Reading(
        columns("r", NO_STREAM, NO_NUMBER),
        keys=Made(("r.tag",), (ID,)),
        in_stream=Reading(
            columns("m", "r.tag", "r.main_id"), table=tags, joins=f"JOIN {events.quoted} m ON m.id = r.main_id"
        ),
        names=Names(tags, "tag", where="false"),
    )


KIND = StoreKind(
    "eventsourcing_dcb",
    "eventsourcing (Python), DCB",
    has=("id", "type", "data", "tags"),
    beside={"*_tt_tag": ("tag", "main_id")},
    reading=_reading,
    placed=False,
    checkpoints=(Checkpoints(("application_name", "notification_id"), tracking),),
)
