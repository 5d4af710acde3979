"""What was when: when each event appeared, and what was known of the feed, the consumers and the store at a time."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Protocol, TypeVar

from esx.capsule.format import (
    CONSUMERS,
    DOCTOR,
    FEED,
    HEALTH,
    At,
    CapsuleInfo,
    ConsumersMoment,
    DoctorMoment,
    FeedMoment,
    HealthMoment,
)
from esx.capsule.reading import Capsule

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EARLIEST = (datetime(1900, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Timed(Protocol):
    """What has a time."""

    @property
    def at(self) -> At:
        """The time."""


T = TypeVar("T", bound=Timed)


def microseconds(at: datetime) -> int:
    """Return the microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def moment_of(at: int) -> datetime:
    """Return the time that is so many microseconds after 1970."""
    return _EPOCH + at * _MICROSECOND


class Appearances:
    """Says when an event appeared.

    Where it was recorded, an event appeared when it was seen first: beyond a gap, or when the feed handed it out. What
    was there when the recording began appeared when it was created, as far as anybody knows, and not later.
    """

    def __init__(self, info: CapsuleInfo, moments: Sequence[FeedMoment]) -> None:
        self._begun = microseconds(info.begun)
        # Of an older event nobody wants to see by the clock when it came.
        self._since = _EARLIEST if info.since is None else min(microseconds(info.since), self._begun)
        self._positions = [each.counts.position for each in moments]
        self._times = [microseconds(each.at) for each in moments]
        runs = sorted(
            (first, last, at) for at, each in zip(self._times, moments, strict=True) for first, last in each.visible
        )
        self._firsts = [first for first, _, _ in runs]
        self._runs = runs
        first = self._times[0] if self._times else self._begun
        self._there = first
        """What was seen at this first moment was there before."""

    def of(self, global_seq: int, created_at: datetime | None) -> int:
        """Return when an event appeared, in microseconds since 1970."""
        seen = bisect_left(self._positions, global_seq)
        at = self._times[seen] if seen < len(self._times) else self._there
        run = bisect_right(self._firsts, global_seq) - 1
        if run >= 0 and self._runs[run][1] >= global_seq:
            at = min(at, self._runs[run][2])
        if at > self._there:
            return at
        created = self._begun if created_at is None else microseconds(created_at)
        return min(max(created, self._since), self._begun)


