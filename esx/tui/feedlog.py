"""What the Feed screen shows of the feed: the latest events, and honest counts of the rest. No screen here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.tui.rows import EventRow

KEPT = 5000
HISTORY = 100
"""How many events that were there already the feed begins with."""
_SECONDS = 240


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
        self._kept = kept
        self._held: deque[EventRow] = deque(maxlen=kept)

    def add(self, rows: Sequence[EventRow], now: float, *, history: bool = False) -> None:
        """Take in events; `history` marks those that were there before the feed began to follow."""
        self.received += len(rows)
        if not history:
            self.rate.add(len(rows), now)
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
