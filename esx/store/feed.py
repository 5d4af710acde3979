"""The ordered feed: catch up, then follow, for ever or up to the safe position."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from esx.store.barrier import Barrier, Batch, Filter, Gap, LockWatch, on_standby, outwait, survey, writers_sql
from esx.store.errors import EsxError, QueryCancelled, StoreClosed, StoreUnavailable
from esx.store.fence import advance_fence
from esx.store.tail import Counts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    import asyncpg

    from esx.store.doorbell import Doorbell
    from esx.store.history import History
    from esx.store.layout import Layout
    from esx.store.recent import Recent
    from esx.store.tail import Member, Tails

_log = logging.getLogger("esx.feed")
_POLL = 1.0
_POLL_DEAF = 0.25
# Under load a feed pauses several times as long as its reading took, so that it takes little from the writers.
_SHORTEST_PAUSE = 0.005
_LONGEST_PAUSE = 0.02
_PAUSES = 5.0
_BUSY = 10
"""So many numbers at once come from writers of whom there will be more: whether there are need not be asked."""
_FIRST_LIMIT = 20
_PAGE_CHARACTERS = 4_000_000
"""Payload in a page beyond which the next one is to hold fewer events."""
_RETRY_FIRST = 0.1
_RETRY_LAST = 5.0
_PASSING = (StoreUnavailable, QueryCancelled)
"""After these a feed goes on where it was."""
_FENCE_EVERY = 5.0
_END_PATIENCE = 0.5
_LOOK_BACK = 1_000_000


@dataclass(frozen=True, slots=True)
class FeedState:
    """Where a feed stands.

    `cursor` is what has been handed out; `safe` is the position below which nothing can appear any more, `head` the
    highest global_seq handed out to a writer. `gaps` may still be filled by the writers they name; `dead` numbers
    were passed for good. `listening` tells notification from polling, `problem` why it polls or is not connected.
    """

    cursor: int
    safe: int
    head: int
    gaps: tuple[Gap, ...]
    dead: int
    listening: bool
    problem: str | None


class Feed:
    """One subscriber's way through the global order.

    `position` is the global_seq up to which everything that passes the filter has been handed out. `gap` is
    what holds the feed now. Use each feed from one task.
    """

    def __init__(
        self,
        acquire: Callable[[], AbstractAsyncContextManager[asyncpg.Connection]],
        doorbell: Doorbell,
        layout: Layout,
        *,
        after: int,
        where: Filter | None = None,
        page: int = 1000,
        skip: Seen | None = None,
        tails: Tails | None = None,
        settled: bool = False,
        keeps_fence: bool = False,
    ) -> None:
        """With `tails` it shares the reading at the end with other feeds that want the same.

        `settled` says that nothing can appear at or below `after` any more. `keeps_fence` lets it write down, for all
        readers to come, up to where it has proven that.
        """
        self._acquire = acquire
        self._doorbell = doorbell
        self._layout = layout
        self._where = where
        self._barrier = Barrier(layout, after, where, settled=settled)
        self._keeps_fence = keeps_fence
        self._fence_dead = 0
        """How many dead numbers lay below the fence that was kept last."""
        self._next_fence = 0.0
        self._writers_sql = writers_sql(layout)
        self._page = page
        self._limit = min(page, _FIRST_LIMIT)
        """How many events to read at once: nobody knows how large they are before some have been seen."""
        self._skip = skip
        self._tails = tails
        self._member: Member | None = None
        self.gap: Gap | None = None
        self.on_change: Callable[[], None] | None = None
        """Called while `follow` runs, when `problem` or `listening` may have changed. What it raises is logged."""
        self._lost: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the feed is not connected, or why it polls instead of being notified; None if all is well."""
        return self.lost or self._doorbell.problem

    @property
    def lost(self) -> str | None:
        """Why the feed is not connected; None while it is."""
        return self._lost if self._member is None else self._member.lost

    def _changed(self) -> None:
        if self.on_change is not None:
            try:
                self.on_change()
            except Exception:
                # In the middle of a step: let out, it would cost the events just read, here and in feeds that share.
                _log.exception("a feed's on_change failed")

    @property
    def counts(self) -> Counts:
        """How far the feed is, and what it passed on its way."""
        barrier, member = self._barrier, self._member
        own = Counts(barrier.position, barrier.dead, barrier.late, barrier.looked, barrier.missed, barrier.erased)
        return own if member is None else member.seen.since(member.start, own)

    @property
    def position(self) -> int:
        """The safe position reached: nothing can appear at or below it any more."""
        return self.counts.position

    @property
    def dead(self) -> int:
        """How many numbers have been passed for good because no event has them."""
        return self.counts.dead

    @property
    def late(self) -> int:
        """How many events were waited for, because they became visible after their successors."""
        return self.counts.late

    @property
    def looked(self) -> int:
        """How many events have been passed, whether the filter wanted them or not."""
        return self.counts.looked

    @property
    def missed(self) -> int:
        """How many events have appeared below the position, against the promise. They were not handed out."""
        return self.counts.missed

    @property
    def erased(self) -> int:
        """How many events that were handed out have been deleted since, as far as was noticed."""
        return self.counts.erased

    @property
    def recent(self) -> Recent:
        """What it remembers of what it has passed."""
        return self._barrier.recent if self._member is None else self._member.recent

    @property
    def history(self) -> History | None:
        """What it takes to know again the history that was handed out; None before anything was read."""
        return self.recent.history

    @property
    def listening(self) -> bool:
        """Whether notifications wake this feed; if not, it polls."""
        return self._doorbell.listening

    async def listen(self) -> bool:
        """Begin to listen for notifications, as `follow` does, and return whether that succeeded."""
        await self._doorbell.start()
        return self.listening

    async def state(self) -> FeedState:
        """Return where the feed stands, asking the database. Raises StoreUnavailable."""
        async with self._acquire() as connection:
            ahead = await survey(connection, self._layout, self.position)
        return FeedState(self.position, ahead.safe, ahead.head, ahead.gaps, self.dead, self.listening, self.problem)

    async def _step(self, until: int | None = None) -> Batch:
        self._leave()
        batch: Batch | None = None
        try:
            async with self._acquire() as connection:
                batch = await self._barrier.step(connection, self._limit, until)
        except _PASSING:
            # Lost while being given back: what had been read before that counts, for the position has moved.
            if batch is None:
                raise
        self._fit_limit(batch)
        return self._without_skipped(batch)

    def _fit_limit(self, batch: Batch) -> None:
        """Let pages become as long as they may be, or, where events are large, as payload allows."""
        size = sum(event.characters for event in batch.events)
        if size > 2 * _PAGE_CHARACTERS:
            self._limit = max(self._limit * _PAGE_CHARACTERS // size, 1)
        elif batch.full and 4 * size < _PAGE_CHARACTERS:
            self._limit = min(self._limit * 4, self._page)

    def _without_skipped(self, batch: Batch) -> Batch:
        skip = self._skip
        if skip is not None:
            batch = batch._replace(events=[event for event in batch.events if event.global_seq not in skip])
            if batch.position >= skip.head:
                self._skip = None
        return batch

    async def _anyone_writing(self) -> bool:
        async with self._acquire() as connection:
            # Who writes on another server says nothing of this one.
            return not self._barrier.is_where_it_was(connection) or bool(await connection.fetch(self._writers_sql))

    async def to_safe_position(self, *, patience: float = 0.5) -> AsyncGenerator[Batch, None]:
        """Yield batches up to the safe position and end there.

        A gap whose writer is still open after `patience` seconds ends it too, with that gap in the last batch.
        Raises StoreUnavailable.
        """
        deadline: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._step()
            self.gap = batch.gap
            if batch.gap is None:
                deadline = None
            elif deadline is None:
                deadline = loop.time() + patience
            held = deadline is not None and loop.time() >= deadline
            if batch.events or batch.missed or held:
                yield batch
            if held or not (batch.full or batch.gap):
                return
            if batch.gap:
                await asyncio.sleep(_SHORTEST_PAUSE)

    async def follow(self) -> AsyncGenerator[Batch, None]:
        """Yield batches for ever: what is there, then what comes.

        A batch without events tells that the feed is held by a gap, or that it no longer is. A lost connection is
        replaced, with backoff, and a cancelled statement repeated; nothing is lost or repeated by that. Raises
        StoreClosed when the store is closed.
        """
        self._leave()
        with self._doorbell.waker() as wake, self._doorbell.watched(self._changed):
            await self._doorbell.start()
            loop = asyncio.get_running_loop()
            quiet = False
            retry = _RETRY_FIRST
            while True:
                wake.clear()
                began = loop.time()
                before = self._barrier.position
                try:
                    batch = await self._step()
                except StoreClosed:
                    raise
                except _PASSING as error:
                    self._lost = str(error)
                    self._changed()
                    self._barrier.forget_writers()
                    await asyncio.sleep(retry)
                    retry = min(retry * 2, _RETRY_LAST)
                    quiet = False
                    continue
                if self._lost is not None:
                    self._lost = None
                    self._changed()
                retry = _RETRY_FIRST
                took = loop.time() - began
                if self._news_in(batch):
                    yield batch
                if self._keeps_fence and batch.gap is None:
                    await self._keep_fence(loop.time())
                if batch.events:
                    quiet = False
                if batch.full:
                    continue
                if self._tails is not None and batch.gap is None:
                    async with contextlib.aclosing(self._share(self._tails)) as shared:
                        async for given in shared:
                            yield given
                    if self.position != batch.position:
                        quiet = False
                        continue
                if quiet:
                    await _wait(wake, _POLL if self._doorbell.listening else _POLL_DEAF)
                    quiet = False
                    continue
                began = loop.time()
                try:
                    # Whoever is in flight may have found the doorbell taken: look again without being called.
                    busy = batch.gap is not None or batch.position - before >= _BUSY
                    writing = busy or await self._anyone_writing()
                except _PASSING:
                    await asyncio.sleep(_POLL_DEAF)
                    continue
                if writing:
                    # Not cut short by a notification: under load there is always one, and reading in batches costs
                    # the writers less.
                    took += loop.time() - began
                    await asyncio.sleep(min(max(_PAUSES * took, _SHORTEST_PAUSE), _LONGEST_PAUSE))
                else:
                    # Nobody was writing a moment ago, so one more read sees all there is.
                    quiet = True
                    self._barrier.nobody_writes()

    async def _keep_fence(self, now: float) -> None:
        """Write down, now and then, up to where nothing can appear any more, if there are dead numbers below."""
        barrier = self._barrier
        history = barrier.history
        if history is None or not barrier.proven or barrier.dead == self._fence_dead or now < self._next_fence:
            return
        self._next_fence = now + _FENCE_EVERY
        self._fence_dead = barrier.dead
        # It spares others a wait; that it cannot be kept harms nobody.
        with contextlib.suppress(EsxError):
            async with self._acquire() as connection:
                await advance_fence(connection, self._layout, history)

    def _news_in(self, batch: Batch) -> bool:
        """Return whether a batch is worth telling, and note what holds the feed."""
        before, self.gap = self.gap, batch.gap
        return bool(batch.events) or batch.gap != before or bool(batch.missed)

    async def _share(self, tails: Tails) -> AsyncGenerator[Batch, None]:
        """Yield what is read for all feeds of this kind, from where this one is; ends when it is not there.

        It must stand exactly where the tail does. Where it is behind, it reads up to there, by its own judgement of
        what is safe: the tail may have begun after a number that it need not wait for, and this feed has to.
        """
        with tails.member((self._layout, self._where, self._page), self._changed, self._alone) as member:
            try:
                if not await member.reach(self.position):
                    return
                while self.position < member.start.position:
                    before = self.position
                    batch = await self._step(until=member.start.position)
                    if self._news_in(batch):
                        yield batch
                    if self.position == before:
                        return
            except _PASSING:
                return
            self._member = member
            try:
                held = Batch([], self.position, False, member.gap)
                if self._news_in(held):
                    yield held
                async with contextlib.aclosing(member.follow()) as batches:
                    async for batch in batches:
                        if self._member is not member:
                            return
                        # Each its own list: what one does to it is nothing to the others.
                        kept = self._without_skipped(batch._replace(events=list(batch.events)))
                        if self._news_in(kept):
                            yield kept
            finally:
                if self._member is member:
                    self._leave()

    def _leave(self) -> None:
        """Go on by oneself from what the tail has given.

        Also where the one who followed has just stopped listening: what it leaves behind is tidied up later.
        """
        if self._member is not None:
            here, recent = self.counts, self._member.recent
            self._member = None
            self._barrier.move_to(recent, here)

    def _alone(self) -> Feed:
        """Return a feed of this kind that begins here, remembers the same, and reads by itself."""
        feed = Feed(
            self._acquire,
            self._doorbell,
            self._layout,
            after=self.position,
            where=self._where,
            page=self._page,
            settled=self._barrier.proven,
            keeps_fence=self._keeps_fence,
        )
        feed._barrier.move_to(self.recent.up_to(self.position), feed.counts)
        return feed


class Seen:
    """What was visible at one moment: all numbers up to `head` but those in the runs that were missing.

    `firsts` and `lasts` are the ends of these runs, in ascending order.
    """

    def __init__(self, head: int, firsts: Sequence[int] = (), lasts: Sequence[int] = ()) -> None:
        self.head = head
        # There may be half a million of them.
        self._firsts, self._lasts = array("q", firsts), array("q", lasts)

    def __contains__(self, number: int) -> bool:
        if number > self.head:
            return False
        run = bisect_right(self._firsts, number) - 1
        return run < 0 or number > self._lasts[run]

    def below(self, first: int) -> Seen:
        """Return what was visible of the numbers below `first`."""
        return Seen(min(self.head, first - 1), self._firsts, self._lasts)


class End(NamedTuple):
    """Where the visible events end: a position, and what is visible already above it.

    `settled` says that nothing can appear at or below the position any more.
    """

    position: int
    seen: Seen
    settled: bool


async def find_end(connection: asyncpg.Connection, layout: Layout, *, patience: float = _END_PATIENCE) -> End:
    """Return the position from which a reader sees everything that becomes visible from now on.

    With writers in flight, numbers below the head may still appear, so they are waited for. Where one is open for
    longer than `patience` seconds, or where writers are not visible, as on a hot standby, the position is before the
    first missing number (at most a million numbers back), and what is visible above it is skipped.
    """
    if not on_standby(connection, layout):
        head = await connection.fetchval(f"SELECT coalesce(max(global_seq), 0) FROM {layout.table}")
        if not await outwait(connection, LockWatch(layout), patience):
            # Whoever had drawn a number up to that head was one of them.
            return End(head, Seen(head), True)
    # Nothing tells which missing numbers are older than the writer: created_at is the start of a transaction that may
    # have drawn its number long after, or whatever an import says.
    row = await connection.fetchrow(
        f"""
        WITH top AS (SELECT coalesce(max(global_seq), 0) AS head FROM {layout.table}),
             pairs AS (SELECT e.global_seq AS next,
                              lag(e.global_seq, 1, greatest(top.head - $1, 0)) OVER (ORDER BY e.global_seq) AS before
                       FROM {layout.table} e, top WHERE e.global_seq > greatest(top.head - $1, 0))
        SELECT (SELECT head FROM top), coalesce(array_agg(before + 1 ORDER BY next), '{{}}'),
               coalesce(array_agg(next - 1 ORDER BY next), '{{}}')
        FROM pairs WHERE next <> before + 1
        """,
        _LOOK_BACK,
    )
    assert row is not None
    head, firsts, lasts = row
    return End(firsts[0] - 1 if firsts else head, Seen(head, firsts, lasts), False)


async def _wait(wake: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(wake.wait(), seconds)
