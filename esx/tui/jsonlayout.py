"""Laying JSON out over lines without decoding it: every digit stays, and ten megabytes cost a few arrays.

The layout holds no text of its own. A row is a slice of the source, a depth, and its place in the tree, so that a large
value can be laid out step by step (from a thread, if it is large) while the rows that are there are already on screen.
"""

from __future__ import annotations

import re
from array import array
from functools import lru_cache
from itertools import islice
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len

from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esx.fold.value import Path

INDENT = 2
_MAX_INDENT = 40
NONE = 2**32 - 1
"""No row: the place of what is not known yet, or is not there."""

_GOES_ON, _OPENS, _CLOSES = 1, 2, 4
_FLAGS = 3

# All up to and with the next bracket or comma, or to the end; strings whole, so that those inside them are not seen.
# It stops before a string that is very long, for finding the end of that is quicker without it.
_STRUCTURE = re.compile(r'(?:[^"{}\[\],]++|"[^"\\]{0,4000}+(?:\\.[^"\\]{0,4000}+){0,400}+")*+([{}\[\],]?)', re.DOTALL)
_REST_OF_STRING = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_PIECE = re.compile(
    r'(?P<string>"[^"\\]*(?:\\.[^"\\]*)*(?:"|$))(?P<colon>\s*:)?'
    r"|(?P<number>-?\d[\d.eE+-]*)"
    r"|(?P<literal>true|false|null)"
    r"|(?P<punctuation>[{}\[\],:]+)"
    r"|(?P<space>\s+)"
    r"|(?P<other>.)",
    re.DOTALL,
)
_NAME = re.compile(r'\s*"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*:\s*', re.DOTALL)


class Span(NamedTuple):
    """A piece of a line and what it is: ``key``, ``string``, ``number``, ``literal``, ``punctuation`` or empty."""

    text: str
    role: str = ""


