"""The gap barrier: the global order without losing an event.

A sequence number is drawn before its transaction commits, so 43 can become visible before 42, and a reader that
remembers 43 never sees 42. The barrier delivers what is contiguous, and stops at a gap until it knows what the
gap is:

1. Read the events after the cursor in one statement. What is contiguous is safe.
2. At a gap, in a later statement, list who is writing to the table. An INSERT takes its lock on the table
   before it draws a number, and holds it until after its commit is visible: whoever drew a number that is
   missing below the highest one read is in that list, or has finished.
3. When none of them is left in a later list, read again. What is missing still was rolled back or lost a race:
   the gap is dead, and passed for good.

Writers in other tables or databases never hold it back, as they would with `pg_snapshot_xmin`; a writer that
stays open does, rightly, and is named.

On a hot standby the primary's locks are not visible. There a gap is passed when every transaction of the whole
cluster has ended that the standby had heard of some 20 seconds after the gap was seen.

An address may lead to one server now and to another later, as after a failover, and that one may lag behind. What
was found out about a gap counts for the server, and the run of it, where it was found out.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping  # noqa: TC003 - a default of a NamedTuple is of this type
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from esx.store.family import above, behind, below
from esx.store.glob import glob_literal, glob_to_regex
from esx.store.model import Event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import asyncpg

    from esx.store.layout import Layout

# Seconds. A writer's transaction id may reach a standby late: a primary at rest need not send what an open
# transaction has written. But every 15 s it logs who is running, and then the standby knows.
STANDBY_MOMENT = 20.0
_PAUSE = 0.002


_NOBODY_LATE: Mapping[int, float] = MappingProxyType({})


_PRIMARY = "primary"


class Writer(NamedTuple):
    """A transaction that has written to the events table and is still open.

    `key` identifies the transaction; `pid` is None for a prepared one, and the other fields may be unknown
    where PostgreSQL does not show them to this user.
    """

    key: str
    pid: int | None
    since: datetime | None
    state: str | None
    application: str | None

    @property
    def who(self) -> str:
        """What to call it."""
        if self.pid is not None:
            return f"pid {self.pid}"
        return "a transaction" if self.key == _PRIMARY else "a prepared transaction"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a subscriber wants; evaluated by PostgreSQL.

    `stream` and `event_type` are globs. `where` is a JSONPath over data, with ``$metadata`` for the metadata:
    an event passes if the first item of the result is neither false nor null.
    """

    stream: str | None = None
    event_type: str | None = None
    where: str | None = None

    def __bool__(self) -> bool:
        return any(part is not None for part in (self.stream, self.event_type, self.where))

    def sql(self, first: int) -> tuple[list[str], list[str]]:
        """Return the conditions on an event ``e``, and the arguments of their parameters, numbered from `first`.

        Raises InvalidQuery for a glob that is none.
        """
        conditions: list[str] = []
        arguments: list[str] = []
        for column, pattern in (("stream_id", self.stream), ("event_type", self.event_type)):
            if pattern is not None:
                literal = glob_literal(pattern)
                operator = "~" if literal is None else "="
                conditions.append(f"e.{column} {operator} ${first + len(arguments)}::text")
                arguments.append(glob_to_regex(pattern) if literal is None else literal)
        if self.where is not None:
            conditions.append(
                f"coalesce(jsonb_path_query_first(e.data, ${first + len(arguments)}::jsonpath, jsonb_build_object("
                "'metadata', e.metadata), true) NOT IN ('false', 'null'), false)"
            )
            arguments.append(self.where)
        return conditions, arguments


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing global sequence numbers `first` to `last` that may still appear, and who may make them appear."""

    first: int
    last: int
    writers: tuple[Writer, ...]


class Batch(NamedTuple):
    """The result of one step.

    `events` are safe to deliver, in order. `position` is the global_seq up to which nothing can appear any
    more. `full` says that there is more to read at once; `gap` is what holds the barrier, if something does.
    `late` tells of the numbers passed that became visible after their successors: for how long they had been missing,
    in seconds, as far as this reader saw.
    """

    events: list[Event]
    position: int
    full: bool
    gap: Gap | None
    late: Mapping[int, float] = _NOBODY_LATE


class Barrier:
    """Reads the global order after `position`, step by step, over a connection handed to each step.

    The state is small and holds no connection: after losing one, call `forget_writers` and go on with another.
    Raises InvalidQuery for a filter that PostgreSQL refuses.
    """

    def __init__(self, layout: Layout, position: int = 0, where: Filter | None = None) -> None:
        self.position = position
        self.dead = 0
        """Numbers passed for good because no event has them."""
        self.late = 0
        """Events passed that became visible after their successors."""
        self.looked = 0
        """Events passed, whether they are wanted or not."""
        self._missing = Missing()
        self._settled = position
        self._fence: int | None = None
        self._layout = layout
        self._server: tuple[object, bool] | None = None
        self._watch: LockWatch | SnapshotWatch
        self._read_sql, self._filter_arguments = _read_sql(layout, where or Filter())

    def move_to(self, position: int, *, dead: int, late: int, looked: int) -> None:
        """Go on from a safe position that another barrier has reached, with what was counted up to there."""
        self.position = self._settled = position
        self.dead, self.late, self.looked = dead, late, looked
        self._missing = Missing()
        self.forget_writers()

    def forget_writers(self) -> None:
        """Start the wait at the current gap anew: the writers known so far belonged to a lost connection."""
        self._fence = None

    async def step(self, connection: asyncpg.Connection, limit: int, until: int | None = None) -> Batch:
        """Read up to `limit` rows after the position, none above `until`, and return those that are safe."""
        self._notice_another_server(connection)
        rows = await self._read(connection, limit, until)
        taken = self._contiguous(rows)
        gap: Gap | None = None
        if taken < len(rows):
            settled = await self._settle(connection, highest=rows[-1][0])
            if settled is None:
                # Nobody can fill what is missing below the fence any more; what was committed before that
                # became certain may still be missing in `rows`, so only a new read may be believed.
                rows = await self._read(connection, limit, until)
                taken = self._contiguous(rows)
            else:
                self._missing.see(self.position, rows)
                first_missing = (rows[taken - 1][0] if taken else self.position) + 1
                gap = Gap(first_missing, rows[taken][0] - 1, settled)
        more = gap is None and (taken < len(rows) or len(rows) == limit)
        if taken:
            self._advance(rows[taken - 1][0], taken)
        events = [Event._make(row[2:]) for row in rows[:taken] if row[1]]
        late = self._missing.passed(self.position) if self._missing else _NOBODY_LATE
        self.late += len(late)
        self.looked += taken
        return Batch(events, self.position, more, gap, late)

    async def _read(self, connection: asyncpg.Connection, limit: int, until: int | None) -> list[asyncpg.Record]:
        rows = await connection.fetch(self._read_sql, self.position, limit, *self._filter_arguments)
        if until is not None:
            rows = rows[: bisect_right(rows, until, key=itemgetter(0))]
        if self._missing:
            self._missing.see(self.position, rows)
        return rows

    def _notice_another_server(self, connection: asyncpg.Connection) -> None:
        server = (getattr(connection, "server_started", None), on_standby(connection, self._layout))
        if server != self._server:
            self._server = server
            self._watch = SnapshotWatch() if server[1] else LockWatch(self._layout)
            self._settled = self.position
            self.forget_writers()

    def _contiguous(self, rows: list[asyncpg.Record]) -> int:
        """Return how many rows from the first on have nothing pending before them."""
        if rows and rows[-1][0] == self.position + len(rows):
            return len(rows)
        last = self.position
        for index, row in enumerate(rows):
            number = row[0]
            if number != last + 1 and number > self._settled:
                return index
            last = number
        return len(rows)

    def _advance(self, position: int, rows: int) -> None:
        self.dead += position - self.position - rows
        self.position = position

    async def _settle(self, connection: asyncpg.Connection, highest: int) -> tuple[Writer, ...] | None:
        """Wait one step for the writers that may fill a gap; None when none of them is left."""
        if self._fence is None:
            left = await self._watch.begin(connection)
            self._fence = highest
        else:
            left = await self._watch.left(connection)
        if left:
            return left
        self._settled = self._fence
        self._fence = None
        return None


class Run(NamedTuple):
    """Numbers `first` to `last`, missing since the time `since`."""

    first: int
    last: int
    since: float


class Missing:
    """Remembers which numbers the barrier waits for, and since when: to tell who came late. False if it knows none."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        """In ascending order."""
        self._late: dict[int, float] = {}

    def __bool__(self) -> bool:
        return bool(self._runs or self._late)

    def see(self, position: int, rows: Sequence[asyncpg.Record]) -> None:
        """Compare what is visible after `position` with what was missing before."""
        now = time.monotonic()
        known = deque(self._runs)
        missing: list[Run] = []
        last = position
        for row in rows:
            number = row[0]
            if number != last + 1:
                missing += _overlaid(last + 1, number - 1, known, now)
            while known and known[0].last < number:
                known.popleft()
            if known and known[0].first <= number:
                self._late.setdefault(number, now - known[0].since)
            last = number
        # Beyond what a page holds nothing new is known.
        self._runs = missing + [run._replace(first=max(run.first, last + 1)) for run in known if run.last > last]

    def passed(self, position: int) -> Mapping[int, float]:
        """Forget what is not above `position`, and return which of it came late, and by how many seconds."""
        self._runs = [run for run in self._runs if run.last > position]
        late = {number: delay for number, delay in self._late.items() if number <= position}
        for number in late:
            del self._late[number]
        return late


def _overlaid(first: int, last: int, known: deque[Run], now: float) -> list[Run]:
    """Return the missing numbers `first` to `last` as runs: those in `known` since then, the rest since now."""
    runs = []
    while known and known[0].first <= last and first <= last:
        run = known[0]
        if run.last >= first:
            if run.first > first:
                runs.append(Run(first, run.first - 1, now))
            runs.append(Run(max(run.first, first), min(run.last, last), run.since))
            first = min(run.last, last) + 1
        if run.last > last:
            break
        known.popleft()
    return [*runs, Run(first, last, now)] if first <= last else runs


def on_standby(connection: asyncpg.Connection, layout: Layout) -> bool:
    """Return whether a connection leads to a hot standby, where the primary's locks are not visible.

    One that has been promoted since may still count as one: that is slow, but right.
    """
    known: bool | None = getattr(connection, "standby", None)
    return layout.standby if known is None else known


class LockWatch:
    """Waits for those who were writing, told by their locks on the table."""

    def __init__(self, layout: Layout) -> None:
        self._sql = writers_sql(layout)
        self._suspects: frozenset[str] = frozenset()

    async def begin(self, connection: asyncpg.Connection) -> tuple[Writer, ...]:
        """Take note of who is writing now, and return them."""
        writers = tuple(Writer._make(row) for row in await connection.fetch(self._sql))
        self._suspects = frozenset(writer.key for writer in writers)
        return writers

    async def left(self, connection: asyncpg.Connection) -> tuple[Writer, ...]:
        """Return those of them who still are."""
        writers = (Writer._make(row) for row in await connection.fetch(self._sql))
        return tuple(writer for writer in writers if writer.key in self._suspects)


class SnapshotWatch:
    """Waits until every transaction that may have begun by then has ended, as a hot standby sees it.

    A writer draws its number a moment before it gets the transaction id by which the standby knows it. So the id up
    to which all must have ended is taken when that moment has passed, and it is the next id that the standby has
    heard of: a snapshot's xmax is only the one after the last that has ended.

    The moment is one of the primary's, so it is told by the primary's clock, as far as the standby has replayed what it
    heard: by the commits that are replayed, and by the last message of the replication. A user who may not see that
    message has to go by the client's clock while the standby is connected.
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

    def __init__(self) -> None:
        self._until: int | None = None
        self._began: float | None = None
        self._blind_since = 0.0

    async def begin(self, connection: asyncpg.Connection) -> tuple[Writer, ...]:
        """Take note of the time, and return who can still be writing, as `left` does."""
        self._until = self._began = None
        self._blind_since = time.monotonic()
        return await self.left(connection)

    async def left(self, connection: asyncpg.Connection) -> tuple[Writer, ...]:
        """Return a stand-in for the transactions that may still be open on the primary; nothing if none can be."""
        row = await connection.fetchrow(self._SQL)
        assert row is not None
        next_id, oldest_open, heard, blind = row
        if self._until is None:
            if not self._has_passed(heard, blind):
                return _ON_PRIMARY
            self._until = int(next_id)
        ended = (int(oldest_open) - self._until) & 0xFFFFFFFF < 0x80000000
        return () if ended else _ON_PRIMARY

    def _has_passed(self, heard: float | None, blind: bool | None) -> bool:
        """Return whether the moment has passed on the primary."""
        now = time.monotonic()
        if not blind:
            self._blind_since = now
        if self._began is None:
            self._began = heard
        told = heard is not None and self._began is not None and heard - self._began >= STANDBY_MOMENT
        return told or now - self._blind_since >= STANDBY_MOMENT


