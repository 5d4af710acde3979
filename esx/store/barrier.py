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
was found out about a gap counts for the server, and the run of it, where it was found out; and on each connection that
is new to it the barrier looks first whether that server has what it has handed out (`esx.store.history`).

The proof ends where numbers are drawn by hand or rows come from elsewhere. So the barrier checks its own promise: now
and then it counts again what lies below its position (`esx.store.recent`), and tells what it has missed.

What one reader has proven holds for all: up to the number that it had read when nobody was left who wrote, nothing can
appear any more. `esx.store.fence` keeps the highest such number, and a reader that comes to a gap asks for it.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping  # noqa: TC003 - a default of a NamedTuple is of this type
from dataclasses import dataclass
from datetime import timedelta
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from esx.store.careful import CREATED_AT, fetch, json_text
from esx.store.errors import HistoryChanged, StoreUnavailable
from esx.store.family import above, behind, below
from esx.store.fence import read_fence
from esx.store.glob import glob_literal, glob_to_regex
from esx.store.history import BEYOND, Kind, compare, read_server
from esx.store.model import Event
from esx.store.recent import Recent
from esx.store.relation import check_order

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

    from esx.store.careful import Rows
    from esx.store.history import History
    from esx.store.layout import Layout
    from esx.store.recent import Missed
    from esx.store.tail import Counts

LOOK_EVERY = 5.0
"""Seconds after which a reader counts again what lies below its position."""
# By so much a server's clock may have been set back, where commit timestamps are compared.
_CLOCK_STEP = timedelta(minutes=1)
# Seconds. A writer's transaction id may reach a standby late: a primary at rest need not send what an open
# transaction has written. But every 15 s it logs who is running, and then the standby knows.
STANDBY_MOMENT = 20.0
BEHIND_FOR = 60.0
"""Seconds for which a standby may lack events that were read elsewhere, before they count as deleted."""
_ALL_REPLAYED = """
    SELECT pg_is_in_recovery() AND NOT pg_is_wal_replay_paused()
           AND pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver)
"""
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
                f"coalesce(jsonb_path_query_first({_jsonb('e.data')}, ${first + len(arguments)}::jsonpath, "
                f"jsonb_build_object('metadata', {_jsonb('e.metadata')}), true) NOT IN ('false', 'null'), false)"
            )
            arguments.append(self.where)
        return conditions, arguments


