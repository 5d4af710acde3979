"""Screen Streams: streams, the events of one of them, and one event in full."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widget import Widget

from esx.database_choice import Database
from esx.eventstore import EventStore
from esx.filters import Filter
from esx.locators import Locator
from esx.tui.lists.pagedlist import PagedList
from esx.tui.lists.rows import StreamRow, numbered
from esx.tui.lists.rowtable import RowTable
from esx.tui.panels.event import EventPanel
from esx.tui.panels.events import EventsPanel
from esx.tui.panels.panel import keys_of
from esx.tui.panels.streams import StreamsPanel
from esx.tui.panes import title_if_hidden
from esx.tui.screens.divided import DividedPane, Division, share_of_event, share_of_list
from esx.tui.session.follower import Follower
from esx.tui.session.session import ExplorerSession
from esx.tui.session.usual import usual_filter
from esx.tui.tasks import start


class StreamsPane(DividedPane):
    """Streams, the events of the chosen stream, and the chosen event in full."""

    TITLE = "Streams"
    FIRST_FOCUS = "#streams"
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys_of("streams-panel", StreamsPanel.KEYS),
        *keys_of("events-panel", EventsPanel.KEYS),
        *keys_of("detail-panel", EventPanel.KEYS),
        # Hidden here, because the footer of the detail shows them.
        *keys_of("detail-panel", [replace(key, show=False) for key in EventPanel.PAST_KEYS]),
        Binding("r", "refresh", "Refresh", show=False, tooltip="Read again what is on screen"),
        Binding("left,h", "focus_panel(-1)", "Part to the left", show=False),
        Binding("right,l", "focus_panel(1)", "Part to the right", show=False),
        Binding("escape", "back", "Back", show=False, tooltip="End a search, clear the filter, or leave the zoom"),
    ]
    DEFAULT_CSS = """
    StreamsPane {
        layout: grid;
        grid-size: 3 1;
        grid-columns: 23fr 43fr 34fr;
    }
    StreamsPane.-narrow {
        grid-size: 2 2;
        grid-columns: 2fr 3fr;
        grid-rows: 1fr 1fr;
        & > #streams-panel { row-span: 2; }
    }
    StreamsPane.-zoomed {
        grid-size: 1 1;
        grid-columns: 1fr;
        grid-rows: 1fr;
    }
    """

    def __init__(
        self,
        session: ExplorerSession,
        follower: Follower,
        *,
        id: str,
        at: tuple[str | None, int | None] | None = None,
    ) -> None:
        """Show at first the place `at`: a stream (None: all), and the number of an event there."""
        super().__init__(session, id=id)
        self._begin_at = at
        self._found_usual = False
        self._share = 0
        self.streams_panel = StreamsPanel(session, follower, id="streams-panel")
        self.events_panel = EventsPanel(session, follower, id="events-panel")
        self.event_panel = EventPanel(session, id="detail-panel")
        self.streams, self.events = self.streams_panel.table, self.events_panel.table
        self.detail = self.event_panel.detail

    def compose(self) -> ComposeResult:
        """Lay out the three panels."""
        yield from (self.streams_panel, self.events_panel, self.event_panel)

    def division(self, *, across: bool) -> Division | None:
        """Return the three parts; where it is narrow, the events are above the event."""
        parts: list[list[Widget]] = [[self.streams_panel], [self.events_panel], [self.event_panel]]
        if not self.is_narrow:
            streams, event = self._share_of_streams(15, 25), share_of_event(self.size.width, 34)
            return Division("streams", (streams, 100 - streams - event, event), parts) if across else None
        if across:
            streams = self._share_of_streams(25, 40)
            return Division("streams-narrow", (streams, 100 - streams), [parts[0], [*parts[1], *parts[2]]])
        return Division("streams-narrow-down", (50, 50), parts[1:])

    def _share_of_streams(self, least: int, most: int) -> int:
        """Return the percent of the list of streams: what it needs. It gets no narrower: that would be restless."""
        if not (self._share or self.streams.rows_on_screen):
            return most
        self._share = max(self._share, share_of_list(self.streams, self.size.width, least, most))
        return self._share

    def on_resize(self, event: Resize) -> None:
        """Forget what the list of streams needed at another size."""
        self._share = 0
        super().on_resize(event)

    def place(self, across: Sequence[int] | None, down: Sequence[int] | None) -> None:
        """Set the columns and rows of the grid."""
        for name, shares in (("grid_columns", across), ("grid_rows", down)):
            if shares is not None:
                setattr(self.styles, name, " ".join(f"{share}fr" for share in shares))
            elif self.styles.has_rule(name):
                self.styles.clear_rule(name)
                self.refresh(layout=True)

    def event_at_hand(self) -> int | None:
        """Return the event under the cursor, or the one in full where that has the focus."""
        row, shown = self.events.row, self.event_panel.event
        if row is None or (self.detail.has_focus and shown is not None):
            return None if shown is None else numbered(shown.global_seq)
        return numbered(row.global_seq)

    def place_at_hand(self) -> Locator | int | None:
        """Return the stream under the cursor where that has the focus, else the event."""
        row, shown = self.events.row, self.event_panel.event
        if self.streams.has_focus:
            stream = self.streams.row
            if stream is None or stream.category is not None:
                return None
            return Locator(None, None if stream.summary is None else stream.summary.stream_id)
        if shown is not None and (self.detail.has_focus or (row is not None and row.shows(shown))):
            return Locator(None, shown.stream_id, shown.stream_seq)
        return self.event_at_hand()

    def go_to(self, stream_id: str | None, number: int | None) -> None:
        """Show an event in its stream, or with None among all by its global_seq; without a number only the list."""
        self.events_panel.open_stream(stream_id, at=number)
        self.events.focus()

    def find(self, where: Filter) -> None:
        """Show the events of all streams that pass a filter."""
        self.events_panel.find(where)
        self.events.focus()

    def on_mount(self) -> None:
        """Start the clock: ages ("3m") grow."""
        self.every(1, self._age)

    def connected(self) -> None:
        """Load the lists, or load them again."""
        if self.streams.window is None:
            self.streams_panel.show(at=None if self._begin_at is None else self._begin_at[0])
            self.events_panel.show()
        else:
            self.action_refresh()

    def jumped(self) -> None:
        """Load the lists again, and the event, which may not have been there then."""
        self.action_refresh()
        event = self.event_panel.event
        if event is not None:
            self.event_panel.open((event.stream_id, event.stream_seq))

    def entered(self) -> None:
        """Look whether there are load tests to be left out: one may have run."""
        store, database = self.session.store, self.session.database
        if store is not None and database is not None and not self._found_usual:
            start(self, partial(self._find_usual, store, database), "usual")

    async def _find_usual(self, store: EventStore, database: Database) -> None:
        usual = await usual_filter(store, database)
        if usual and not self._found_usual:
            # Once: the user may take it away.
            self._found_usual = True
            self.events_panel.use(usual)

    def _age(self) -> None:
        self.streams.refresh_ages()
        self.events.refresh_ages()
        self.detail.grow_older()
        self.streams_panel.follow()
        # Not while the event is read: the cursor on the newest one would take it away.
        self.events_panel.follows = not self.detail.has_focus
        if self.events_panel.follows:
            self.events_panel.follow()
        self.streams_panel.write_count()
        self.events_panel.write_position()

    @on(RowTable.Highlighted, "#streams")
    @on(RowTable.Chosen, "#streams")
    def _show_stream(self, message: RowTable.Highlighted | RowTable.Chosen) -> None:
        row: StreamRow | None = message.row
        if row is None or row.category is not None:
            return
        begin, self._begin_at = self._begin_at, None
        if begin is not None and begin[0] == (None if row.summary is None else row.summary.stream_id):
            self.events_panel.open_stream(begin[0], at=begin[1])
            self.events.focus()
            return
        if row.summary is None:
            self.events_panel.open_stream(None)
        else:
            self.events_panel.open_stream(row.summary.stream_id, version=row.summary.version)
        if isinstance(message, RowTable.Chosen):
            self.events.focus()

    @on(RowTable.Highlighted, "#events")
    @on(RowTable.Chosen, "#events")
    def _show_event(self, message: RowTable.Highlighted | RowTable.Chosen) -> None:
        row, shown = message.row, self.event_panel.event
        if row is None or shown is None or not row.shows(shown):
            self.event_panel.open(self.events_panel.place_of(row))
        if isinstance(message, RowTable.Chosen):
            self.detail.focus()

    @on(PagedList.Failed)
    def _failed(self, message: PagedList.Failed) -> None:
        message.stop()
        self.session.report(message.error, of=title_if_hidden(self))

    def action_back(self) -> None:
        """Undo the last step: end a search, clear a filter, leave the zoom, go one part to the left."""
        if (
            self.events_panel.stop()
            or (not self.streams.has_focus and self.events_panel.clear_filter())
            or self.streams_panel.clear_filter()
        ):
            return
        if self.has_class("-zoomed"):
            self.action_zoom()
        elif self.detail.has_focus:
            self.events.focus()
        elif self.events.has_focus:
            self.streams.focus()

    def action_refresh(self) -> None:
        """Read the lists again, staying where they are."""
        self.session.retry()
        self.streams.reload()
        self.events.reload()
        row = self.events.row
        if self.event_panel.event is None and row is not None:
            self.event_panel.open(self.events_panel.place_of(row))

    def action_focus_panel(self, by: int) -> None:
        """Move the focus to the next part."""
        parts: list[Widget] = [self.streams, self.events, self.detail]
        at = next((index for index, part in enumerate(parts) if part.has_focus), 0)
        parts[max(0, min(at + by, len(parts) - 1))].focus()
