"""Finds masked values in texts, in any of their usual spellings, in time that the length of the text bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Context, InvalidOperation
from itertools import islice
from typing import NamedTuple
from urllib.parse import quote, quote_plus

LEAST = 6
"""How many characters a value has that is looked for everywhere; a shorter one stands in other texts by chance."""
LONGEST = 100
"""How many characters of a value are looked for: a text that has so many of one counts as having it."""
UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_EXACT = Context(prec=200)
_LARGEST = 40
_BLOCK = 2**14
_SLICES = tuple(slice(at, at + LEAST) for at in range(_BLOCK))
_PLAIN = re.compile(r"[\w.~-]*", re.ASCII)
_LOWER = {ord(letter): ord(letter.lower()) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_ADDRESS = ";,/?:@&=+$-_.!~*'()#"


class Match(NamedTuple):
    """Where a value stands in a text, in one of its spellings; `cut`: only its first characters were compared."""

    begin: int
    end: int
    value: str
    cut: bool


class Spellings:
    """Values to look for; upper and lower case of A to Z are the same."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, bool]] = {}
        self._lengths: dict[str, list[int]] = {}
        self._starts: set[bytes] = set()

    def add(self, spelling: str, value: str) -> None:
        """Look for a spelling of a value; of two values that are spelled alike the first one counts."""
        sought = _folded(spelling[:LONGEST])
        if len(sought) < LEAST or sought in self._values:
            return
        self._values[sought] = value, len(spelling) > LONGEST
        # Also as it is in a line of JSON, where there is an escape in its first characters.
        for start in {sought, json.encoder.encode_basestring(sought)[1:-1]}:
            self._starts.add(start.encode("utf-8", "surrogatepass")[:LEAST])
        lengths = self._lengths.setdefault(sought[:LEAST], [])
        if len(sought) not in lengths:
            lengths.append(len(sought))
            lengths.sort(reverse=True)

    def may_stand_in(self, line: bytes) -> bool:
        """Return false if none of the values stands in a line of UTF-8."""
        if not self._starts:
            return False
        line = line.lower()
        for begin in range(0, len(line) - LEAST + 1, _BLOCK):
            block = line[begin : begin + _BLOCK + LEAST - 1]
            # All of it in C: most lines hold none.
            if not self._starts.isdisjoint(map(block.__getitem__, islice(_SLICES, len(block) - LEAST + 1))):
                return True
        return False

    def all_in(self, text: str) -> Iterator[Match]:
        """Yield where values stand, also within others; at one place the longest first."""
        folded = _folded(text)
        for at in range(len(folded) - LEAST + 1):
            for length in self._lengths.get(folded[at : at + LEAST], ()):
                sought = folded[at : at + length]
                found = self._values.get(sought)
                if found is not None and len(sought) == length:
                    yield Match(at, at + length, *found)

    def first_in(self, text: str) -> Iterator[Match]:
        """Yield where values stand, none within or across another: the one that begins first, and is the longest."""
        end = 0
        for match in self.all_in(text):
            if match.begin >= end:
                end = match.end
                yield match


def spellings(value: str) -> set[str]:
    """Return how a value is usually spelled: as it is, escaped in JSON within a text, and in addresses."""
    # One more than is looked for, so that it shows that it was cut.
    value = value[: LONGEST + 1]
    found = {value}
    if not _PLAIN.fullmatch(value):
        found |= {
            json.encoder.encode_basestring(value)[1:-1],
            json.encoder.encode_basestring_ascii(value)[1:-1],
            value.replace("/", "\\/"),
            quote_plus(value, errors="surrogatepass"),
        }
        found |= {quote(value, safe=safe, errors="surrogatepass") for safe in ("", "/", "!'()*", _ADDRESS)}
    elif UUID.fullmatch(value):
        found.add(value.replace("-", ""))
    return found


def plain_number(text: str) -> str:
    """Return a number as it is usually written, without an exponent; other texts, and long ones, as they are."""
    if len(text) > LONGEST or not _NUMBER.fullmatch(text):
        return text
    try:
        number = _EXACT.create_decimal(text).normalize(_EXACT)
    except InvalidOperation:
        return text
    if not number:
        return "0"
    return format(number, "f") if abs(number.adjusted()) <= _LARGEST else str(number)


def is_plain_number(text: str) -> bool:
    """Return whether a text is a number as it is usually written."""
    return _NUMBER.fullmatch(text) is not None and plain_number(text) == text


def _folded(text: str) -> str:
    # Of the same length, whatever the letters are.
    return text.lower() if text.isascii() else text.translate(_LOWER)
