"""Event types and their shapes as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.cli.compact import Column, CompactCell, CompactTable
from esx.cli.events import number_text
from esx.cli.output import OutputTable
from esx.cli.style import MUTED, STRONG, hue, paint
from esx.text import ago, counted, rate_text, visible
from esx.times import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.cli.forms import Form
    from esx.cli.output import OutputLines
    from esx.fold.shape import PathShape, Sighting
    from esx.fold.type_shapes import TypeShape
    from esx.store.overview.types import EventMoment

_TYPES = ("TYPE", "EVENTS", "RATE", "FIRST", "LAST", "PATHS", "CHANGED", "CATEGORIES")
_PATHS = ("PATH", "TYPES", "PRESENT", "EXAMPLE", "CHANGED")


def print_types(lines: OutputLines, form: Form, types: Sequence[TypeShape]) -> None:
    """Print a line for each type."""
    if form.compact:
        columns = [
            Column(title, right=title in ("EVENTS", "RATE", "LAST", "CHANGED"))
            for title in _TYPES
            if title not in _SPARED
        ]
        columns[0] = Column("TYPE", yields=True)
        compact = CompactTable(lines, form, columns)
        for one in types:
            summary = one.summary
            categories = ", ".join(visible(name, limit=40) for name in summary.categories)
            compact.add(
                (
                    CompactCell(visible(summary.event_type, limit=120), hue(categories, summary.event_type)),
                    CompactCell(summary.events.text),
                    CompactCell(rate_text(summary.rate), MUTED),
                    CompactCell(ago(summary.last.created_at), MUTED),
                    CompactCell(_changed(one), STRONG),
                    CompactCell(categories, MUTED),
                )
            )
        compact.flush()
        return
    table = OutputTable(lines, _TYPES, {1, 2, 5})
    for one in types:
        summary = one.summary
        mark = "" if summary.exact else "~"
        table.add(
            (
                visible(summary.event_type, limit=120),
                summary.events.text,
                rate_text(summary.rate),
                mark + _place(summary.first),
                mark + _place(summary.last),
                str(len(one.shape.paths)),
                _changed(one),
                ", ".join(visible(name, limit=40) for name in summary.categories),
            )
        )
    table.flush()


def _changed(one: TypeShape) -> str:
    changes = one.changes
    return f"{counted(len(changes), 'path')}, {ago(changes[0].created_at)}" if changes else "-"


_SPARED = ("FIRST", "PATHS")
"""The columns that a compact table does without."""


def print_shape(lines: OutputLines, form: Form, one: TypeShape) -> None:
    """Print a type with a line for each path of its data."""
    summary, shape = one.summary, one.shape
    name = visible(summary.event_type, limit=120)
    unread = f", {shape.unread} are no JSON" if shape.unread else ""
    about = f"{summary.events.text} events, the last {_place(summary.last)}; {counted(shape.samples, 'sample')}{unread}"
    lines.painted(f"{paint(name, STRONG) if form.colour else name}  {about}")
    rows = [_path_cells(path, shape.samples) for path in shape.paths]
    if form.compact:
        columns = [Column(title, right=title == "PRESENT", yields=title in ("PATH", "TYPES")) for title in _PATHS]
        # The example takes what is left.
        compact = CompactTable(lines, form, [columns[0], columns[1], columns[2], columns[4], columns[3]])
        for path, types, present, example, changed in rows:
            compact.add(
                (
                    CompactCell(path),
                    CompactCell(types, MUTED),
                    CompactCell(present),
                    CompactCell(changed, STRONG),
                    CompactCell(example, MUTED),
                )
            )
        compact.flush()
    else:
        table = OutputTable(lines, _PATHS, {2})
        for row in rows:
            table.add(row)
        table.flush()
    if shape.cut:
        lines.text("there are more paths than these")
    lines.text("")


def _path_cells(path: PathShape, samples: int) -> tuple[str, str, str, str, str]:
    share = "all" if path.present == samples else f"{path.present / max(samples, 1):.0%}"
    changes = [_change("since", path.appeared), _change("until", path.vanished)]
    return visible(path.path, limit=200), "|".join(path.types), share, path.example, " ".join(filter(None, changes))


def _change(word: str, at: Sighting | None) -> str:
    return "" if at is None else f"{word} {number_text(at.global_seq)}, {clock(at.created_at)}"


def _place(seen: EventMoment) -> str:
    return f"{clock(seen.created_at)} #{number_text(seen.global_seq)}"
