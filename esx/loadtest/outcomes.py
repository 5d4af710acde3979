"""Noting the outcome of each append in the users' thread, with one append to a deque each, without gevent."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

SUCCESS, CONFLICT, ERROR, UNKNOWN = OUTCOMES = ("success", "conflict", "error", "unknown")
RESPONSE, TIME_TO_SUCCESS = COMMANDS = ("response", "time_to_success")


class Outcomes:
    """Takes outcomes in the users' thread; `drain` gives them to another thread. Times are nanoseconds."""

    def __init__(self) -> None:
        self._successes: deque[tuple[int, int]] = deque()
        self._conflicts: deque[tuple[int, int]] = deque()
        self._failures: deque[tuple[str, int, str]] = deque()
        self._commands: deque[tuple[int, int]] = deque()
        self.success = self._successes.append
        """Note (stream, nanoseconds) of a successful append."""
        self.conflict = self._conflicts.append
        """Note (stream, nanoseconds) of a wrong version."""
        self.command = self._commands.append
        """Note a command's end: (nanoseconds from its intended start, from its first try to success or -1)."""
        self.warm_up = [0, 0, 0, 0]
        """Appends that do not count, in the order of OUTCOMES."""

    def error(self, took: int, message: str) -> None:
        """Note an append that failed: nothing was stored."""
        self._failures.append((ERROR, took, message))

    def unknown(self, took: int, message: str) -> None:
        """Note an append whose answer was lost: it may have been stored."""
        self._failures.append((UNKNOWN, took, message))

    def drain(self) -> Drained:
        """Return what was noted since the last call."""
        return Drained(*(_take(each) for each in (self._successes, self._conflicts, self._failures, self._commands)))


class Drained:
    """What users noted in a short time."""

    def __init__(
        self,
        successes: list[tuple[int, int]],
        conflicts: list[tuple[int, int]],
        failures: list[tuple[str, int, str]],
        commands: list[tuple[int, int]],
    ) -> None:
        self.times: dict[str, list[int]] = {
            SUCCESS: [took for _, took in successes],
            CONFLICT: [took for _, took in conflicts],
            ERROR: [took for outcome, took, _ in failures if outcome == ERROR],
            UNKNOWN: [took for outcome, took, _ in failures if outcome == UNKNOWN],
            RESPONSE: [response for response, _ in commands],
            TIME_TO_SUCCESS: [took for _, took in commands if took >= 0],
        }
        self.successes = Counter([stream for stream, _ in successes])
        self.conflicts = Counter([stream for stream, _ in conflicts])
        self.messages = Counter([message for _, _, message in failures])


def _take(queue: deque[Any]) -> list[Any]:
    # A deque's append and popleft are atomic, and the length is taken first: nothing is lost or seen twice.
    return [queue.popleft() for _ in range(len(queue))]
