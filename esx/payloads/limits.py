"""How much of a payload is decoded, and reading bytes within these bounds."""

import re
from collections.abc import Iterable
from typing import Any

from esx.fold.value import dump

MOST_BYTES = 8_000_000
"""The size of the largest payload that is decoded, also after it is decompressed."""
MOST_VALUES = 100_000
DEEPEST = 64
_MOST_DIGITS = 256
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Undecodable(Exception):
    """The bytes are not in the format, or beyond the bounds. The message is a few words."""


class Budget:
    """Counts the values of a payload."""

    def __init__(self) -> None:
        self.values = 0

    def spend(self, depth: int) -> None:
        """Count one value at a depth. Raises Undecodable beyond the bounds."""
        self.values += 1
        if self.values > MOST_VALUES:
            raise Undecodable(f"it has more than {MOST_VALUES:,} values")
        if depth > DEEPEST:
            raise Undecodable(f"it is nested deeper than {DEEPEST}")


class ByteReader:
    """Reads bytes from the start on. Every method raises Undecodable where the bytes end too early."""

    def __init__(self, raw: bytes, budget: Budget | None = None) -> None:
        self.raw = raw
        self.at = 0
        self.budget = budget or Budget()

    @property
    def ended(self) -> bool:
        """Whether all bytes are read."""
        return self.at == len(self.raw)

    def take(self, size: int) -> bytes:
        """Read `size` bytes."""
        end = self.at + size
        if end > len(self.raw):
            raise Undecodable("it ends too early")
        piece = self.raw[self.at : end]
        self.at = end
        return piece

    def number(self, size: int, *, signed: bool = False) -> int:
        """Read an integer of `size` bytes, the highest first."""
        return int.from_bytes(self.take(size), signed=signed)


def integer(raw: bytes, *, negative: bool) -> int:
    """Return an integer of many bytes, the lowest first. Raises Undecodable if it would take long to write it."""
    if len(raw) > _MOST_DIGITS:
        raise Undecodable(f"it has a number of {len(raw):,} bytes")
    value = int.from_bytes(raw, "little")
    return -value if negative else value


def finite(value: float) -> float | str:
    """Return a number that JSON has: the others as text."""
    return value if value - value == 0 else str(value)


def hexed(raw: bytes) -> str:
    """Return bytes within a decoded document as text."""
    return f"0x{raw.hex()}"


def words(raw: bytes) -> str | None:
    """Return bytes as text, None if they are none that people read."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text


def named(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """Return an object of JSON: names that are no text are written as JSON, and none replaces another."""
    found: dict[str, Any] = {}
    times: dict[str, int] = {}
    for name, value in pairs:
        text = name if isinstance(name, str) else dump(name)
        while text in found:
            times[text] = times.get(text, 1) + 1
            text = f"{text} ({times[text]})"
        found[text] = value
    return found
