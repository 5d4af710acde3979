"""pg_eventstore (Ruby). Source: yousty/pg_eventstore, db/structure.sql.

A stream is named by its context, its name and its id. A link to an event of another stream is an event of type $>.
"""

from esx.layouts.foreign.kind import CheckpointColumns, Checkpoints, EventColumns, Reading, StoreKind, joined_ids, kept
from esx.layouts.foreign.tables import StoreTable, StoreTables


def _reading(tables: StoreTables) -> Reading:
    events = tables.events
    stream_id, keys = joined_ids(events, ("context", "stream_name", "stream_id"))
    return Reading(
        EventColumns(
            global_seq="r.global_position",
            stream_id=stream_id,
            stream_seq="r.stream_revision",
            event_type="r.type",
            data=events.payload("data"),
            metadata=events.payload("metadata"),
            created_at=events.moment("created_at"),
            event_id="r.id",
        ),
        keys=keys,
    )


def _subscriptions(_tables: StoreTables, table: StoreTable) -> CheckpointColumns:
    return CheckpointColumns(
        "concat_ws(' ', c.set, c.name)",
        "c.current_position",
        state=kept(table, "state"),
        owner=kept(table, "locked_by"),
        # It keeps the last error also after it has gone on.
        error="CASE WHEN c.state = 'dead' THEN c.last_error::text END" if "last_error" in table.columns else "NULL",
        updated_at=kept(table, "updated_at"),
    )


KIND = StoreKind(
    "pg_eventstore",
    "pg_eventstore (Ruby)",
    has=(
        "id",
        "context",
        "stream_name",
        "stream_id",
        "global_position",
        "stream_revision",
        "type",
        "data",
        "metadata",
        "created_at",
    ),
    beside={"partitions": ("table_name",)},
    reading=_reading,
    placed=False,
    checkpoints=(Checkpoints(("set", "name", "current_position"), _subscriptions),),
)
