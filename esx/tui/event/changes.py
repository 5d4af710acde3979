"""Changes as lines: between two events, or between the states before and after one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from esx.fold.diff import MISSING, diff
from esx.fold.value import Path, dump, jsonpath, parse
from esx.text import visible
from esx.tui.cells import fit
from esx.tui.event.blocks import SIGNS, TextBlock
from esx.tui.event.jsonlayout import Span, coloured

_PREVIEW = 600


@dataclass(frozen=True)
class Comparison:
    """Changes under a title; if nothing was compared, `title` says why."""

    title: str
    changes: tuple[tuple[str, str, str, str], ...] = ()
    """For each change its op, its JSONPath, and the beginnings of the old and the new value."""
    copies: tuple[str, ...] = ()
    """For each change the text to copy."""
    more: int = 0
    """How many changes are not in `changes`."""
    signs: Mapping[Path, str] | None = None
    compared: bool = True

    def lines(self, width: int) -> TextBlock:
        """Return the title and a line for each change, `width` cells wide at most."""
        count = len(self.changes) + self.more
        what = "" if not self.compared else f"  {count:,}" if count else "  none"
        lines = [[Span(fit(visible(self.title), width - len(what)).rstrip(), "heading"), Span(what, "label")]]
        lines += [_line(*change, width) for change in self.changes]
        if self.more:
            lines.append([Span(f"… and {self.more:,} more: esx read --diff prints all", "label")])
        return TextBlock([*lines, []], dict(enumerate(self.copies, 1)))


def compare(title: str, old: str | None, new: str) -> Comparison:
    """Compare two JSON texts; None is a missing value. Takes seconds for megabytes: call it in a thread."""
    changes: list[tuple[str, str, str, str]] = []
    copies: list[str] = []
    signs: dict[Path, str] = {}
    more = 0
    for change in diff(MISSING if old is None else parse(old), parse(new)):
        if len(changes) >= 2000:
            more += 1
            continue
        changes.append((change.op, jsonpath(change.path), _preview(change.old), _preview(change.new)))
        copies.append(change.to_json())
        if change.op != "removed":
            signs[change.path] = change.op
    return Comparison(title, tuple(changes), tuple(copies), more, signs)


def _preview(value: Any) -> str:
    if value is MISSING:
        return ""
    text = dump(value)
    return text if len(text) <= _PREVIEW else text[: _PREVIEW - 1] + "…"


def _line(op: str, path: str, old: str, new: str, width: int) -> list[Span]:
    spans = [Span(f"{SIGNS[op]} ", op)]
    left = width - 2
    shown_path = fit(visible(path, limit=_PREVIEW), min(cell_len(visible(path, limit=_PREVIEW)), max(left // 2, 8)))
    spans.append(Span(f"{shown_path}  ", "path"))
    left -= cell_len(shown_path) + 2
    sides = [side for side in (old, new) if side]
    for place, side in enumerate(sides):
        if place:
            spans.append(Span(" → ", "label"))
            left -= 3
        # Two values share the room; one gets the cells that the other does not need.
        rest = sum(min(cell_len(visible(other)), left // 2) + 3 for other in sides[place + 1 :])
        room = max(left - rest, 4)
        if cell_len(visible(side)) <= room:
            spans += coloured(side)
            left -= cell_len(visible(side))
        else:
            spans.append(Span(fit(visible(side), room), "cut"))
            left -= room
    return spans
