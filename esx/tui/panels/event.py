"""One event in full, and what can be done with it."""

import asyncio
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import ClassVar

from textual import on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.fold.reducer import ReducerFailed
from esx.fold.states import States
from esx.model import UNNUMBERED, Event
from esx.payloads.decoder import DecodedEvent, decode_event, is_undecoded
from esx.store.views import EventView
from esx.text import counted, visible
from esx.tui.event.changes import Comparison, compare
from esx.tui.event.detail import EventDetail
from esx.tui.event.scrubber import Scrubber
from esx.tui.panels.panel import Panel, SearchLine
from esx.tui.panes import title_if_hidden
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import cancel, start

EventPlace = int | tuple[str, int]
"""Where an event is: its global_seq, or its stream and stream_seq where there is no global order."""
_SCAN = 5000
"""How many events are searched for the last one of a type."""


class EventPanel(Panel):
    """Shows the event of a global_seq. `empty` is the warning where there is no event to copy."""

    KEYMAP_PREFIX = "event-part"

    PAST_KEYS: ClassVar[list[Binding]] = [
        Binding("d", "diff", "Diff", tooltip="Changes since the event before it, since the last of its type, none"),
        Binding("v", "state", "State", tooltip="The stream's state after the event, and back"),
        Binding("left_square_bracket", "version(-1)", "Version back", show=False, key_display="["),
        Binding("right_square_bracket", "version(1)", "Version on", show=False, key_display="]"),
    ]
    """Keys for the event's past; a screen where they are free can offer them everywhere."""
    KEYS: ClassVar[list[Binding]] = [Binding("y", "copy", "Copy", tooltip="Copy the event as JSON")]
    BINDINGS: ClassVar[list[BindingType]] = [
        *PAST_KEYS,
        Binding("slash", "search", "Search", key_display="/", tooltip="Look for text in the JSON; n and N go on"),
        Binding("Y", "copy", "Copy event", show=False, tooltip="Copy the whole event as JSON"),
        Binding("escape", "back", "Back", show=False, tooltip="End the search, the state, or the difference"),
    ]
    DEFAULT_CSS = """
    EventPanel {
        EventDetail { height: 1fr; }
        Scrubber { display: none; }
        &.-state Scrubber { display: block; }
    }
    """

    def __init__(self, session: ExplorerSession, *, id: str, empty: str = "there is no event to copy") -> None:
        super().__init__(session, id=id)
        self.detail = EventDetail(id=id.removesuffix("-panel"))
        self._scrubber = Scrubber()
        self._line = SearchLine("text to look for in the JSON", id=f"{id}-search")
        self._empty = empty
        self._needle = ""
        self._against: str | None = None
        """What an event is compared with: the one before it in the ``stream``, or of its ``type``, or nothing."""
        self._states: States | None = None
        """The states of the stream, while a state is shown."""
        self._version = 0
        self._note = ""

    def compose(self) -> ComposeResult:
        """Lay out the event."""
        self.entitle("event")
        yield from (self._scrubber, self.detail, self._line)

    @property
    def event(self) -> Event | None:
        """The event that is shown."""
        return self.detail.event

    def view(self) -> EventView | None:
        """Return the view of the event."""
        return None if self.event is None or self.event.global_seq == UNNUMBERED else EventView(self.event.global_seq)

    def open(self, place: EventPlace | None) -> None:
        """Read an event and show it; None shows none."""
        store = self.session.store
        if place is None:
            self.show(None)
        elif store is not None:
            start(self, partial(self._read, store, place), "event")

    async def _read(self, store: EventStore, place: EventPlace) -> None:
        try:
            event = await (store.event(place) if isinstance(place, int) else store.event_in(*place))
        except EsxError as error:
            self.detail.show(None, "the event could not be read")
            self.session.report(error, of=title_if_hidden(self))
            return
        if event is not None and self._states is None and is_undecoded(event):
            await self._decode_and_show(event)
        else:
            self.show(event)

    def _way_to(self, stream_id: str) -> list[str]:
        return [self.screen_title, visible(stream_id, limit=60)]

    async def _decode(self, event: Event) -> DecodedEvent:
        """Decode payloads that are no JSON; it can take a while, and may run the user's code."""
        return await asyncio.to_thread(decode_event, event, self.session.decoder)

    async def _decode_and_show(self, event: Event) -> None:
        self._show(event, await self._decode(event))

    def show(self, event: Event | None) -> None:
        """Show an event that has been read, or, while states are shown, the state after it."""
        if event is not None and self._states is not None:
            cancel(self, "past")
            self._note = ""
            self._go_to_state(event.stream_id, event.stream_seq)
        elif event is not None and is_undecoded(event):
            start(self, partial(self._decode_and_show, event), "event")
        else:
            self._show(event)

    def _show(self, event: Event | None, decoded: DecodedEvent | None = None) -> None:
        cancel(self, "past")
        self._note = ""
        self._leave_state()
        self.detail.show(event, "no event chosen" if event is None else None, decoded)
        if event is None:
            self.entitle("event")
        else:
            self.entitle(visible(event.event_type, limit=60), way=self._way_to(event.stream_id))
        self._write_note()
        if event is not None and self._against is not None:
            self._compare(event)

    def action_diff(self) -> None:
        """Compare with the event before it in the stream, then with the last one of its type, then with nothing."""
        event = self.event
        if event is None or self._states is not None:
            self.notify(
                self._empty if event is None else "v shows the event again, which d compares", severity="warning"
            )
            return
        self._against = {None: "stream", "stream": "type", "type": None}[self._against]
        cancel(self, "past")
        if self._against is None:
            self.detail.compare(None)
        else:
            self._compare(event)

    def _compare(self, event: Event) -> None:
        store = self.session.store
        if store is not None:
            start(self, partial(self._read_and_compare, store, event, self._against == "type"), "past")

    async def _read_and_compare(self, store: EventStore, event: Event, same_type: bool) -> None:
        event_type = event.event_type if same_type else None
        try:
            previous = await store.previous_event(event.stream_id, event.stream_seq, event_type=event_type, scan=_SCAN)
        except EsxError as error:
            self.session.report(error, of=title_if_hidden(self))
            return
        name = visible(event.event_type, limit=60)
        if event.stream_seq == UNNUMBERED:
            comparison = Comparison("an event without a number in a stream", compared=False)
        elif previous is None and event.stream_seq == 0:
            comparison = Comparison("the first event of its stream", compared=False)
        elif previous is None:
            looked_at = min(event.stream_seq, _SCAN)
            comparison = Comparison(f"no {name} among the {counted(looked_at, 'event')} before it", compared=False)
        else:
            since = visible(previous.event_type, limit=60)
            title = f"changed since {previous.stream_seq:,} {since}"
            comparison = await self._compared(title, previous, event)
        if self.event is event:
            self.detail.compare(comparison)

    async def _compared(self, title: str, previous: Event, event: Event) -> Comparison:
        before, after = [(await self._decode(each)).data_json for each in (previous, event)]
        if before is None or after is None:
            return Comparison(f"{title}: not compared, as the data are no JSON", compared=False)
        return await asyncio.to_thread(compare, title, before, after)

    def action_state(self) -> None:
        """Show the state of the event's stream after it; again, show the event."""
        event = self.event
        if event is None:
            self.notify(self._empty, severity="warning")
        elif self._states is None:
            self._go_to_state(event.stream_id, event.stream_seq)
        else:
            self._leave_state()
            self.show(event)

    def _leave_state(self) -> None:
        self._states = None
        self.remove_class("-state")

    def action_version(self, by: int) -> None:
        """Go back or forth by versions of the stream."""
        if self._states is None:
            self.notify("v shows the state of the stream, [ and ] go from version to version", severity="warning")
        else:
            self._go_to_state(self._states.stream_id, self._version + by)

    @on(Scrubber.Moved)
    def _scrubbed(self, message: Scrubber.Moved) -> None:
        message.stop()
        if self._states is not None:
            self._go_to_state(self._states.stream_id, message.version)

    def _go_to_state(self, stream_id: str, version: int) -> None:
        store = self.session.store
        if store is None:
            return
        if self._states is None or self._states.stream_id != stream_id:
            self._states = States(store, stream_id, self.session.reducer)
        self._version = max(version, 0)
        start(self, partial(self._fold, store, self._states), "past")

    async def _fold(self, store: EventStore, states: States) -> None:
        began = monotonic()

        def progress(version: int) -> None:
            # Only where it takes noticeable time.
            if monotonic() - began > 0.3:
                self._note = f"folding {version:,} of {self._version:,} · esc stops"
                self._write_note()

        try:
            last = await store.version(states.stream_id)
            self._version = min(self._version, last)
            state = await states.at(self._version, progress)
            if state is None:
                self._leave_state()
                return
            if state.begins <= await store.first_version():
                state = replace(state, begins=0)
            title = f"changed by {visible(state.event.event_type, limit=60)}"
            comparison = await asyncio.to_thread(
                compare, title, None if state.before == "null" else state.before, state.text
            )
        except ReducerFailed as error:
            self._leave_state()
            title = " · ".join(filter(None, (title_if_hidden(self), "no state")))
            self.notify(str(error), title=title, severity="error", timeout=10)
            return
        except EsxError as error:
            self.session.report(error, of=title_if_hidden(self))
            return
        finally:
            self._note = ""
            self._write_note()
        self._version = state.version
        self.add_class("-state")
        self._scrubber.show(state.version, last)
        title = f"state at version {state.version:,} of {last:,} · {visible(states.reducer.name)}"
        self.entitle(title, way=self._way_to(states.stream_id))
        self.detail.show_state(state, comparison)

    def action_copy(self) -> None:
        """Put the event into the terminal's clipboard (OSC 52), and say so."""
        event = self.event
        if event is None:
            self.notify(self._empty, severity="warning")
        else:
            found = self.detail.document.decoded or event
            name = f"event {event.stream_seq if event.global_seq == UNNUMBERED else event.global_seq}"
            self.detail.copy(found.to_json(), name, "as JSON")

    def action_search(self) -> None:
        """Open the line for the search text."""
        self._line.open()

    @on(SearchLine.Typed)
    def _find(self) -> None:
        needle = self._line.value
        if needle != self._needle:
            self._needle = needle
            self.detail.find(needle)

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self._find()
        self.detail.focus()
        if self._needle:
            self.detail.action_match(1)
        else:
            self._end_search()

    def _end_search(self) -> None:
        self._line.close()
        self._needle = ""
        self.detail.find("")
        self.detail.focus()

    def action_back(self) -> None:
        """End the search, the state or the difference; if there is none, let the screen go back."""
        if self._line.is_open:
            self._end_search()
        elif self._note or self._states is not None:
            self._leave_state()
            self.show(self.event)
        elif self._against is not None:
            self._against = None
            self.detail.compare(None)
        else:
            raise SkipAction

    @on(EventDetail.Changed)
    def _changed(self, message: EventDetail.Changed) -> None:
        message.stop()
        self._write_note()

    def _write_note(self) -> None:
        """Show in the frame what is going on, or what was found."""
        text = self._note or ("" if self.detail.as_tree else "text")
        if self._needle and not self._note:
            current, total = self.detail.document.found
            text = f"{total:,} found" if current is None else f"{current:,} of {total:,}"
        self.entitle(subtitle=text)
