"""The list of streams, with its filter and its orders."""

from typing import Any, ClassVar

from textual import on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from esx.eventstore import EventStore
from esx.filters import EVERY_STREAM
from esx.store.read.pages import StreamKey
from esx.store.views import StreamsView
from esx.text import visible
from esx.tui.lists.categories import StreamsByCategory, TreeKey
from esx.tui.lists.columns import stream_columns
from esx.tui.lists.pagedlist import PagedList
from esx.tui.lists.row_numbers import NamedRows
from esx.tui.lists.rows import StreamRow
from esx.tui.lists.rowtable import RowTable
from esx.tui.lists.sources import StreamsByActivity, StreamsByName, stream_filter
from esx.tui.lists.window import Window
from esx.tui.panels.panel import Panel, SearchLine
from esx.tui.session.follower import Follower
from esx.tui.session.session import ExplorerSession


class StreamsPanel(Panel):
    """Streams by name or by most recent activity, chosen by a filter."""

    KEYMAP_PREFIX = "stream-list"

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

    def __init__(self, session: ExplorerSession, follower: Follower, *, id: str) -> None:
        super().__init__(session, id=id)
        self.follower = follower
        self.table = PagedList[StreamRow, Any](stream_columns(), id="streams", empty="no streams")
        self._line = SearchLine("prefix, glob * ? [, or ~text anywhere", id="filter")
        self.table.position = lambda: max(follower.position, session.head)
        self.recent = False
        self.by_category = False
        self._filter = ""
        self._opened: set[str] = set()
        self._search_if_none = False
        """Whether to search for the filter's text inside ids if no id starts with it."""

    def compose(self) -> ComposeResult:
        """Lay out the filter above the list."""
        self._write_title()
        yield from (self._line, self.table)

    def view(self) -> StreamsView:
        """Return the view of the list; categories count as all of their streams."""
        return StreamsView(stream_filter(self._filter), self.recent)

    @property
    def _in_categories(self) -> bool:
        # Filtered streams are one list.
        return self.by_category and not self._filter

    def show(self, *, at: str | None = None, at_seq: int = 0) -> None:
        """Read the streams from their start, or with the cursor on the stream `at`, whose last event is `at_seq`."""
        store = self.session.store
        table = self.table
        table.columns = stream_columns(by_category=self._in_categories)
        table.forget_widths()
        where = stream_filter(self._filter)
        table.nothing = "no streams"
        if where.prefix:
            table.nothing = f"no id starts with {where.prefix} · enter searches inside all ids"
        elif where != EVERY_STREAM:
            table.nothing = "no id matches" if where.match else f"no id contains {where.contains}"
        if store is not None:
            if self._in_categories:
                table.show(StreamsByCategory(store, self._opened), at=at and self._open_around(at, store))
            else:
                recent = StreamsByActivity(store, where, position=lambda: self.follower.position)
                table.show(recent if self.recent else StreamsByName(store, where), at=at and StreamKey(at, at_seq))
        self._write_title()

    def _open_around(self, stream_id: str, store: EventStore) -> TreeKey | None:
        """Open the category of a stream, and return the place of the stream, or of its category if it has its name.

        None where the id does not tell the category.
        """
        if store.has_category_column:
            return None
        category, dash, _ = stream_id.partition(store.separator)
        self._opened.add(category + dash)
        return TreeKey(category + dash, stream_id if dash else None)

    def _write_title(self) -> None:
        order = "by category" if self._in_categories else "by activity" if self.recent else "by name"
        shown = f" · {visible(self._filter, limit=40)}" if self._filter else ""
        self.entitle(f"streams {order}{shown}")

    @on(PagedList.Moved)
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
        self.write_count()

    def write_count(self) -> None:
        """Say how many streams there are, and what has come since they were read."""
        window = self.table.window
        if window is not None:
            whole = window.bottom and window.first == 0
            found = self._progress(window) if self._searching else self._count(window, whole=whole)
            self.entitle(subtitle=" · ".join(filter(None, (found, self._newer()))))

    def follow(self) -> None:
        """Show what has come, while the top of the list is on screen."""
        if self.table.at_top and not self._searching and self._behind > 0:
            self.table.follow()

    @property
    def _as_of(self) -> int:
        """Up to which global_seq the list knows of events."""
        window = self.table.window
        source = None if window is None else window.source
        return source.as_of if isinstance(source, StreamsByActivity) else self.table.as_of

    @property
    def _behind(self) -> int:
        """How many events came since the streams were read; 0 where none can be known of."""
        window, follower = self.table.window, self.follower
        if window is None or not window.loaded or self.table.problem or not follower.started:
            return 0
        return follower.position - self._as_of

    def _newer(self) -> str:
        """Return how many events came since the streams were read, in words: their ages go on alone."""
        newer, follower = self._behind, self.follower
        if newer <= 0 or (self.table.at_top and not self._searching and not self.table.stale):
            return ""
        exact = follower.began <= self._as_of and not follower.counts.dead and not self._filter
        return f"{'' if exact else 'up to '}{newer:,} newer, r reads them"

    @property
    def _searching(self) -> bool:
        return stream_filter(self._filter).glob is not None

    def _progress(self, window: Window[StreamRow, Any]) -> str:
        found = f"{window.found:,} found"
        if window.whole:
            return found
        looked = f"looked at {window.looked:,}"
        if self.table.stopped:
            return f"{found} · stopped, {looked}"
        return f"{found} · {looked}, esc stops" if self.table.busy else f"{found} so far · {looked}"

    def _count(self, window: Window[StreamRow, Any], *, whole: bool) -> str:
        if isinstance(window.source, StreamsByCategory):
            looked = window.source.looked
            return "" if looked is None else f"of {looked:,} streams looked at"
        above = 0 if self._filter else 1
        rows = window.length - above
        if whole:
            return f"{rows:,}"
        if isinstance(window.row_numbers, NamedRows):
            return window.row_numbers.streams.text
        return f"{max(rows, 0):,}+"

    @on(RowTable.Chosen, "#streams")
    def _chosen(self, message: RowTable.Chosen) -> None:
        row: StreamRow = message.row
        if row.category is not None:
            self._toggle(row.category.place)

    def _toggle(self, place: str) -> None:
        self._opened ^= {place}
        self.table.reload()

    def action_categories(self) -> None:
        """List streams by category, or all in one list."""
        self.by_category = not self.by_category
        self.recent = False
        self.show()

    def action_expand(self) -> None:
        """Open the category under the cursor; on other rows, leave the key to the screen."""
        row = self.table.row
        if row is None or row.category is None or row.is_open:
            raise SkipAction
        self._toggle(row.category.place)

    def action_collapse(self) -> None:
        """Close the category under the cursor, or around the stream under the cursor."""
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

    def action_filter(self) -> None:
        """Open the line for the filter."""
        self._line.open()

    @on(Input.Submitted, "#filter")
    def _filter_submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self._apply_filter()
        if not self._filter:
            self._line.close()
        self._search_if_none = bool(stream_filter(self._filter).prefix)
        self._moved()
        self.table.focus()

    @on(SearchLine.Typed)
    def _apply_filter(self) -> None:
        text = self._line.value
        if text != self._filter:
            row = self.table.row
            self._filter = text
            self._search_if_none = False
            if text or row is None or row.summary is None:
                self.show()
            else:
                # The stream that was found stays under the cursor.
                self.show(at=row.summary.stream_id, at_seq=row.summary.last_global_seq)

    def clear_filter(self) -> bool:
        """Stop the search, or clear the filter; return whether there was one."""
        if self._searching and self.table.stop():
            return True
        if not self._line.is_open:
            return False
        self._line.close()
        self._apply_filter()
        self.table.focus()
        return True

    def action_sort(self) -> None:
        """Order streams by name or by most recent activity."""
        store = self.session.store
        if store is not None and store.unnumbered is not None:
            self.notify(store.unnumbered, severity="warning")
            return
        self.recent = not self.recent
        self.by_category = False
        self.show()
