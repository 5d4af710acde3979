"""The list of streams, with its filter and its orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding
from textual.content import Content
from textual.message import Message
from textual.widgets import Input

from esx.text import round_estimate, visible
from esx.tui.parts.columns import stream_columns
from esx.tui.parts.part import Part
from esx.tui.rows import StreamRow
from esx.tui.sources import StreamsByActivity, StreamsByName
from esx.tui.widgets.pagedlist import PagedList
from esx.tui.widgets.rowtable import RowTable

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.timer import Timer

    from esx.tui.link import Link

SETTLE = 0.04
"""Seconds the cursor rests on a row before what belongs to it is read."""
_TYPING = 0.15


class StreamList(Part):
    """Streams by name or by most recent activity, chosen by a filter."""

    class Picked(Message):
        """The cursor rests on a stream, or, with `chosen`, it was opened."""

        def __init__(self, row: StreamRow, *, chosen: bool) -> None:
            super().__init__()
            self.row = row
            self.chosen = chosen

    KEYS: ClassVar[list[Binding]] = [
        Binding("slash", "filter", "Filter", key_display="/", tooltip="Choose streams by prefix, or by glob (* ? [)"),
        Binding("s", "sort", "Sort", tooltip="Streams by name, or by most recent activity"),
    ]
    DEFAULT_CSS = """
    StreamList #filter {
        display: none;
        height: 1;
        border: none;
        padding: 0 1;
        background: $boost;
        &.-shown { display: block; }
    }
    """

    def __init__(self, link: Link, *, id: str) -> None:
        super().__init__(link, id=id)
        self.recent = False
        self._filter = ""
        self._row_timer: Timer | None = None
        self._filter_timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the filter above the list."""
        yield Input(id="filter", placeholder="prefix, or glob with * ? [", compact=True)
        yield PagedList[StreamRow, Any](stream_columns(), id="streams", empty="no streams")

    @property
    def table(self) -> PagedList[StreamRow, Any]:
        """The list itself."""
        return self.query_one("#streams", PagedList)

    def on_mount(self) -> None:
        """Write the title."""
        self._write_title()

    def show(self) -> None:
        """Read the streams from their start."""
        store = self.link.store
        if store is not None:
            kind = StreamsByActivity if self.recent else StreamsByName
            self.table.show(kind(store, self._filter))
        self._write_title()

    def _write_title(self) -> None:
        order = "by activity" if self.recent else "by name"
        shown = f" · {visible(self._filter, limit=40)}" if self._filter else ""
        self.border_title = Content(f"streams {order}{shown}")

    @on(PagedList.Moved, "#streams")
    def _moved(self) -> None:
        window = self.table.window
        if window is None:
            return
        above = 0 if self._filter else 1
        if window.bottom and window.first == 0:
            count = f"{window.length - above:,}"
        elif window.scale is not None:
            count = f"~{round_estimate(window.length - above):,}"
        else:
            count = f"{max(window.length - above, 0):,}+"
        self.border_subtitle = Content(count)

    @on(RowTable.Highlighted, "#streams")
    def _highlighted(self, message: RowTable.Highlighted) -> None:
        message.stop()
        if self._row_timer is not None:
            self._row_timer.stop()
        self._row_timer = self.set_timer(SETTLE, self._rested)

    def _rested(self) -> None:
        # The row of now, not of when the timer was set: a timer that is stopped may still call once.
        if self.table.row is not None:
            self.post_message(self.Picked(self.table.row, chosen=False))

    @on(RowTable.Chosen, "#streams")
    def _chosen(self, message: RowTable.Chosen) -> None:
        message.stop()
        self.post_message(self.Picked(message.row, chosen=True))

    # -- filter and order --------------------------------------------------------------------------------------

    @property
    def _line(self) -> Input:
        return self.query_one("#filter", Input)

    def action_filter(self) -> None:
        """Open the line in which to type the filter."""
        self._line.add_class("-shown")
        self._line.focus()

    @on(Input.Changed, "#filter")
    def _filter_typed(self, message: Input.Changed) -> None:
        message.stop()
        if self._filter_timer is not None:
            self._filter_timer.stop()
        self._filter_timer = self.set_timer(_TYPING, self._apply_filter)

    @on(Input.Submitted, "#filter")
    def _filter_submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self._apply_filter()
        if not self._filter:
            self._line.remove_class("-shown")
        self.table.focus()

    def _apply_filter(self) -> None:
        text = self._line.value
        if self._filter_timer is not None:
            self._filter_timer.stop()
        if text != self._filter:
            self._filter = text
            self.show()

    def clear_filter(self) -> bool:
        """Take the filter away; return whether there was one to take away."""
        if not self._line.has_class("-shown"):
            return False
        self._line.value = ""
        self._apply_filter()
        self._line.remove_class("-shown")
        self.table.focus()
        return True

    def action_sort(self) -> None:
        """Order streams by name or by most recent activity."""
        self.recent = not self.recent
        self.show()
