"""The blocks of lines of an event in full. A line is made when it is drawn."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.cells import cell_len

from esx.fold.value import Path, jsonpath
from esx.text import counted, visible
from esx.tui.cells import fit
from esx.tui.event.find import Matches
from esx.tui.event.folds import Folds
from esx.tui.event.jsonlayout import JsonLayout, Span

GUTTER = 2
"""Cells left of JSON: the mark of a fold, and the sign of a change."""
SIGNS = {"added": "+", "removed": "-", "changed": "~"}


class Block(Protocol):
    """Some lines of the event."""

    def __len__(self) -> int: ...

    def spans(self, index: int) -> Sequence[Span]:
        """Return a line as pieces with their roles."""
        ...

    def copied(self, index: int) -> str | None:
        """Return the text to copy for a line, if there is any."""
        ...


class TextBlock:
    """Lines of text, and, by line number, the texts to copy for them."""

    def __init__(self, lines: list[list[Span]], values: Mapping[int, str] | None = None) -> None:
        self.lines = lines
        self._values = values or {}

    def __len__(self) -> int:
        return len(self.lines)

    def spans(self, index: int) -> list[Span]:
        """Return a line."""
        return [Span(" "), *self.lines[index]] if self.lines[index] else []

    def copied(self, index: int) -> str | None:
        """Return the text to copy for a line."""
        return self._values.get(index)


class JsonBlock:
    """JSON as a tree that can be folded, or as plain text."""

    def __init__(self, text: str, width: int, root: str = "$") -> None:
        self.width = width
        self.layout = JsonLayout(text, max(width - GUTTER + 1, 8))
        self.folds = Folds(self.layout)
        self.root = root
        self.plain = False
        """Whether it is shown as text, without folds."""
        self.matches: Matches | None = None
        self.current: int | None = None
        """Which of the matches the cursor went to."""
        self.signs: Mapping[Path, str] = {}
        """The changes at paths: keys of `SIGNS`."""

    def __len__(self) -> int:
        return len(self.layout) if self.plain else len(self.folds)

    def row(self, index: int) -> int:
        """Return the layout's row that a line shows."""
        return index if self.plain else self.folds.rows[index]

    def index_of(self, row: int) -> int:
        """Return the line that shows a row of the layout; unfold what hides it."""
        return row if self.plain else self.folds.reveal(row)

    def path(self, index: int) -> str:
        """Return the JSONPath of the value on a line."""
        return jsonpath(self.layout.path(self.row(index)), self.root)

    def copied(self, index: int) -> str | None:
        """Return the JSON text of the value on a line."""
        return self.layout.value(self.row(index))

    def spans(self, index: int) -> list[Span]:
        """Return a line, with its fold and its sign in the gutter."""
        layout = self.layout
        row = self.row(index)
        folded = not self.plain and self.folds.folded(row)
        marker = " "
        if not self.plain and layout.opens(row):
            marker = "▸" if folded else "▾"
        sign = self._sign(row) if self.signs else None
        start = [
            Span(marker, "fold"),
            Span(SIGNS[sign], sign) if sign else Span(" "),
            Span(" " * layout.indent(row)),
        ]
        if folded:
            return start + self._folded(row)
        return start + self._highlighted(layout.pieces(row), *layout.slice(row))

    def _sign(self, row: int) -> str | None:
        # The cost of a path grows with its depth.
        if self.layout.depth(row) > 200:
            return None
        path = self.layout.path(row)
        for end in range(len(path), -1, -1):
            sign = self.signs.get(path[:end])
            if sign is not None:
                return sign
        return None

    def _folded(self, row: int) -> list[Span]:
        layout = self.layout
        mate, children = layout.mate(row), layout.children(row)
        start, _ = layout.slice(row)
        room = layout.room(layout.depth(row))
        if children is None:
            closer, end, note = "", start + room, "  …"
        else:
            closing, _ = layout.slice(mate)
            closed = layout.text[slice(*layout.slice(mate))]
            closer = closed[0] + ("," if closed.endswith(",") else "")
            end = closing
            what = "member" if closer[0] == "}" else "element"
            note = f"  {counted(children, what)}"
        if room < len(note) + 8:
            note = ""
        left = room - len(note) - len(closer)
        pieces = layout.pieces(row, min(end, start + max(left, 1)))
        spans = self._highlighted(pieces, start, end)
        if end - start > left or sum(cell_len(span.text) for span in spans) > left:
            spans = [*_cut(spans, left - 1), Span("…", "label")]
        return [*spans, Span(closer, "punctuation"), Span(note, "label")]

    def _highlighted(self, pieces: list[tuple[int, int, str]], start: int, end: int) -> list[Span]:
        text = self.layout.text
        matches = self.matches
        if matches is None or not (found := matches.within(start, end)):
            return [Span(visible(text[at:to]), role) for at, to, role in pieces]
        current = None if self.current is None else matches.starts[self.current]
        spans = []
        for at, to, role in pieces:
            for hit, hit_end in found:
                if hit_end <= at or hit >= to:
                    continue
                if hit > at:
                    spans.append(Span(visible(text[at:hit]), role))
                name = "current" if hit == current else "match"
                spans.append(Span(visible(text[max(at, hit) : min(to, hit_end)]), name))
                at = min(to, hit_end)  # noqa: PLW2901 - what is left of the piece
            if at < to:
                spans.append(Span(visible(text[at:to]), role))
        return spans


def _cut(spans: list[Span], room: int) -> list[Span]:
    """Return the spans that fit into `room` cells, the last one cut."""
    cut = []
    for span in spans:
        size = cell_len(span.text)
        if size > room:
            if room > 1:
                cut.append(Span(fit(span.text, room).removesuffix("…"), span.role))
            break
        cut.append(span)
        room -= size
    return cut
