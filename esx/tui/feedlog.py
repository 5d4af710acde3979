"""What the Feed screen shows of the feed: the latest events, and honest counts of the rest. No screen here."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from esx.tui.rows import EventRow

KEPT = 5000
HISTORY = 100
"""How many events that were there already the feed begins with."""
_SECONDS = 240
_MINUTE = 60
_MOST_TYPES = 500
OTHERS = "(other types)"
"""Stands for the types beyond those that are counted each by itself."""


class Rate:
    """Events counted by the second they came in."""

    def __init__(self, seconds: int = _SECONDS) -> None:
        self._counts: deque[int] = deque([0], maxlen=seconds)
        self._second: int | None = None

    def add(self, count: int, now: float) -> None:
        """Count `count` events at the time `now`, in seconds."""
        self._turn(now)
        self._counts[-1] += count

    def series(self, now: float) -> list[int]:
        """Return the counts of the seconds gone by, oldest first."""
        self._turn(now)
        return list(self._counts)[:-1]

    def current(self, now: float, over: int = 3) -> float:
        """Return the events a second over the last `over` whole seconds."""
        recent = self.series(now)[-over:]
        return sum(recent) / len(recent) if recent else 0.0

    def _turn(self, now: float) -> None:
        second = int(now)
        if self._second is None:
            self._second = second
        for _ in range(min(second - self._second, _SECONDS)):
            self._counts.append(0)
        self._second = max(second, self._second)


class TypeRate(NamedTuple):
    """A type of the last minute: how many came, how many a second by now, and how many in each second, oldest first."""

    name: str
    events: int
    current: float
    series: list[int]


class TypeRates:
    """Events of the last minute, counted by type and second. However many types there are, memory is bounded."""

    def __init__(self, seconds: int = _MINUTE) -> None:
        self._seconds: deque[Counter[str]] = deque([Counter()], maxlen=seconds + 1)
        self._total: Counter[str] = Counter()
        self._second: int | None = None

    def add(self, types: Iterable[str], now: float) -> None:
        """Count events by their types at the time `now`, in seconds."""
        self._turn(now)
        counted = Counter(types)
        newest = self._seconds[-1]
        for name, count in counted.items():
            kept = name if name in newest or len(newest) < _MOST_TYPES else OTHERS
            newest[kept] += count
            self._total[kept] += count

    def top(self, most: int, now: float) -> list[TypeRate]:
        """Return the `most` frequent types, the most frequent first."""
        self._turn(now)
        whole = list(self._seconds)[:-1]
        rates = []
        for name, count in self._total.most_common(most):
            series = [second[name] for second in whole]
            recent = series[-3:]
            rates.append(TypeRate(name, count, sum(recent) / len(recent) if recent else 0.0, series))
        return rates

    def _turn(self, now: float) -> None:
        second = int(now)
        if self._second is None:
            self._second = second
        for _ in range(min(second - self._second, _MINUTE + 1)):
            if len(self._seconds) == self._seconds.maxlen:
                for name, count in self._seconds[0].items():
                    self._total[name] -= count
                    if not self._total[name]:
                        del self._total[name]
            self._seconds.append(Counter())
        self._second = max(second, self._second)


class FeedLog:
    """The last events of the feed, in order, with a pause that keeps counting.

    While paused, events wait; `waiting` says how many have come since. `gone` counts the events that came and are no
    longer among those kept, or waited in vain.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.rows: list[EventRow] = []
        self.received = 0
        self.gone = 0
        self.paused = False
        self.waiting = 0
        self.rate = Rate()
        self.types = TypeRates()
        self.late: dict[int, float] = {}
        """By how many seconds those of the latest events came late that did, by global_seq."""
        self._kept = kept
        self._held: deque[EventRow] = deque(maxlen=kept)

    def clear(self) -> None:
        """Begin anew, as if nothing had come."""
        self.rows = []
        self.received = self.gone = self.waiting = 0
        self.paused = False
        self.rate, self.types = Rate(), TypeRates()
        self.late.clear()
        self._held.clear()

    def add_late(self, late: Mapping[int, float]) -> None:
        """Take note of which events were waited for, and by how many seconds each came late."""
        self.late.update(late)
        for number in list(self.late)[: -self._kept]:
            del self.late[number]

    def add(self, rows: Sequence[EventRow], now: float, *, history: bool = False) -> None:
        """Take in events; `history` marks those that were there before the feed began to follow."""
        self.received += len(rows)
        if not history:
            self.rate.add(len(rows), now)
            self.types.add((row.event_type for row in rows), now)
        self._held.extend(rows)
        self.waiting += len(rows)

    def flush(self) -> int | None:
        """Move what came in to `rows`, unless paused; return how many rows went from the top, None if nothing moved."""
        if self.paused or not self.waiting:
            return None
        self.gone += self.waiting - len(self._held)
        self.waiting = 0
        self.rows += self._held
        self._held.clear()
        surplus = max(len(self.rows) - self._kept, 0)
        del self.rows[:surplus]
        self.gone += surplus
        return surplus
