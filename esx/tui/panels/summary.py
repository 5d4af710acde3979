"""The list of what happened in a time window."""

from typing import ClassVar, NamedTuple

from textual.binding import Binding, BindingType

from esx.store.overview.summary import WindowSummary
from esx.text import change_text, short_count, visible
from esx.tui.cells import Cell, tint_of
from esx.tui.lists.column import ListColumn
from esx.tui.lists.rows import PREVIEW
from esx.tui.lists.rowtable import RowTable


class SummaryRow(NamedTuple):
    """A category with its sums, or with `event_type` a type in it, and the texts of its counts."""

    category: str
    event_type: str | None
    events: str
    before: str
    change: str
    share: float
    """The count as a share of the largest one of its kind."""


class SummaryList(RowTable["SummaryRow"]):
    """A line for each category, and below it one for each of its types."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Its events", key_display="enter", tooltip="Find the events of this line"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(_COLUMNS, id=id, empty="looking …")


def summary_rows(found: WindowSummary) -> list[SummaryRow]:
    """Return the lines of a summary, the categories with most events first."""
    rows = []
    most = max((count for _, count, _ in found.categories), default=0) or 1
    most_of_one = max((row.events.count for row in found.rows), default=0) or 1
    for category, now, before in found.categories:
        own = [row for row in found.rows if row.category == category]
        mark = "" if all(row.events.exact for row in own) else "~"
        then = "" if all(row.before.exact for row in own) else "~"
        counts = (f"{mark}{short_count(now)}", f"{then}{short_count(before)}", change_text(now, before))
        rows.append(SummaryRow(category, None, *counts, now / most))
        for row in own:
            known = row.events.known and row.before.known
            change = change_text(row.events.count, row.before.count) if known else "?"
            share = row.events.count / most_of_one
            rows.append(SummaryRow(category, row.event_type, row.events.text, row.before.text, change, share))
    return rows


def _name(row: SummaryRow) -> Cell:
    if row.event_type is None:
        return Cell(visible(row.category, limit=PREVIEW) or "(none)", "strong")
    return Cell("  " + visible(row.event_type, limit=PREVIEW), tint=tint_of(row.event_type, f"{row.category}-"))


_BAR = 24


def _bar(row: SummaryRow) -> Cell:
    width = round(row.share * _BAR)
    return Cell(("━" if row.event_type is None else "─") * max(width, 1 if row.share else 0), "muted")


_COLUMNS: list[ListColumn[SummaryRow]] = [
    ListColumn("type", _name, share=3),
    ListColumn("events", lambda row: Cell(row.events, "strong" if row.event_type is None else ""), 8, right=True),
    ListColumn("before", lambda row: Cell(row.before, "muted"), 8, right=True),
    ListColumn("change", lambda row: Cell(row.change, "number"), 9, right=True),
    ListColumn("", _bar, needs=70, rest=True),
]
