"""Draws appends like those of a store that was learned: categories, streams, births, types, sizes, bursts.

The streams of all categories have numbers of their own, as those of a run are told apart by their numbers.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from esx.load.learn.profile import CategoryTraffic, TrafficProfile
from esx.loadtest.draws import source
from esx.model import JsonText

_MOST_KEPT = 10_000
_FIRST_BIRTH = 2**31
"""The numbers from here on are those of streams that begin during the run."""


@dataclass(frozen=True, slots=True)
class AppendDraw:
    """What one append is to be: its stream, whether that is to be new, and of each event the type and the data.

    The data are there, or only how many bytes they are to have.
    """

    stream: int
    begins: bool
    events: tuple[tuple[str, int | JsonText], ...]


class Mix:
    """The streams of a run, which all of its writers share: who appends to a young one meets the others there."""

    def __init__(self, profile: TrafficProfile, name: str, counted: tuple[float, float] | None = None) -> None:
        """Make them; `name` is what their bursts are drawn from.

        Within the seconds of the run that are `counted` the mean rate is the one that is asked for: a short run would
        otherwise be one burst, or none.
        """
        self._name = name
        self._births = _FIRST_BIRTH
        first = 0
        self._categories: list[_Category] = []
        for each in profile.categories:
            self._categories.append(_Category(each, first, self.birth))
            first += each.streams
        self._shares = list(accumulate(each.share for each in profile.categories))
        arrivals = profile.arrivals
        self._length = arrivals.burst_seconds
        self._spread = arrivals.burst_spread
        self._rates: dict[int, float] = {}
        self._scale = 1.0
        if counted is not None and self._spread:
            self._scale = self._level(*counted)

    @property
    def largest(self) -> int:
        """The largest size of an event's data."""
        return max(max(kind.bytes, default=0) for each in self._categories for kind in each.types)

    def birth(self) -> int:
        """Return the number of a new stream."""
        self._births += 1
        return self._births - 1

    def drawer(self, draw: random.Random) -> Callable[[], AppendDraw]:
        """Return a function that draws the next append of one writer."""
        shares, categories = self._shares, self._categories

        def next_append() -> AppendDraw:
            return categories[_pick(shares, draw)].next(draw)

        return next_append

    def rate_at(self, seconds: float) -> tuple[float, float]:
        """Return what the rate of appends is multiplied by at a time of the run, and until when."""
        if not self._spread:
            return 1.0, seconds + 3600.0
        number = int(seconds / self._length + 1e-9)
        return self._burst(number) * self._scale, (number + 1) * self._length

    def _burst(self, number: int) -> float:
        rate = self._rates.get(number)
        if rate is None:
            if len(self._rates) > _MOST_KEPT:
                self._rates.clear()
            # The same for all writers, however their times are asked for.
            own = source(0, self._name, "bursts", number)
            rate = self._rates[number] = own.gammavariate(1 / self._spread, self._spread)
        return rate

    def _level(self, begin: float, end: float) -> float:
        """Return by what the bursts between two times are to be multiplied, so that their mean is 1."""
        first, last = int(begin / self._length), int(end / self._length)
        if last - first >= _MOST_KEPT:
            return 1.0  # so many are near it
        total = 0.0
        for number in range(first, last + 1):
            part = min((number + 1) * self._length, end) - max(number * self._length, begin)
            total += self._burst(number) * max(part, 0.0)
        return (end - begin) / total if total > 0 else 1.0


class _Category:
    def __init__(self, traffic: CategoryTraffic, first: int, birth: Callable[[], int]) -> None:
        self._birth = birth
        self._births = traffic.births
        self._recency = traffic.heat == "recency"
        # In the order of their ages, the youngest last.
        self._streams = list(range(first, first + traffic.streams))
        self._oldest = 0
        self._ranks = list(accumulate(_weights(traffic)))
        self._sizes = [size for size, _ in traffic.events_per_append]
        self._size_shares = list(accumulate(share for _, share in traffic.events_per_append))
        self.types = traffic.types
        self._type_shares = list(accumulate(each.share for each in traffic.types))

    def next(self, draw: random.Random) -> AppendDraw:
        begins = draw.random() < self._births
        stream = self._begin() if begins else self._old(_pick(self._ranks, draw))
        size = self._sizes[_pick(self._size_shares, draw)]
        return AppendDraw(stream, begins, tuple(self._event(draw) for _ in range(size)))

    def _begin(self) -> int:
        stream = self._birth()
        if self._recency:
            # It takes the place of the oldest in the ring.
            self._streams[self._oldest] = stream
            self._oldest = (self._oldest + 1) % len(self._streams)
        return stream

    def _old(self, rank: int) -> int:
        """Return the stream of a rank from 0: the youngest or the most popular first."""
        if not self._recency:
            return self._streams[rank]
        return self._streams[(self._oldest - 1 - rank) % len(self._streams)]

    def _event(self, draw: random.Random) -> tuple[str, int]:
        chosen = self.types[_pick(self._type_shares, draw)]
        return chosen.name, _size(chosen.bytes, draw)


def _weights(traffic: CategoryTraffic) -> list[float]:
    """Return the weight of each rank: the first has the share of the hottest, the others follow the law."""
    weights = [float(rank) ** -traffic.zipf for rank in range(1, traffic.streams + 1)]
    others = sum(weights[1:])
    if others:
        weights = [traffic.hottest, *(each * (1 - traffic.hottest) / others for each in weights[1:])]
    return weights


def _pick(sums: Sequence[float], draw: random.Random) -> int:
    return min(bisect_left(sums, draw.random() * sums[-1]), len(sums) - 1)


def _size(quantiles: Sequence[int], draw: random.Random) -> int:
    """Return a size from between two of the quantiles."""
    if len(quantiles) < 2:
        return quantiles[0] if quantiles else 0
    place = draw.random() * (len(quantiles) - 1)
    at = int(place)
    return round(quantiles[at] + (quantiles[at + 1] - quantiles[at]) * (place - at))


class BurstySchedule:
    """The times at which one user's commands are due: a Poisson process whose rate changes as `rate_at` says.

    Times are nanoseconds, from `begin` on. They do not wait for the user.
    """

    def __init__(
        self, per_second: float, begin: int, draw: random.Random, rate_at: Callable[[float], tuple[float, float]]
    ) -> None:
        self._per_second = per_second
        self._begin = begin
        self._draw = draw.expovariate
        self._rate_at = rate_at
        self._at = 0.0

    def next(self) -> int:
        """Return when the next command is due."""
        left = self._draw(1.0)
        while True:
            factor, until = self._rate_at(self._at)
            room = self._per_second * factor * (until - self._at)
            if left < room:
                self._at += left / (self._per_second * factor)
                return self._begin + int(self._at * 1e9)
            left -= room
            self._at = until
