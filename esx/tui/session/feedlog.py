"""What the Feed screen shows of the feed: the latest events, and counts of all. No screen here."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from esx.text import age
from esx.tui.lists.rows import EventRow

HISTORY = 100
"""With how many earlier events the feed begins."""
_MINUTE = 60
OTHERS = "(other types)"
"""Stands for the types beyond the 500 that are counted one by one."""


class TypeRate(NamedTuple):
    """A type in the last minute: its events, how many a second now, and how many in each second, oldest first."""

    name: str
    events: int
    current: float
    series: list[int]


class Rates:
    """Events of the last minute, counted by type and second, in bounded memory.

    `known` is for how many seconds before the first call the events are known, and will be added.
    """

    def __init__(self, seconds: int = _MINUTE, *, known: float = 0.0) -> None:
        before = [Counter[str]() for _ in range(int(min(known, seconds)))]
        self._seconds: deque[Counter[str]] = deque([*before, Counter()], maxlen=seconds + 1)
        self._total: Counter[str] = Counter()
        self._second: int | None = None

    def add(self, types: Iterable[str], now: float, *, age: float = 0.0) -> None:
        """Count events by their types, as of `age` seconds before `now`."""
        self._turn(now)
        back = int(now) - int(now - max(age, 0.0))
        if back >= len(self._seconds):
            return
        second = self._seconds[-1 - back]
        for name, count in Counter(types).items():
            kept = name if name in second or len(second) < 500 else OTHERS
            second[kept] += count
            self._total[kept] += count

    def known(self, now: float) -> int:
        """Return for how many full seconds before `now` the events are counted, a minute at most."""
        self._turn(now)
        return len(self._seconds) - 1

    def series(self, now: float) -> list[int]:
        """Return how many events came in each full second that is known, oldest first."""
        self._turn(now)
        return [second.total() for second in self._seconds][:-1]

    def top(self, most: int, now: float) -> list[TypeRate]:
        """Return the `most` frequent types, the most frequent first."""
        self._turn(now)
        whole = list(self._seconds)[:-1]
        rates = []
        for name, count in self._total.most_common(most):
            series = [second[name] for second in whole]
            rates.append(TypeRate(name, count, current(series), series))
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


def current(series: Sequence[int]) -> float:
    """Return the events a second over the last three seconds."""
    recent = series[-3:]
    return sum(recent) / len(recent) if recent else 0.0


class FeedLog:
    """The last events of the feed, in order, with a pause that keeps counting.

    While paused, events wait; `waiting` is how many have come since. `gone` counts the events that are no longer kept,
    shown or not.
    """

    def __init__(self, kept: int = 5000) -> None:
        self.rows: list[EventRow] = []
        self.received = 0
        self.gone = 0
        self.paused = False
        self.waiting = 0
        self.rates = Rates()
        self.late: dict[int, float] = {}
        """By how many seconds events came late, by global_seq."""
        self._kept = kept
        self._held: deque[EventRow] = deque(maxlen=kept)

    def clear(self) -> None:
        """Forget everything."""
        self.rows = []
        self.received = self.gone = self.waiting = 0
        self.paused = False
        self.rates = Rates()
        self.late.clear()
        self._held.clear()

    def add_late(self, late: Mapping[int, float]) -> None:
        """Take in by how many seconds events came late, by global_seq."""
        self.late.update(late)
        for number in list(self.late)[: -self._kept]:
            del self.late[number]

    def add(self, rows: Sequence[EventRow], now: float, *, history: bool = False) -> None:
        """Take in events; `history` marks those from before the feed began to follow.

        When those arrived is not known any more, so they count from when they were created.
        """
        self.received += len(rows)
        if not history:
            self.rates.add((row.event_type for row in rows), now)
        else:
            for row in rows:
                since = age(row.created_at)
                if since is not None and -_MINUTE < since <= _MINUTE:
                    self.rates.add((row.event_type,), now, age=since)
        self._held.extend(rows)
        self.waiting += len(rows)

    def latest(self, after: int) -> list[EventRow] | None:
        """Return the events after a global_seq; None if they are no longer all kept."""
        found: list[EventRow] = []
        for row in chain(reversed(self._held), reversed(self.rows)):
            if row.global_seq <= after:
                return found
            found.append(row)
        return None

    def flush(self) -> int | None:
        """Move the waiting events to `rows`, unless paused.

        Return how many rows left at the top, None if nothing moved.
        """
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
