"""Screen Streams: streams, the events of one of them, and one event in full."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Input

from esx.store.errors import EsxError
from esx.text import ago, visible
from esx.times import clock
from esx.tui.cells import Cell, size_of
from esx.tui.rows import ALL_STREAMS, EventRow, StreamRow
from esx.tui.screens.pane import Pane
from esx.tui.sources import AllEvents, StreamEvents, StreamsByActivity, StreamsByName
from esx.tui.widgets.eventdetail import EventDetail
from esx.tui.widgets.pagedlist import PagedList
from esx.tui.widgets.rowtable import Column, RowTable
from esx.tui.work import start

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.events import DescendantFocus
    from textual.timer import Timer
    from textual.widget import Widget

    from esx.store.model import Event
    from esx.tui.follower import Follower
    from esx.tui.link import Link

_SETTLE = 0.04
"""Seconds the cursor rests on a row before what belongs to it is read."""
_TYPING = 0.15
_MOST_COPIED = 1_000_000


def _stream_columns() -> list[Column[StreamRow]]:
    return [
        Column("stream", lambda row: Cell(row.label, "strong" if row.summary is None else ""), share=3),
        Column(
            "events",
            lambda row: Cell(f"{row.summary.events:,}" if row.summary else "", "number"),
            7,
            right=True,
            needs=24,
        ),
        Column(
            "last type",
            lambda row: _typed(visible(row.summary.last_event_type, limit=200)) if row.summary else Cell(""),
            share=2,
            needs=44,
        ),
        Column(
            "last",
            lambda row: Cell(ago(row.summary.last_created_at) if row.summary else "", "muted"),
            width=4,
            right=True,
            needs=16,
        ),
    ]


def event_columns(*, in_all: bool) -> list[Column[EventRow]]:
    """Return the columns of a list of events, of one stream or of all."""
    number = Column[EventRow](
        "global" if in_all else "seq",
        lambda row: Cell(str(row.global_seq if in_all else row.stream_seq), "number"),
        width=9 if in_all else 6,
        right=True,
    )
    stream = Column[EventRow]("stream", lambda row: Cell(row.stream), share=3)
    rest = [
        Column[EventRow]("type", lambda row: _typed(row.event_type), share=3),
        Column[EventRow]("time", lambda row: Cell(clock(row.created_at), "muted"), 19, needs=74),
        Column[EventRow]("ago", lambda row: Cell(ago(row.created_at), "muted"), 4, right=True),
        Column[EventRow]("data", lambda row: Cell(row.preview, "muted"), share=5, needs=52),
    ]
    return [number, stream, *rest] if in_all else [number, *rest]


def _typed(name: str) -> Cell:
    return Cell(name, tint=name)


class StreamsPane(Pane):
    """Browse: the chosen stream decides the events, the chosen event decides the detail."""

    FIRST_FOCUS = "#streams"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", tooltip="Choose streams by prefix, or by glob (* ? [)"),
        Binding("s", "sort", "Sort", tooltip="Streams by name, or by most recent activity"),
        Binding("a", "all", "$all", tooltip="The events of all streams, in the global order"),
        Binding("b", "flip", "Flip", tooltip="Events oldest first, or newest first"),
        Binding("y", "copy", "Copy", tooltip="Copy the event as JSON"),
        Binding("z", "zoom", "Zoom", tooltip="Give the focused part the whole screen, and back"),
        Binding("r", "refresh", "Refresh", show=False, tooltip="Read again what is on screen"),
        Binding("left,h", "focus_part(-1)", "Part to the left", show=False),
        Binding("right,l", "focus_part(1)", "Part to the right", show=False),
        Binding("escape", "back", "Back", show=False, tooltip="Clear the filter, or leave the zoom"),
    ]
    DEFAULT_CSS = """
    StreamsPane {
        layout: grid;
        grid-size: 3 1;
        grid-columns: 4fr 6fr 8fr;
        & > .part {
            border: round $foreground 25%;
            border-title-color: $text-muted;
            border-subtitle-color: $text-muted;
            background: $surface;
            padding: 0;
            height: 1fr;
        }
        & > .part:focus-within { border: round $primary; border-title-color: $text-primary; border-title-style: bold; }
        #filter {
            display: none;
            height: 1;
            border: none;
            padding: 0 1;
            background: $boost;
        }
        #filter.-shown { display: block; }
    }
    StreamsPane.-narrow {
        grid-size: 2 2;
        grid-columns: 2fr 3fr;
        grid-rows: 1fr 1fr;
        & > #streams-part { row-span: 2; }
    }
    StreamsPane.-zoomed {
        grid-size: 1 1;
        grid-columns: 1fr;
        grid-rows: 1fr;
        & > .part { display: none; }
        & > .part.-zoomed { display: block; row-span: 1; }
    }
    """

    def __init__(self, link: Link, follower: Follower, *, id: str) -> None:
        super().__init__(link, id=id)
        self.follower = follower
        self.recent = False
        self.stream_id: str | None = None
        """The stream whose events are shown; None for all."""
        self.newest_first = {True: True, False: False}
        """Which way events run: of all streams (True), of one (False)."""
        self._version = -1
        self._filter = ""
        self._source: Any = None
        self._stream_timer: Timer | None = None
        self._event_timer: Timer | None = None
        self._filter_timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the three parts."""
        with Container(id="streams-part", classes="part"):
            yield Input(id="filter", placeholder="prefix, or glob with * ? [", compact=True)
            yield PagedList[StreamRow, Any](_stream_columns(), id="streams", empty="no streams")
        with Container(id="events-part", classes="part"):
            yield PagedList[EventRow, int](event_columns(in_all=True), id="events", empty="no events")
        with Container(id="detail-part", classes="part"):
            yield EventDetail(id="detail")

    @property
    def streams(self) -> PagedList[StreamRow, Any]:
        """The list of streams."""
        return self.query_one("#streams", PagedList)

    @property
    def events(self) -> PagedList[EventRow, int]:
        """The list of events."""
        return self.query_one("#events", PagedList)

    @property
    def detail(self) -> EventDetail:
        """The event in full."""
        return self.query_one("#detail", EventDetail)

    def on_mount(self) -> None:
        """Title the parts."""
        self.query_one("#detail-part").border_title = "event"
        self._title_streams()
        self._title_events()
        # Ages ("3m") grow while one looks.
        self.set_interval(1, self._age)

    def connected(self) -> None:
        """Load, or load again what could not be loaded."""
        if self.streams.window is None:
            self._show_streams()
            self._show_events()
        else:
            self.action_refresh()

    def _age(self) -> None:
        if self.display:
            self.streams.refresh()
            self.events.refresh()
            self._write_position()

    # -- streams ---------------------------------------------------------------------------------------------

    def _show_streams(self) -> None:
        store = self.link.store
        if store is not None:
            kind = StreamsByActivity if self.recent else StreamsByName
            self.streams.show(kind(store, self._filter))
        self._title_streams()

    def _title_streams(self) -> None:
        part = self.query_one("#streams-part")
        order = "by activity" if self.recent else "by name"
        shown = f" · {visible(self._filter, limit=40)}" if self._filter else ""
        part.border_title = Content(f"streams {order}{shown}")

    @on(RowTable.Highlighted, "#streams")
    def _stream_highlighted(self, message: RowTable.Highlighted) -> None:
        message.stop()
        if self._stream_timer is not None:
            self._stream_timer.stop()
        self._stream_timer = self.set_timer(_SETTLE, self._open_highlighted)

    def _open_highlighted(self) -> None:
        # The row of now, not of when the timer was set: a timer that is stopped may still call once.
        if self.streams.row is not None:
            self.open_stream(self.streams.row)

    @on(RowTable.Chosen, "#streams")
    def _stream_chosen(self, message: RowTable.Chosen) -> None:
        message.stop()
        row: StreamRow = message.row
        self.open_stream(row)
        self.events.focus()

    # -- events ------------------------------------------------------------------------------------------------

    def open_stream(self, row: StreamRow) -> None:
        """Show the events of a stream, or of all."""
        self._version = -1 if row.summary is None else row.summary.version
        stream_id = None if row.summary is None else row.summary.stream_id
        if self._source is None or stream_id != self.stream_id:
            self.stream_id = stream_id
            self._show_events()

    def _show_events(self) -> None:
        store = self.link.store
        in_all = self.stream_id is None
        newest_first = self.newest_first[in_all]
        self.events.columns = event_columns(in_all=in_all)
        self.events.forget_widths()
        self._title_events()
        if store is None:
            return
        if self.stream_id is None:
            self._source = AllEvents(store, newest_first=newest_first)
        else:
            self._source = StreamEvents(store, self.stream_id, newest_first=newest_first)
        self.events.show(self._source)

    def _title_events(self) -> None:
        part = self.query_one("#events-part")
        in_all = self.stream_id is None
        name = "$all" if self.stream_id is None else visible(self.stream_id, limit=60)
        part.border_title = Content(f"{name} · {'newest first' if self.newest_first[in_all] else 'oldest first'}")

    @on(PagedList.Moved, "#events")
    def _write_position(self) -> None:
        row = self.events.row
        text = ""
        if row is not None and self.stream_id is None:
            # Follow says how far the store has come since the list was read.
            newest = self.events.rows[0 if self.newest_first[True] else -1].global_seq
            newer = self.follower.position - newest
            text = f"global {row.global_seq:,}"
            if newer > 0 and self._at_newest_end():
                text += f" · {newer:,} newer, r reads them"
        elif row is not None:
            text = f"seq {row.stream_seq:,}" + (f" of {self._version:,}" if self._version >= row.stream_seq else "")
        self.query_one("#events-part").border_subtitle = Content(text)

    def _at_newest_end(self) -> bool:
        window = self.events.window
        return window is not None and (window.top if self.newest_first[True] else window.bottom)

    @on(PagedList.Moved, "#streams")
    def _streams_moved(self) -> None:
        window = self.streams.window
        if window is None:
            return
        count = len(window.rows) - (1 if window.rows and window.rows[0].summary is None else 0)
        whole = window.top and window.bottom
        self.query_one("#streams-part").border_subtitle = Content(f"{count:,}" if whole else f"{count:,}+")

    @on(RowTable.Highlighted, "#events")
    def _event_highlighted(self, message: RowTable.Highlighted) -> None:
        message.stop()
        if self._event_timer is not None:
            self._event_timer.stop()
        self._event_timer = self.set_timer(_SETTLE, self._open_event)

    @on(RowTable.Chosen, "#events")
    def _event_chosen(self, message: RowTable.Chosen) -> None:
        message.stop()
        self._open_event()
        self.detail.focus()

    def _open_event(self) -> None:
        row = self.events.row
        if row is None:
            self._show_event(None)
        elif self.detail.event is None or self.detail.event.global_seq != row.global_seq:
            start(self, partial(self._read_event, row.global_seq), "event")

    async def _read_event(self, global_seq: int) -> None:
        store = self.link.store
        if store is None:
            return
        try:
            event = await store.event(global_seq)
        except EsxError as error:
            self.detail.show(None, "the event could not be read")
            self.link.report(error)
            return
        self._show_event(event)

    def _show_event(self, event: Event | None) -> None:
        self.detail.show(event, "no event chosen" if event is None else None)
        part = self.query_one("#detail-part")
        part.border_title = Content("event" if event is None else visible(event.event_type, limit=60))

    @on(PagedList.Failed)
    def _failed(self, message: PagedList.Failed) -> None:
        message.stop()
        self.link.report(message.error)

    # -- filter ------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Open the line in which to type the filter."""
        line = self.query_one("#filter", Input)
        line.add_class("-shown")
        line.focus()

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
            self.query_one("#filter").remove_class("-shown")
        self.streams.focus()

    def _apply_filter(self) -> None:
        text = self.query_one("#filter", Input).value
        if self._filter_timer is not None:
            self._filter_timer.stop()
        if text != self._filter:
            self._filter = text
            self._show_streams()

    def action_back(self) -> None:
        """Undo the last narrowing: the filter, or the zoom."""
        line = self.query_one("#filter", Input)
        if line.has_class("-shown"):
            line.value = ""
            self._apply_filter()
            line.remove_class("-shown")
            self.streams.focus()
        elif self.has_class("-zoomed"):
            self.action_zoom()
        elif self.detail.has_focus:
            self.events.focus()
        elif self.events.has_focus:
            self.streams.focus()

    # -- other keys -----------------------------------------------------------------------------------------

    def action_sort(self) -> None:
        """Order streams by name or by most recent activity."""
        self.recent = not self.recent
        self._show_streams()

    def action_all(self) -> None:
        """Show the events of all streams."""
        self.open_stream(ALL_STREAMS)
        self.events.focus()

    def action_flip(self) -> None:
        """Turn the order of the events around."""
        in_all = self.stream_id is None
        self.newest_first[in_all] = not self.newest_first[in_all]
        self._show_events()

    def action_refresh(self) -> None:
        """Read the lists again, staying where they are."""
        self.link.retry()
        self.streams.reload()
        self.events.reload()
        if self.detail.event is None:
            self._open_event()

    def action_copy(self) -> None:
        """Copy the event as JSON."""
        event = self.detail.event
        if event is None:
            self.notify("there is no event to copy", severity="warning")
            return
        copy_event(self, event)

    def _parts(self) -> list[Widget]:
        return [self.streams, self.events, self.detail]

    def action_focus_part(self, by: int) -> None:
        """Move the focus to the next part."""
        parts = self._parts()
        at = next((index for index, part in enumerate(parts) if part.has_focus), 0)
        target = parts[max(0, min(at + by, len(parts) - 1))]
        target.focus()

    def action_zoom(self) -> None:
        """Give the focused part the whole screen, or give the others their place back."""
        self.toggle_class("-zoomed")
        self._mark_zoomed()

    def _mark_zoomed(self) -> None:
        focused = self.screen.focused
        for part in self.query(".part"):
            inside = focused is not None and part in focused.ancestors
            part.set_class(self.has_class("-zoomed") and inside, "-zoomed")

    def on_descendant_focus(self, _event: DescendantFocus) -> None:
        """Let the zoom follow the focus."""
        if self.has_class("-zoomed"):
            self._mark_zoomed()


def copy_event(widget: Widget, event: Event) -> None:
    """Put an event into the terminal's clipboard (OSC 52), and say so."""
    text = event.to_json()
    if len(text) > _MOST_COPIED:
        widget.notify(
            f"{size_of(len(text))} is more than terminals take: use esx read with --json instead",
            severity="warning",
            markup=False,
        )
        return
    widget.app.copy_to_clipboard(text)
    widget.notify(f"event {event.global_seq} copied as JSON, {size_of(len(text))}", markup=False)
