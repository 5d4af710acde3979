"""Eventuous. Source: Eventuous/eventuous, Scripts/1_Schema.sql.

A stream has a number, which the table streams gives to its name.
"""

from esx.layouts.foreign.kind import CheckpointColumns, Checkpoints, EventColumns, Names, Reading, StoreKind
from esx.layouts.foreign.tables import StoreTable, StoreTables
from esx.layouts.stream_keys import ID, Made


def _reading(tables: StoreTables) -> Reading:
    events, streams = tables.events, tables.beside["streams"]
    return Reading(
        EventColumns(
            global_seq="r.global_position",
            stream_id="s.stream_name",
            stream_seq="r.stream_position",
            event_type="r.message_type",
            data=events.payload("json_data"),
            metadata=events.payload("json_metadata"),
            created_at=events.moment("created"),
            event_id="r.message_id",
        ),
        joins=f"LEFT JOIN {streams.quoted} s ON s.stream_id = r.stream_id",
        keys=Made(("r.stream_id",), (f"(SELECT k.stream_id FROM {streams.quoted} k WHERE k.stream_name = {ID})",)),
        names=Names(streams, "stream_name", once=True),
    )


def _checkpoints(_tables: StoreTables, table: StoreTable) -> CheckpointColumns | None:
    return CheckpointColumns("c.id", "c.position") if table.name == "checkpoints" else None


KIND = StoreKind(
    "eventuous",
    "Eventuous",
    has=(
        "message_id",
        "message_type",
        "stream_id",
        "stream_position",
        "global_position",
        "json_data",
        "json_metadata",
        "created",
    ),
    beside={"streams": ("stream_id", "stream_name")},
    reading=_reading,
    checkpoints=(Checkpoints(("id", "position"), _checkpoints),),
    correlation=("eventuous.correlation-id",),
    causation=("eventuous.causation-id",),
)