class Timeline:
    """What is known of each time from `begin` to `end`."""

    def __init__(self, capsule: Capsule) -> None:
        """Read what was seen; `appeared` adds the events. Raises BadCapsule."""
        self.info = info = capsule.info
        self.moments: list[FeedMoment] = list(capsule.records(FEED))
        self.consumers: list[ConsumersMoment] = list(capsule.records(CONSUMERS))
        self.health: list[HealthMoment] = list(capsule.records(HEALTH))
        self.findings: list[DoctorMoment] = list(capsule.records(DOCTOR))
        positions = [each.counts.position for each in self.moments]
        if positions != sorted(positions):
            raise capsule.bad("the position of the feed goes back")
        self.appearances = Appearances(info, self.moments)
        self._appeared: list[tuple[int, int]] = []
        self._numbers, self._times_of = array("q"), array("q")
        self._times, self._heads = array("q"), array("q")
        self._marks = array("q", sorted({microseconds(each.at) for each in self.moments}))

    def appeared(self, events: Sequence[tuple[int, int]]) -> None:
        """Add events in ascending global_seq: when each appeared, in microseconds since 1970, and its global_seq."""
        self._appeared += events
        self._numbers.extend(number for _, number in events)
        self._times_of.extend(at for at, _ in events)

    def settle(self) -> None:
        """Note that all events are there."""
        self._appeared.sort()
        head = 0
        for at, number in self._appeared:
            head = max(head, number)
            self._times.append(at)
            self._heads.append(head)
        self._appeared = []

    @property
    def begin(self) -> datetime:
        """The first time that can be shown."""
        first = moment_of(self._times[0]) if self._times else self.info.begun
        return min(first if self.info.since is None else self.info.since, self.info.begun)

    @property
    def end(self) -> datetime:
        """The last time that can be shown."""
        return self.info.ended

    def within(self, at: datetime) -> datetime:
        """Return the time, or the nearest one that can be shown."""
        return max(self.begin, min(at, self.end))

    def head(self, at: datetime) -> int:
        """Return the highest global_seq that had appeared by then, 0 if none had."""
        place = bisect_right(self._times, microseconds(at))
        return self._heads[place - 1] if place else 0

    def appearance(self, global_seq: int) -> datetime | None:
        """Return when an event appeared, None if it is not here."""
        place = bisect_left(self._numbers, global_seq)
        there = place < len(self._numbers) and self._numbers[place] == global_seq
        return self.within(moment_of(self._times_of[place])) if there else None

    def count(self, at: datetime) -> int:
        """Return how many events had appeared by then."""
        return bisect_right(self._times, microseconds(at))

    def recorded(self, at: datetime) -> bool:
        """Return whether the feed, the consumers and the store were being recorded then."""
        return at >= self.info.begun

    def feed(self, at: datetime) -> FeedMoment | None:
        """Return what was seen of the feed then, None where that was not recorded."""
        return self._last(self.moments, at)

    def held_since(self, at: datetime) -> datetime | None:
        """Return since when the feed had waited at the gap at which it waited then, None if it did not wait."""
        place = bisect_right(self.moments, at, key=lambda each: each.at) - 1
        gap = self.moments[place].gap if place >= 0 and self.recorded(at) else None
        if gap is None:
            return None
        while place > 0 and (before := self.moments[place - 1].gap) is not None and before.first == gap.first:
            place -= 1
        return self.moments[place].at

    def moments_between(self, after: datetime, until: datetime) -> list[FeedMoment]:
        """Return what was seen of the feed after one time and up to another."""
        begin, end = (bisect_right(self.moments, at, key=lambda each: each.at) for at in (after, until))
        return self.moments[begin:end]

    def consumers_at(self, at: datetime) -> ConsumersMoment | None:
        """Return the consumers then, None where they were not recorded."""
        return self._last(self.consumers, at)

    def health_at(self, at: datetime) -> HealthMoment | None:
        """Return the figures then, None where they were not recorded."""
        return self._last(self.health, at)

    def findings_at(self, at: datetime) -> DoctorMoment | None:
        """Return what the doctor had found then, None where that was not recorded."""
        return self._last(self.findings, at)

    def _last(self, kept: list[T], at: datetime) -> T | None:
        if not kept or not self.recorded(at):
            return None
        # What was read at the beginning is of the beginning, though it took a moment.
        return kept[max(bisect_right(kept, at, key=lambda each: each.at) - 1, 0)]

    def next(self, at: datetime) -> datetime:
        """Return the next time after `at` at which an event appeared or the feed was seen to change; else the end."""
        now = microseconds(at)
        found = [each[place] for each in (self._times, self._marks) if (place := bisect_right(each, now)) < len(each)]
        return self.within(moment_of(min(found))) if found else self.end

    def before(self, at: datetime) -> datetime:
        """Return the last such time before `at`; else the begin."""
        now = microseconds(at)
        found = [each[place - 1] for each in (self._times, self._marks) if (place := bisect_left(each, now))]
        return self.within(moment_of(max(found))) if found else self.begin

    def density(self, cells: int) -> list[int]:
        """Return how many events appeared in each of so many equal parts of the time."""
        begin, length = microseconds(self.begin), max(microseconds(self.end) - microseconds(self.begin), 1)
        edges = [bisect_left(self._times, begin + length * part // cells) for part in range(cells + 1)]
        edges[-1] = len(self._times)
        return [after - before for before, after in pairwise(edges)]
