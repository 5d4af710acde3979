"""The gap barrier: it reads the global order without losing an event.

A transaction draws a sequence number before it commits. So 43 can become visible before 42, and a reader that goes on
after 43 never sees 42. The barrier hands out contiguous numbers, and stops at a gap until it knows what the gap is:

1. Read the events after the cursor in one statement. What is contiguous is safe.
2. At a gap, list in a later statement the transactions that write to the table. An INSERT takes its lock on the table
   before it draws a number, and holds it until after its commit is visible. So a transaction that drew a missing number
   below the highest one read is in that list, or has ended.
3. When none of them is in a later list, read again. A number that is still missing was rolled back or lost a race: the
   gap is dead, and the barrier passes it.

Writers of other tables or databases do not delay the barrier, as they would with `pg_snapshot_xmin`. A writer that
stays open does, and the gap names it.

On a hot standby the primary's locks are not visible. There the barrier waits some 20 seconds after it saw the gap, and
then until all transactions of the whole cluster that the standby knows of by then have ended.

An address may lead to another server later, for example after a failover, and that server may lag behind. What is known
about a gap counts only for the server, and the run of that server, where it was found out. On each new connection the
barrier first checks whether the server has the events that were handed out (`esx.store.feed.comparison`).

The proof fails where numbers are drawn by hand or rows come from elsewhere. So the barrier also counts again, now and
then, the events below its position (`esx.store.feed.recent`), and reports those that it missed.

The proof of one reader holds for all readers: when the listed writers have ended, no event can appear up to the highest
number read before the list. `esx.store.feed.fence` stores the highest such number; a reader at a gap asks for it.
"""

import time
import weakref
from array import array
from bisect import bisect_right
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

import asyncpg

from esx.errors import StoreUnavailable
from esx.filters import Filter
from esx.layouts.detection import check_order
from esx.layouts.layout import Layout
from esx.postgres.values import CREATED_AT, Rows, fetch
from esx.store.feed.batch import NOBODY_LATE, Batch, Gap, Writer
from esx.store.feed.comparison import DifferenceKind, compare
from esx.store.feed.cursor import Cursor
from esx.store.feed.fence import read_fence
from esx.store.feed.history import History
from esx.store.feed.late_numbers import Missing
from esx.store.feed.recent import Look
from esx.store.feed.server import read_server
from esx.store.feed.settings import DEFAULT, FeedSettings
from esx.store.feed.survey import check_start
from esx.store.feed.writers import LockWatch, SnapshotWatch, committed_at, keeps_timestamps, on_standby, that_can_hold
from esx.store.filter_sql import filter_sql, stored_filter
from esx.store.rows import PageEvents

_FRESH = 1.0
"""For how many seconds rows that were read ahead are what a step would find."""
_ALL_REPLAYED = """
    SELECT pg_is_in_recovery() AND NOT pg_is_wal_replay_paused()
           AND pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver)
"""


class ReadAhead(NamedTuple):
    """Rows that were read before they were asked for: after what position, what was settled then, and when."""

    position: int
    settled: int
    rows: Rows
    at: float


