"""The list of events, of one stream or of all."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import on
from textual.binding import Binding, BindingType
from textual.message import Message

from esx.positions import SYNTAX, parse_position
from esx.store.barrier import Filter
from esx.store.errors import EsxError, InvalidQuery
from esx.store.views import EventsView
from esx.text import visible
from esx.tui.eventfilter import HINT, PLACEHOLDER, complete_type, filter_text, parse_filter
from esx.tui.found import FoundEvents
from esx.tui.parts.columns import event_columns
from esx.tui.parts.part import Part
from esx.tui.parts.streamlist import SETTLE
from esx.tui.rows import EventRow
from esx.tui.sources import AllEvents, StreamEvents
from esx.tui.stage import from_behind
from esx.tui.widgets.askline import AskLine
from esx.tui.widgets.pagedlist import PagedList
from esx.tui.widgets.rowtable import RowTable
from esx.tui.window import PAGE
from esx.tui.work import cancel, start

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.timer import Timer

    from esx.positions import Position
    from esx.store.search import SearchPlan
    from esx.store.store import EventStore
    from esx.tui.follower import Follower
    from esx.tui.link import Link


_OWN_KEYS = [
    Binding("f", "find", "Find", tooltip="Choose events by type (a glob) and by JSONPath"),
    Binding("colon", "go", "Go to", key_display=":", tooltip=f"Go to a number or a time: {SYNTAX}"),
]


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
        *(replace(key, show=False) for key in _OWN_KEYS),
    ]
    # Shown only where the focus is on events, or they would leave no room in the footer for the others.
    BINDINGS: ClassVar[list[BindingType]] = [*_OWN_KEYS]

    def __init__(self, link: Link, follower: Follower, *, id: str) -> None:
        super().__init__(link, id=id)
        self.follower = follower
        self.stream_id: str | None = None
        """The stream whose events are shown; None for all."""
        self.newest_first = {True: True, False: False}
        """Which way events run: of all streams (True), of one (False)."""
        self._version = -1
        self.filter = Filter()
        """Which events are shown; an empty one shows all."""
        self._source: AllEvents | StreamEvents | FoundEvents | None = None
        self._agreed: tuple[Filter, str | None] | None = None
        """The filter and stream whose cost has been agreed to."""
        self._row_timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the line for questions above the list."""
        yield AskLine(id="events-line")
        yield PagedList[EventRow, int](event_columns(in_all=True), id="events", empty="no events")

    @property
    def table(self) -> PagedList[EventRow, int]:
        """The list itself."""
        return self.query_one("#events", PagedList)

    def view(self) -> EventsView:
        """Return what the list shows, as a value, from the first row on screen on."""
        top = self.table.top_row
        start = None if top is None else top.global_seq if self.stream_id is None else top.stream_seq
        return EventsView(self.stream_id, start, self.newest_first[self.stream_id is None], self.filter)

    @property
    def line(self) -> AskLine:
        """The line in which the filter, or where to go, is typed."""
        return self.query_one("#events-line", AskLine)

    def on_mount(self) -> None:
        """Write the title."""
        self._write_title()

    def open_stream(self, stream_id: str | None, *, version: int = -1, at: int | None = None) -> None:
        """Show the events of a stream, or, with None, of all; `version` is the stream's, as far as known.

        With `at`, a stream_seq (of all: a global_seq), the cursor goes there.
        """
        self._version = version
        if self._source is None or stream_id != self.stream_id or at is not None:
            if self.line.shown and stream_id != self.stream_id:
                asked = self.line.has_focus_within
                self.line.close()
                if asked:
                    self.table.focus()
            self.stream_id = stream_id
            if at is not None:
                # The filter might hide just that event.
                self.filter = Filter()
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
        if self.filter:
            self.table.nothing = "no event passes the filter"
        else:
            self.table.nothing = "no events yet: esx append, or a load test (3)" if in_all else "no events"
        # A search that is being planned would come too late.
        cancel(self, "plan")
        if self.filter:
            self.table.show(None)
            self.table.empty = "searching …"
            start(self, partial(self._search, store, self.filter, agreed=False), "plan")
            return
        if self.stream_id is None:
            self._source = AllEvents(store, newest_first=newest_first)
        else:
            self._source = StreamEvents(store, self.stream_id, newest_first=newest_first)
        self.table.show(self._source, at=at)

    def _write_title(self) -> None:
        in_all = self.stream_id is None
        name = "$all" if self.stream_id is None else visible(self.stream_id, limit=60)
        chosen = f" · {visible(filter_text(self.filter), limit=120)}" if self.filter else ""
        order = "newest first" if self.newest_first[in_all] else "oldest first"
        self.entitle(f"{name} · {order}{chosen}")

    @on(PagedList.Moved, "#events")
    def write_position(self) -> None:
        """Say where the cursor is."""
        table, window = self.table, self.table.window
        row = table.row
        text = ""
        if isinstance(self._source, FoundEvents):
            text = "" if window is None else self._source.progress(window, busy=table.busy, stopped=table.stopped)
        elif self.stream_id is None:
            known = [] if row is None else [f"global {row.global_seq:,}"]
            text = " · ".join(known + self._newer())
        elif row is not None:
            text = f"seq {row.stream_seq:,}" + (f" of {self._version:,}" if self._version >= row.stream_seq else "")
        self.entitle(subtitle=text)

    def _newer(self) -> list[str]:
        """Say how far the store has come since the list was read, as the feed tells."""
        window = self.table.window
        if window is None or not window.loaded or self.table.problem or not self._at_newest_end():
            return []
        rows = self.table.rows
        newest = rows[0 if self.newest_first[True] else -1].global_seq if rows else 0
        newer = self.follower.position - newest
        if newer <= 0:
            return []
        # Numbers that no event has are known only as far back as the feed has followed.
        exact = self.follower.began <= newest and not self.follower.dead
        return [f"{'' if exact else 'up to '}{newer:,} newer, r reads them"]

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

    # -- filter ------------------------------------------------------------------------------------------------

    def action_find(self) -> None:
        """Open the line in which to type the filter."""
        loaded = sorted({row.event_type for row in self.table.rows})
        self._ask_filter(loaded)
        store = self.link.store
        if store is not None:
            start(self, partial(self._offer_types, store, loaded), "types")

    def _ask_filter(self, types: list[str]) -> None:
        self.line.ask(
            "find",
            text=filter_text(self.filter),
            placeholder=PLACEHOLDER,
            hint=f"{HINT}\nenter finds · → completes a type · empty shows all · esc leaves",
            complete=lambda text: complete_type(text, types),
        )

    async def _offer_types(self, store: EventStore, types: list[str]) -> None:
        """Complete types that are not on screen as well."""
        try:
            common = await store.common_types()
        except EsxError:
            return
        types += [name for name in common if name not in types and visible(name) == name]

    @on(AskLine.Answered)
    def _answered(self, message: AskLine.Answered) -> None:
        message.stop()
        store = self.link.store
        if store is None:
            return
        if message.subject == "go":
            self._go(store, message.text)
            return
        try:
            chosen = parse_filter(message.text)
        except ValueError as error:
            self.line.say(str(error), error=True)
            return
        if chosen:
            start(self, partial(self._search, store, chosen, agreed=message.again), "plan")
        else:
            self.clear_filter()

    @on(AskLine.Left)
    def _left(self, message: AskLine.Left) -> None:
        message.stop()
        cancel(self, "plan")
        self.table.focus()

    async def _search(self, store: EventStore, chosen: Filter, *, agreed: bool) -> None:
        """Show what passes the filter, if it is cheap or its cost has been agreed to; else ask."""
        stream_id = self.stream_id
        try:
            plan = await store.plan_search(chosen, stream=stream_id, wanted=PAGE)
        except EsxError as error:
            self._refused(error)
            return
        if stream_id != self.stream_id:
            return
        if plan.large and not agreed and self._agreed != (chosen, stream_id):
            self._ask_for(plan)
            return
        if plan.large:
            self._agreed = (chosen, stream_id)
        self.filter = chosen
        self._source = FoundEvents(store, plan, newest_first=self.newest_first[stream_id is None])
        self.table.nothing = "no event passes the filter"
        self._write_title()
        if self.line.shown:
            self.line.close()
            self.table.focus()
        self.table.show(self._source)
        self.write_position()

    def _refused(self, error: EsxError) -> None:
        if self.line.shown:
            self.line.say(str(error), error=True)
        else:
            self.table.problem = str(error)
            self.table.refresh()
        if not isinstance(error, InvalidQuery):
            self.link.report(error, of=from_behind(self))

    def _ask_for(self, plan: SearchPlan) -> None:
        """Say what a search costs, and wait for an answer."""
        if not self.line.shown:
            # Another list was opened with the filter of the last one: nothing was asked for yet.
            self.table.empty = f"not searched: {plan.time} for {plan.size.text} events · f and enter run it"
            self.table.refresh()
            return
        # One index is enough, and the keys come first: there may be little room.
        advice = f"\nan index would make it quick: {plan.advice[0]}" if plan.advice else ""
        self.line.say(f"enter runs it · esc does not\nthis {plan.cost}{advice}", question=True)

    def stop(self) -> bool:
        """Stop a search; return whether one was running."""
        return isinstance(self._source, FoundEvents) and self.table.stop()

    def clear_filter(self) -> bool:
        """Show all events again; return whether there was a filter."""
        if self.line.shown:
            self.line.close()
            self.table.focus()
        if not self.filter:
            return False
        row = self.table.row
        self.filter = Filter()
        at = None if row is None else row.global_seq if self.stream_id is None else row.stream_seq
        self.show(at=at)
        return True

    # -- going to a place --------------------------------------------------------------------------------------

    def action_go(self) -> None:
        """Open the line in which to type where to go."""
        number = "a global_seq" if self.stream_id is None else "a stream_seq, #99 a global_seq"
        self.line.ask(
            "go",
            placeholder=f"go to: {SYNTAX}",
            hint=f"{number}, or a time: 2026-08-07 14:00, 14:00, yesterday, -2h · esc leaves",
        )

    def _go(self, store: EventStore, text: str) -> None:
        try:
            position = parse_position(text.lstrip(": "))
        except ValueError as error:
            self.line.say(str(error), error=True)
        else:
            start(self, partial(self._go_to, store, position, text), "go")

    async def _go_to(self, store: EventStore, position: Position, text: str) -> None:
        stream_id = self.stream_id
        try:
            place = await store.locate(position, stream=stream_id)
        except EsxError as error:
            self._refused(error)
            return
        if stream_id != self.stream_id:
            return
        self.line.close()
        self.table.focus()
        if place.doubt is not None:
            severity: Literal["warning", "information"] = "warning" if place.doubt.broken else "information"
            self.notify(place.doubt.text, severity=severity, markup=False)
        if place.first is not None:
            self.table.go_to(place.first)
            return
        if self.newest_first[stream_id is None]:
            self.table.action_first()
        else:
            self.table.action_last()
        ends = f"The list ends before {visible(text, limit=60)}: this is its last event."
        self.notify(ends, title=from_behind(self), markup=False)
