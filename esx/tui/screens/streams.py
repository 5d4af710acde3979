"""Screen Streams: streams, the events of one of them, and one event in full."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType

from esx.tui.parts.eventlist import EventList
from esx.tui.parts.eventpart import EventPart
from esx.tui.parts.part import keys_of
from esx.tui.parts.streamlist import StreamList
from esx.tui.screens.pane import Pane
from esx.tui.stage import from_behind
from esx.tui.widgets.pagedlist import PagedList

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

    from esx.tui.follower import Follower
    from esx.tui.link import Link
    from esx.tui.rows import EventRow, StreamRow
    from esx.tui.widgets.eventdetail import EventDetail


class StreamsPane(Pane):
    """Browse: the chosen stream decides the events, the chosen event decides the detail."""

    TITLE = "Streams"
    FIRST_FOCUS = "#streams"
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys_of("streams-part", StreamList.KEYS),
        *keys_of("events-part", EventList.KEYS),
        *keys_of("detail-part", EventPart.KEYS),
        Binding("z", "zoom", "Zoom", show=False, tooltip="Give the focused part the whole screen, and back"),
        # Shown where they matter most, in the footer of the detail.
        *keys_of("detail-part", [replace(key, show=False) for key in EventPart.PAST_KEYS]),
        Binding("r", "refresh", "Refresh", show=False, tooltip="Read again what is on screen"),
        Binding("left,h", "focus_part(-1)", "Part to the left", show=False),
        Binding("right,l", "focus_part(1)", "Part to the right", show=False),
        Binding("escape", "back", "Back", show=False, tooltip="End a search, clear the filter, or leave the zoom"),
    ]
    DEFAULT_CSS = """
    StreamsPane {
        layout: grid;
        grid-size: 3 1;
        grid-columns: 4fr 6fr 8fr;
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

    def compose(self) -> ComposeResult:
        """Lay out the three parts."""
        yield StreamList(self.link, id="streams-part")
        yield EventList(self.link, self.follower, id="events-part")
        yield EventPart(self.link, id="detail-part", detail_id="detail")

    @property
    def stream_list(self) -> StreamList:
        """The part with the streams."""
        return self.query_one("#streams-part", StreamList)

    @property
    def event_list(self) -> EventList:
        """The part with the events."""
        return self.query_one("#events-part", EventList)

    @property
    def event_part(self) -> EventPart:
        """The part with the event in full."""
        return self.query_one("#detail-part", EventPart)

    @property
    def streams(self) -> PagedList[StreamRow, Any]:
        """The list of streams."""
        return self.stream_list.table

    @property
    def events(self) -> PagedList[EventRow, int]:
        """The list of events."""
        return self.event_list.table

    @property
    def detail(self) -> EventDetail:
        """The event in full."""
        return self.event_part.detail

    @property
    def stream_id(self) -> str | None:
        """The stream whose events are shown; None for all."""
        return self.event_list.stream_id

    def event_at_hand(self) -> int | None:
        """Return the event under the cursor, or the one in full where that has the focus."""
        row, shown = self.events.row, self.event_part.event
        if row is None or (self.detail.has_focus and shown is not None):
            return None if shown is None else shown.global_seq
        return row.global_seq

    def go_to(self, stream_id: str, stream_seq: int) -> None:
        """Show an event in its stream."""
        self.event_list.open_stream(stream_id, at=stream_seq)
        self.events.focus()

    def on_mount(self) -> None:
        """Start the clock."""
        # Ages ("3m") grow while one looks.
        self.every(1, self._age)

    def connected(self) -> None:
        """Load, or load again what could not be loaded."""
        if self.streams.window is None:
            self.stream_list.show()
            self.event_list.show()
        else:
            self.action_refresh()

    def _age(self) -> None:
        self.streams.refresh()
        self.events.refresh()
        self.event_list.write_position()

    # -- from part to part --------------------------------------------------------------------------------------

    @on(StreamList.Picked)
    def _stream_picked(self, message: StreamList.Picked) -> None:
        summary = message.row.summary
        if summary is None:
            self.event_list.open_stream(None)
        else:
            self.event_list.open_stream(summary.stream_id, version=summary.version)
        if message.chosen:
            self.events.focus()

    @on(EventList.Picked)
    def _event_picked(self, message: EventList.Picked) -> None:
        row, shown = message.row, self.event_part.event
        if row is None or shown is None or shown.global_seq != row.global_seq:
            self.event_part.open(None if row is None else row.global_seq)
        if message.chosen:
            self.detail.focus()

    @on(PagedList.Failed)
    def _failed(self, message: PagedList.Failed) -> None:
        message.stop()
        self.link.report(message.error, of=from_behind(self))

    # -- keys -----------------------------------------------------------------------------------------------

    def action_back(self) -> None:
        """Undo the last step: end a search, clear a filter, leave the zoom, go one part to the left."""
        if self.event_list.stop():
            return
        if not self.streams.has_focus and self.event_list.clear_filter():
            return
        if self.stream_list.clear_filter():
            return
        if self.has_class("-zoomed"):
            self.action_zoom()
        elif self.detail.has_focus:
            self.events.focus()
        elif self.events.has_focus:
            self.streams.focus()

    def action_refresh(self) -> None:
        """Read the lists again, staying where they are."""
        self.link.retry()
        self.streams.reload()
        self.events.reload()
        row = self.events.row
        if self.event_part.event is None and row is not None:
            self.event_part.open(row.global_seq)

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
        self._mark_zoomed(self.screen.focused)

    def _mark_zoomed(self, focused: Widget | None) -> None:
        for part in self.query(".part"):
            inside = focused is not None and part in focused.ancestors
            part.set_class(self.has_class("-zoomed") and inside, "-zoomed")

    def reveal(self, widget: Widget) -> None:
        """Let the zoom follow the focus."""
        if self.has_class("-zoomed"):
            self._mark_zoomed(widget)
