"""A column of a list, and how columns share the width there is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from esx.tui.cells import Cell

Row = TypeVar("Row")


@dataclass(frozen=True)
class ListColumn(Generic[Row]):
    """A column: its title, what it shows of a row, and its width.

    The width is `width` cells, or, if that is 0, a `share` of what the others leave. A column is left out where the
    list is narrower than `needs` cells.
    """

    title: str
    cell: Callable[[Row], Cell]
    width: int = 0
    share: int = 1
    right: bool = False
    needs: int = 0


def widths_of(columns: Sequence[ListColumn[Any]], width: int) -> list[int]:
    """Return the width of each column in a list `width` cells wide; 0 for one that is left out."""
    shown = [column for column in columns if column.needs <= width]
    left = max(width - sum(column.width for column in shown) - max(len(shown) - 1, 0), 0)
    shares = sum(column.share for column in shown if not column.width)
    widths = []
    for column in columns:
        taken = column.width if column.needs <= width else 0
        if column.needs <= width and not column.width:
            taken = left * column.share // shares
            left -= taken
            shares -= column.share
        widths.append(taken)
    return widths
