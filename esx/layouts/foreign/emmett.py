"""Emmett. Source: event-driven-io/emmett, schema/tables.ts.

A writer draws global_position while it inserts, so its locks tell which numbers may still appear. Emmett's own
consumers read by transaction_id and then by global_position, behind the oldest open transaction of the server: where
transactions overlap, that is another order. Archived events keep their numbers.
"""

from esx.layouts.foreign.kind import (
    HOLDER,
    SESSIONS,
    CheckpointColumns,
    Checkpoints,
    EventColumns,
    Reading,
    StoreCheck,
    StoreKind,
    kept,
)
from esx.layouts.foreign.tables import StoreTable, StoreTables


def _reading(tables: StoreTables) -> Reading:
    events = tables.events
    return Reading(
        EventColumns(
            global_seq="r.global_position",
            stream_id="r.stream_id",
            stream_seq="r.stream_position",
            event_type="r.message_type",
            data=events.payload("message_data"),
            metadata=events.payload("message_metadata"),
            created_at=events.moment("created"),
            event_id="r.message_id",
        )
    )


def _processors(_tables: StoreTables, table: StoreTable) -> CheckpointColumns:
    # Before 0.43 a checkpoint is a number with zeros before it, from then on "transaction:number".
    return CheckpointColumns(
        "c.processor_id",
        "substring(c.last_processed_checkpoint FROM '[0-9]*$')",
        state=kept(table, "status"),
        owner="nullif(c.processor_instance_id, 'emt:unknown')" if "processor_instance_id" in table.columns else "NULL",
        updated_at=kept(table, "last_updated"),
    )


def _held(_tables: StoreTables, old: float) -> str:
    return f"""
        SELECT {HOLDER} FROM {SESSIONS}
        WHERE a.xid IS NOT NULL AND a.since < clock_timestamp() - make_interval(secs => {old}) ORDER BY a.since LIMIT 1
    """


def _from_elsewhere(tables: StoreTables, _old: float) -> str:
    # Version 0.42 has no index on the ids: some rows and the statistics have to do.
    events = tables.events
    listed = " UNION ALL ".join(
        f"(SELECT c.last_processed_transaction_id::text FROM {each.quoted} c LIMIT 100)"
        for each in tables.checkpoints
        if "last_processed_transaction_id" in each.columns
    )
    return f"""
        SELECT max(i.id::numeric) AS stored, pg_snapshot_xmax(pg_current_snapshot()) AS next
        FROM ((SELECT e.transaction_id::text AS id FROM {events.quoted} e LIMIT 1000)
              UNION ALL
              SELECT unnest(s.histogram_bounds::text::text[]) FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename
                AND c.relnamespace = to_regnamespace(quote_ident(s.schemaname))
              WHERE s.attname = 'transaction_id' AND c.oid = {events.oid}
              {f"UNION ALL {listed}" if listed else ""}) i
        HAVING max(i.id::numeric) >= pg_snapshot_xmax(pg_current_snapshot())::text::numeric
    """


KIND = StoreKind(
    "emmett",
    "Emmett",
    has=(
        "stream_id",
        "stream_position",
        "partition",
        "message_data",
        "message_metadata",
        "message_type",
        "message_id",
        "is_archived",
        "global_position",
        "transaction_id",
        "created",
    ),
    reading=_reading,
    first=1,
    also_placed=("partition", "is_archived"),
    caution="events are in the order of global_position, as no index has them: large stores are slow to follow; "
    "Emmett's own consumers read by transaction first",
    checkpoints=(Checkpoints(("processor_id", "last_processed_checkpoint"), _processors),),
    checks=(
        StoreCheck(
            "held-readers",
            "warning",
            "{who} holds all readers of Emmett, though it may be in another database: they get nothing written since",
            "no old transaction of the server holds the readers of Emmett",
            _held,
        ),
        StoreCheck(
            "transaction-ids",
            "error",
            "events have transaction ids up to {stored}, but this server is at {next}: they come from another one, "
            "and the readers of Emmett get them only when it has come so far",
            "the transaction ids of the events are those of this server",
            _from_elsewhere,
        ),
    ),
)
