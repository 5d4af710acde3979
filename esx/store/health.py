"""The state of a store in figures, cheap at any size: estimates from statistics, never a scan."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from esx.store.barrier import Writer, writers_sql
from esx.store.careful import fetchrow
from esx.store.estimating import count_events
from esx.store.family import below
from esx.store.relation import order_unknown
from esx.store.scope import Scope

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

    from esx.store.estimating import Estimate
    from esx.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Health:
    """Figures of one moment. Sizes are bytes; `events` is counted up to a bound, and estimated beyond.

    `first` and `last` are the lowest and the highest global_seq that is visible, 0 if none is, `head` the highest one
    handed out; unless `head_exact`, the user may not know that, and it is `last`. `notify_queue` is the used fraction
    of the notification queue, 0 to 1.
    """

    at: datetime
    server_version: str
    database: str
    user: str
    recovering: bool
    head: int
    head_exact: bool
    first: int
    last: int
    last_created_at: datetime | None
    table_bytes: int
    index_bytes: int
    notify_queue: float
    doorbell: bool
    connections: int
    max_connections: int
    writers: tuple[Writer, ...]
    events: Estimate
    order_unknown: str | None = None
    """Why no position can be called safe there, None where that can be told."""


# As the planner does: the density of the last ANALYZE, if it saw enough, in the pages of now. A parent has no pages of
# its own, so its parts are counted; of an empty part nothing need be known.
ESTIMATED_ROWS = """
    (SELECT CASE WHEN bool_and(part.reltuples >= 0 AND part.relpages > 0 OR size.bytes = 0) AND sum(part.relpages) >= 10
                 THEN sum(CASE WHEN part.relpages > 0 THEN part.reltuples / part.relpages * size.bytes ELSE 0 END)
                      / current_setting('block_size')::int END
     FROM below JOIN pg_class part ON part.oid = below.oid AND part.relkind = 'r'
     CROSS JOIN LATERAL (SELECT pg_relation_size(part.oid) AS bytes) size)
"""
"""SQL for about how many rows the tables of `below` have, see `esx.store.family`; NULL where too little is known."""
_FIGURES = [field.name for field in fields(Health) if field.name not in ("writers", "events", "order_unknown")]


async def read_health(connection: asyncpg.Connection, layout: Layout) -> Health:
    """Read the figures. Each costs the same at any size of the store."""
    row = await fetchrow(
        connection,
        f"""
        WITH RECURSIVE {below(f"SELECT {layout.base_oid}::oid")}
        SELECT clock_timestamp(), current_setting('server_version'), current_database(), current_user::text,
               pg_is_in_recovery(),
               {layout.head()}, {layout.head_exact()},
               coalesce((SELECT min(global_seq) FROM {layout.table}), 0), coalesce(last.global_seq, 0),
               last.created_at,
               coalesce((SELECT sum(pg_table_size(oid)) FROM below), 0)::bigint,
               coalesce((SELECT sum(pg_indexes_size(oid)) FROM below), 0)::bigint,
               CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_notification_queue_usage() END,
               EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = {layout.base_oid}
                       AND tgname = 'events_doorbell' AND tgenabled <> 'D'),
               (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
               current_setting('max_connections')::int
        FROM (SELECT 1) one
        LEFT JOIN (SELECT global_seq, created_at FROM {layout.table} ORDER BY global_seq DESC LIMIT 1) last ON true
        """,
        moment=_FIGURES.index("last_created_at"),
    )
    assert row is not None
    writers = tuple(Writer._make(writer) for writer in await connection.fetch(writers_sql(layout)))
    figures: dict[str, Any] = dict(zip(_FIGURES, row, strict=True))
    return Health(
        **figures,
        writers=writers,
        events=await count_events(connection, layout, Scope()),
        order_unknown=await order_unknown(connection, layout),
    )
