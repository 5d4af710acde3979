"""The list of events, of one stream or of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding
from textual.content import Content
from textual.message import Message

from esx.store.views import EventsView
from esx.text import visible
from esx.tui.parts.columns import event_columns
from esx.tui.parts.part import Part
from esx.tui.parts.streamlist import SETTLE
from esx.tui.rows import EventRow
from esx.tui.sources import AllEvents, StreamEvents
from esx.tui.widgets.pagedlist import PagedList
from esx.tui.widgets.rowtable import RowTable

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.timer import Timer

    from esx.tui.follower import Follower
    from esx.tui.link import Link


class EventList(Part):
    """The events of the stream that was opened last, oldest or newest first."""

    class Picked(Message):
        """The cursor rests on an event, or on none; with `chosen`, it was opened."""

        def __init__(self, row: EventRow | None, *, chosen: bool) -> None:
            super().__init__()
            self.row = row
            self.chosen = chosen

    KEYS: ClassVar[list[Binding]] = [
        Binding("a", "all", "$all", tooltip="The events of all streams, in the global order"),
        Binding("b", "flip", "Flip", tooltip="Events oldest first, or newest first"),
    ]

    def __init__(self, link: Link, follower: Follower, *, id: str) -> None:
        super().__init__(link, id=id)
        self.follower = follower
        self.stream_id: str | None = None
        """The stream whose events are shown; None for all."""
        self.newest_first = {True: True, False: False}
        """Which way events run: of all streams (True), of one (False)."""
        self._version = -1
        self._source: AllEvents | StreamEvents | None = None
        self._row_timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        yield PagedList[EventRow, int](event_columns(in_all=True), id="events", empty="no events")

    @property
    def table(self) -> PagedList[EventRow, int]:
        """The list itself."""
        return self.query_one("#events", PagedList)

    def view(self) -> EventsView:
        """Return what the list shows, as a value, from the first row on screen on."""
        top = self.table.top_row
        start = None if top is None else top.global_seq if self.stream_id is None else top.stream_seq
        return EventsView(self.stream_id, start, self.newest_first[self.stream_id is None])

    def on_mount(self) -> None:
        """Write the title."""
        self._write_title()

    def open_stream(self, stream_id: str | None, *, version: int = -1, at: int | None = None) -> None:
        """Show the events of a stream, or, with None, of all; `version` is the stream's, as far as known.

        With `at`, a stream_seq (of all: a global_seq), the cursor goes there.
        """
        self._version = version
        if self._source is None or stream_id != self.stream_id or at is not None:
            self.stream_id = stream_id
            self.show(at=at)

    def show(self, *, at: int | None = None) -> None:
        """Read the events, from their start or around `at`."""
        store = self.link.store
        in_all = self.stream_id is None
        newest_first = self.newest_first[in_all]
        self.table.columns = event_columns(in_all=in_all)
        self.table.forget_widths()
        self._write_title()
        if store is None:
            return
        if self.stream_id is None:
            self._source = AllEvents(store, newest_first=newest_first)
        else:
            self._source = StreamEvents(store, self.stream_id, newest_first=newest_first)
        self.table.show(self._source, at=at)

    def _write_title(self) -> None:
        in_all = self.stream_id is None
        name = "$all" if self.stream_id is None else visible(self.stream_id, limit=60)
        self.border_title = Content(f"{name} · {'newest first' if self.newest_first[in_all] else 'oldest first'}")

    @on(PagedList.Moved, "#events")
    def write_position(self) -> None:
        """Say where the cursor is."""
        row = self.table.row
        text = ""
        if row is not None and self.stream_id is None:
            # Follow says how far the store has come since the list was read.
            newest = self.table.rows[0 if self.newest_first[True] else -1].global_seq
            newer = self.follower.position - newest
            text = f"global {row.global_seq:,}"
            if newer > 0 and self._at_newest_end():
                text += f" · {newer:,} newer, r reads them"
        elif row is not None:
            text = f"seq {row.stream_seq:,}" + (f" of {self._version:,}" if self._version >= row.stream_seq else "")
        self.border_subtitle = Content(text)

    def _at_newest_end(self) -> bool:
        window = self.table.window
        return window is not None and (window.top if self.newest_first[True] else window.bottom)

    @on(RowTable.Highlighted, "#events")
    def _highlighted(self, message: RowTable.Highlighted) -> None:
        message.stop()
        if self._row_timer is not None:
            self._row_timer.stop()
        self._row_timer = self.set_timer(SETTLE, self._rested)

    def _rested(self) -> None:
        self.post_message(self.Picked(self.table.row, chosen=False))

    @on(RowTable.Chosen, "#events")
    def _chosen(self, message: RowTable.Chosen) -> None:
        message.stop()
        self.post_message(self.Picked(message.row, chosen=True))

    def action_all(self) -> None:
        """Show the events of all streams."""
        self.open_stream(None)
        self.table.focus()

    def action_flip(self) -> None:
        """Turn the order of the events around."""
        in_all = self.stream_id is None
        self.newest_first[in_all] = not self.newest_first[in_all]
        self.show()
