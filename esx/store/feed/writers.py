"""The open transactions that write to the events table, and waiting until they have ended."""

import asyncio
import time
from datetime import datetime, timedelta

import asyncpg

from esx.layouts.layout import Layout
from esx.layouts.table_tree import above, behind, below
from esx.store.feed.batch import PRIMARY, Writer

_PAUSE = 0.002

ON_PRIMARY = (Writer(PRIMARY, None, None, "open on the primary", None),)


def writers_sql(layout: Layout) -> str:
    """Return the query for the open writers of the table, as rows of `Writer`.

    Before a transaction that makes a row appear in the table draws the number, it locks one of these: the table, a
    partition or child of it, its parent, or another table that draws from the same sequence, as a transaction can move
    rows over from there. A partition that the transaction itself has made is not visible yet, but the lock on its
    parent is. Vacuum and similar commands take that lock too, but lock no other table.
    """
    start = layout.tables if layout.parts else f"SELECT {layout.oid}::oid"
    views = ""
    # To draw a number locks the sequence, too, until the transaction ends.
    apart = layout.foreign is not None and layout.foreign.kind.draws_apart
    drawn = f" UNION ALL SELECT {layout.sequence}" if apart else ""
    if layout.is_view:
        # An INSERT through a view draws the number before the table is locked.
        start, views = "SELECT oid FROM behind", f"{behind(layout.oid)},"
    # Most tables have no family; then PostgreSQL evaluates the first comparison only.
    return f"""
        WITH RECURSIVE {views} {above(start)}, {below(start)}
        SELECT w.virtualtransaction, w.pid, a.xact_start, a.state, a.application_name
        FROM (SELECT DISTINCT l.virtualtransaction, l.pid FROM pg_locks l
              WHERE l.locktype = 'relation' AND l.granted AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock')
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (l.relation = {layout.oid} OR l.relation IN (
                    SELECT oid FROM above UNION ALL SELECT oid FROM below
                    UNION ALL SELECT other.adrelid FROM pg_depend d JOIN pg_attrdef other ON other.oid = d.objid
                    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
                      AND d.refobjid = {layout.sequence}{drawn}))
                AND (l.mode = 'RowExclusiveLock' OR EXISTS (
                    SELECT FROM pg_locks o
                    WHERE o.virtualtransaction = l.virtualtransaction AND o.pid IS NOT DISTINCT FROM l.pid
                      AND o.locktype = 'relation' AND o.relation <> l.relation AND o.mode = 'AccessExclusiveLock'
                      AND o.granted))) w
        LEFT JOIN LATERAL pg_stat_get_activity(w.pid) a ON a.pid = w.pid
    """


async def read_writers(connection: asyncpg.Connection, layout: Layout) -> tuple[Writer, ...]:
    """Return the transactions that are open now and have written to the table."""
    return tuple(Writer._make(row) for row in await connection.fetch(writers_sql(layout)))


def on_standby(connection: asyncpg.Connection, layout: Layout) -> bool:
    """Return whether a connection leads to a hot standby, where the primary's locks are not visible.

    A standby that was promoted meanwhile may still count as one: that is slow, but safe.
    """
    known: bool | None = getattr(connection, "standby", None)
    return layout.standby if known is None else known


class LockWatch:
    """Waits for the open writers, by their locks on the table."""

    def __init__(self, layout: Layout) -> None:
        # On a standby the list would be empty, and behind a pooler the address may lead to a standby by now.
        self._sql = (
            f"{writers_sql(layout)} UNION ALL SELECT '{PRIMARY}', NULL::int, NULL::timestamptz, "
            "'open on the primary', NULL WHERE pg_is_in_recovery()"
        )
        self._suspects: frozenset[str] = frozenset()

    async def begin(self, connection: asyncpg.Connection) -> tuple[Writer, ...]:
        """Note the open writers, and return them."""
        writers = tuple(Writer._make(row) for row in await connection.fetch(self._sql))
        self._suspects = frozenset(writer.key for writer in writers)
        return writers

    async def left(self, connection: asyncpg.Connection) -> tuple[Writer, ...]:
        """Return the noted writers that are still open."""
        writers = (Writer._make(row) for row in await connection.fetch(self._sql))
        return tuple(writer for writer in writers if writer.key in self._suspects)


