"""Screen Feed: the ordered feed as it comes, with what holds it and what was not shown."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from esx.store.barrier import Filter
from esx.store.errors import EsxError, InvalidQuery
from esx.store.views import FeedView
from esx.text import visible
from esx.tui.cells import Cell
from esx.tui.parts.columns import event_columns
from esx.tui.parts.eventpart import EventPart
from esx.tui.parts.feedfigures import figures, short_delay
from esx.tui.parts.filterline import FilterLine, describe_filter
from esx.tui.parts.part import Part, keys_of
from esx.tui.rows import EventRow
from esx.tui.screens.pane import Pane
from esx.tui.stage import from_behind
from esx.tui.widgets.rowtable import Column, RowTable
from esx.tui.work import start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.app import ComposeResult
    from textual.timer import Timer

    from esx.store.views import View
    from esx.tui.follower import Follower
    from esx.tui.link import Link
    from esx.tui.widgets.eventdetail import EventDetail

FLUSHES = 12
"""Repaints a second while events come in."""


_TALL = 28
"""From this height on there is room for a line more of types."""


def feed_columns(late: Mapping[int, float]) -> list[Column[EventRow]]:
    """Return the columns of the feed; `late` says which events were waited for, and for how many seconds."""

    def delay(row: EventRow) -> Cell:
        seconds = late.get(row.global_seq)
        if seconds is None:
            return Cell("")
        return Cell(short_delay(seconds), "problem" if seconds >= 1 else "muted")

    columns = event_columns(in_all=True)
    at = next(index for index, column in enumerate(columns) if column.title == "ago") + 1
    late_by = Column[EventRow]("late", delay, 6, right=True, needs=60)
    # The time of day can go first where there is no room: what comes comes now.
    columns = [replace(column, needs=100) if column.title == "time" else column for column in columns]
    return [*columns[:at], late_by, *columns[at:]]


class FeedList(RowTable["EventRow"]):
    """The latest events; it follows the end until one moves away from it."""

    following = True

    def take(self, rows: list[EventRow], gone: int) -> None:
        """Show `rows`, of which `gone` went from the top since the last time."""
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
        """Keep what was in view in view: the end, while it is followed."""
        if self.following:
            self.scroll_to(y=len(self.rows), animate=False, force=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Stop following when the wheel goes up, follow again at the end."""
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value and self.max_scroll_y - new_value >= 1:
            self.following = False
        elif new_value >= self.max_scroll_y and new_value > old_value:
            self.following = True