_ON_PRIMARY = (Writer(_PRIMARY, None, None, "open on the primary", None),)


async def outwait(
    connection: asyncpg.Connection, watch: LockWatch | SnapshotWatch, patience: float
) -> tuple[Writer, ...]:
    """Wait up to `patience` seconds for those who are writing now, and return those who still are."""
    deadline = time.monotonic() + patience
    left = await watch.begin(connection)
    while left and time.monotonic() < deadline:
        await asyncio.sleep(_PAUSE)
        left = await watch.left(connection)
    return left


class Survey(NamedTuple):
    """What lies ahead of a position.

    `head` is the highest global_seq handed out, `safe` the highest one below which nothing can appear any more;
    `gaps` are the missing numbers in between that may still appear, as far as looked at.
    """

    head: int
    safe: int
    gaps: tuple[Gap, ...]


async def survey(connection: asyncpg.Connection, layout: Layout, position: int, *, limit: int = 10_000) -> Survey:
    """Look ahead of a safe `position`, at no more than `limit` numbers that are visible."""
    # A sequence that does not belong to the column tells nothing.
    head = int(
        await connection.fetchval(f"SELECT greatest({layout.head()}, (SELECT max(global_seq) FROM {layout.table}))")
    )
    standby = on_standby(connection, layout)
    if standby:
        # Its sequence runs ahead by what the primary has logged in advance, and who writes there is not visible.
        head = int(await connection.fetchval(f"SELECT coalesce(max(global_seq), 0) FROM {layout.table}"))
    # In this order: whoever drew a number up to the head is a writer now, or what it wrote is visible below.
    writers = (
        _ON_PRIMARY if standby else tuple(Writer._make(row) for row in await connection.fetch(writers_sql(layout)))
    )
    if not writers:
        return Survey(head, max(head, position), ())
    visible = [
        row[0]
        for row in await connection.fetch(
            f"SELECT global_seq FROM {layout.table} WHERE global_seq > $1 ORDER BY global_seq LIMIT $2", position, limit
        )
    ]
    gaps = []
    last = position
    for number in [*visible, head + 1] if len(visible) < limit else visible:
        if number > last + 1:
            gaps.append(Gap(last + 1, number - 1, writers))
        last = max(last, number)
    return Survey(head, gaps[0].first - 1 if gaps else max(last, position), tuple(gaps))


