"""Laying JSON out over lines without decoding it: every digit stays, and ten megabytes cost a few arrays.

The layout holds no text of its own. A line is a slice of the source and a depth, so that a large value can be laid
out step by step (from a thread, if it is large) while the lines that are there are already on screen.
"""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len

from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

INDENT = 2
_MAX_INDENT = 40

# Strings are matched whole, so that brackets and commas inside them are not seen.
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],]', re.DOTALL)
_PIECE = re.compile(
    r'(?P<string>"[^"\\]*(?:\\.[^"\\]*)*(?:"|$))(?P<colon>\s*:)?'
    r"|(?P<number>-?\d[\d.eE+-]*)"
    r"|(?P<literal>true|false|null)"
    r"|(?P<punctuation>[{}\[\],:]+)"
    r"|(?P<space>\s+)"
    r"|(?P<other>.)",
    re.DOTALL,
)


class Span(NamedTuple):
    """A piece of a line and what it is: ``key``, ``string``, ``number``, ``literal``, ``punctuation`` or empty."""

    text: str
    role: str = ""


class JsonLayout:
    """JSON text over lines, indented by two, an empty object or array on one line.

    Call `advance` until it returns False; the lines made so far can be read in between. With `width`, a line longer
    than that many cells goes on in the next row.
    """

    def __init__(self, text: str, width: int | None = None) -> None:
        self.text = text
        self.width = width
        self._starts = array("Q")
        self._ends = array("Q")
        # Depth times two, plus one for a row that goes on with the string of the row before.
        self._marks = array("L")
        self._tokens = _STRUCTURE.finditer(text)
        self._depth = 0
        self._line_start = 0
        self._just_opened = False
        self.done = False

    def __len__(self) -> int:
        return len(self._marks)

    def advance(self, tokens: int = 20_000) -> bool:
        """Lay out up to `tokens` more brackets, commas and strings; return whether there is more to do."""
        for _ in range(tokens):
            token = next(self._tokens, None)
            if token is None:
                self._break(len(self.text))
                self.done = True
                return False
            char = self.text[token.start()]
            if char == '"':
                continue
            if char in "{[":
                self._open(token.end())
            elif char in "}]":
                self._close(token.start())
            else:
                self._break(token.end())
        return True

    def _open(self, end: int) -> None:
        following = self.text[end : end + 1]
        self._just_opened = following in ("}", "]")
        if not self._just_opened:
            self._break(end)
        self._depth += 1

    def _close(self, start: int) -> None:
        if not self._just_opened:
            self._break(start)
        self._just_opened = False
        self._depth -= 1

    def _break(self, end: int) -> None:
        """End the current line at `end` of the source."""
        start = self._line_start
        self._line_start = end
        text = self.text
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        if start == end:
            return
        depth = self._depth
        room = None if self.width is None else max(self.width - self._indent(depth), 8)
        if room is None or (end - start <= room and text[start:end].isascii()):
            self._row(start, end, depth * 2)
            return
        goes_on = 0
        for stop in _wrapped(text, start, end, room):
            self._row(start, stop, depth * 2 + goes_on)
            start = stop
            goes_on = 1

    def _row(self, start: int, end: int, mark: int) -> None:
        self._starts.append(start)
        self._ends.append(end)
        # Last, for a reader in another thread takes its length for the number of whole rows.
        self._marks.append(mark)

    def _indent(self, depth: int) -> int:
        return depth * INDENT if self.width is None else min(depth * INDENT, _MAX_INDENT, self.width // 2)

    def line(self, index: int) -> str:
        """Return a line as text, with control characters as they are."""
        return " " * self._indent(self._marks[index] >> 1) + self.text[self._starts[index] : self._ends[index]]

    def spans(self, index: int) -> list[Span]:
        """Return a line as pieces with their roles, safe to show."""
        mark = self._marks[index]
        piece = self.text[self._starts[index] : self._ends[index]]
        indent = Span(" " * self._indent(mark >> 1))
        if mark & 1:
            return [indent, Span(visible(piece), "string")]
        return [indent, *coloured(piece)]


def coloured(piece: str) -> Iterator[Span]:
    """Yield the pieces of one line of JSON with their roles, safe to show."""
    for match in _PIECE.finditer(piece):
        role = match.lastgroup or ""
        if match["string"] is not None:
            yield Span(visible(match["string"]), "key" if match["colon"] else "string")
            if match["colon"]:
                yield Span(":", "punctuation")
        else:
            yield Span(visible(match.group()), "" if role in ("space", "other") else role)


def _wrapped(text: str, start: int, end: int, room: int) -> Iterator[int]:
    """Yield where each row of `text[start:end]` ends, so that none takes more than `room` cells on screen."""
    if text[start:end].isascii():
        yield from range(start + room, end, room)
        yield end
        return
    used = 0
    for at in range(start, end):
        cells = cell_len(visible(text[at]))
        if used + cells > room and used:
            yield at
            used = 0
        used += cells
    yield end


def pretty(text: str) -> str:
    """Return JSON text laid out over lines, digits and escapes untouched."""
    layout = JsonLayout(text)
    while layout.advance():
        pass
    return "\n".join(map(layout.line, range(len(layout))))
