"""The sessions that delay the feed, appends, vacuum, or the queue of notifications now."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from esx.doctor.finding import About, Finding, duration, shown
from esx.doctor.target import EVENTS, Examined
from esx.doctor.topic import Topic
from esx.layouts.table_tree import above, below
from esx.postgres.literals import identifier, literal

_QUEUE_WARNING = 0.10
_QUEUE_ERROR = 0.50
_NAMED = 3


class OpenTransaction(NamedTuple):
    """An open transaction of a session, or a prepared one, which has a `gid` and no `pid`.

    `age` is in seconds, None where PostgreSQL does not show it to this user.
    """

    pid: int | None
    gid: str | None
    age: float | None
    state: str | None
    application: str | None
    user: str | None

    def __str__(self) -> str:
        who = f"prepared transaction {shown(self.gid)}" if self.pid is None else f"pid {self.pid}"
        about = [shown(part) for part in (self.application, self.user) if part]
        about += [] if self.age is None else [f"open for {duration(self.age)}"]
        about += [shown(self.state)] if self.state else []
        return f"{who} ({', '.join(about) or 'nothing more is known'})"

    def end(self) -> str:
        """Return the statement that ends it and undoes what it did."""
        if self.pid is None:
            return f"/* UNDOES what it has written */ ROLLBACK PREPARED {literal(self.gid or '')};"
        return f"/* UNDOES what it has not committed */ SELECT pg_terminate_backend({self.pid});"


@dataclass(frozen=True, slots=True)
class Activity:
    """The facts: open writers of the table, sessions that lock it, long transactions, and the use of the queue."""

    writers: Sequence[OpenTransaction] = ()
    lockers: Sequence[OpenTransaction] = ()
    long: Sequence[OpenTransaction] = ()
    queue: float = 0.0
    oldest: OpenTransaction | None = None
    user: str = ""
    target: Examined = EVENTS


_SESSION = """
    l.pid, x.gid, extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, x.prepared))::float8 AS age,
    a.state, a.application_name, coalesce(a.usename, x.owner)::text
"""


def _locks(target: Examined) -> str:
    """Return the query for the writers of the table's family, and for the sessions that lock the table.

    A prepared transaction keeps the virtualtransaction of its session until the server restarts, so its gid is found by
    the lock on its own transaction id.
    """
    start = target.rows or f"SELECT {target.oid}::oid"
    return f"""
        WITH RECURSIVE {above(start)}, {below(start)}
        SELECT l.writes, {_SESSION}
        FROM (SELECT l.pid, l.virtualtransaction, bool_and(l.mode = 'RowExclusiveLock') AS writes
              FROM pg_locks l
              WHERE l.locktype = 'relation' AND l.granted
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (l.mode = 'RowExclusiveLock' AND l.relation IN (SELECT oid FROM above)
                     OR l.mode IN ('RowExclusiveLock', 'AccessExclusiveLock', 'ExclusiveLock',
                                   'ShareRowExclusiveLock', 'ShareLock') AND l.relation IN (SELECT oid FROM below))
              GROUP BY l.pid, l.virtualtransaction, l.mode = 'RowExclusiveLock') l
        LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        LEFT JOIN (pg_locks t JOIN pg_prepared_xacts x ON x.transaction = t.transactionid)
               ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid'
                  AND t.virtualtransaction = l.virtualtransaction
        WHERE l.pid IS NOT NULL OR x.gid IS NOT NULL
        ORDER BY coalesce(a.xact_start, x.prepared)
    """


_OPEN = """
    SELECT a.pid, NULL, extract(epoch FROM clock_timestamp() - a.xact_start)::float8, a.state, a.application_name,
           a.usename::text
    FROM pg_stat_activity a
    WHERE a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
      AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL OR a.state LIKE 'idle in transaction%')
    UNION ALL
    SELECT NULL, x.gid, extract(epoch FROM clock_timestamp() - x.prepared)::float8, NULL, NULL, x.owner::text
    FROM pg_prepared_xacts x
    ORDER BY 3 DESC
