"""Reads the global order step by step: catches up, then waits for new events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager

import asyncpg

from esx.errors import EsxError, QueryCancelled, StoreClosed, StoreUnavailable
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.postgres.listener import Doorbell
from esx.store.feed.batch import Batch
from esx.store.feed.cursor import Cursor
from esx.store.feed.fence import advance_fence
from esx.store.feed.gap_barrier import Barrier, ReadAhead
from esx.store.feed.recent import Recent
from esx.store.feed.settings import DEFAULT, FeedSettings
from esx.store.feed.survey import Survey, survey
from esx.store.feed.writers import writers_sql
from esx.store.read.ahead import begin, begun
from esx.store.rows import about_characters

Lend = Callable[[], AbstractAsyncContextManager[asyncpg.Connection]]


PASSING = (StoreUnavailable, QueryCancelled)
"""After these errors a reader goes on at its position."""
# Under load a reader pauses several times as long as its reading took, to leave the server to the writers.
SHORTEST_PAUSE = 0.005
_LONGEST_PAUSE = 0.02
_PAUSES = 5.0
# If a step read so many numbers, transactions are writing: there is no need to ask.
_BUSY = 10
_FIRST_LIMIT = 20
_STEADY = 2
"""After so many full pages in a row it reads one ahead."""
_RETRY_FIRST = 0.1
_RETRY_LAST = 5.0
_FENCE_EVERY = 5.0


class Source:
    """Reads the global order after its `cursor`, and moves the cursor.

    Each step borrows a connection; the doorbell wakes it. `page` is the highest number of events in a step. With
    `keeps_fence` it stores the position up to which it has proven that no event can appear, for all later readers.
    While its caller works on a page it may read the next one. `before` is called at the beginning of each step.
    """

    def __init__(
        self,
        lend: Lend,
        doorbell: Doorbell,
        layout: Layout,
        cursor: Cursor,
        *,
        where: Filter | None = None,
        page: int = 1000,
        keeps_fence: bool = False,
        settings: FeedSettings = DEFAULT,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.doorbell = doorbell
        self.cursor = cursor
        self.settings = settings
        self.lost: str | None = None
        """Why it is not connected; None while it is connected."""
        self.idle = False
        """Whether it has read everything, no transaction was writing, and it waits for new events."""
        self._lend = lend
        self._layout = layout
        self._where = where
        self._barrier = Barrier(layout, cursor, where, settings)
        self._page = page
        self._limit = min(page, _FIRST_LIMIT)
        """How many events to read in a step: few at first, until their size is known."""
        self._before = before
        self._full_pages = 0
        self._ahead: asyncio.Task[ReadAhead | None] | None = None
        self._keeps_fence = keeps_fence
        self._fence_dead = 0
        """How many dead numbers there were below the fence that was stored last."""
        self._next_fence = 0.0
        self._writers_sql = writers_sql(layout)

    @property
    def kind(self) -> Hashable:
        """What it reads: equal for all sources that yield the same batches."""
        return self._layout, self._where, self._page

    def copy(self) -> Source:
        """Return a source of the same kind, with a cursor of its own at the position of this one."""
        return Source(
            self._lend,
            self.doorbell,
            self._layout,
            self.cursor.copy(),
            where=self._where,
            page=self._page,
            keeps_fence=self._keeps_fence,
            settings=self.settings,
            before=self._before,
        )

    def resume(self, recent: Recent) -> None:
        """Go on where the cursor is now, after batches of another source moved it; `recent` is what that remembers."""
        self.cursor.recent = recent
        self._barrier.begin_at_cursor()

    async def survey(self) -> Survey:
        """Return what is ahead of the cursor. Raises StoreUnavailable."""
        async with self._lend() as connection:
            return await survey(connection, self._layout, self.cursor.position, clock_step=self.settings.clock_step)

    async def step(self, until: int | None = None) -> Batch:
        """Read once, no number above `until`. Raises StoreUnavailable and QueryCancelled."""
        if self._before is not None:
            await self._before()
        batch = await self._from_ahead() if until is None else None
        if batch is None:
            try:
                async with self._lend() as connection:
                    batch = await self._barrier.step(connection, self._limit, until)
            except PASSING:
                # If the connection was lost only when it was given back, the batch is right, and the cursor has moved.
                if batch is None:
                    raise
            self._full_pages = self._full_pages + 1 if batch.full and self._limit == self._page else 0
            if self._full_pages >= _STEADY and until is None:
                # Nothing may be waited for here: a caller that is cancelled after the cursor has moved loses the batch.
                self._ahead = begin(self._read_ahead(self.cursor.position))
        self._fit_limit(batch)
        return batch

    async def _from_ahead(self) -> Batch | None:
        """Return the batch that was read while the caller worked on the one before, None if there is none."""
        task, self._ahead = self._ahead, None
        ahead = None if task is None else await task
        if ahead is None or not self._barrier.suits(ahead, self._limit):
            return None
        self._ahead = await begun(self._read_ahead(ahead.rows[-1][0]))
        return self._barrier.take_ahead(ahead)

    async def _read_ahead(self, after: int) -> ReadAhead | None:
        ahead: ReadAhead | None = None
        with contextlib.suppress(EsxError):  # the step itself will meet it, too
            async with self._lend() as connection:
                ahead = await self._barrier.read_ahead(connection, after, self._limit)
        return ahead

    def _fit_limit(self, batch: Batch) -> None:
        """Make pages longer, up to `page`, or shorter where events are large."""
        most = self.settings.page_characters
        size = about_characters(batch.events)
        if size > 2 * most:
            self._limit = max(self._limit * most // size, 1)
        elif batch.full and 4 * size < most:
            self._limit = min(self._limit * 4, self._page)

    async def follow(self, changed: Callable[[], None]) -> AsyncGenerator[Batch, None]:
        """Yield the batch of each step, without end, also batches without events; see `Feed.follow`.

        `changed` is called when `lost` changes or notifications begin or end; it must not raise. Between two batches
        the caller may move the cursor with `resume`. Raises StoreClosed when the store is closed.
        """
        with self.doorbell.waker() as wake, self.doorbell.watched(changed):
            await self.doorbell.start()
            loop = asyncio.get_running_loop()
            quiet = False
            retry = _RETRY_FIRST
            while True:
                wake.clear()
                began = loop.time()
                before = self.cursor.position
                try:
                    batch = await self.step()
                except StoreClosed:
                    raise
                except PASSING as error:
                    self.lost = str(error)
                    changed()
                    self._barrier.forget_writers()
                    await asyncio.sleep(retry)
                    retry = min(retry * 2, _RETRY_LAST)
                    quiet = False
                    continue
                if self.lost is not None:
                    self.lost = None
                    changed()
                retry = _RETRY_FIRST
                took = loop.time() - began
                yield batch
                if self._keeps_fence and batch.gap is None:
                    await self._keep_fence(loop.time())
                if batch.events or self.cursor.position != batch.position:
                    quiet = False
                if batch.full or self.cursor.position != batch.position:
                    continue
                if quiet:
                    await self._wait(wake)
                    quiet = False
                    continue
                began = loop.time()
                try:
                    # An open writer may not ring, as another one does: read again without a notification.
                    busy = batch.gap is not None or batch.position - before >= _BUSY
                    writing = busy or await self._anyone_writing()
                except PASSING:
                    await asyncio.sleep(self.settings.poll_deaf)
                    continue
                if writing:
                    # A notification does not end this pause: under load there is always one, and fewer, larger reads
                    # cost the writers less.
                    took += loop.time() - began
                    await asyncio.sleep(min(max(_PAUSES * took, SHORTEST_PAUSE), _LONGEST_PAUSE))
                else:
                    # No transaction was writing a moment ago, so one more read sees everything.
                    quiet = True
                    self._barrier.nobody_writes()

    async def _wait(self, wake: asyncio.Event) -> None:
        self.idle = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.poll if self.doorbell.listening else self.settings.poll_deaf):
                    await wake.wait()
        finally:
            self.idle = False

    async def _anyone_writing(self) -> bool:
        async with self._lend() as connection:
            # The writers of another server say nothing about the server that was read.
            return not self._barrier.is_where_it_was(connection) or bool(await connection.fetch(self._writers_sql))

    async def _keep_fence(self, now: float) -> None:
        """Store, now and then, the position below which no event can appear, if there are dead numbers below it."""
        cursor = self.cursor
        history, dead = cursor.history, cursor.counts.dead
        if history is None or not cursor.proven or dead == self._fence_dead or now < self._next_fence:
            return
        self._next_fence = now + _FENCE_EVERY
        self._fence_dead = dead
        # It only spares other readers a wait, so an error does not matter.
        with contextlib.suppress(EsxError):
            async with self._lend() as connection:
                await advance_fence(connection, self._layout, history)