class FeedPane(Pane):
    """Follows live. Space pauses the view, never the counting."""

    TITLE = "Feed"
    FIRST_FOCUS = "#feed"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pause", "Pause", tooltip="Stop the view and keep counting; again to go on"),
        Binding("f", "filter", "Filter", tooltip="Choose events by stream, by type, and by their data"),
        *keys_of("feed-detail-part", EventPart.KEYS),
        Binding("d", "detail", "Detail", tooltip="Show or hide the event in full"),
        Binding("right,l", "focus_detail", "To the event in full", show=False),
        Binding("left,h", "focus_list", "To the list", show=False),
        Binding("escape", "back", "Close the event in full, or take the filter away", show=False),
        Binding("r", "retry", "Retry the connection, or begin anew", show=False),
    ]
    DEFAULT_CSS = """
    FeedPane {
        layout: vertical;
        #feed-figures {
            height: auto;
            border: round $foreground 25%;
            border-title-color: $text-muted;
            border-subtitle-color: $text-muted;
            background: $surface;
            padding: 0 1;
        }
        #feed-numbers { width: 1fr; height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
        #feed-body { height: 1fr; layout: horizontal; }
        #feed-part { width: 3fr; }
        #feed-detail-part { width: 2fr; display: none; }
        &.-detail #feed-detail-part { display: block; }
        &.-paused #feed-part { border: round $warning; border-title-color: $text-warning; }
    }
    FeedPane.-narrow {
        #feed-body { layout: vertical; }
        #feed-part { width: 1fr; }
        #feed-detail-part { width: 1fr; }
    }
    """

    def __init__(self, link: Link, follower: Follower, *, id: str) -> None:
        super().__init__(link, id=id)
        self.follower = follower
        self._written_at = 0.0
        self._lines = 0
        self._event_timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the figures above the list and the event."""
        with Container(id="feed-figures") as figures:
            figures.border_title = "feed"
            yield Static(id="feed-numbers")
        with Container(id="feed-body"):
            with Part(self.link, id="feed-part"):
                yield FilterLine(id="feed-filter")
                yield FeedList(feed_columns(self.follower.log.late), id="feed", empty="waiting for events …")
            yield EventPart(
                self.link, id="feed-detail-part", detail_id="feed-detail", empty="choose an event with enter first"
            )

    @property
    def table(self) -> FeedList:
        """The list of events."""
        return self.query_one("#feed", FeedList)

    @property
    def event_part(self) -> EventPart:
        """The part with the event in full."""
        return self.query_one("#feed-detail-part", EventPart)

    @property
    def detail(self) -> EventDetail:
        """The event in full."""
        return self.event_part.detail

    def view(self) -> View | None:
        """Return the feed from the first event that is kept, or the event that has the focus, as a value."""
        if self.detail.has_focus:
            return super().view()
        rows = self.table.rows
        return FeedView(rows[0].global_seq - 1 if rows else self.follower.position, self.follower.where)

    def event_at_hand(self) -> int | None:
        """Return the event under the cursor, or the one in full where that has the focus."""
        shown = self.event_part.event
        if self.detail.has_focus and shown is not None:
            return shown.global_seq
        return None if self.table.row is None else self.table.row.global_seq

    def on_mount(self) -> None:
        """Start the clock that repaints."""
        # While another screen is shown, what comes waits in the log, counted.
        self.every(1 / FLUSHES, self._flush)
        self.every(5, self.table.refresh)

    # -- drawing --------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        log = self.follower.log
        gone = log.flush()
        if gone is not None:
            self.table.take(log.rows, gone)
        now = monotonic()
        if gone is not None or now - self._written_at >= 0.25:
            self._written_at = now
            self._write(now)

    def _write(self, now: float) -> None:
        log = self.follower.log
        numbers = self.query_one("#feed-numbers", Static)
        dark = self.app.current_theme.dark
        rows = 2 if self.size.height < _TALL else 3
        shown = figures(self.follower, now, width=max(numbers.size.width, 20), types=rows, dark=dark)
        # Laying the screen out anew costs more than drawing it; only a line more or less makes that necessary.
        lines = shown.plain.count("\n")
        numbers.update(shown, layout=lines != self._lines)
        self._lines = lines
        self.set_class(log.paused, "-paused")
        if log.paused:
            title = f"paused · {log.waiting:,} new"
        elif self.follower.ended:
            title = "ended"
        elif self.table.following:
            title = "following"
        else:
            title = f"not following · {self.table.behind:,} below · end follows again"
        part = self.query_one("#feed-part")
        chosen = describe_filter(self.follower.where)
        part.border_title = Content(f"{title} · {visible(chosen, limit=80)}" if chosen else title)
        gone = f" · {log.gone:,} earlier no longer kept" if log.gone else ""
        part.border_subtitle = Content(f"{len(log.rows):,} shown{gone}")

    # -- keys and the event in full -----------------------------------------------------------------------------

    def action_pause(self) -> None:
        """Stop the view, or go on."""
        log = self.follower.log
        log.paused = not log.paused
        self._written_at = 0.0
        self._flush()

    @on(RowTable.Highlighted, "#feed")
    def _highlighted(self, message: RowTable.Highlighted) -> None:
        message.stop()
        # Reading along with a feed that runs would be reading every event one by one.
        if self.has_class("-detail") and not self.table.following:
            self._read_soon()

    @on(RowTable.Chosen, "#feed")
    def _chosen(self, message: RowTable.Chosen) -> None:
        message.stop()
        self.table.following = False
        self.add_class("-detail")
        self._read_soon()

    def _read_soon(self) -> None:
        if self._event_timer is not None:
            self._event_timer.stop()
        self._event_timer = self.set_timer(0.04, self._open_event)

    def _open_event(self) -> None:
        row = self.table.row
        if row is not None:
            self.event_part.open(row.global_seq)

    # -- the filter -----------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Open the line in which to say which events are wanted."""
        self.query_one(FilterLine).open(self.follower.where)

    @on(FilterLine.Entered)
    def _filter_entered(self, message: FilterLine.Entered) -> None:
        message.stop()
        start(self, partial(self._choose, message.where), "filter")

    async def _choose(self, where: Filter) -> None:
        line = self.query_one(FilterLine)
        if where == self.follower.where:
            line.close()
            self.table.focus()
            return
        try:
            await self.follower.choose(where)
        except InvalidQuery as error:
            line.refuse(str(error))
            return
        except EsxError as error:
            self.link.report(error, of=from_behind(self))
            return
        line.close()
        self.table.focus()
        self._show_anew()

    def _show_anew(self) -> None:
        chosen = bool(self.follower.where)
        self.table.following = True
        self.table.take([], 0)
        self.table.empty = "nothing among the latest events passes the filter" if chosen else "waiting for events …"
        self._written_at = 0.0
        self._flush()

    def action_back(self) -> None:
        """Undo the last narrowing: the line of the filter, the event in full, the filter."""
        line = self.query_one(FilterLine)
        if line.is_open:
            line.close()
            self.table.focus()
        elif self.has_class("-detail"):
            self.action_close_detail()
        elif self.follower.where:
            start(self, partial(self._choose, Filter()), "filter")

    def action_detail(self) -> None:
        """Show or hide the event in full."""
        if self.has_class("-detail"):
            self.action_close_detail()
        else:
            self.table.action_choose()

    def action_focus_detail(self) -> None:
        """Go to the event in full."""
        if not self.has_class("-detail"):
            self.table.action_choose()
        self.detail.focus()

    def action_focus_list(self) -> None:
        """Go to the list."""
        self.table.focus()

    def action_close_detail(self) -> None:
        """Close the event in full."""
        self.remove_class("-detail")
        self.event_part.show(None)
        self.table.focus()

    def action_retry(self) -> None:
        """Try to reach the database now, or begin a feed anew that has ended."""
        self.link.retry()
        if self.follower.ended:
            self.follower.begin_anew()
            self._show_anew()