"""


async def read_activity(connection: asyncpg.Connection, target: Examined) -> Activity:
    """Read locks and sessions. Nothing here waits for a lock on the table."""
    locks = await connection.fetch(_locks(target))
    row = await connection.fetchrow(
        "SELECT CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_notification_queue_usage() END, current_user::text"
    )
    assert row is not None
    queue, user = row
    open_now = [OpenTransaction._make(row) for row in await connection.fetch(_OPEN)]
    writers = [OpenTransaction._make(row[1:]) for row in locks if row[0]]
    long = target.thresholds.long
    known = {(session.pid, session.gid) for session in writers}
    return Activity(
        writers=writers,
        lockers=[OpenTransaction._make(row[1:]) for row in locks if not row[0]],
        long=[each for each in open_now if (each.age or 0) >= long and (each.pid, each.gid) not in known],
        queue=queue,
        oldest=open_now[0] if open_now else None,
        user=user,
        target=target,
    )


def writers(activity: Activity) -> Iterator[Finding]:
    """Check that no writer has been open for so long that it holds the feed."""
    found = About("open-writers")
    limits, table = activity.target.thresholds, shown(activity.target.table)
    slow = [writer for writer in activity.writers if writer.age is not None and writer.age >= limits.writer_warning]
    for writer in slow:
        make = found.error if (writer.age or 0) >= limits.writer_error else found.warning
        yield make(f"{writer} has written to {table} and holds the feed until it ends", writer.end())
    hidden = [writer for writer in activity.writers if writer.age is None and writer.pid is not None]
    if hidden:
        yield found.unknown(
            f"{len(hidden)} open writers of {table} are not shown to this user, nor since when",
            f"GRANT pg_read_all_stats TO {identifier(activity.user)};",
        )
    if not slow and not hidden:
        yield found.ok(f"{len(activity.writers)} open writers, none for longer than {duration(limits.writer_warning)}")


def lockers(activity: Activity) -> Iterator[Finding]:
    """Check that no session keeps all others from appending."""
    found = About("table-lock")
    limits, table = activity.target.thresholds, shown(activity.target.table)
    slow = [locker for locker in activity.lockers if locker.age is None or locker.age >= limits.writer_warning]
    for locker in slow:
        make = found.error if (locker.age or 0) >= limits.writer_error else found.warning
        yield make(f"{locker} has locked table {table}: appends wait until it ends", locker.end())
    if not slow:
        yield found.ok(f"no session keeps table {table} locked")


def transactions(activity: Activity) -> Iterator[Finding]:
    """Check that no transaction has been open for so long that it holds back vacuum."""
    found = About("long-transactions")
    for session in activity.long[:_NAMED]:
        yield found.info(f"{session} holds back vacuum", session.end())
    if len(activity.long) > _NAMED:
        yield found.info(f"{len(activity.long) - _NAMED} more transactions are as old")
    if not activity.long:
        yield found.ok(f"no transaction is older than {duration(activity.target.thresholds.long)}")


def notifications(activity: Activity) -> Iterator[Finding]:
    """Check that the queue of notifications has room: once it is full, appends fail."""
    found = About("notify-queue")
    if activity.queue <= _QUEUE_WARNING:
        yield found.ok(f"{activity.queue:.1%} of the notification queue is used")
        return
    make = found.error if activity.queue > _QUEUE_ERROR else found.warning
    behind = "a listener that does not read" if activity.oldest is None else f"probably {activity.oldest}"
    yield make(
        f"{activity.queue:.1%} of the notification queue is used, appends fail at 100%: held by {behind}",
        activity.oldest.end()
        if activity.oldest is not None
        else "SELECT pid, state, xact_start FROM pg_stat_activity ORDER BY xact_start;",
    )


TOPIC = Topic("activity", read_activity, (writers, lockers, transactions, notifications))
