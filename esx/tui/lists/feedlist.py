"""The latest events of the feed, as a list that follows its end."""

from collections.abc import Mapping
from typing import ClassVar

from textual.binding import Binding, BindingType

from esx.tui.cells import Cell
from esx.tui.lists.column import ListColumn
from esx.tui.lists.columns import event_columns
from esx.tui.lists.rows import EventRow
from esx.tui.lists.rowtable import RowTable


def feed_columns(late: Mapping[int, float]) -> list[ListColumn[EventRow]]:
    """Return the columns of the feed; `late` has by how many seconds events came late, by global_seq."""

    def delay(row: EventRow) -> Cell:
        seconds = late.get(row.global_seq)
        if seconds is None:
            return Cell("")
        return Cell(short_delay(seconds), "problem" if seconds >= 1 else "muted")

    columns = event_columns(in_all=True)
    at = next(index for index, column in enumerate(columns) if column.title == "ago") + 1
    # Only where something was late.
    late_by = ListColumn[EventRow]("late", delay, 4, right=True, needs=36, sparse=True)
    return [*columns[:at], late_by, *columns[at:]]


_MEASURED = 200
"""For how many of the latest events columns are wide enough."""


class FeedList(RowTable["EventRow"]):
    """The latest events; the list follows its end until the user moves away from it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "In full", key_display="enter", tooltip="Show the event in full"),
    ]
    following = True

    def take(self, rows: list[EventRow], gone: int) -> None:
        """Show `rows`; since the last call, `gone` of them left at the top."""
        # Not only for those that are on screen at the end: which ones come on screen is chance.
        self.make_room_for(rows[-_MEASURED:])
        if self.following:
            self.set_rows(rows, cursor=len(rows) - 1, offset=len(rows))
        else:
            self.set_rows(rows, cursor=self.cursor - gone, offset=max(self.scroll_offset.y - gone, 0))

    @property
    def behind(self) -> int:
        """How many rows are below the screen."""
        return max(len(self.rows) - self.scroll_offset.y - self.body_height, 0)

    def move_to(self, index: int) -> None:
        """Put the cursor on a row; on the last one, follow again."""
        super().move_to(index)
        self.following = self.cursor >= len(self.rows) - 1

    def on_resize(self) -> None:
        """Keep the end in view while it is followed."""
        if self.following:
            self.scroll_to(y=len(self.rows))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Stop following when the wheel goes up, follow again at the end."""
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value and self.max_scroll_y - new_value >= 1:
            self.following = False
        elif new_value >= self.max_scroll_y and new_value > old_value:
            self.following = True


def short_delay(seconds: float) -> str:
    """Return a delay in at most six characters: ``4ms``, ``1.2s``, ``12m``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 99.95:
        return f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}m"
