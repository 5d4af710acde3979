"""Sequent. Source: zilverline/sequent, db/structure.sql.

The table of aggregates says in which partition the events of an aggregate are.
"""

from esx.layouts.foreign.kind import (
    NO_ID,
    UNNUMBERED,
    CheckpointColumns,
    Checkpoints,
    EventColumns,
    Names,
    Reading,
    StoreKind,
)
from esx.layouts.foreign.tables import NO_METADATA, StoreTable, StoreTables
from esx.layouts.stream_keys import ID, Joined, Made, as_uuid


def _reading(tables: StoreTables) -> Reading:
    aggregates, types = tables.beside["aggregates"], tables.beside["event_types"]
    aggregate = as_uuid(ID)
    return Reading(
        EventColumns(
            global_seq=UNNUMBERED,
            stream_id="r.aggregate_id::text",
            stream_seq="r.sequence_number",
            event_type="t.type",
            data=tables.events.payload("event_json"),
            metadata=NO_METADATA,
            created_at="r.created_at",
            event_id=NO_ID,
        ),
        joins=f"LEFT JOIN {types.quoted} t ON t.id = r.event_type_id",
        keys=Made(
            ("r.partition_key", "r.aggregate_id"),
            (
                f"(SELECT k.events_partition_key FROM {aggregates.quoted} k WHERE k.aggregate_id = {aggregate})",
                aggregate,
            ),
        ),
        names=Names(aggregates, "aggregate_id", keys=Joined(("r.aggregate_id",), (True,))),
    )


def _projectors(_tables: StoreTables, _table: StoreTable) -> CheckpointColumns:
    # A projector works in the transaction of the command: it has versions of its own, but no position.
    version = "concat('version ', c.active_version, ', is replaying ' || c.replaying_version)"
    return CheckpointColumns("c.name", at="'in the transaction that appends'", state=version, apart="true")


KIND = StoreKind(
    "sequent",
    "Sequent",
    has=("aggregate_id", "partition_key", "sequence_number", "event_type_id", "event_json", "created_at", "command_id"),
    beside={"event_types": ("id", "type"), "aggregates": ("aggregate_id", "events_partition_key")},
    reading=_reading,
    first=1,
    unordered="it keeps no order among streams",
    checkpoints=(Checkpoints(("name", "active_version", "replaying_version"), _projectors),),
)
