"""Laying JSON out over lines without decoding it: every digit stays, and ten megabytes cost a few arrays.

The layout holds no text of its own. A row is a slice of the source, a depth, and its place in the tree. So a large
value can be laid out step by step, while its first rows are already on screen.
"""

import re
from array import array
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NamedTuple

from rich.cells import cell_len

from esx.fold.value import Path
from esx.text import visible

INDENT = 2
NONE = 2**32 - 1
"""The number of a row that is not known yet, or does not exist."""

_GOES_ON, _OPENS, _CLOSES = 1, 2, 4
_FLAGS = 3

# All up to and including the next bracket or comma, or to the end. Strings are whole, so that brackets in them are not
# seen. A match stops before a very long string, because the end of that is found faster without it.
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

    Call `advance` until it returns False; the rows made so far can be read in between. With `width`, a longer line goes
    on in the next row.
    """

    def __init__(self, text: str, width: int | None = None) -> None:
        self.text = text
        self.width = width
        self.done = False
        self._starts = array("I")
        self._ends = array("I")
        # Depth, and in the lowest bits whether the row continues the line before, opens, or closes a value.
        self._marks = array("I")
        self._parents = array("I")
        # For a row that opens, the row that closes, and the reverse.
        self._mates = array("I")
        # Which child of its parent a row is; for a row that closes, how many children there are.
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
            # The line that ends here.
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
            # Its last character may open a value, or begin the closing row.
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
        # Last: its length is the number of complete rows for a reader in another thread.
        self._marks.append(mark)

    def room(self, depth: int) -> int:
        """Return how many cells a row at that depth has, with a `width`."""
        return max((self.width or 0) - self._indent(depth), 8)

    def _indent(self, depth: int) -> int:
        return depth * INDENT if self.width is None else min(depth * INDENT, 40, self.width // 2)

    def line(self, row: int) -> str:
        """Return a row as text, not made safe to show."""
        return " " * self._indent(self.depth(row)) + self.text[self._starts[row] : self._ends[row]]

    def indent(self, row: int) -> int:
        """Return by how many cells a row is indented."""
        return self._indent(self.depth(row))

    def pieces(self, row: int, end: int | None = None) -> list[tuple[int, int, str]]:
        """Return where in the source the pieces of a row begin and end, and their roles.

        With `end`, the row goes on to that place of the source.
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
        """Return whether the row opens an object or array that is not empty."""
        return bool(self._marks[row] & _OPENS)

    def closes(self, row: int) -> bool:
        """Return whether the row closes an object or array."""
        return bool(self._marks[row] & _CLOSES)

    def parent(self, row: int) -> int:
        """Return the row that opens the value around the row, or NONE."""
        return self._parents[row]

    def mate(self, row: int) -> int:
        """Return the row that closes what this one opens, or the reverse; NONE if not known yet."""
        return self._mates[row]

    def children(self, row: int) -> int | None:
        """Return how many members or elements the value has that the row opens, None if not known yet."""
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

    def path(self, row: int) -> Path:
        """Return the path of the value that the row shows, or closes."""
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
    """Yield where each row of `text[start:end]` ends, so that none needs more than `room` cells."""
    while start < end:
        piece = text[start : min(start + room, end)]
        if not piece.isascii():
            used = 0
            for at, char in enumerate(piece):
                used += _cells(char)
                if used > room:
                    # A single character may need more than `room`.
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