def _jsonb(column: str) -> str:
    # An export cannot ask again as `careful` does.
    return f"CASE WHEN pg_typeof({column}) = 'json'::regtype THEN ({json_text(column)})::jsonb ELSE {column}::jsonb END"


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing global sequence numbers `first` to `last` that may still appear, and who may make them appear.

    Not every one of the `writers` need have drawn one of them; but nobody else can have.
    """

    first: int
    last: int
    writers: tuple[Writer, ...]


class Batch(NamedTuple):
    """The result of one step.

    `events` are safe to deliver, in order. `position` is the global_seq up to which nothing can appear any
    more. `full` says that there is more to read at once; `gap` is what holds the barrier, if something does.
    `late` tells of the numbers passed that became visible after their successors: for how long they had been missing,
    in seconds, as far as this reader saw. `missed` are events that have appeared at or below an earlier position,
    against the promise: they are in no batch. The first hundred of a moment are named.
    """

    events: list[Event]
    position: int
    full: bool
    gap: Gap | None
    late: Mapping[int, float] = _NOBODY_LATE
    missed: tuple[Missed, ...] = ()


class Barrier:
    """Reads the global order after `position`, step by step, over a connection handed to each step.

    The state is small and holds no connection: after losing one, call `forget_writers` and go on with another.
    `settled` says that nothing can appear at or below `position`, so that what does all the same counts as missed.
    Raises InvalidQuery for a filter that PostgreSQL refuses, OrderUnknown where nothing can be called safe, and
    HistoryChanged where the server does not have what was handed out.
    """

    def __init__(
        self, layout: Layout, position: int = 0, where: Filter | None = None, *, settled: bool = False
    ) -> None:
        self.position = position
        self.dead = 0
        """Numbers passed for good because no event has them."""
        self.late = 0
        """Events passed that became visible after their successors."""
        self.looked = 0
        """Events passed, whether they are wanted or not."""
        self.missed = 0
        """Events that have appeared below the position, and were not handed out."""
        self.erased = 0
        """Events that were handed out and deleted since, as far as was noticed."""
        self.recent = Recent(position)
        self.proven = settled or position == 0
        """Whether nothing can appear at or below the position for any reader, wherever it began."""
        self._missing = Missing()
        self._settled = position
        self._fence: int | None = None
        self._keeps_timestamps: bool | None = None
        self._asked_for_fence = False
        self._layout = layout
        self._run: tuple[object, bool] | None = None
        self._met: weakref.WeakSet[asyncpg.Connection] = weakref.WeakSet()
        self._behind_since: float | None = None
        self._start_checked = False
        self._untold: tuple[Missed, ...] = ()
        self._look_back = settled and position > 0
        self._next_look = time.monotonic() + LOOK_EVERY
        self._watch: LockWatch | SnapshotWatch
        self._read_sql, self._filter_arguments = _read_sql(layout, where or Filter())

    @property
    def history(self) -> History | None:
        """What it takes to know the history again that was read so far; None before the first step."""
        return self.recent.history

    def move_to(self, recent: Recent, counts: Counts) -> None:
        """Go on from the position that another barrier has reached, with what is known of it and was counted."""
        self.recent = recent
        self.position, self.dead, self.late, self.looked, self.missed, self.erased = counts
        self._settled = self.position
        self._missing = Missing()
        self.forget_writers()

    def forget_writers(self) -> None:
        """Start the wait at the current gap anew: the writers known so far belonged to a lost connection."""
        self._fence = None

    async def check_filter(self, connection: asyncpg.Connection) -> None:
        """Let PostgreSQL look at the filter, without reading anything."""
        await self._read(connection, 0, None)

    async def step(self, connection: asyncpg.Connection, limit: int, until: int | None = None) -> Batch:
        """Read up to `limit` rows after the position, none above `until`, and return those that are safe."""
        self._notice_another_server(connection)
        if connection not in self._met:
            await self._meet(connection)
        # Before anything is read: what fails after the position has moved would cost the events just read.
        if time.monotonic() >= self._next_look:
            self._untold += await self._look_again(connection)
        rows = await self._read(connection, limit, until)
        taken = self._contiguous(rows)
        gap: Gap | None = None
        if taken < len(rows) and await self._passes_fence(connection):
            rows = await self._read(connection, limit, until)
            taken = self._contiguous(rows)
        if taken < len(rows):
            settled = await self._settle(connection, rows[taken][0], highest=rows[-1][0])
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
        events = [Event._make(row[2:]) for row in rows[:taken] if row[1]]
        if taken:
            self._advance(rows[:taken], events)
        late = self._missing.passed(self.position) if self._missing else _NOBODY_LATE
        self.late += len(late)
        self.looked += taken
        if not rows and not self._start_checked:
            self._start_checked = True
            await check_start(connection, self._layout, self.position)
        missed, self._untold = self._untold, ()
        return Batch(events, self.position, more, gap, late, missed)

    async def _read(self, connection: asyncpg.Connection, limit: int, until: int | None) -> Rows:
        rows = await fetch(connection, self._read_sql, self.position, limit, *self._filter_arguments, moment=CREATED_AT)
        if until is not None:
            rows = rows[: bisect_right(rows, until, key=itemgetter(0))]
        if self._missing:
            self._missing.see(self.position, rows)
        return rows

    def is_where_it_was(self, connection: asyncpg.Connection) -> bool:
        """Return whether a connection leads to the server, and the run of it, that was read last."""
        return self._run == (getattr(connection, "server_started", None), on_standby(connection, self._layout))

    def _notice_another_server(self, connection: asyncpg.Connection) -> None:
        if not self.is_where_it_was(connection):
            self._run = run = (getattr(connection, "server_started", None), on_standby(connection, self._layout))
            # Behind a pooler one connection may lead to one server now and to another later.
            self._met.clear()
            self._watch = SnapshotWatch() if run[1] else LockWatch(self._layout)
            self._settled = self.position
            self._asked_for_fence = False
            self.forget_writers()

    async def _meet(self, connection: asyncpg.Connection) -> None:
        """Look whether a connection leads to a server where this history can be read on."""
        await check_order(connection, self._layout)
        run = getattr(connection, "server_started", None)
        await self._check_history(connection, self.history, same_run=run is not None and run == self.recent.run)
        self.recent.server, self.recent.run = await read_server(connection, self._layout), run
        self._met.add(connection)

    async def _check_history(
        self, connection: asyncpg.Connection, history: History | None, *, same_run: bool = False
    ) -> None:
        """Raise HistoryChanged if the server does not have what was handed out.

        In the `same_run` of a server an event can only have gone because somebody deleted it.
        """
        if history is None:
            return
        difference = await compare(connection, self._layout, history, same_run=same_run)
        if difference is None:
            return
        if difference.kind is Kind.BEHIND and await self._stays_behind(connection, difference.head):
            # What is missing will not come any more: the next look finds what has not been forgotten.
            self.recent.forget(difference.missing)
            return
        if difference.kind is Kind.BEHIND:
            raise StoreUnavailable(f"{difference.reason}: up to {self.position} was read elsewhere")
        if difference.kind is Kind.CHANGED or not same_run:
            raise difference.error(self.position)
        self.recent.forget(difference.missing)

    async def _stays_behind(self, connection: asyncpg.Connection, head: int) -> bool:
        """Return whether a standby has lacked what was handed out for long, though it has all that was sent to it.

        Then somebody has deleted that on the primary. A standby that has read no further than the head may lack more.
        """
        now = time.monotonic()
        if head < self.position or not await connection.fetchval(_ALL_REPLAYED):
            self._behind_since = None
            return False
        if self._behind_since is None:
            self._behind_since = now
        return now - self._behind_since >= BEHIND_FOR

    async def _look_again(self, connection: asyncpg.Connection) -> tuple[Missed, ...]:
        """Count again what lies below the position, and return what has appeared there."""
        self._next_look = time.monotonic() + LOOK_EVERY
        self._asked_for_fence = False
        await check_order(connection, self._layout)
        if getattr(connection, "standby", None) and not await connection.fetchval("SELECT pg_is_in_recovery()"):
            # Promoted: from now on its locks tell who is writing.
            connection.standby = False  # type: ignore[attr-defined]
        if self._look_back:
            await self.recent.look_back(connection, self._layout)
            self._look_back = False
        history = self.history
        look = await self.recent.look_again(connection, self._layout)
        if look.gone or (look.head < self.position and not on_standby(connection, self._layout)):
            # Whoever asks through a pooler cannot know that it was the same server all the time.
            await self._check_history(connection, history, same_run=self.recent.run is not None)
        # Not before: what is known only of a look that failed would be told twice, or never.
        self.recent.keep(look)
        self.missed += look.appeared
        self.erased += look.gone
        return look.missed

    def nobody_writes(self) -> None:
        """Take note that nobody was writing after the position was read: nothing can appear below it any more.

        That is no proof on a standby, or where a pooler may lead to one: who writes is not seen there.
        """
        if self._run is not None and self._run[0] is not None and not self._run[1]:
            self.proven = True

    async def _passes_fence(self, connection: asyncpg.Connection) -> bool:
        """Return whether somebody has proven for numbers above the position that nothing can appear any more."""
        if self._asked_for_fence:
            return False
        self._asked_for_fence = True
        fence = await read_fence(connection, self._layout)
        if fence <= self.position:
            return False
        self.proven = True
        self._settled = max(self._settled, fence)
        return fence > self.position

    def _contiguous(self, rows: Rows) -> int:
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

    def _advance(self, rows: Rows, events: list[Event]) -> None:
        position = rows[-1][0]
        self.dead += position - self.position - len(rows)
        self.position = position
        self.recent.passed((row[0] for row in rows), position, events)

    async def _settle(self, connection: asyncpg.Connection, visible: int, *, highest: int) -> tuple[Writer, ...] | None:
        """Wait one step for the writers that may fill the gap before `visible`; None when none of them is left."""
        if self._fence is None:
            left = await self._watch.begin(connection)
            self._fence = highest
        else:
            left = await self._watch.left(connection)
        if not left:
            self._settled = self._fence
            self._fence = None
            self.nobody_writes()
            return None
        for number in (highest, visible):
            holders = that_can_hold(left, await self._committed_at(connection, number))
            if not holders:
                self._settled = max(self._settled, number)
                return None
        return holders

    async def _committed_at(self, connection: asyncpg.Connection, number: int) -> datetime | None:
        if self._keeps_timestamps is None:
            self._keeps_timestamps = await keeps_timestamps(connection, self._layout)
        return await committed_at(connection, self._layout, number) if self._keeps_timestamps else None


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

    def see(self, position: int, rows: Rows) -> None:
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


async def keeps_timestamps(connection: asyncpg.Connection, layout: Layout) -> bool:
    """Return whether the server keeps the times of commits, and the rows tell of theirs, as those of a view do not."""
    kept: bool = await connection.fetchval("SELECT current_setting('track_commit_timestamp')::bool")
    return kept and not layout.is_view


async def committed_at(connection: asyncpg.Connection, layout: Layout, global_seq: int) -> datetime | None:
    """Return when a visible event was committed, where the server keeps that; None if it is too long ago."""
    found: datetime | None = await connection.fetchval(
        f"SELECT pg_xact_commit_timestamp(xmin) FROM {layout.table} WHERE global_seq = $1", global_seq
    )
    return found


def that_can_hold(writers: tuple[Writer, ...], committed: datetime | None) -> tuple[Writer, ...]:
    """Leave out the writers that began after an event above a gap was committed: the gap's numbers were drawn before.

    `committed` is when that was, None where it is not known: then any of them may hold the gap.
    """
    if committed is None:
        return writers
    return tuple(writer for writer in writers if writer.since is None or writer.since <= committed + _CLOCK_STEP)


def oldest_commit(writers: tuple[Writer, ...]) -> datetime | None:
    """Return the time from which on a commit above a gap leaves somebody who can hold it; None: any time does."""
    begun = [writer.since for writer in writers if writer.since is not None]
    return min(begun) - _CLOCK_STEP if begun and len(begun) == len(writers) else None


async def check_start(connection: asyncpg.Connection, layout: Layout, position: int) -> None:
    """Raise HistoryChanged where a position is beyond all that the server has ever handed out.

    A standby may be behind, and a user who may not read the sequence cannot know.
    """
    if not position or on_standby(connection, layout):
        return
    head, exact = await connection.fetchrow(  # type: ignore[misc]
        f"SELECT greatest({layout.head()}, (SELECT max(global_seq) FROM {layout.table})), {layout.head_exact()}"
    )
    if exact and head < position:
        raise HistoryChanged(position, head, BEYOND)


class LockWatch:
    """Waits for those who were writing, told by their locks on the table."""

    def __init__(self, layout: Layout) -> None:
        # On a standby nobody would be in the list. Where a pooler stands between, the address may lead to one by now.
        self._sql = (
            f"{writers_sql(layout)} UNION ALL SELECT '{_PRIMARY}', NULL::int, NULL::timestamptz, "
            "'open on the primary', NULL WHERE pg_is_in_recovery()"
        )
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
    position = max(position, await read_fence(connection, layout))
    stamped = await keeps_timestamps(connection, layout)
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
            holders = writers
            if stamped and number <= head:
                holders = that_can_hold(writers, await committed_at(connection, layout, number))
            if holders:
                gaps.append(Gap(last + 1, number - 1, holders))
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
