"""What is seen of a store beside its events, while a capsule is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from esx.capsule.format import (
    CONSUMERS,
    DOCTOR,
    FEED,
    HEALTH,
    TABLES,
    CapsuleBounds,
    ConsumersMoment,
    DoctorMoment,
    FeedMoment,
    HealthMoment,
)
from esx.capsule.runs import Runs
from esx.errors import EsxError, StoreUnavailable
from esx.eventstore import EventStore
from esx.store.consume.report import ConsumerReport
from esx.store.feed.batch import Batch, Gap
from esx.store.feed.feed import Feed

_TOGETHER = 0.02
"""For how many seconds batches are noted as one: the clock of a capsule is no finer."""
_MOST_GAPS = 20
"""How many gaps are written of a moment: each has all writers that may fill it."""
_MOST_NOTES = 20


class Sampler:
    """Writes what it sees, each with the time by the server's clock: `health` comes first, and compares that with ours.

    `add` adds a value to a member. No more than `most_runs` runs of visible numbers are written.
    """

    def __init__(
        self, store: EventStore, add: Callable[[str, object], None], *, most_runs: int = CapsuleBounds().runs
    ) -> None:
        self._store = store
        self._add = add
        self._room = most_runs
        self._ahead = timedelta()
        self._last_at: datetime | None = None
        self._consumers: tuple[object, object] | None = None
        self._seen = Runs()
        self._pending: FeedMoment | None = None
        self._pending_since = 0.0
        self._told: tuple[Gap | None, bool, str | None] | None = None
        self.moments = 0
        """How many moments of the feed were written."""
        self.notes: list[str] = []

    @property
    def beyond(self) -> list[tuple[int, int]]:
        """The runs of numbers that were seen beyond the position of the feed."""
        return list(self._seen)

    def now(self) -> datetime:
        """Return the time by the server's clock; it never goes back."""
        found = datetime.now(UTC) + self._ahead
        if self._last_at is not None:
            found = max(found, self._last_at)
        self._last_at = found
        return found

    def note(self, text: str) -> None:
        """Note in a line what is not as it was, once."""
        if text not in self.notes and len(self.notes) < _MOST_NOTES:
            self.notes.append(text)

    # -- figures, consumers, findings --------------------------------------------------------------------------

    async def health(self) -> None:
        """Read the figures."""
        before = datetime.now(UTC)
        health = await self._store.health()
        after = datetime.now(UTC)
        if self._last_at is None:
            self._ahead = health.at - (before + (after - before) / 2)
        self._add(HEALTH, HealthMoment(self.now(), health))

    async def consumers(self) -> None:
        """Read the consumers, and write them if they have changed."""
        problem, found = None, tuple[ConsumerReport, ...]()
        try:
            found = tuple(await self._store.consumers())
        except StoreUnavailable:
            raise
        except EsxError as error:
            problem = str(error)
        others = await self._store.other_consumers()
        # Ages grow without anything happening.
        seen = ([(each.name, each.position, each.lag, each.state, each.about) for each in found], (others, problem))
        if seen != self._consumers:
            self._consumers = seen
            self._add(CONSUMERS, ConsumersMoment(self.now(), found, others, problem))

    async def doctor(self) -> None:
        """Examine the store."""
        findings = tuple(await self._store.doctor())
        self._add(DOCTOR, DoctorMoment(self.now(), findings))

    async def tables(self) -> None:
        """Read what the tables look like."""
        for shape in await self._store.table_shapes():
            self._add(TABLES, shape)

    # -- the feed ----------------------------------------------------------------------------------------------

    async def look_ahead(self, feed: Feed) -> None:
        """Write where the feed is, and what is ahead of it: the gaps, and the numbers that are visible beyond them."""
        state = await feed.state()
        runs = []
        first = state.cursor + 1
        for gap in state.gaps:
            runs += self._seen.add(first, gap.first - 1)
            first = gap.last + 1
        if state.gaps:
            runs += self._seen.add(first, state.looked)
        self._room -= len(runs)
        if self._room < 0:
            self.note("when some events appeared behind a gap was not recorded: a capsule holds no more")
            runs = []
        self._flush()
        self._write(
            replace(
                self._moment(feed),
                gap=feed.gap or (state.gaps[0] if state.gaps else None),
                head=state.head,
                gaps=state.gaps[:_MOST_GAPS],
                visible=tuple(runs),
            )
        )

    def take(self, batch: Batch, feed: Feed) -> None:
        """Note a batch of the feed; those that follow within a moment are noted with it."""
        moment = replace(self._moment(feed), late=dict(batch.late), missed=batch.missed)
        pending = self._pending
        if pending is None:
            self._pending_since = time.monotonic()
        else:
            moment = replace(moment, late={**pending.late, **moment.late}, missed=(*pending.missed, *moment.missed))
        self._pending = moment
        state = (feed.gap, feed.listening, feed.problem)
        if state != self._told or time.monotonic() - self._pending_since >= _TOGETHER:
            self._flush()

    def changed(self, feed: Feed) -> None:
        """Note that the connection of the feed may have changed."""
        if self._told is not None and self._told != (feed.gap, feed.listening, feed.problem):
            self._flush()
            self._write(self._moment(feed))

    def _moment(self, feed: Feed) -> FeedMoment:
        return FeedMoment(self.now(), feed.counts, feed.gap, listening=feed.listening, problem=feed.problem)

    def flush(self) -> None:
        """Write what was noted a moment ago."""
        self._flush()

    def _flush(self) -> None:
        if self._pending is not None:
            moment, self._pending = self._pending, None
            self._write(moment)

    def _write(self, moment: FeedMoment) -> None:
        self._told = (moment.gap, moment.listening, moment.problem)
        self._seen.forget(moment.counts.position)
        self._add(FEED, moment)
        self.moments += 1
