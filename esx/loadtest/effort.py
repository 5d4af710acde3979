"""How busy the generator itself is: a saturated one measures itself more than the store."""

import contextlib
import time
from pathlib import Path
from typing import NamedTuple

_THREADS = Path("/proc/self/task")


class Effort(NamedTuple):
    """Shares of a core, over some time.

    `cpu` is what the process used. `wait` is how long its busiest thread was ready to run while other processes had
    all cores; 0 where the system does not say.
    """

    cpu: float
    wait: float

    @property
    def busy(self) -> float:
        """The share of time in which it could not have done more."""
        return self.cpu + self.wait


class Gauge:
    """Measures the effort of this process: since the last reading, and since a mark."""

    def __init__(self) -> None:
        self._last = self._mark = _read()

    def mark(self) -> None:
        """Let `whole` count from now on."""
        self._mark = _read()

    def recent(self) -> Effort:
        """Return the effort since the last call."""
        last, self._last = self._last, _read()
        return _effort(last, self._last)

    def whole(self) -> Effort:
        """Return the effort since the mark."""
        return _effort(self._mark, _read())


class _Reading(NamedTuple):
    at: float
    cpu: float
    threads: dict[str, tuple[int, int]]
    """Nanoseconds that each thread ran and waited for a core."""


def _read() -> _Reading:
    threads: dict[str, tuple[int, int]] = {}
    with contextlib.suppress(OSError, ValueError):  # not Linux, or a thread that has just ended
        for thread in _THREADS.iterdir():
            ran, waited, _ = (thread / "schedstat").read_text(encoding="ascii").split()
            threads[thread.name] = int(ran), int(waited)
    return _Reading(time.perf_counter(), time.process_time(), threads)


def _effort(begin: _Reading, end: _Reading) -> Effort:
    seconds = max(end.at - begin.at, 1e-6)
    busiest = (0, 0)
    for thread, (ran, waited) in end.threads.items():
        ran_before, waited_before = begin.threads.get(thread, (0, 0))
        busiest = max(busiest, (ran - ran_before, waited - waited_before))
    return Effort((end.cpu - begin.cpu) / seconds, busiest[1] / 1e9 / seconds)
