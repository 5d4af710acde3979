"""Keeps the lines of a member in memory as they are: a file from anybody can have millions of small values."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import msgspec

from esx.capsule.format import KINDS
from esx.capsule.reading import Capsule

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

T = TypeVar("T")


def microseconds(at: datetime) -> int:
    """Return the microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def moment_of(at: int) -> datetime:
    """Return the time that is so many microseconds after 1970."""
    return _EPOCH + at * _MICROSECOND


class Kept(Generic[T]):
    """The values of a member, each with its time, in the order of these; they are decoded when they are asked for.

    `look` gets each value once, in that order. Raises BadCapsule for what cannot be decoded.
    """

    def __init__(self, capsule: Capsule, name: str, look: Callable[[T], None] | None = None) -> None:
        self._decode = msgspec.json.Decoder(KINDS[name]).decode
        self._latest: tuple[int, T] | None = None
        self._text = bytearray()
        self._ends = array("q")
        self.times = array("q")
        """When each was, in microseconds since 1970."""
        for value, line in capsule.decoded(name):
            self._text += line
            self._ends.append(len(self._text))
            self.times.append(microseconds(value.at))
            if look is not None:
                look(value)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> T:
        # The same one is asked for again and again, and may be large.
        if self._latest is None or self._latest[0] != place:
            begin = self._ends[place - 1] if place else 0
            found: T = self._decode(memoryview(self._text)[begin : self._ends[place]])
            self._latest = place, found
        return self._latest[1]

    def last(self, at: datetime) -> int:
        """Return the place of the last value up to a time, -1 if there is none."""
        return bisect_right(self.times, microseconds(at)) - 1
