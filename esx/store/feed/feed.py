"""The ordered feed: it catches up, then it follows; or it ends at the safe position."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable

from esx.store.feed.batch import Batch, Counts, FeedState, Gap
from esx.store.feed.history import History
from esx.store.feed.source import PASSING, SHORTEST_PAUSE, Source
from esx.store.feed.survey import Seen
from esx.store.feed.tail import Member, Tails

_log = logging.getLogger("esx.feed")


class Feed:
    """One subscriber's feed of the global order. Use it from one task only.

    `gap` is the gap at which the feed waits now, None if it does not wait.
    """

    def __init__(self, source: Source, *, skip: Seen | None = None, tails: Tails | None = None) -> None:
        """Make a feed that does not hand out the events in `skip`.

        With `tails` it shares one reader at the end of the global order with other feeds that want the same events.
        """
        self._source = source
        self._cursor = source.cursor
        self._skip = skip
        self._tails = tails
        self._member: Member | None = None
        self.gap: Gap | None = None
        self.on_change: Callable[[], None] | None = None
        """Called while `follow` runs when `problem` or `listening` may have changed. Its exceptions are logged."""

    @property
    def counts(self) -> Counts:
        """The position of the feed, and its counters."""
        return self._cursor.counts

    @property
    def position(self) -> int:
        """The safe position reached: no event can appear at or below it, and all wanted events up to it were given."""
        return self._cursor.counts.position

    @property
    def dead(self) -> int:
        """How many numbers were passed because no event has them or can get them."""
        return self._cursor.counts.dead

    @property
    def late(self) -> int:
        """How many events became visible after events with higher numbers, so that the feed waited for them."""
        return self._cursor.counts.late

    @property
    def looked(self) -> int:
        """How many events were passed, with those that the filter left out."""
        return self._cursor.counts.looked

    @property
    def missed(self) -> int:
        """How many events appeared below the position, which should not happen. They were not handed out."""
        return self._cursor.counts.missed

    @property
    def erased(self) -> int:
        """How many events were handed out and have been deleted since, as far as the feed noticed."""
        return self._cursor.counts.erased

    @property
    def history(self) -> History | None:
        """What identifies the history that was handed out; None before the first step."""
        return self._cursor.history if self._member is None else self._member.recent(self.position).history

    @property
    def shared(self) -> bool:
        """Whether the feed now gets its events from a reader that it shares with other feeds."""
        return self._member is not None

    @property
    def _reader(self) -> Source:
        return self._source if self._member is None else self._member.source

    @property
    def held_since(self) -> float | None:
        """Since when it has waited at the gap, in seconds since 1970; None where that is not known beforehand."""
        return None

    @property
    def idle(self) -> bool:
        """Whether everything has been read, no transaction was writing then, and the feed waits for new events."""
        return self._reader.idle

    @property
    def lost(self) -> str | None:
        """Why the feed is not connected; None while it is connected."""
        return self._reader.lost

    @property
    def listening(self) -> bool:
        """Whether notifications wake this feed; else it polls."""
        return self._source.doorbell.listening

    @property
    def problem(self) -> str | None:
        """Why the feed is not connected, or why it polls; None if neither is so."""
        return self.lost or self._source.doorbell.problem

    async def listen(self) -> bool:
        """Start to listen for notifications, as `follow` does, and return whether that succeeded."""
        await self._source.doorbell.start()
        return self.listening

    async def state(self) -> FeedState:
        """Ask the database where the feed stands. Raises StoreUnavailable."""
        ahead = await self._source.survey()
        return FeedState(
            *(self.position, ahead.safe, ahead.head, ahead.gaps, self.dead, self.listening, self.problem, ahead.looked)
        )

    async def to_safe_position(self, *, patience: float = 0.5) -> AsyncGenerator[Batch, None]:
        """Yield batches up to the safe position, then end.

        It also ends at a gap whose writer is still open after `patience` seconds; the last batch then has that gap.
        Raises StoreUnavailable.
        """
        deadline: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            self._leave()
            batch = self._without_skipped(await self._source.step())
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
                await asyncio.sleep(SHORTEST_PAUSE)

    async def follow(self) -> AsyncGenerator[Batch, None]:
        """Yield batches without end: first of the events that are there, then of new ones.

        A batch without events says that the feed began to wait at a gap, or that it no longer waits. After a lost
        connection the feed connects again, with growing pauses, and it repeats a cancelled statement; no event is lost
        or given twice. Raises StoreClosed when the store is closed.
        """
        self._leave()
        async with contextlib.aclosing(self._source.follow(self._changed)) as batches:
            async for read in batches:
                batch = self._without_skipped(read)
                if self._is_news(batch):
                    yield batch
                if self._tails is not None and batch.gap is None and not batch.full:
                    async with contextlib.aclosing(self._share(self._tails)) as shared:
                        async for given in shared:
                            yield given

    def _changed(self) -> None:
        if self.on_change is not None:
            try:
                self.on_change()
            except Exception:
                # An exception here would lose the events that were just read, also for feeds that share the reader.
                _log.exception("a feed's on_change failed")

    def _without_skipped(self, batch: Batch) -> Batch:
        skip = self._skip
        if skip is not None:
            batch = batch._replace(events=[event for event in batch.events if event.global_seq not in skip])
            if batch.position >= skip.head:
                self._skip = None
        return batch

    def _is_news(self, batch: Batch) -> bool:
        """Note the gap of a batch, and return whether the subscriber has to get the batch."""
        before, self.gap = self.gap, batch.gap
        return bool(batch.events) or batch.gap != before or bool(batch.missed)

    async def _share(self, tails: Tails) -> AsyncGenerator[Batch, None]:
        """Yield what the tail reads for all feeds of this kind; ends where this feed is not at the tail's position.

        A feed that is behind the tail reads up to its position by itself. It decides itself what is safe: it may have
        to wait for a number that is below the tail's start, for which the tail does not wait.
        """
        with tails.member(self._source, self._changed) as member:
            try:
                if not await member.reach(self.position):
                    return
                while self.position < member.position:
                    before = self.position
                    batch = self._without_skipped(await self._source.step(until=member.position))
                    if self._is_news(batch):
                        yield batch
                    if self.position == before:
                        return
            except PASSING:
                return
            self._member = member
            try:
                held = Batch([], self.position, False, member.gap)
                if self._is_news(held):
                    yield held
                async with contextlib.aclosing(member.follow()) as batches:
                    async for batch in batches:
                        if self._member is not member:
                            return
                        self._cursor.take(batch)
                        given = self._without_skipped(batch)
                        if self._is_news(given):
                            yield given
            finally:
                if self._member is member:
                    self._leave()

    def _leave(self) -> None:
        """Read without the tail from now on, after the last batch that the tail gave.

        A caller that stops to follow may not have closed the generator, so every new use of the feed calls this too.
        """
        if self._member is not None:
            recent = self._member.recent(self.position)
            self._member = None
            self._source.resume(recent)