class Barrier:
    """Reads the global order after a cursor, step by step; each step gets a connection.

    After a lost connection, call `forget_writers` and go on with another one. Raises InvalidQuery for a filter that
    PostgreSQL refuses, OrderUnknown where no position is safe, and HistoryChanged where the server does not have the
    events that were handed out.
    """

    def __init__(
        self,
        layout: Layout,
        cursor: Cursor | None = None,
        where: Filter | None = None,
        settings: FeedSettings = DEFAULT,
    ) -> None:
        self.cursor = Cursor() if cursor is None else cursor
        self._settings = settings
        self._fence: int | None = None
        """The number up to which no event can appear once the listed writers have ended."""
        self._keeps_timestamps: bool | None = None
        self._asked_for_fence = False
        self._layout = layout
        self._run: tuple[object, bool] | None = None
        self._met: weakref.WeakSet[asyncpg.Connection] = weakref.WeakSet()
        self._behind_since: float | None = None
        self._start_checked = False
        self._untold: list[Look] = []
        """What was found below the position, and is in no batch yet."""
        self._next_look = time.monotonic() + settings.look_every
        self._watch: LockWatch | SnapshotWatch
        self._read_sql, self._filter_arguments = read_sql(layout, where or Filter())
        self.begin_at_cursor()

    def begin_at_cursor(self) -> None:
        """Go on where the cursor is now, after another reader moved it."""
        self._missing = Missing()
        self._settled = self.cursor.position
        self.forget_writers()

    def forget_writers(self) -> None:
        """Begin the wait at the current gap again: the listed writers belong to a connection that was lost."""
        self._fence = None

    async def check_filter(self, connection: asyncpg.Connection) -> None:
        """Let PostgreSQL check the filter, without reading events. Raises InvalidQuery."""
        await self._read(connection, 0, None)

    async def step(self, connection: asyncpg.Connection, limit: int, until: int | None = None) -> Batch:
        """Read up to `limit` rows after the position, none above `until`, and return those that are safe."""
        self._notice_another_server(connection)
        if connection not in self._met:
            await self._meet(connection)
        # Before events are read: an error after the cursor has moved would lose them.
        if time.monotonic() >= self._next_look:
            self._untold.append(await self._look_again(connection))
        rows = await self._read(connection, limit, until)
        taken = self._contiguous(rows)
        gap: Gap | None = None
        if taken < len(rows) and await self._passes_fence(connection):
            rows = await self._read(connection, limit, until)
            taken = self._contiguous(rows)
        if taken < len(rows):
            settled = await self._settle(connection, rows[taken][0], highest=rows[-1][0])
            if settled is None:
                # Nothing can fill the gaps below the fence any more. But `rows` may lack an event that was committed
                # before that was certain, so read again.
                rows = await self._read(connection, limit, until)
                taken = self._contiguous(rows)
            else:
                self._missing.see(self.cursor.position, rows)
                first_missing = (rows[taken - 1][0] if taken else self.cursor.position) + 1
                gap = Gap(first_missing, rows[taken][0] - 1, settled)
        if not rows and not self._start_checked:
            self._start_checked = True
            await check_start(connection, self._layout, self.cursor.position)
        full = gap is None and (taken < len(rows) or len(rows) == limit)
        return self._take(rows[:taken], full=full, gap=gap)

    async def read_ahead(self, connection: asyncpg.Connection, after: int, limit: int) -> ReadAhead | None:
        """Read what a step will read after the position `after`; None if it has to do something before that."""
        if connection not in self._met or not self.is_where_it_was(connection):
            return None
        settled = self._settled
        rows = await fetch(connection, self._read_sql, after, limit, *self._filter_arguments, moment=CREATED_AT)
        return ReadAhead(after, settled, rows, time.monotonic())

    def suits(self, ahead: ReadAhead, limit: int) -> bool:
        """Return whether rows that were read ahead are what a step would take now: a whole page, and all of it safe."""
        return (
            (ahead.position, ahead.settled, len(ahead.rows)) == (self.cursor.position, self._settled, limit)
            and time.monotonic() < min(self._next_look, ahead.at + _FRESH)
            and self._contiguous(ahead.rows) == limit
        )

    def take_ahead(self, ahead: ReadAhead) -> Batch:
        """Return the batch of rows that suit."""
        if self._missing:
            self._missing.see(ahead.position, ahead.rows)
        return self._take(ahead.rows, full=True, gap=None)

    def _take(self, rows: Rows, *, full: bool, gap: Gap | None) -> Batch:
        """Move the cursor over rows, and return them as a batch, with what was found since the last one."""
        cursor = self.cursor
        if self._filter_arguments:
            events = PageEvents(self._layout, [row[2:] for row in rows if row[1]])
        else:
            events = PageEvents(self._layout, rows)
        position = cursor.position
        if rows:
            position = rows[-1][0]
            without_gap = position - rows[0][0] == len(rows) - 1
            first = rows[0][0]
            numbers = range(first, position + 1) if without_gap else array("q", map(itemgetter(0), rows))
            cursor.recent.passed(numbers, position, events, full=full)
        looks, self._untold = self._untold, []
        batch = Batch(
            events,
            position,
            full,
            gap,
            late=self._missing.passed(position) if self._missing else NOBODY_LATE,
            missed=tuple(missed for look in looks for missed in look.missed),
            looked=len(rows),
            dead=position - cursor.position - len(rows),
            missed_count=sum(look.appeared for look in looks),
            erased=sum(look.gone for look in looks),
        )
        cursor.take(batch)
        return batch

    async def _read(self, connection: asyncpg.Connection, limit: int, until: int | None) -> Rows:
        position = self.cursor.position
        rows = await fetch(connection, self._read_sql, position, limit, *self._filter_arguments, moment=CREATED_AT)
        if until is not None:
            rows = rows[: bisect_right(rows, until, key=itemgetter(0))]
        if self._missing:
            self._missing.see(position, rows)
        return rows

    def is_where_it_was(self, connection: asyncpg.Connection) -> bool:
        """Return whether a connection leads to the server, and the same run of it, that was read last."""
        return self._run == (getattr(connection, "server_started", None), on_standby(connection, self._layout))

    def _notice_another_server(self, connection: asyncpg.Connection) -> None:
        if not self.is_where_it_was(connection):
            self._run = run = (getattr(connection, "server_started", None), on_standby(connection, self._layout))
            # Behind a pooler a connection may lead to another server later.
            self._met.clear()
            self._watch = SnapshotWatch(self._settings.standby_moment) if run[1] else LockWatch(self._layout)
            self._settled = self.cursor.position
            self._asked_for_fence = False
            self.forget_writers()

    async def _meet(self, connection: asyncpg.Connection) -> None:
        """Check on a new connection that its server has this history."""
        await check_order(connection, self._layout)
        recent, run = self.cursor.recent, getattr(connection, "server_started", None)
        await self._check_history(connection, recent.history, same_run=run is not None and run == recent.run)
        recent.server, recent.run = await read_server(connection, self._layout), run
        self._met.add(connection)

    async def _check_history(
        self, connection: asyncpg.Connection, history: History | None, *, same_run: bool = False
    ) -> None:
        """Raise HistoryChanged if the server lacks events that were handed out; `same_run` as in `compare`."""
        if history is None:
            return
        difference = await compare(connection, self._layout, history, same_run=same_run)
        if difference is None:
            return
        if difference.kind is DifferenceKind.BEHIND and await self._stays_behind(connection, difference.head):
            # The missing events were deleted; `_look_again` counts the others.
            self.cursor.recent.forget(difference.missing)
            return
        if difference.kind is DifferenceKind.BEHIND:
            raise StoreUnavailable(f"{difference.reason}: up to {self.cursor.position} was read elsewhere")
        if difference.kind is DifferenceKind.CHANGED or not same_run:
            raise difference.error(self.cursor.position)
        self.cursor.recent.forget(difference.missing)

    async def _stays_behind(self, connection: asyncpg.Connection, head: int) -> bool:
        """Return whether a standby that has replayed everything has lacked events for so long that they were deleted.

        A standby whose head is below the position may still get them.
        """
        now = time.monotonic()
        if head < self.cursor.position or not await connection.fetchval(_ALL_REPLAYED):
            self._behind_since = None
            return False
        if self._behind_since is None:
            self._behind_since = now
        return now - self._behind_since >= self._settings.behind_for

    async def _look_again(self, connection: asyncpg.Connection) -> Look:
        """Count the events below the position again, and return what has appeared or gone."""
        cursor = self.cursor
        recent = cursor.recent
        self._next_look = time.monotonic() + self._settings.look_every
        self._asked_for_fence = False
        await check_order(connection, self._layout)
        if getattr(connection, "standby", None) and not await connection.fetchval("SELECT pg_is_in_recovery()"):
            # It was promoted: from now on its locks show the writers.
            connection.standby = False  # type: ignore[attr-defined]
        if cursor.look_back:
            await recent.look_back(connection, self._layout)
            cursor.look_back = False
        history = recent.history
        look = await recent.look_again(connection, self._layout)
        if look.gone or (look.head < cursor.position and not on_standby(connection, self._layout)):
            # Behind a pooler it may not have been the same server all the time.
            await self._check_history(connection, history, same_run=recent.run is not None)
        # Only now: if the check above fails, the next look has to find the same again.
        recent.keep(look)
        return look

    def nobody_writes(self) -> None:
        """Note that no transaction was writing after the position was read: no event can appear below it any more.

        That is no proof on a standby, or where a pooler may lead to one: writers are not visible there.
        """
        if self._run is not None and self._run[0] is not None and not self._run[1]:
            self.cursor.proven = True

    async def _passes_fence(self, connection: asyncpg.Connection) -> bool:
        """Return whether there is a fence above the position, and count everything up to it as settled."""
        if self._asked_for_fence:
            return False
        self._asked_for_fence = True
        fence = await read_fence(connection, self._layout)
        if fence <= self.cursor.position:
            return False
        self.cursor.proven = True
        self._settled = max(self._settled, fence)
        return True

    def _contiguous(self, rows: Rows) -> int:
        """Return how many of the rows, from the first on, have no open gap before them."""
        last = self.cursor.position
        if rows and rows[-1][0] == last + len(rows):
            return len(rows)
        for index, row in enumerate(rows):
            number = row[0]
            if number != last + 1 and number > self._settled:
                return index
            last = number
        return len(rows)

    async def _settle(self, connection: asyncpg.Connection, visible: int, *, highest: int) -> tuple[Writer, ...] | None:
        """Return the writers that may still fill the gap before `visible`; None if there is none, then read again."""
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
            committed = await self._committed_at(connection, number)
            holders = that_can_hold(left, committed, self._settings.clock_step)
            if not holders:
                self._settled = max(self._settled, number)
                return None
        return holders

    async def _committed_at(self, connection: asyncpg.Connection, number: int) -> datetime | None:
        if self._keeps_timestamps is None:
            self._keeps_timestamps = await keeps_timestamps(connection, self._layout)
        return await committed_at(connection, self._layout, number) if self._keeps_timestamps else None


def read_sql(layout: Layout, where: Filter) -> tuple[str, list[str | datetime]]:
    """Return the query and its arguments: a row per event, to see gaps; first in each is its number.

    With a filter, next is whether the event fits, and what does not has NULL in all columns.
    """
    conditions, arguments = filter_sql(stored_filter(layout, where), 3)
    if not conditions:
        return (
            f"SELECT {layout.columns()} FROM {layout.table} e WHERE e.global_seq > $1::bigint "
            "ORDER BY e.global_seq LIMIT $2",
            arguments,
        )
    query = f"""
        SELECT p.global_seq, p.esx_hit, {layout.columns("h")}
        FROM (SELECT e.*, {" AND ".join(conditions)} AS esx_hit FROM {layout.table} e
              WHERE e.global_seq > $1::bigint ORDER BY e.global_seq LIMIT $2) p
        LEFT JOIN LATERAL (SELECT p.*) h ON p.esx_hit
        ORDER BY p.global_seq
    """
    return query, arguments