class SnapshotWatch:
    """Waits on a hot standby until all transactions that may be writing have ended.

    A writer draws its number a moment before it gets the transaction id by which the standby knows it. So after
    `moment` seconds the watch takes the next id that the standby knows of, and waits until all transactions below it
    have ended. (A snapshot's xmax is only the id after the last one that has ended.)

    The moment is measured by the primary's clock, as far as the standby has replayed what it received: by the times of
    replayed commits, and of the last message of the replication. For a user who may not see that message it is the
    client's clock, while the standby is connected.
    """

    # For a normal id, age is the distance to the next one; both are compared modulo 2^32, as ids wrap around.
    _SQL = """
        SELECT (age('3'::xid)::bigint + 3) & 4294967295, pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
               extract(epoch FROM CASE WHEN NOT pg_is_in_recovery() THEN clock_timestamp() ELSE greatest(
                   pg_last_xact_replay_timestamp(), CASE WHEN s.replayed_all THEN r.last_msg_send_time END
               ) END)::float8,
               s.replayed_all AND r.pid IS NOT NULL AND r.last_msg_send_time IS NULL
        FROM (SELECT CASE WHEN pg_is_in_recovery()
                          THEN NOT pg_is_wal_replay_paused() AND pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn()
                     END AS replayed_all) s
        LEFT JOIN pg_stat_wal_receiver r ON true
    """

    def __init__(self, moment: float) -> None:
        self._moment = moment
        """In seconds."""
        self._until: int | None = None
        self._began: float | None = None
        self._blind_since = 0.0

    async def begin(self, connection: asyncpg.Connection) -> tuple[Writer, ...]:
        """Note the time, and return what `left` returns."""
        self._until = self._began = None
        self._blind_since = time.monotonic()
        return await self.left(connection)

    async def left(self, connection: asyncpg.Connection) -> tuple[Writer, ...]:
        """Return `ON_PRIMARY` while transactions may still be open on the primary, then an empty tuple."""
        row = await connection.fetchrow(self._SQL)
        assert row is not None
        next_id, oldest_open, heard, blind = row
        if self._until is None:
            if not self._has_passed(heard, blind):
                return ON_PRIMARY
            self._until = int(next_id)
        ended = (int(oldest_open) - self._until) & 0xFFFFFFFF < 0x80000000
        return () if ended else ON_PRIMARY

    def _has_passed(self, heard: float | None, blind: bool | None) -> bool:
        """Return whether the moment has passed on the primary."""
        now = time.monotonic()
        if not blind:
            self._blind_since = now
        if self._began is None:
            self._began = heard
        told = heard is not None and self._began is not None and heard - self._began >= self._moment
        return told or now - self._blind_since >= self._moment


async def outwait(
    connection: asyncpg.Connection, watch: LockWatch | SnapshotWatch, patience: float
) -> tuple[Writer, ...]:
    """Wait up to `patience` seconds for the open writers, and return those that are still open."""
    deadline = time.monotonic() + patience
    left = await watch.begin(connection)
    while left and time.monotonic() < deadline:
        await asyncio.sleep(_PAUSE)
        left = await watch.left(connection)
    return left


async def keeps_timestamps(connection: asyncpg.Connection, layout: Layout) -> bool:
    """Return whether the times of commits are known: the server keeps them, and the rows are not those of a view."""
    kept: bool = await connection.fetchval("SELECT current_setting('track_commit_timestamp')::bool")
    return kept and not layout.is_view and layout.foreign is None


async def committed_at(connection: asyncpg.Connection, layout: Layout, global_seq: int) -> datetime | None:
    """Return when a visible event was committed; None if the server no longer knows it."""
    found: datetime | None = await connection.fetchval(
        f"SELECT pg_xact_commit_timestamp(xmin) FROM {layout.table} WHERE global_seq = $1::bigint", global_seq
    )
    return found


def that_can_hold(writers: tuple[Writer, ...], committed: datetime | None, clock_step: timedelta) -> tuple[Writer, ...]:
    """Return the writers that may fill a gap, given when an event above the gap was committed.

    A writer that began later drew its numbers later. `committed` None: it is not known, and all of them may.
    `clock_step` as in `FeedSettings`.
    """
    if committed is None:
        return writers
    return tuple(writer for writer in writers if writer.since is None or writer.since <= committed + clock_step)


def oldest_commit(writers: tuple[Writer, ...], clock_step: timedelta) -> datetime | None:
    """Return from which commit time on, of an event above a gap, a writer may fill the gap; None: at any time."""
    begun = [writer.since for writer in writers if writer.since is not None]
    return min(begun) - clock_step if begun and len(begun) == len(writers) else None
