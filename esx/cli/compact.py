"""Compact tables for a terminal: columns as wide as what is visible needs, and lines that fit the width."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from esx.cli.style import MUTED, STRONG, hue, paint
from esx.text import ago, visible
from esx.times import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.cli.forms import Form
    from esx.cli.output import OutputLines
    from esx.model import Event, StreamSummary

_SCREENFUL = 200
_GAP = 2
_LEAST = 8
"""A column is not made narrower than this many cells."""
_PATIENCE = 0.3
"""After how many seconds rows are printed, though more may come."""


class CompactCell(NamedTuple):
    """Text that is safe to show, and its colour."""

    text: str
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. One that `yields` is made narrower where a line has no room, by a cut in its middle."""

    title: str = ""
    right: bool = False
    yields: bool = False


class CompactTable:
    """Prints rows that fit the width. Columns get wider where rows need it, never narrower.

    The last column takes what is left, cut at its end.
    """

    def __init__(self, lines: OutputLines, form: Form, columns: Sequence[Column]) -> None:
        self._lines = lines
        self._form = form
        self._columns = columns
        self._widths = [0] * len(columns)
        self._rows: list[Sequence[CompactCell] | str] = []
        self._headed = not any(column.title for column in columns)
        self._timer: asyncio.TimerHandle | None = None

    def add(self, row: Sequence[CompactCell]) -> None:
        """Add a row; it is printed with others, soon."""
        self._put(row)

    def heading(self, text: str) -> None:
        """Add a line above the rows that follow."""
        self._put(text)

    def _put(self, row: Sequence[CompactCell] | str) -> None:
        self._rows.append(row)
        if len(self._rows) >= _SCREENFUL:
            self.flush()
        elif self._timer is None:
            with contextlib.suppress(RuntimeError):  # without a loop nothing comes late
                self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._flush_late)

    def flush(self) -> None:
        """Print the rows that were added."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        if not self._headed:
            self._headed = True
            rows.insert(0, [CompactCell(column.title, MUTED) for column in self._columns])
        for row in rows:
            if not isinstance(row, str):
                self._widths = [max(pair) for pair in zip(self._widths, map(_size, row), strict=True)]
        widths = self._fitted()
        for row in rows:
            if isinstance(row, str):
                self._lines.painted(self._paint(CompactCell(row, STRONG)))
            else:
                self._lines.painted(self._line(row, widths))
        self._lines.flush()

    def _flush_late(self) -> None:
        # The next write tells that nobody reads any more.
        with contextlib.suppress(OSError):
            self.flush()

    def _fitted(self) -> list[int]:
        """Return the widths of all columns but the last, which fit, and what is left for that."""
        widths = self._widths[:-1]
        # A third for the last column, or what it needs.
        rest = min(self._widths[-1], self._form.width // 3)
        room = self._form.width - rest - _GAP * len(widths)
        yielding = [place for place, column in enumerate(self._columns[:-1]) if column.yields]
        while sum(widths) > room and yielding:
            widest = max(yielding, key=lambda place: widths[place])
            if widths[widest] <= _LEAST:
                break
            widths[widest] -= 1
        return [*widths, max(self._form.width - sum(widths) - _GAP * len(widths), 1)]

    def _line(self, row: Sequence[CompactCell], widths: Sequence[int]) -> str:
        pieces = []
        last = len(row) - 1
        for place, (cell, column, width) in enumerate(zip(row, self._columns, widths, strict=True)):
            cut = cut_end(cell.text, width) if place == last else cut_middle(cell.text, width)
            gap = " " * max(width - _size(CompactCell(cut)), 0) if place < last or column.right else ""
            shown = self._paint(CompactCell(cut, cell.colour))
            pieces.append(gap + shown if column.right else shown + gap)
        return (" " * _GAP).join(pieces).rstrip()

    def _paint(self, cell: CompactCell) -> str:
        return paint(cell.text, cell.colour) if self._form.colour else cell.text


def _size(cell: CompactCell) -> int:
    from rich.cells import cell_len

    return cell_len(cell.text)


def cut_end(text: str, width: int) -> str:
    """Return at most `width` cells of `text`, with an ellipsis where it is cut."""
    from rich.cells import cell_len, set_cell_size

    if len(text) > width * 4 + 16:
        text = text[: width * 4 + 16]
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)).rstrip() + "…"


def cut_middle(text: str, width: int) -> str:
    """Return at most `width` cells of `text`, cut in its middle: the end of an id tells it from others."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    after = (width - 1) * 3 // 5
    end = text[-after:] if after else ""
    while cell_len(end) > after:
        end = end[1:]
    return set_cell_size(text, max(width - 1 - cell_len(end), 0)).rstrip() + "…" + end


class CompactEvents:
    """Prints events: number, time, place, type and the beginning of the data. The date stands once above.

    `alone` says that all are of one stream, whose id is then left out.
    """

    def __init__(self, lines: OutputLines, form: Form, *, alone: bool = False) -> None:
        place = Column(yields=not alone, right=alone)
        self._table = CompactTable(lines, form, (Column(right=True), Column(), place, Column(yields=True), Column()))
        self._alone = alone
        self._day = ""

    def add(self, event: Event, payload: str) -> None:
        """Add an event; `payload` is what is shown of its data."""
        from esx.cli.events import number_text
        from esx.model import place_text

        day, _, time = clock(event.created_at).partition(" ")
        if day != self._day:
            self._day = day
            self._table.heading(day)
        place = place_text(event.stream_id, event.stream_seq)
        self._table.add(
            (
                CompactCell(number_text(event.global_seq), MUTED),
                CompactCell(time, MUTED),
                CompactCell(visible(place.rpartition("@")[2] if self._alone else place, limit=200)),
                CompactCell(visible(event.event_type, limit=120), hue(event.stream_id, event.event_type)),
                CompactCell(payload),
            )
        )

    def flush(self) -> None:
        """Print what was added."""
        self._table.flush()


def streams_table(lines: OutputLines, form: Form) -> CompactTable:
    """Return the table for `stream_cells`."""
    columns = (
        Column("STREAM", yields=True),
        Column("VERSION", right=True),
        Column("GLOBAL SEQ", right=True),
        Column("LAST", right=True),
        Column("LAST TYPE"),
    )
    return CompactTable(lines, form, columns)


def stream_cells(stream: StreamSummary) -> tuple[CompactCell, ...]:
    """Return a stream as a row of `streams_table`."""
    from esx.cli.events import number_text

    return (
        CompactCell(visible(stream.stream_id, limit=200)),
        CompactCell(str(stream.version)),
        CompactCell(number_text(stream.last_global_seq), MUTED),
        CompactCell(ago(stream.last_created_at), MUTED),
        CompactCell(visible(stream.last_event_type, limit=120), hue(stream.stream_id, stream.last_event_type)),
    )