def writers_sql(layout: Layout) -> str:
    """Return the query for the open writers of the table, as rows of `Writer`.

    Whoever can make a row appear in the table has drawn its number after a lock that counts here: on the table, one of
    its partitions or children, what it is a partition or child of, or another table that draws from its sequence, as
    rows may be moved over from there in the same transaction. The partition that a transaction has made itself is not
    visible yet, but the lock on what it is to belong to is; vacuum and the like take that too, but lock no other table.
    """
    start = f"SELECT {layout.oid}::oid"
    views = ""
    if layout.is_view:
        # Who writes through a view draws the number before the table is locked.
        start, views = "SELECT oid FROM behind", f"{behind(layout.oid)},"
    # Most tables are alone, and then nothing but the first comparison is evaluated.
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
                      AND d.refobjid = {layout.sequence}))
                AND (l.mode = 'RowExclusiveLock' OR EXISTS (
                    SELECT FROM pg_locks o
                    WHERE o.virtualtransaction = l.virtualtransaction AND o.pid IS NOT DISTINCT FROM l.pid
                      AND o.locktype = 'relation' AND o.relation <> l.relation AND o.mode = 'AccessExclusiveLock'
                      AND o.granted))) w
        LEFT JOIN LATERAL pg_stat_get_activity(w.pid) a ON a.pid = w.pid
    """


def _read_sql(layout: Layout, where: Filter) -> tuple[str, list[str]]:
    """One row per event, so that gaps are seen; the columns of those that do not pass stay behind (NULL)."""
    conditions, arguments = where.sql(3)
    if not conditions:
        return (
            f"SELECT e.global_seq, true, {layout.columns()} FROM {layout.table} e WHERE e.global_seq > $1 "
            "ORDER BY e.global_seq LIMIT $2",
            arguments,
        )
    query = f"""
        SELECT p.global_seq, p.esx_hit, {layout.columns("h")}
        FROM (SELECT e.*, {" AND ".join(conditions)} AS esx_hit FROM {layout.table} e
              WHERE e.global_seq > $1 ORDER BY e.global_seq LIMIT $2) p
        LEFT JOIN LATERAL (SELECT p.*) h ON p.esx_hit
        ORDER BY p.global_seq
    """
    return query, arguments
