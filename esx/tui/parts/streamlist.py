"""The list of streams, with its filter and its orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from esx.store.views import StreamsView
from esx.text import visible
from esx.tui.categories import StreamsByCategory, TreeKey
from esx.tui.parts.columns import stream_columns
from esx.tui.parts.part import Part
from esx.tui.rows import StreamRow
from esx.tui.scales import Names
from esx.tui.sources import EVERY_STREAM, StreamChoice, StreamsByActivity, StreamsByName
from esx.tui.widgets.pagedlist import PagedList
from esx.tui.widgets.rowtable import RowTable

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.timer import Timer

    from esx.tui.link import Link
    from esx.tui.window import Window

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
        Binding(
            "slash",
            "filter",
            "Filter",
            key_display="/",
            tooltip="Choose streams by prefix, by glob (* ? [), or by what their ids contain (~text)",
        ),
        Binding("s", "sort", "Sort", tooltip="Streams by name, or by most recent activity"),
        Binding("c", "categories", "Group", tooltip="Streams by category (ids up to their first -), or in one list"),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "expand", "Open the category", show=False),
        Binding("left,h", "collapse", "Close the category", show=False),
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
        self.by_category = False
        self._filter = ""
        self._opened: set[str] = set()
        """The places of the open categories."""
        self._search_if_none = False
        """Whether to look for the filter's text anywhere, should no id start with it."""
        self._row_timer: Timer | None = None
        self._filter_timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the filter above the list."""
        yield Input(id="filter", placeholder="prefix, glob * ? [, or ~text anywhere", compact=True)
        yield PagedList[StreamRow, Any](stream_columns(), id="streams", empty="no streams")

    @property
    def table(self) -> PagedList[StreamRow, Any]:
        """The list itself."""
        return self.query_one("#streams", PagedList)

    def on_mount(self) -> None:
        """Write the title."""
        self._write_title()

    def view(self) -> StreamsView:
        """Return what the list shows, as a value; the categories are shown as all of their streams."""
        choice = StreamChoice.of(self._filter)
        return StreamsView(choice.prefix, choice.match, choice.contains, self.recent)

    @property
    def _in_categories(self) -> bool:
        # What a filter finds is one list.
        return self.by_category and not self._filter

    def show(self) -> None:
        """Read the streams from their start."""
        store = self.link.store
        table = self.table
        table.columns = stream_columns(by_category=self._in_categories)
        table.forget_widths()
        choice = StreamChoice.of(self._filter)
        table.nothing = "no streams"
        if choice.prefix:
            table.nothing = f"no id starts with {choice.prefix} · enter searches inside all ids"
        elif choice != EVERY_STREAM:
            table.nothing = "no id matches" if choice.match else f"no id contains {choice.contains}"
        if store is not None:
            if self._in_categories:
                table.show(StreamsByCategory(store, self._opened))
            elif self.recent:
                table.show(StreamsByActivity(store, choice))
            else:
                table.show(StreamsByName(store, choice))
        self._write_title()

    def _write_title(self) -> None:
        order = "by category" if self._in_categories else "by activity" if self.recent else "by name"
        shown = f" · {visible(self._filter, limit=40)}" if self._filter else ""
        self.entitle(f"streams {order}{shown}")

    @on(PagedList.Moved, "#streams")
    def _moved(self) -> None:
        table = self.table
        window = table.window
        if window is None:
            return
        whole = window.bottom and window.first == 0
        if self._search_if_none and window.loaded:
            self._search_if_none = False
            if whole and not window.rows:
                self._line.value = "~" + self._filter
                self._apply_filter()
                return
        self.entitle(subtitle=self._progress(window) if self._searching else self._count(window, whole=whole))

    @property
    def _searching(self) -> bool:
        choice = StreamChoice.of(self._filter)
        return choice.match is not None or choice.contains is not None

    def _progress(self, window: Window[StreamRow, Any]) -> str:
        found = f"{window.found:,} found"
        if window.whole:
            return found
        looked = f"looked at {window.looked:,}"
        if self.table.stopped:
            return f"{found} · stopped, {looked}"
        return f"{found} · {looked}, esc stops" if self.table.busy else f"{found} so far · {looked}"

    def _count(self, window: Window[StreamRow, Any], *, whole: bool) -> str:
        above = 0 if self._filter else 1
        rows = window.length - above
        if whole:
            return "" if self._in_categories else f"{rows:,}"
        if isinstance(window.scale, Names):
            return window.scale.streams.text
        return "" if self._in_categories else f"{max(rows, 0):,}+"

    @on(RowTable.Highlighted, "#streams")
    def _highlighted(self, message: RowTable.Highlighted) -> None:
        message.stop()
        if self._row_timer is not None:
            self._row_timer.stop()
        self._row_timer = self.set_timer(SETTLE, self._rested)

    def _rested(self) -> None:
        # The row of now, not of when the timer was set: a timer that is stopped may still call once.
        row = self.table.row
        if row is not None and row.category is None:
            self.post_message(self.Picked(row, chosen=False))

    @on(RowTable.Chosen, "#streams")
    def _chosen(self, message: RowTable.Chosen) -> None:
        message.stop()
        row: StreamRow = message.row
        if row.category is None:
            self.post_message(self.Picked(row, chosen=True))
        else:
            self._toggle(row.category.place)

    # -- categories ----------------------------------------------------------------------------------------

    def _toggle(self, place: str) -> None:
        self._opened ^= {place}
        self.table.reload()

    def action_categories(self) -> None:
        """List streams by category, or all in one list."""
        self.by_category = not self.by_category
        self.recent = False
        self.show()

    def action_expand(self) -> None:
        """Open the category under the cursor; on anything else, leave the key to others."""
        row = self.table.row
        if row is None or row.category is None or row.is_open:
            raise SkipAction
        self._toggle(row.category.place)

    def action_collapse(self) -> None:
        """Close the category under the cursor, or the one that the stream under the cursor is in."""
        row = self.table.row
        if row is None:
            raise SkipAction
        if row.category is not None and row.is_open:
            self._toggle(row.category.place)
        elif row.under is not None:
            self._opened.discard(row.under)
            self.table.go_to(TreeKey(row.under))
            self.table.reload()
        else:
            raise SkipAction

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
        self._search_if_none = bool(StreamChoice.of(self._filter).prefix)
        self._moved()
        self.table.focus()

    def _apply_filter(self) -> None:
        text = self._line.value
        if self._filter_timer is not None:
            self._filter_timer.stop()
        if text != self._filter:
            self._filter = text
            self._search_if_none = False
            self.show()

    def clear_filter(self) -> bool:
        """Stop the search that is going on, or take the filter away; return whether there was one."""
        if self._searching and self.table.stop():
            return True
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
        self.by_category = False
        self.show()
