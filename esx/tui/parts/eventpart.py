"""One event in full: read when it is wanted, and what can be done with it."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.widgets import Input

from esx.fold.reducer import ReducerFailed
from esx.fold.states import States
from esx.store.errors import EsxError
from esx.store.views import EventView
from esx.text import visible
from esx.tui.detail.compare import Comparison, compare
from esx.tui.detail.scrubber import Scrubber
from esx.tui.parts.part import Part
from esx.tui.stage import from_behind
from esx.tui.widgets.eventdetail import EventDetail
from esx.tui.work import cancel, start

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.timer import Timer

    from esx.store.model import Event
    from esx.store.store import EventStore
    from esx.tui.app import Explorer
    from esx.tui.link import Link

_TYPING = 0.15
_SCAN = 5000
"""How far back the last event of a type is looked for."""
_PATIENCE = 0.3
"""Seconds that folding may take before it says how far it is."""


class EventPart(Part):
    """Shows the event of a global_seq. `empty` is said where there is nothing to copy."""

    PAST_KEYS: ClassVar[list[Binding]] = [
        Binding("d", "diff", "Diff", tooltip="Changes since the event before it, since the last of its type, none"),
        Binding("v", "state", "State", tooltip="The stream's state after the event, and back"),
        Binding("left_square_bracket", "version(-1)", "Version back", show=False, key_display="["),
        Binding("right_square_bracket", "version(1)", "Version on", show=False, key_display="]"),
    ]
    """Keys for the event's past; on a screen where they are free they work wherever the focus is."""
    KEYS: ClassVar[list[Binding]] = [Binding("y", "copy", "Copy", tooltip="Copy the event as JSON")]
    BINDINGS: ClassVar[list[BindingType]] = [
        *PAST_KEYS,
        Binding("slash", "search", "Search", key_display="/", tooltip="Look for text in the JSON; n and N go on"),
        Binding("Y", "copy", "Copy event", show=False, tooltip="Copy the whole event as JSON"),
        Binding("escape", "back", "Back", show=False, tooltip="End the search, the state, or the difference"),
    ]
    DEFAULT_CSS = """
    EventPart {
        .search { display: none; height: 1; border: none; padding: 0 1; background: $boost; }
        .search.-shown { display: block; }
        EventDetail { height: 1fr; }
        Scrubber { display: none; }
        &.-state Scrubber { display: block; }
    }
    """

    def __init__(self, link: Link, *, id: str, detail_id: str, empty: str = "there is no event to copy") -> None:
        super().__init__(link, id=id)
        self._detail_id = detail_id
        self._empty = empty
        self._needle = ""
        self._typing: Timer | None = None
        self._against: str | None = None
        """What an event is compared with: the one before it in its ``stream``, or of its ``type``; None: nothing."""
        self._states: States | None = None
        """The states of the stream whose state is shown."""
        self._version = 0
        self._note = ""

    def compose(self) -> ComposeResult:
        """Lay out the event."""
        self.entitle("event")
        yield Scrubber()
        yield EventDetail(id=self._detail_id)
        yield Input(classes="search", placeholder="text to look for in the JSON", compact=True)

    @property
    def detail(self) -> EventDetail:
        """The widget that shows the event."""
        return self.query_one(f"#{self._detail_id}", EventDetail)

    @property
    def event(self) -> Event | None:
        """The event that is shown."""
        return self.detail.event

    def view(self) -> EventView | None:
        """Return what is shown, as a value."""
        return None if self.event is None else EventView(self.event.global_seq)

    def open(self, global_seq: int | None) -> None:
        """Read an event and show it; None shows that there is none."""
        if global_seq is None:
            self.show(None)
        else:
            start(self, partial(self._read, global_seq), "event")

    async def _read(self, global_seq: int) -> None:
        store = self.link.store
        if store is None:
            return
        try:
            event = await store.event(global_seq)
        except EsxError as error:
            self.detail.show(None, "the event could not be read")
            self.link.report(error, of=from_behind(self))
            return
        self.show(event)

    def show(self, event: Event | None) -> None:
        """Show an event that has been read, or the state after it, if that is what is looked at."""
        cancel(self, "past")
        self._note = ""
        if event is not None and self._states is not None:
            self._go_to_state(event.stream_id, event.stream_seq)
            return
        self._leave_state()
        self.detail.show(event, "no event chosen" if event is None else None)
        self.entitle("event" if event is None else visible(event.event_type, limit=60))
        self._write_note()
        if event is not None and self._against is not None:
            self._compare(event)

    # -- what changed -------------------------------------------------------------------------------------------

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
        start(self, partial(self._read_and_compare, event, self._against == "type"), "past")

    async def _read_and_compare(self, event: Event, same_type: bool) -> None:
        store = self.link.store
        if store is None:
            return
        event_type = event.event_type if same_type else None
        try:
            previous = await store.previous_event(event.stream_id, event.stream_seq, event_type=event_type, scan=_SCAN)
        except EsxError as error:
            self.link.report(error, of=from_behind(self))
            return
        name = visible(event.event_type, limit=60)
        if previous is None and event.stream_seq == 0:
            comparison = Comparison("the first event of its stream", compared=False)
        elif previous is None:
            looked_at = min(event.stream_seq, _SCAN)
            comparison = Comparison(f"no {name} among the {looked_at:,} events before it", compared=False)
        else:
            since = visible(previous.event_type, limit=60)
            title = f"changed since {previous.stream_seq:,} {since}"
            comparison = await asyncio.to_thread(compare, title, previous.data_json, event.data_json)
        if self.event is event:
            self.detail.compare(comparison)

    # -- the stream's state -------------------------------------------------------------------------------------

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
            why = "v shows the state of the stream, [ and ] go from version to version"
            self.notify(why, severity="warning", markup=False)
        else:
            self._go_to_state(self._states.stream_id, self._version + by)

    @on(Scrubber.Moved)
    def _scrubbed(self, message: Scrubber.Moved) -> None:
        message.stop()
        if self._states is not None:
            self._go_to_state(self._states.stream_id, message.version)

    def _go_to_state(self, stream_id: str, version: int) -> None:
        store = self.link.store
        if store is None:
            return
        if self._states is None or self._states.stream_id != stream_id:
            self._states = States(store, stream_id, cast("Explorer", self.app).reducer)
        self._version = max(version, 0)
        start(self, partial(self._fold, store, self._states), "past")

    async def _fold(self, store: EventStore, states: States) -> None:
        began = monotonic()

        def progress(version: int) -> None:
            # What is there at once needs no announcement.
            if monotonic() - began > _PATIENCE:
                self._note = f"folding {version:,} of {self._version:,} · esc stops"
                self._write_note()

        try:
            last = await store.version(states.stream_id)
            self._version = min(self._version, last)
            state = await states.at(self._version, progress)
            if state is None:
                self._leave_state()
                return
            title = f"changed by {visible(state.event.event_type, limit=60)}"
            comparison = await asyncio.to_thread(
                compare, title, None if state.before == "null" else state.before, state.text
            )
        except ReducerFailed as error:
            self._leave_state()
            title = " · ".join(filter(None, (from_behind(self), "no state")))
            self.notify(str(error), title=title, severity="error", timeout=10, markup=False)
            return
        except EsxError as error:
            self.link.report(error, of=from_behind(self))
            return
        finally:
            self._note = ""
            self._write_note()
        self._version = state.version
        self.add_class("-state")
        self.query_one(Scrubber).show(state.version, last)
        self.entitle(f"state at version {state.version:,} of {last:,} · {visible(states.reducer.name)}")
        self.detail.show_state(state, comparison)

    def action_copy(self) -> None:
        """Put the event into the terminal's clipboard (OSC 52), and say so."""
        event = self.event
        if event is None:
            self.notify(self._empty, severity="warning")
            return
        self.detail.copy(event.to_json(), f"event {event.global_seq}", "as JSON")

    # -- search -------------------------------------------------------------------------------------------------

    def action_search(self) -> None:
        """Open the line in which to type what to look for."""
        line = self.query_one(".search", Input)
        line.add_class("-shown")
        line.focus()

    @on(Input.Changed, ".search")
    def _typed(self, message: Input.Changed) -> None:
        message.stop()
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(_TYPING, self._find)

    def _find(self) -> None:
        needle = self.query_one(".search", Input).value
        if needle != self._needle:
            self._needle = needle
            self.detail.find(needle)

    @on(Input.Submitted, ".search")
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self._find()
        self.detail.focus()
        if self._needle:
            self.detail.action_match(1)
        else:
            self._end_search()

    def _end_search(self) -> None:
        line = self.query_one(".search", Input)
        line.value = self._needle = ""
        line.remove_class("-shown")
        self.detail.find("")
        self.detail.focus()

    def action_back(self) -> None:
        """Undo what was asked of the detail last; if there is nothing, let the screen go back."""
        if self.query_one(".search").has_class("-shown"):
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
        """Say in the frame what goes on, or what was found."""
        text = self._note
        if text:
            pass
        elif self._needle:
            current, total = self.detail.found
            text = f"{total:,} found" if current is None else f"{current:,} of {total:,}"
        elif not self.detail.as_tree:
            text = "text"
        self.entitle(subtitle=text)
