"""The state of a store in figures, cheap at any size: it uses statistics, never a scan."""

from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from typing import Any

import asyncpg

from esx.layouts.detection import order_unknown
from esx.layouts.layout import Layout
from esx.layouts.sizes import sized
from esx.layouts.table_tree import below
from esx.postgres.values import fetchrow
from esx.store.conflicts.conflict import ConflictRecording
from esx.store.feed.batch import Writer
from esx.store.feed.writers import read_writers
from esx.store.read.estimates import Estimate, count_all


@dataclass(frozen=True, slots=True)
class Health:
    """Figures of one moment. `events` is counted up to a bound, and estimated beyond.

    Sizes are bytes, of all tables that events are read from. `first` and `last` are the lowest and the highest
    visible global_seq, 0 without events. `head` is the highest one drawn; if `head_exact` is false, the user may
    not ask the sequence, and `head` is `last`. Where the events are not `numbered`, all three are 0. `notify_queue`
    is the used fraction of the notification queue, 0 to 1.
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
    """Why no position is safe in this store; None if there are safe positions."""
    kind: str | None = None
    """The kind of the store where it belongs to another tool, as people call it."""
    numbered: bool = True
    """Whether the events have a global order."""
    recording: ConflictRecording | None = None
    """How this store's recording of conflicts goes; None if it does not record them."""

    @property
    def doorbell_text(self) -> str:
        """Whether the trigger is in place that notifies readers, and what to do if not."""
        if self.doorbell:
            return "trigger in place"
        if self.kind is None:
            return "no trigger: esx init adds it"
        return f"none from {self.kind}{': the feed polls' if self.order_unknown is None else ''}"


# As the planner does it: the density at the last ANALYZE, if there were enough pages, times today's pages. A parent has
# no pages of its own, so its parts are counted; empty parts need no statistics.
ESTIMATED_ROWS = """
    (SELECT CASE WHEN bool_and(part.reltuples >= 0 AND part.relpages > 0 OR size.bytes = 0) AND sum(part.relpages) >= 10
                 THEN sum(CASE WHEN part.relpages > 0 THEN part.reltuples / part.relpages * size.bytes ELSE 0 END)
                      / current_setting('block_size')::int END
     FROM below JOIN pg_class part ON part.oid = below.oid AND part.relkind = 'r'
     CROSS JOIN LATERAL (SELECT pg_relation_size(part.oid) AS bytes) size)
"""
"""SQL for about how many rows the tables of `below` (`esx.layouts.table_tree`) have; NULL if too little is known."""
_FIGURES = [
    field.name for field in fields(Health) if field.default is MISSING and field.name not in ("writers", "events")
]


async def read_health(connection: asyncpg.Connection, layout: Layout) -> Health:
    """Read the figures. Each costs the same at any size of the store."""
    # Without numbers these would look at all events.
    lowest = f"SELECT min(global_seq) FROM {layout.numbers}" if layout.numbered else "NULL"
    highest = f"SELECT global_seq, created_at FROM {layout.table} ORDER BY global_seq DESC LIMIT 1"
    if not layout.numbered:
        highest = "SELECT NULL::bigint AS global_seq, NULL::timestamptz AS created_at"
    row = await fetchrow(
        connection,
        f"""
        WITH RECURSIVE {below(sized(layout))}
        SELECT clock_timestamp(), current_setting('server_version'), current_database(), current_user::text,
               pg_is_in_recovery(),
               {layout.head()}, {layout.head_exact()},
               coalesce(({lowest})::bigint, 0), coalesce(last.global_seq, 0),
               last.created_at,
               coalesce((SELECT sum(pg_table_size(oid)) FROM below), 0)::bigint,
               coalesce((SELECT sum(pg_indexes_size(oid)) FROM below), 0)::bigint,
               CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_notification_queue_usage() END,
               EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = {layout.base_oid}
                       AND tgname = 'events_doorbell' AND tgenabled <> 'D'),
               (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
               current_setting('max_connections')::int
        FROM (SELECT 1) one
        LEFT JOIN ({highest}) last ON true
        """,
        moment=_FIGURES.index("last_created_at"),
    )
    assert row is not None
    figures: dict[str, Any] = dict(zip(_FIGURES, row, strict=True))
    return Health(
        **figures,
        writers=await read_writers(connection, layout),
        events=await count_all(connection, layout),
        order_unknown=await order_unknown(connection, layout),
        kind=None if layout.foreign is None else layout.foreign.kind.title,
        numbered=layout.numbered,
    )
