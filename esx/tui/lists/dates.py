"""Times of the rows of a list: the date once, in the title and where it changes."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic

from esx.times import clock
from esx.tui.cells import Cell
from esx.tui.lists.column import ListColumn, Row

_USUAL = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


class Dates(Generic[Row]):
    """Knows on which rows on screen another date begins; `moment` is the time of a row."""

    def __init__(self, moment: Callable[[Row], datetime | None]) -> None:
        self._moment = moment
        self._date = ""
        self._begins: dict[str, str] = {}

    def prepare(self, rows: Sequence[Row]) -> None:
        """Look at the rows on screen."""
        texts = [text for row in rows if _USUAL.fullmatch(text := clock(self._moment(row)))]
        last = self._date = texts[0][:10] if texts else ""
        self._begins = {}
        for text in texts:
            if text[:10] != last:
                self._begins.setdefault(text, text[5:] if text[:4] == last[:4] else text)
                last = text[:10]

    def heading(self) -> str:
        """Return the date of the first row."""
        return self._date or "time"

    def cell(self, row: Row) -> Cell:
        """Return the time of a row, with the date where another begins; an unusual one, such as infinity, as it is."""
        text = clock(self._moment(row))
        # Also before `prepare`: rows may be measured before they come on screen.
        if _USUAL.fullmatch(text):
            text = self._begins.get(text, text[11:])
        return Cell(text, "muted")


def time_column(moment: Callable[[Row], datetime | None], *, needs: int) -> ListColumn[Row]:
    """Return a column of times."""
    dates = Dates(moment)
    return ListColumn(
        "time", dates.cell, width=10, right=True, needs=needs, prepare=dates.prepare, heading=dates.heading
    )
