"""The visible rows of a JSON layout: all but those inside folds."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

from esx.tui.event.jsonlayout import NONE, JsonLayout


class Folds:
    """Folds over a layout that may still be growing.

    `rows` are the visible rows of the layout, in order, four bytes each.
    """

    def __init__(self, layout: JsonLayout) -> None:
        self.layout = layout
        self.rows = array("I")
        self.level: int | None = None
        """From which depth on values are folded; None: nowhere."""
        # The rows that are the opposite of what `level` says.
        self._turned: set[int] = set()
        # The first row of the layout that has not been taken in, and the fold whose end is not known yet.
        self._next = 0
        self._open_end = NONE

    def __len__(self) -> int:
        return len(self.rows)

    def folded(self, row: int) -> bool:
        """Return whether the value that a row opens is folded."""
        layout = self.layout
        by_level = self.level is not None and layout.depth(row) >= self.level
        return layout.opens(row) and by_level != (row in self._turned)

    def grow(self) -> None:
        """Take in the rows that the layout has made since."""
        if self._open_end != NONE:
            mate = self.layout.mate(self._open_end)
            if mate == NONE:
                return
            self._open_end = NONE
            self._next = mate + 1
        self.rows.extend(self._seen(self._next, len(self.layout)))
        if self._open_end == NONE:
            self._next = len(self.layout)

    def index_of(self, row: int) -> int:
        """Return the index of a row among the visible ones, or of the fold that hides it."""
        return max(bisect_right(self.rows, row) - 1, 0)

    def toggle(self, index: int) -> int:
        """Fold or unfold at a visible row, and return the index of the fold.

        A row that opens nothing folds the value around it.
        """
        layout = self.layout
        row = self.rows[index]
        if not layout.opens(row):
            row = layout.mate(row) if layout.closes(row) else layout.parent(row)
            if row == NONE:
                return index
            index = self.index_of(row)
        if self.folded(row):
            self._unfold(index)
        else:
            self._fold(index)
        return index

    def _fold(self, index: int) -> None:
        row = self.rows[index]
        self._turned ^= {row}
        mate = self.layout.mate(row)
        if mate == NONE or mate >= self._next:
            del self.rows[index + 1 :]
            self._open_end = row
        else:
            del self.rows[index + 1 : bisect_right(self.rows, mate)]

    def _unfold(self, index: int) -> None:
        row = self.rows[index]
        self._turned ^= {row}
        if self._open_end == row:
            self._open_end = NONE
            self._next = row + 1
            self.grow()
        else:
            self.rows[index + 1 : index + 1] = self._seen(row + 1, self.layout.mate(row) + 1)

    def reveal(self, row: int) -> int:
        """Unfold what hides a row of the layout, and return its index."""
        while self.rows[index := self.index_of(row)] != row and self.folded(self.rows[index]):
            self._unfold(index)
        return index

    def fold_from(self, level: int | None) -> None:
        """Fold everything nested `level` deep or deeper, and nothing else; None unfolds everything.

        Takes a step for each row that is then seen, unless all are: for large values, call it in a thread, on a copy.
        """
        self.level = level
        self._turned = set()
        self._open_end = NONE
        self._next = 0
        self.rows = array("I")
        self.grow()

    def _seen(self, start: int, stop: int) -> array[int]:
        """Return the rows from `start` to `stop` that no fold among them hides."""
        if self.level is None:
            return self._seen_by_turned(start, stop)
        seen = array("I")
        layout, level, turned = self.layout, self.level, self._turned
        row = start
        while row < stop:
            seen.append(row)
            if layout.opens(row) and (layout.depth(row) >= level) != (row in turned):
                mate = layout.mate(row)
                if mate == NONE or mate >= stop:
                    self._open_end = row
                    break
                row = mate
            row += 1
        return seen

    def _seen_by_turned(self, start: int, stop: int) -> array[int]:
        seen = array("I")
        turned = sorted(self._turned)
        for row in turned[bisect_left(turned, start) :]:
            if row >= stop:
                break
            if row < start:
                # Inside an earlier fold.
                continue
            seen.extend(range(start, row + 1))
            mate = self.layout.mate(row)
            if mate == NONE or mate >= stop:
                self._open_end = row
                return seen
            start = mate + 1
        seen.extend(range(start, stop))
        return seen
