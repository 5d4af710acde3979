"""The status of projections, as `EventStore.projections` returns it."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from esx.layouts.layout import Layout
from esx.postgres.session import Session
from esx.store.consume.checkpoints import keeps_history, lock_class, usable_table
from esx.store.feed.batch import Writer
from esx.store.feed.comparison import Difference, compare_kept
from esx.store.feed.server import look
from esx.store.feed.writers import read_writers

_COUNTED = 10_000


class ProjectionOwner(NamedTuple):
    """The session of the active instance, with None for what PostgreSQL does not show to this user."""

    pid: int
    application: str | None
    client: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class ProjectionStatus:
    """The status of a projection.

    `position` is the global_seq up to which all events are handled, `head` the highest one drawn. `lag` is the number
    of visible events after the position, `lag_seconds` the age of the first of them by its created_at. `lag` is exact
    up to 10,000; above that it is the distance in numbers to the last visible event, missing ones included. `held_by`
    are the open transactions that may still fill a gap right after the position. `owner` is the session that runs it,
    `last_error` the error that stopped it at the event after the position. `difference` says how the store differs from
    the history that the projection has read; unless it is None, the projection does not go on by itself.
    """

    name: str
    position: int
    head: int
    lag: int
    lag_seconds: float
    paused: bool
    owner: ProjectionOwner | None
    held_by: tuple[Writer, ...]
    last_error: str | None
    updated_at: datetime
    difference: Difference | None = None

    @property
    def beyond(self) -> int:
        """How far the position is above the head; 0 if it is not."""
        return max(self.position - self.head, 0)

    @property
    def lag_exact(self) -> bool:
        """Whether `lag` was counted."""
        return self.lag <= _COUNTED

    @property
    def active(self) -> bool:
        """Whether an instance runs it. An instance behind a connection pooler is not seen."""
        return self.owner is not None


async def read_status(connection: Session, layout: Layout) -> list[ProjectionStatus]:
    """Return the status of all projections by name; costs the same at any size of the store.

    Lag counts events that are visible and not handled. So all visible events behind a gap count for a reader that waits
    at the gap. Dead numbers at the end, from rollbacks and lost races, do not count, though the head includes them.
    """
    await connection.read_views()  # projections is one
    with usable_table():
        rows = await connection.fetch(_status_sql(layout, kept=await keeps_history(connection, layout)))
    here = await look(connection, layout)
    writers = await read_writers(connection, layout) if any(row["gap"] for row in rows) else ()
    return [
        ProjectionStatus(
            name=row["name"],
            position=row["position"],
            head=row["head"],
            lag=row["counted"] if row["counted"] <= _COUNTED else max(row["last"] - row["position"], row["counted"]),
            lag_seconds=max(row["seconds"], 0.0),
            paused=row["paused"],
            owner=None
            if row["pid"] is None
            else ProjectionOwner(row["pid"], row["application_name"], row["client"], row["backend_start"]),
            held_by=writers if row["gap"] else (),
            last_error=row["last_error"],
            updated_at=row["updated_at"],
            difference=await compare_kept(connection, layout, here, row["history"], row["position"]),
        )
        for row in rows
    ]


def _status_sql(layout: Layout, *, kept: bool) -> str:
    table = layout.table
    # A text or a number has no age.
    age = "0"
    if layout.timed:
        age = (
            "CASE WHEN isfinite(next.created_at) THEN extract(epoch FROM clock_timestamp() - next.created_at) "
            "ELSE 0 END"
        )
    return f"""
        SELECT p.name, p.position, p.paused, p.last_error, p.updated_at,
               {"p.history::text" if kept else "NULL"} AS history, head.head, head.last, lag.counted,
               {age}::float8 AS seconds,
               coalesce(next.global_seq > p.position + 1, false) AS gap,
               owner.pid, owner.application_name, owner.client, owner.backend_start
        FROM {layout.ours("projections")} p
        CROSS JOIN (
            SELECT greatest({layout.head()}, last.global_seq, 0) AS head, last.global_seq AS last
            FROM (SELECT max(global_seq) AS global_seq FROM {table}) last
        ) head
        LEFT JOIN LATERAL (
            SELECT e.global_seq, e.created_at FROM {table} e WHERE e.global_seq > p.position
            ORDER BY e.global_seq LIMIT 1
        ) next ON true
        CROSS JOIN LATERAL (
            SELECT count(*) AS counted FROM (
                SELECT 1 FROM {table} e WHERE e.global_seq > p.position ORDER BY e.global_seq LIMIT {_COUNTED + 1}
            ) visible
        ) lag
        LEFT JOIN LATERAL (
            SELECT l.pid, a.application_name, host(a.client_addr) AS client, a.backend_start
            FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'advisory' AND l.objsubid = 2
              AND l.classid = {lock_class(layout)}::oid AND l.objid = p.id::oid
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.granted
            LIMIT 1
        ) owner ON true
        ORDER BY p.name
    """