class JsonLayout:
    """JSON text over rows, indented by two, an empty object or array on one row.

    Call `advance` until it returns False; the rows made so far can be read in between. With `width`, a line longer
    than that many cells goes on in the next row.
    """

    def __init__(self, text: str, width: int | None = None) -> None:
        self.text = text
        self.width = width
        self.done = False
        self._starts = array("I")
        self._ends = array("I")
        # Depth, and in the lowest bits whether the row goes on with the line before, opens, or closes something.
        self._marks = array("I")
        self._parents = array("I")
        # Of a row that opens, the row that closes, and the other way round.
        self._mates = array("I")
        # Which child of its parent a row is; of a row that closes, how many children there are.
        self._places = array("I")
        self._work = self._lay_out()

    def __len__(self) -> int:
        return len(self._marks)

    def advance(self, steps: int = 20_000) -> bool:
        """Lay out up to `steps` more brackets, commas and rows; return whether there is more to do."""
        for _ in islice(self._work, steps):
            pass
        return not self.done

    def _lay_out(self) -> Iterator[None]:
        text = self.text
        start = depth = 0
        opened: list[int] = []
        places = [0]
        # The row that opened what the next row closes, and how many children it has.
        closing: tuple[int, int] | None = None
        is_empty = False
        at = 0
        while at <= len(text):
            token = _STRUCTURE.match(text, at)
            assert token is not None, "it matches anything, if only nothing"
            at = end = token.end()
            char = token[1]
            if not char and end < len(text):
                at = _string_end(text, end)
                yield
                continue
            if char in ("{", "["):
                is_empty = text[end : end + 1] in ("}", "]")
                if is_empty:
                    continue
                stop = end
            elif is_empty:
                is_empty = False
                continue
            else:
                stop = end if char in (",", "") else end - 1
            # -- the line that ends here
            while start < stop and text[start].isspace():
                start += 1
            while stop > start and text[stop - 1].isspace():
                stop -= 1
            if start < stop:
                room = None if self.width is None else self.room(depth)
                parent = opened[-1] if opened else NONE
                if closing is not None:
                    self._row(start, stop, depth << _FLAGS | _CLOSES, parent, *closing)
                    self._mates[closing[0]] = len(self._marks) - 1
                    closing = None
                elif room is None or (stop - start <= room and text[start:stop].isascii()):
                    self._row(start, stop, depth << _FLAGS, parent, NONE, places[-1])
                else:
                    mark = depth << _FLAGS
                    for cut in _wrapped(text, start, stop, room):
                        self._row(start, cut, mark, parent, NONE, places[-1])
                        start = cut
                        mark |= _GOES_ON
                        yield
            # -- and what follows
            start = end
            if char == ",":
                places[-1] += 1
            elif char in ("{", "["):
                self._marks[-1] |= _OPENS
                opened.append(len(self._marks) - 1)
                places.append(0)
                depth += 1
            elif char and opened:
                start = end - 1
                depth -= 1
                closing = (opened.pop(), places.pop() + 1)
            elif not char:
                break
            yield
        self.done = True

    def _row(self, start: int, end: int, mark: int, parent: int, mate: int, place: int) -> None:
        self._starts.append(start)
        self._ends.append(end)
        self._parents.append(parent)
        self._mates.append(mate)
        self._places.append(place)
        # Last, for a reader in another thread takes its length for the number of whole rows.
        self._marks.append(mark)

    def room(self, depth: int) -> int:
        """Return how many cells a row at that depth has, where there is a width."""
        return max((self.width or 0) - self._indent(depth), 8)

    def _indent(self, depth: int) -> int:
        return depth * INDENT if self.width is None else min(depth * INDENT, _MAX_INDENT, self.width // 2)

    # -- rows ---------------------------------------------------------------------------------------------------

    def line(self, row: int) -> str:
        """Return a row as text, with control characters as they are."""
        return " " * self._indent(self.depth(row)) + self.text[self._starts[row] : self._ends[row]]

    def spans(self, row: int) -> list[Span]:
        """Return a row as pieces with their roles, safe to show."""
        return [
            Span(" " * self.indent(row)),
            *(Span(visible(self.text[start:end]), role) for start, end, role in self.pieces(row)),
        ]

    def indent(self, row: int) -> int:
        """Return by how many cells a row is indented."""
        return self._indent(self.depth(row))

    def pieces(self, row: int, end: int | None = None) -> list[tuple[int, int, str]]:
        """Return where in the source the pieces of a row begin and end, and their roles.

        With `end`, what is shown goes on to that place of the source, past the row's own end.
        """
        start = self._starts[row]
        end = self._ends[row] if end is None else end
        if self._marks[row] & _GOES_ON and not self._marks[row] & _OPENS:
            return [(start, end, "string")]
        return [(start + at, start + to, role) for at, to, role in _roles(self.text[start:end])]

    def slice(self, row: int) -> tuple[int, int]:
        """Return where a row's text begins and ends in the source."""
        return self._starts[row], self._ends[row]

    def depth(self, row: int) -> int:
        """Return how deep a row is nested."""
        return self._marks[row] >> _FLAGS

    def opens(self, row: int) -> bool:
        """Return whether the row opens an object or array that has something in it."""
        return bool(self._marks[row] & _OPENS)

    def closes(self, row: int) -> bool:
        """Return whether the row closes an object or array."""
        return bool(self._marks[row] & _CLOSES)

    def parent(self, row: int) -> int:
        """Return the row that opened what the row is in, or NONE."""
        return self._parents[row]

    def mate(self, row: int) -> int:
        """Return the row that closes what this one opens, or opened what it closes; NONE if not known yet."""
        return self._mates[row]

    def children(self, row: int) -> int | None:
        """Return how many members or elements the row that opens something has, None if not known yet."""
        mate = self._mates[row]
        return None if mate == NONE else self._places[mate]

    def row_at(self, place: int) -> int:
        """Return the row that shows a place of the source, or the last one before it."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._starts[middle] <= place:
                low = middle + 1
            else:
                high = middle
        return max(low - 1, 0)

    # -- values -------------------------------------------------------------------------------------------------

    def path(self, row: int) -> Path:
        """Return where the value is that the row shows, or closes."""
        steps: list[str | int] = []
        if self.closes(row):
            row = self._mates[row]
        while (parent := self._parents[row]) != NONE:
            if self.text[self._ends[parent] - 1] == "{":
                name, _ = scanstring(self.text, self._starts[self._first(row)] + 1, False)
                steps.append(name)
            else:
                steps.append(self._places[row])
            row = parent
        return tuple(reversed(steps))

    def value(self, row: int) -> str | None:
        """Return the JSON text of the value that the row shows, or closes; None if its end is not known yet."""
        if self.closes(row):
            row = self._mates[row]
        first = self._first(row)
        start = self._starts[first]
        parent = self._parents[row]
        if parent != NONE and self.text[self._ends[parent] - 1] == "{":
            name = _NAME.match(self.text, start)
            start = name.end() if name else start
        while not self.opens(row) and row + 1 < len(self) and self._marks[row + 1] & _GOES_ON:
            row += 1
        if self.opens(row):
            mate = self._mates[row]
            return None if mate == NONE else self.text[start : self._starts[mate] + 1]
        if row + 1 == len(self) and not self.done:
            return None
        return self.text[start : self._ends[row]].removesuffix(",").rstrip()

    def _first(self, row: int) -> int:
        """Return the first row of the line that the row belongs to."""
        while self._marks[row] & _GOES_ON:
            row -= 1
        return row


def _string_end(text: str, start: int) -> int:
    """Return where the string ends that begins at `start`."""
    end = text.find('"', start + 1) + 1
    if end and text.find("\\", start, end) < 0:
        return end
    rest = _REST_OF_STRING.match(text, start + 1)
    return len(text) if rest is None else rest.end()


def _roles(piece: str) -> Iterator[tuple[int, int, str]]:
    """Yield where the pieces of one line of JSON begin and end, and their roles."""
    for match in _PIECE.finditer(piece):
        role = match.lastgroup or ""
        if match["string"] is not None:
            end = match.end("string")
            yield match.start(), end, "key" if match["colon"] else "string"
            if match["colon"]:
                yield end, match.end(), "punctuation"
        else:
            yield match.start(), match.end(), "" if role in ("space", "other") else role


def coloured(piece: str) -> Iterator[Span]:
    """Yield the pieces of one line of JSON with their roles, safe to show."""
    for start, end, role in _roles(piece):
        yield Span(visible(piece[start:end]), role)


def _wrapped(text: str, start: int, end: int, room: int) -> Iterator[int]:
    """Yield where each row of `text[start:end]` ends, so that none takes more than `room` cells on screen."""
    while start < end:
        piece = text[start : min(start + room, end)]
        if not piece.isascii():
            used = 0
            for at, char in enumerate(piece):
                used += _cells(char)
                if used > room:
                    # A single character may need more than there is.
                    piece = piece[: max(at, 1)]
                    break
        start += len(piece)
        yield start


@lru_cache(maxsize=4096)
def _cells(char: str) -> int:
    return cell_len(visible(char))


def pretty(text: str) -> str:
    """Return JSON text laid out over lines, digits and escapes untouched."""
    layout = JsonLayout(text)
    while layout.advance():
        pass
    return "\n".join(map(layout.line, range(len(layout))))
