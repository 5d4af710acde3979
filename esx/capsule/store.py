"""A store as it was at a moment: what a capsule has is shown by the screens that show a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime

from esx.capsule.timeline import Timeline
from esx.doctor import Finding, Thresholds
from esx.errors import EsxError, NotAllowed
from esx.eventstore import EventStore
from esx.filters import Filter
from esx.store.conflicts.conflict import ConflictSurvey
from esx.store.consume.others import OtherConsumers
from esx.store.consume.report import ConsumerReport
from esx.store.feed.batch import Batch, Counts, FeedState, Missed
from esx.store.feed.feed import Feed
from esx.store.feed.history import History
from esx.store.health import Health
from esx.text import visible
from esx.times import clock

_PAGE = 1000


class NotRecorded(EsxError):
    """What is asked for was not recorded. The message says since when it was."""


class RecordedStore(EventStore):
    """A store whose events are those that had appeared by the time of a recorded clock.

    `timeline` and `now` are set when it has been connected: they say what is known, and what the time is.
    """

    timeline: Timeline
    now: Callable[[], datetime]
    moved: asyncio.Condition
    """Notified when the clock has moved."""

    @property
    def address(self) -> str:
        """What was recorded, and of when the figures are: where it is now matters to nobody."""
        found = self.timeline.health_at(self.now())
        when = "" if found is None else f" at {clock(found.at)}"
        return f"{visible(self.timeline.info.database, limit=80)}, recorded{when}"

    @property
    def unrecorded(self) -> str | None:
        """Why nothing is known of the feed and the consumers at the time of the clock."""
        if self.timeline.recorded(self.now()):
            return None
        return "not recorded: of the time before the recording began there are events only"

    def _nothing(self) -> NotRecorded:
        return NotRecorded(self.unrecorded or "not recorded: this could not be read then")

    async def health(self) -> Health:
        """Return the figures of then: those that the feed tells are newer than the others, which were read at times."""
        now = self.now()
        found, moment = self.timeline.health_at(now), self.timeline.feed(now)
        if found is None:
            raise self._nothing()
        health, newest = found.health, await self.read_all_page(limit=1, backwards=True)
        if newest and newest[0].global_seq >= health.last:
            health = replace(health, last=newest[0].global_seq, last_created_at=newest[0].created_at)
        if moment is not None:
            health = replace(health, head=max(health.head, health.last, moment.counts.position, moment.head or 0))
            if moment.gap is not None:
                health = replace(health, writers=moment.gap.writers)
        return replace(health, at=now)

    async def consumers(self) -> list[ConsumerReport]:
        """Return the consumers as they were."""
        found = self.timeline.consumers_at(self.now())
        if found is None:
            raise self._nothing()
        if found.problem is not None:
            raise NotAllowed(f"not recorded: {found.problem}")
        return list(found.consumers)

    async def projections(self) -> list[ConsumerReport]:
        """Return the projections as they were."""
        return [each for each in await self.consumers() if each.kind == "projection"]

    async def other_consumers(self) -> OtherConsumers:
        """Return the consumers of another tool's store as they were."""
        found = self.timeline.consumers_at(self.now())
        return OtherConsumers() if found is None else found.others

    async def doctor(
        self,
        *,
        full: bool = False,  # noqa: ARG002
        on_progress: Callable[[str], None] | None = None,  # noqa: ARG002
        thresholds: Thresholds | None = None,  # noqa: ARG002
    ) -> list[Finding]:
        """Return what the doctor had found, without remedies: the capsule may come from anybody."""
        found = self.timeline.findings_at(self.now())
        if found is None:
            raise self._nothing()
        return [replace(each, remedy=()) for each in found.findings]

    async def conflicts(
        self,
        where: Filter | None = None,  # noqa: ARG002
        *,
        commutes: Iterable[tuple[str, str]] = (),  # noqa: ARG002
    ) -> ConflictSurvey:
        """Raise NotRecorded: why appends were refused is not in a capsule."""
        raise NotRecorded("not recorded: why appends were refused is not in a capsule")

    async def feed(self, *, after: int = -1, where: Filter | None = None, page: int = _PAGE) -> Feed:
        """Return the feed as it was: it hands out events when the recorded feed did."""

        async def read(position: int) -> Feed:
            return await EventStore.feed(self, after=position, where=where, page=page)

        return RecordedFeed(self, after, read)


