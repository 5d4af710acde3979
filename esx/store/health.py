"""The state of a store in figures, cheap at any size: estimates from statistics, never a scan."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from esx.store.barrier import Writer, writers_sql

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

    from esx.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Health:
    """Figures of one moment. Sizes are bytes; `estimated_events` is PostgreSQL's estimate, -1 if it has none.

    `head` is the highest global_seq handed out, `last` the highest one that is visible; `notify_queue` is the
    used fraction of the notification queue, 0 to 1.
    """

    at: datetime
    server_version: str
    database: str
    user: str
    recovering: bool
    head: int
    last: int
    last_created_at: datetime | None
    estimated_events: int
    table_bytes: int
    index_bytes: int
    notify_queue: float
    doorbell: bool
    connections: int
    max_connections: int
    writers: tuple[Writer, ...]


_FIGURES = [field.name for field in fields(Health) if field.name != "writers"]


async def read_health(connection: asyncpg.Connection, layout: Layout) -> Health:
    """Read the figures. Each costs the same at any size of the store."""
    row = await connection.fetchrow(
        f"""
        SELECT clock_timestamp(), current_setting('server_version'), current_database(), current_user::text,
               pg_is_in_recovery(),
               {layout.head()},
               coalesce(last.global_seq, 0), last.created_at,
               (SELECT reltuples::bigint FROM pg_class WHERE oid = '{layout.table}'::regclass),
               pg_table_size('{layout.table}'), pg_indexes_size('{layout.table}'),
               CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_notification_queue_usage() END,
               EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = '{layout.table}'::regclass
                       AND tgname = 'events_doorbell' AND tgenabled <> 'D'),
               (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
               current_setting('max_connections')::int
        FROM (SELECT 1) one
        LEFT JOIN (SELECT global_seq, created_at FROM {layout.table} ORDER BY global_seq DESC LIMIT 1) last ON true
        """
    )
    assert row is not None
    writers = tuple(Writer._make(writer) for writer in await connection.fetch(writers_sql(layout)))
    figures: dict[str, Any] = dict(zip(_FIGURES, row, strict=True))
    return Health(**figures, writers=writers)
