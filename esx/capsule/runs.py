"""Runs of numbers that were seen, each number once."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Runs:
    """A set of numbers, as runs in ascending order."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def add(self, first: int, last: int) -> list[tuple[int, int]]:
        """Add the numbers `first` to `last`, and return the runs of those that are new."""
        if last < first:
            return []
        begin = bisect_left(self._lasts, first)
        end = bisect_right(self._firsts, last)
        new = []
        at = first
        for there, until in zip(self._firsts[begin:end], self._lasts[begin:end], strict=True):
            if there > at:
                new.append((at, there - 1))
            at = max(at, until + 1)
        if at <= last:
            new.append((at, last))
        if new:
            firsts = [first, *self._firsts[begin:end]]
            lasts = [last, *self._lasts[begin:end]]
            self._firsts[begin:end], self._lasts[begin:end] = [min(firsts)], [max(lasts)]
        return new

    def forget(self, upto: int) -> None:
        """Forget the numbers up to `upto`."""
        gone = bisect_right(self._lasts, upto)
        del self._firsts[:gone], self._lasts[:gone]