class RecordedFeed(Feed):
    """The feed as a subscriber saw it that began after a number; the clock moves it on."""

    def __init__(self, store: RecordedStore, after: int, read: Callable[[int], Awaitable[Feed]]) -> None:
        # What it needs of a feed is what was recorded: there is nothing behind it that reads a server.
        self._store = store
        self._read = read
        self._given = after
        self._told = store.timeline.info.begun
        self.gap = None
        self.on_change = None
        self._see()

    def _see(self) -> None:
        timeline, now = self._store.timeline, self._store.now()
        self._moment = timeline.feed(now)
        self._head = timeline.head(now)

    @property
    def counts(self) -> Counts:
        """The position of then, and what had been counted since the recording began."""
        return Counts(self._head) if self._moment is None else self._moment.counts

    @property
    def position(self) -> int:
        """The safe position of then."""
        return self.counts.position

    @property
    def dead(self) -> int:
        """How many numbers had been passed because no event had them."""
        return self.counts.dead

    @property
    def late(self) -> int:
        """How many events had come late."""
        return self.counts.late

    @property
    def looked(self) -> int:
        """How many events had been passed."""
        return self.counts.looked

    @property
    def missed(self) -> int:
        """How many events had been missed."""
        return self.counts.missed

    @property
    def erased(self) -> int:
        """How many events had been erased."""
        return self.counts.erased

    @property
    def held_since(self) -> float | None:
        """Since when it had waited at the gap, by the clock of the recording."""
        since = self._store.timeline.held_since(self._store.now())
        return None if since is None else since.timestamp()

    @property
    def history(self) -> History | None:
        """Nothing: there is one history only."""
        return None

    @property
    def shared(self) -> bool:
        """False: it has no reader."""
        return False

    @property
    def idle(self) -> bool:
        """False: a clock moves it."""
        return False

    @property
    def lost(self) -> str | None:
        """None: there is nothing to be connected to."""
        return None

    @property
    def listening(self) -> bool:
        """Whether notifications woke the feed then."""
        return self._moment is None or self._moment.listening

    @property
    def problem(self) -> str | None:
        """Why it polled or was not connected then."""
        return None if self._moment is None else self._moment.problem

    async def listen(self) -> bool:
        """Return whether notifications woke the feed then."""
        return self.listening

    async def state(self) -> FeedState:
        """Return where the feed stood then."""
        self._see()
        counts, moment = self.counts, self._moment
        gaps = () if moment is None else moment.gaps
        return FeedState(
            *(counts.position, counts.position, self._head, gaps, counts.dead, self.listening, self.problem, self._head)
        )

    async def to_safe_position(self, *, patience: float = 0.5) -> AsyncGenerator[Batch, None]:  # noqa: ARG002
        """Yield batches up to the position of then."""
        self._see()
        async for batch in self._up_to(self.counts.position):
            yield batch

    async def follow(self) -> AsyncGenerator[Batch, None]:
        """Yield what the feed handed out, as the clock moves on."""
        while True:
            before = self._store.now()
            self._see()
            gap = None if self._moment is None else self._moment.gap
            async for batch in self._up_to(self.counts.position):
                yield batch
            if gap != self.gap:
                self.gap = gap
                yield Batch([], self.counts.position, False, gap)
            if self.on_change is not None:
                self.on_change()
            async with self._store.moved:
                while self._store.now() == before:
                    await self._store.moved.wait()

    async def _up_to(self, position: int) -> AsyncGenerator[Batch, None]:
        late, missed = self._since()
        while self._given < position:
            # A gap that held the recorded feed holds nobody here: there are no writers.
            reading = await self._read(self._given)
            async for read in reading.to_safe_position(patience=0):
                events = [event for event in read.events if event.global_seq <= position]
                reached = min(read.position, position)
                self._given = reached
                numbers = {event.global_seq for event in events}
                told = {number: late.pop(number) for number in numbers & late.keys()}
                yield Batch(events, reached, False, None, told, missed, missed_count=len(missed))
                missed = ()
                if reached >= position:
                    break
            # What is left up to there are numbers that no event has, or that the filter leaves out.
            self._given = max(self._given, position)
        if missed:
            yield Batch([], position, False, None, missed=missed, missed_count=len(missed))

    def _since(self) -> tuple[dict[int, float], tuple[Missed, ...]]:
        """Return which events came late or were missed since it was looked last."""
        now = self._store.now()
        seen = self._store.timeline.told_between(self._told, now)
        self._told = max(now, self._told)
        late = {number: delay for each in seen for number, delay in each.late.items()}
        return late, tuple(missed for each in seen for missed in each.missed)
