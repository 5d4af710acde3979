"""What was when: when each event appeared, and what was known of the feed, the consumers and the store at a time."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TypeVar

from esx.capsule.format import (
    CONSUMERS,
    DOCTOR,
    FEED,
    HEALTH,
    CapsuleInfo,
    ConsumersMoment,
    DoctorMoment,
    FeedMoment,
    HealthMoment,
)
from esx.capsule.kept import Kept, microseconds, moment_of
from esx.capsule.reading import Capsule

_EARLIEST = microseconds(datetime(1900, 1, 1, tzinfo=UTC))
_NUMBER = 2**63
"""Above all numbers: a time and a number are one number, which takes less than half of the memory of a pair."""

T = TypeVar("T")


class FeedSeen:
    """What was seen of the feed: `moments`, and of each the position, and where the gap began at which it waited."""

    def __init__(self, capsule: Capsule) -> None:
        """Read it. Raises BadCapsule."""
        self.positions = array("q")
        self.runs: list[tuple[int, int, int]] = []
        """Runs of numbers that were visible beyond the position: first, last, and when."""
        self._capsule = capsule
        self._held = array("q")
        self._telling = array("q")
        self._gap: int | None = None
        self.moments: Kept[FeedMoment] = Kept(capsule, FEED, self._look)
        self.runs.sort()

    def _look(self, moment: FeedMoment) -> None:
        place, position = len(self.positions), moment.counts.position
        if place and position < self.positions[-1]:
            raise self._capsule.bad("the position of the feed goes back")
        self.positions.append(position)
        gap = None if moment.gap is None else moment.gap.first
        self._held.append(-1 if gap is None else self._held[-1] if place and gap == self._gap else place)
        self._gap = gap
        if moment.late or moment.missed:
            self._telling.append(place)
        if moment.visible:
            at = microseconds(moment.at)
            self.runs += [(first, last, at) for first, last in moment.visible]
            if len(self.runs) > self._capsule.bounds.runs:
                raise self._capsule.bad(f"it has more than {self._capsule.bounds.runs:,} runs of visible numbers")

    def held_since(self, place: int) -> int | None:
        """Return the place of the moment since which it waited at the gap of another one."""
        since = self._held[place]
        return None if since < 0 else since

    def telling(self, begin: int, end: int) -> list[FeedMoment]:
        """Return the moments in these places that tell of events which came late or were missed."""
        first, last = bisect_left(self._telling, begin), bisect_left(self._telling, end)
        return [self.moments[place] for place in self._telling[first:last]]


class Appearances:
    """Says when an event appeared.

    Where it was recorded, an event appeared when it was seen first: beyond a gap, or when the feed handed it out. What
    was there when the recording began appeared when it was created, as far as anybody knows, and not later.
    """

    def __init__(self, info: CapsuleInfo, seen: FeedSeen) -> None:
        self._begun = microseconds(info.begun)
        # Of an older event nobody wants to see by the clock when it came.
        self._since = _EARLIEST if info.since is None else min(microseconds(info.since), self._begun)
        self._positions = seen.positions
        self._times = seen.moments.times
        self._firsts = array("q", [first for first, _, _ in seen.runs])
        self._runs = seen.runs
        self._there = self._times[0] if self._times else self._begun
        """What was seen at this first moment was there before."""

    def of(self, global_seq: int, created_at: datetime | None) -> int:
        """Return when an event appeared, in microseconds since 1970."""
        seen = bisect_left(self._positions, global_seq)
        # What still waited at the end was seen when a look went beyond the gap, at the last one at the latest.
        at = self._times[min(seen, len(self._times) - 1)] if self._times else self._there
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
        self._feed = FeedSeen(capsule)
        self._consumers: Kept[ConsumersMoment] = Kept(capsule, CONSUMERS)
        self._health: Kept[HealthMoment] = Kept(capsule, HEALTH)
        self._findings: Kept[DoctorMoment] = Kept(capsule, DOCTOR)
        self.appearances = Appearances(info, self._feed)
        self._appeared: list[int] = []
        self._numbers, self._times_of = array("q"), array("q")
        self._times, self._heads = array("q"), array("q")
        self._marks = self._feed.moments.times

    def appeared(self, events: Sequence[tuple[int, int]]) -> None:
        """Add events in ascending global_seq: when each appeared, in microseconds since 1970, and its global_seq."""
        self._appeared += [at * _NUMBER + number for at, number in events]
        self._numbers.extend(number for _, number in events)
        self._times_of.extend(at for at, _ in events)

    def settle(self) -> None:
        """Note that all events are there."""
        self._appeared.sort()
        head = 0
        for each in self._appeared:
            at, number = divmod(each, _NUMBER)
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
        return self._last(self._feed.moments, at)

    def held_since(self, at: datetime) -> datetime | None:
        """Return since when the feed had waited at the gap at which it waited then, None if it did not wait."""
        place = self._feed.moments.last(at)
        since = self._feed.held_since(place) if place >= 0 and self.recorded(at) else None
        return None if since is None else moment_of(self._feed.moments.times[since])

    def told_between(self, after: datetime, until: datetime) -> list[FeedMoment]:
        """Return what was seen after one time and up to another of events that came late or were missed."""
        return self._feed.telling(self._feed.moments.last(after) + 1, self._feed.moments.last(until) + 1)

    def consumers_at(self, at: datetime) -> ConsumersMoment | None:
        """Return the consumers then, None where they were not recorded."""
        return self._last(self._consumers, at)

    def health_at(self, at: datetime) -> HealthMoment | None:
        """Return the figures then, None where they were not recorded."""
        return self._last(self._health, at)

    def findings_at(self, at: datetime) -> DoctorMoment | None:
        """Return what the doctor had found then, None where that was not recorded."""
        return self._last(self._findings, at)

    def _last(self, kept: Kept[T], at: datetime) -> T | None:
        if not kept or not self.recorded(at):
            return None
        # What was read at the beginning is of the beginning, though it took a moment.
        return kept[max(kept.last(at), 0)]

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

    def share(self, at: datetime) -> float:
        """Return where a time is on a line of all times, from 0 to 1.

        What was not recorded takes no more than half of it where the feed was followed: that is what one goes through.
        """
        begin, begun, end = map(microseconds, (self.begin, self.info.begun, self.end))
        now, part = microseconds(self.within(at)), self._unrecorded
        if now < begun:
            return part * (now - begin) / (begun - begin)
        return part + (1 - part) * (now - begun) / max(end - begun, 1)

    def at_share(self, share: float) -> datetime:
        """Return the time that is there on that line."""
        part, info = self._unrecorded, self.info
        if share < part:
            return self.begin + (info.begun - self.begin) * (share / part)
        return self.within(info.begun + (self.end - info.begun) * ((share - part) / max(1 - part, 1e-9)))

    @property
    def _unrecorded(self) -> float:
        before, whole = self.info.begun - self.begin, self.end - self.begin
        part = before / whole if whole else 0.0
        return min(part, 0.5) if self.info.followed else part

    def density(self, cells: int) -> list[int]:
        """Return how many events appeared in each of so many equal parts of that line."""
        edges = [bisect_left(self._times, microseconds(self.at_share(part / cells))) for part in range(cells + 1)]
        edges[0], edges[-1] = 0, len(self._times)
        return [after - before for before, after in pairwise(edges)]
