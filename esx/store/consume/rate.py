"""How many events a second a consumer handles."""

import time
from collections import deque

_OVER = 10.0
"""Seconds that the rate is an average of."""


class RateMeter:
    """Counts what was handled, and returns the rate of the last ten seconds."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        """When something was counted, and how much in all by then; the first is before the last ten seconds, if any."""

    def count(self, handled: int) -> float:
        """Count, and return how many that are a second."""
        now = time.monotonic()
        self._steps.append((now, self._steps[-1][1] + handled))
        while len(self._steps) > 2 and self._steps[1][0] <= now - _OVER:
            self._steps.popleft()
        began, before = self._steps[0]
        return (self._steps[-1][1] - before) / max(now - began, 0.001)
