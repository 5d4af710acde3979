"""The numbers that a reader of the global order waits for, and since when."""

import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from esx.postgres.values import Rows


class Run(NamedTuple):
    """Numbers `first` to `last`, missing since the time `since`."""

    first: int
    last: int
    since: float


class Missing:
    """Remembers the numbers that the barrier waits for, to find those that came late. It is false if there are none."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        """In ascending order."""
        self._late: dict[int, float] = {}

    def __bool__(self) -> bool:
        return bool(self._runs or self._late)

    def see(self, position: int, rows: Rows) -> None:
        """Compare `rows`, visible after `position`, with the numbers that were missing before."""
        now = time.monotonic()
        known = deque(self._runs)
        missing: list[Run] = []
        last = position
        for row in rows:
            number = row[0]
            if number != last + 1:
                missing += _overlaid(last + 1, number - 1, known, now)
            while known and known[0].last < number:
                known.popleft()
            if known and known[0].first <= number:
                self._late.setdefault(number, now - known[0].since)
            last = number
        # Nothing new is known beyond the page.
        self._runs = missing + [run._replace(first=max(run.first, last + 1)) for run in known if run.last > last]

    def passed(self, position: int) -> Mapping[int, float]:
        """Forget the numbers up to `position`; return those that came late, each with its delay in seconds."""
        self._runs = [run for run in self._runs if run.last > position]
        late = {number: delay for number, delay in self._late.items() if number <= position}
        for number in late:
            del self._late[number]
        return late


def _overlaid(first: int, last: int, known: deque[Run], now: float) -> list[Run]:
    """Return the missing numbers `first` to `last` as runs: those in `known` with their time, the rest with `now`."""
    runs = []
    while known and known[0].first <= last and first <= last:
        run = known[0]
        if run.last >= first:
            if run.first > first:
                runs.append(Run(first, run.first - 1, now))
            runs.append(Run(max(run.first, first), min(run.last, last), run.since))
            first = min(run.last, last) + 1
        if run.last > last:
            break
        known.popleft()
    return [*runs, Run(first, last, now)] if first <= last else runs
