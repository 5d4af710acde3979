"""act-pg. Source: rotorsoft/act-pg, npm @rotorsoft/act-pg."""

from esx.layouts.foreign.kind import NO_ID, CheckpointColumns, Checkpoints, EventColumns, Reading, StoreKind, kept
from esx.layouts.foreign.source import looked_into
from esx.layouts.foreign.tables import StoreTable, StoreTables


def _reading(tables: StoreTables) -> Reading:
    return Reading(
        EventColumns(
            global_seq="r.id",
            stream_id="r.stream",
            stream_seq="r.version",
            event_type="r.name",
            data=tables.events.payload("data"),
            metadata=tables.events.payload("meta"),
            created_at="r.created",
            event_id=NO_ID,
        ),
        causation=_causation(tables.events),
        causes_numbered=True,
    )


def _causation(events: StoreTable) -> str:
    cause = "'{causation,event,id}'"
    if events.columns["meta"] == "jsonb":
        return f"r.meta #>> {cause}"
    return looked_into("r.meta::text", f"r.meta::text::jsonb #>> {cause}")


def _streams(tables: StoreTables, table: StoreTable) -> CheckpointColumns | None:
    if table.name != f"{tables.events.name}_streams":
        return None
    return CheckpointColumns(
        "c.stream",
        "c.at",
        state="CASE WHEN c.blocked THEN 'blocked' END" if table.columns.get("blocked") == "boolean" else "NULL",
        owner=kept(table, "leased_by"),
        error=kept(table, "error"),
    )


KIND = StoreKind(
    "act_pg",
    "act-pg",
    has=("id", "name", "data", "stream", "version", "created", "meta"),
    reading=_reading,
    correlation=("correlation",),
    checkpoints=(Checkpoints(("stream", "at"), _streams),),
)
