"""A column of a list, and how columns share the width there is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.cells import cell_len

from esx.tui.cells import Cell

Row = TypeVar("Row")

_LEAST = 12
"""Cells that a column of the rest has at least, or it is left out."""


@dataclass(frozen=True)
class ListColumn(Generic[Row]):
    """A column: its title, and what it shows of a row.

    It is as wide as the rows on screen need. Where that is too much, the columns without a `width` give way, in
    proportion to their `share`; `middle` cuts their texts in the middle. A column of the `rest` has what the others
    leave. One with `needs` is left out where the list is narrower than so many cells, or where that leaves room for
    others that would be cut, the highest `needs` first. One that is `sparse` is left out while all its cells are empty.

    The texts of one that `ages` change with time. `prepare` is called with the rows on screen before they are drawn;
    `heading` gives the title then.
    """

    title: str
    cell: Callable[[Row], Cell]
    width: int = 0
    share: int = 1
    right: bool = False
    needs: int = 0
    middle: bool = False
    rest: bool = False
    sparse: bool = False
    ages: bool = False
    prepare: Callable[[Sequence[Row]], None] | None = None
    heading: Callable[[], str] | None = None

    @property
    def shown_title(self) -> str:
        """The title as it is now."""
        return self.title if self.heading is None else self.heading()


def measured(columns: Sequence[ListColumn[Any]], rows: Sequence[Any]) -> list[int]:
    """Return how many cells each column needs for its title and for `rows`; 0 for a sparse one without a text."""
    found = []
    for column in columns:
        if column.rest:
            found.append(_LEAST)
            continue
        texts = [column.cell(row).text for row in rows]
        longest = max(map(cell_len, texts), default=0)
        found.append(0 if column.sparse and not longest else max(longest, cell_len(column.shown_title)))
    return found


def widths_of(columns: Sequence[ListColumn[Any]], width: int, needed: Sequence[int]) -> list[int]:
    """Return the width of each column in a list `width` cells wide, by what each needs; 0 for one that is left out."""
    shown = _shown_in(columns, width, needed)
    widths = [needed[at] if at in shown else 0 for at in range(len(columns))]
    over = _with_gaps(shown, needed) - width
    if over > 0:
        _shrink(columns, widths, over)
    else:
        # Without such a column it stays empty at the end: across a gap, a row is hard to read.
        for at in shown:
            widths[at] -= over if columns[at].rest else 0
    return widths


def enough_for(columns: Sequence[ListColumn[Any]], most: int, needed: Sequence[int]) -> int:
    """Return how many cells a list needs, at most `most`: in so many it shows what it would show in `most`."""
    shown = _shown_in(columns, most, needed)
    return min(most, max((_with_gaps(shown, needed), *(columns[at].needs for at in shown))))


def _shown_in(columns: Sequence[ListColumn[Any]], width: int, needed: Sequence[int]) -> list[int]:
    """Return which columns are shown in a list `width` cells wide."""
    shown = [at for at, column in enumerate(columns) if column.needs <= width and needed[at]]
    droppable = sorted((at for at in shown if columns[at].needs), key=lambda at: columns[at].needs)
    while droppable and _with_gaps(shown, needed) > width:
        shown.remove(droppable.pop())
    return shown


def _with_gaps(shown: Sequence[int], needed: Sequence[int]) -> int:
    return sum(needed[at] for at in shown) + max(len(shown) - 1, 0)


def _shrink(columns: Sequence[ListColumn[Any]], widths: list[int], over: int) -> None:
    """Make columns without a width of their own narrower, those that need little last."""
    left = [at for at, column in enumerate(columns) if widths[at] and not column.width]
    room = max(sum(widths[at] for at in left) - over, 0)
    while left:
        shares = sum(columns[at].share for at in left)
        enough = [at for at in left if widths[at] * shares <= room * columns[at].share]
        if not enough:
            for at in left:
                widths[at] = room * columns[at].share // shares
                room -= widths[at]
                shares -= columns[at].share
            return
        room -= sum(widths[at] for at in enough)
        left = [at for at in left if at not in enough]
