"""The list of events, of one stream or of all."""

import contextlib
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from esx.errors import EsxError, InvalidQuery
from esx.eventstore import EventStore
from esx.filter_language import EXAMPLE, filter_text
from esx.filters import Filter
from esx.model import MOST_WITHOUT_NUMBER, UNNUMBERED
from esx.positions import SYNTAX, Position, parse_position
from esx.store.search.plan import SearchPlan
from esx.store.views import EventsView
from esx.text import visible
from esx.tui.lists.columns import event_columns
from esx.tui.lists.pagedlist import PagedList
from esx.tui.lists.rows import PREVIEW, EventRow
from esx.tui.lists.search_results import SearchResults
from esx.tui.lists.sources import EventRows
from esx.tui.lists.window import PAGE
from esx.tui.panels.event import EventPlace
from esx.tui.panels.filter_line import FilterLine, types_meant
from esx.tui.panels.panel import Panel
from esx.tui.panes import title_if_hidden
from esx.tui.session.follower import Follower
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import cancel, start
from esx.tui.widgets.askline import AskLine

_OWN_KEYS = [
    Binding("f", "find", "Find", tooltip=f"Choose events: {EXAMPLE}"),
    Binding("colon", "go", "Go to", key_display=":", tooltip=f"Go to a number or a time: {SYNTAX}"),
]
_NOTHING = "no event passes the filter · esc takes it away"


class EventsPanel(Panel):
    """The events of the stream that was opened last, oldest or newest first."""

    KEYMAP_PREFIX = "event-list"

    KEYS: ClassVar[list[Binding]] = [
        Binding("a", "all", "$all", tooltip="The events of all streams, in the global order"),
        Binding("b", "flip", "Flip", tooltip="Events oldest first, or newest first"),
        *(replace(key, show=False) for key in _OWN_KEYS),
    ]
    # In the footer only where the focus is on events, to leave room for other keys.
    BINDINGS: ClassVar[list[BindingType]] = [
        replace(_OWN_KEYS[0], key="f,slash", key_display="f /"),
        *_OWN_KEYS[1:],
    ]

    def __init__(self, session: ExplorerSession, follower: Follower, *, id: str) -> None:
        super().__init__(session, id=id)
        self.table = PagedList[EventRow, int](event_columns(in_all=True), id="events", empty="no events")
        self.line = FilterLine(session, id="events-line")
        """The line for the filter or the place to go to."""
        self.follower = follower
        self.table.position = lambda: max(follower.position, session.head)
        self.stream_id: str | None = None
        """The stream whose events are shown; None for all."""
        self.newest_first = {True: True, False: False}
        """The order of the events, by whether they are those of all streams."""
        self.follows = True
        """Whether the list may follow: not while one of its events is read in full."""
        self._version = -1
        self.filter = Filter()
        self.usual = Filter()
        """The filter of the list of all streams until the user takes it away."""
        self._wanted = Filter()
        """The filter that another screen has asked for."""
        self._offered = Filter()
        """The filter for which types like its own were looked for last."""
        self._source: EventRows | SearchResults | None = None
        self._left_out = 0
        """How many events of the stream have no number in it, and so are in no page of it."""
        self._agreed: tuple[Filter, str | None] | None = None
        """The filter and stream of the search whose cost the user has accepted."""

    def compose(self) -> ComposeResult:
        """Lay out the line for questions above the list."""
        self._write_title()
        yield from (self.line, self.table)

    def view(self) -> EventsView:
        """Return the view of the list, from the first row on screen on."""
        top = self.table.top_row
        start = None if top is None else top.global_seq if self.stream_id is None else top.stream_seq
        return EventsView(self.stream_id, start, self.newest_first[self.stream_id is None], self.filter)

    def open_stream(self, stream_id: str | None, *, version: int = -1, at: int | None = None) -> None:
        """Show the events of a stream, or, with None, of all; `version` is that of the stream, if it is known.

        With `at`, a stream_seq (for all: a global_seq), the cursor goes there.
        """
        self._version = version
        if self._source is None or stream_id != self.stream_id or at is not None:
            if self.line.shown and stream_id != self.stream_id:
                asked = self.line.has_focus_within
                self.line.close()
                if asked:
                    self.table.focus()
            self.stream_id = stream_id
            if at is not None or (stream_id is not None and self.filter == self.usual):
                # The filter might hide this event, or is about all streams.
                self.filter = Filter()
            elif stream_id is None:
                self.filter = self.filter or self.usual
            self.show(at=at)

    def find(self, where: Filter) -> None:
        """Show the events of all streams that pass a filter; where that is dear, say so and ask.

        Where load tests are left out of all events, they are left out of those that mention something.
        """
        if where.mentions:
            where = replace(where, also=(*where.also, *self.usual.paths))
        self.line.close()
        self.stream_id, self._version, self.filter = None, -1, where
        self._wanted = where
        self.show()

    def use(self, usual: Filter) -> None:
        """Let a filter be the usual one of the list of all streams, from now on, also where that is shown."""
        before, self.usual = self.usual, usual
        if self.stream_id is None and self.filter == before:
            self.filter = usual
            if self._source is not None:
                self.show()

    def place_of(self, row: EventRow | None) -> EventPlace | None:
        """Return where the event of a row is."""
        if row is None or row.global_seq != UNNUMBERED or self.stream_id is None:
            return None if row is None else row.global_seq
        return (self.stream_id, row.stream_seq)

    def show(self, *, at: int | None = None) -> None:
        """Read the events, from their start or around `at`."""
        store = self.session.store
        in_all = self.stream_id is None
        if in_all and store is not None and store.unnumbered is not None:
            self.table.show(None)
            self.table.empty = store.unnumbered
            self.entitle("events")
            return
        self._left_out = 0
        cancel(self, "left out")
        self.table.columns = event_columns(in_all=in_all)
        self.table.forget_widths()
        self._write_title()
        if store is None:
            return
        # A search that is still being planned must not replace these events.
        cancel(self, "plan")
        if self.filter:
            self.table.nothing = _NOTHING
            self.table.show(None)
            self.table.empty = "searching …"
            agreed = in_all and self.filter == self.usual
            start(self, partial(self._search, store, self.filter, agreed=agreed), "plan")
        else:
            self.table.nothing = "no events yet: esx append, or a load test (3)" if in_all else "no events"
            self._source = EventRows(store, self.stream_id, newest_first=self.newest_first[in_all])
            self.table.show(self._source, at=at)
            if self.stream_id is not None:
                start(self, partial(self._count_left_out, store, self.stream_id), "left out")

    async def _count_left_out(self, store: EventStore, stream_id: str) -> None:
        with contextlib.suppress(EsxError):  # the list says what is wrong
            self._left_out = await store.without_number(stream_id)
            self._write_title()

    def _write_title(self) -> None:
        in_all = self.stream_id is None
        name = "$all" if self.stream_id is None else visible(self.stream_id, limit=60)
        chosen = f" · {visible(filter_text(self.filter), limit=120)}" if self.filter else ""
        order = "newest first" if self.newest_first[in_all] else "oldest first"
        more = "at least " if self._left_out == MOST_WITHOUT_NUMBER else ""
        left_out = f" · {more}{self._left_out:,} without a number, only in $all" if self._left_out else ""
        self.entitle(f"{name} · {order}{chosen}{left_out}", way=[self.screen_title])

    @on(PagedList.Moved)
    def write_position(self) -> None:
        """Say where the cursor is."""
        table, window = self.table, self.table.window
        row = table.row
        text = ""
        if self.stream_id is None and self.filter and self.filter == self.usual:
            newer = 0 if window is None or not window.loaded or table.problem else self.follower.position - table.as_of
            follows = table.at_top and not table.stale
            said = ["without load tests", "esc shows all"]
            said += [f"up to {newer:,} newer, r reads them"] if newer > 0 and not follows else []
            text = " · ".join(said)
        elif isinstance(self._source, SearchResults):
            text = "" if window is None else self._source.progress(window, busy=table.busy, stopped=table.stopped)
            self._offer_like()
        elif self.stream_id is None:
            known = [] if row is None else [f"global {row.global_seq:,}"]
            text = " · ".join(known + self._newer())
        elif row is not None:
            if window is not None and not self.newest_first[False] and window.bottom and table.rows:
                self._version = max(self._version, table.rows[-1].stream_seq)
            text = f"seq {row.stream_seq:,}" + (f" of {self._version:,}" if self._version >= row.stream_seq else "")
        self.entitle(subtitle=text)

    def _offer_like(self) -> None:
        """Where nothing passes a filter, look whether there is such a type at all."""
        window, store = self.table.window, self.session.store
        nothing = window is not None and window.loaded and window.whole and not window.rows
        if nothing and store is not None and self._offered != self.filter:
            self._offered = self.filter
            start(self, partial(self._say_meant, store, self.filter), "like")

    async def _say_meant(self, store: EventStore, chosen: Filter) -> None:
        meant = await types_meant(store, chosen)
        if chosen == self.filter and not self.table.rows:
            # Alone, as there may be little room.
            self.table.empty = self.table.nothing = meant or _NOTHING

    def follow(self) -> None:
        """Show what has come, while the end of the list where it belongs is on screen."""
        table, in_all = self.table, self.stream_id is None
        at_newest = table.at_top if self.newest_first[in_all] else table.at_bottom
        if self.line.shown or not at_newest or self.follower.position <= table.as_of:
            return
        if self.filter and not (table.at_top and isinstance(self._source, SearchResults) and self._source.cheap):
            return
        if in_all or self.follower.may_have(visible(self.stream_id or "", limit=PREVIEW), after=table.as_of):
            table.follow()
        else:
            table.as_of = self.follower.position

    def _newer(self) -> list[str]:
        """Return how many events the feed has seen since the list was read, in words."""
        window, rows = self.table.window, self.table.rows
        newest_first = self.newest_first[True]
        if window is None or not window.loaded or self.table.problem:
            return []
        if not (window.top if newest_first else window.bottom):
            return []
        newest = rows[0 if newest_first else -1].global_seq if rows else 0
        newer = self.follower.position - newest
        if newer <= 0 or (newest_first and self.table.at_top and self.follows and not self.table.stale):
            return []
        # Which numbers have no event is known only as far back as the feed has followed.
        exact = self.follower.began <= newest and not self.follower.counts.dead
        return [f"{'' if exact else 'up to '}{newer:,} newer, r reads them"]

    def action_all(self) -> None:
        """Show the events of all streams."""
        store = self.session.store
        if store is not None and store.unnumbered is not None:
            self.notify(store.unnumbered, severity="warning")
            return
        self.open_stream(None)
        self.table.focus()

    def action_flip(self) -> None:
        """Turn the order of the events around."""
        in_all = self.stream_id is None
        self.newest_first[in_all] = not self.newest_first[in_all]
        self.show()

    def action_find(self) -> None:
        """Open the line for the filter."""
        self.line.ask_filter(
            self.filter,
            hint="type:Order* $.amount > 100 · since:-2h user:ann\nenter finds · → completes · ↑ earlier · esc",
            types=(row.event_type for row in self.table.rows),
            of_one=self.stream_id is not None,
        )

    @on(FilterLine.Entered)
    def _entered(self, message: FilterLine.Entered) -> None:
        message.stop()
        store = self.session.store
        if not message.where:
            self.clear_filter()
        elif store is not None:
            start(self, partial(self._search, store, message.where, agreed=message.again), "plan")

    @on(AskLine.Answered)
    def _answered(self, message: AskLine.Answered) -> None:
        message.stop()
        store = self.session.store
        if store is not None:
            self._go(store, message.text)

    @on(AskLine.Left)
    def _left(self, message: AskLine.Left) -> None:
        message.stop()
        cancel(self, "plan")
        self.table.focus()

    async def _search(self, store: EventStore, chosen: Filter, *, agreed: bool) -> None:
        """Show the events that pass the filter, if it is cheap or the user has accepted its cost; else ask."""
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
        self.filter, self._offered = chosen, Filter()
        self._source = SearchResults(store, plan, newest_first=self.newest_first[stream_id is None])
        self.table.nothing = _NOTHING
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
        if not isinstance(error, InvalidQuery):
            self.session.report(error, of=title_if_hidden(self))

    def _ask_for(self, plan: SearchPlan) -> None:
        """Say what a search costs, and wait for an answer."""
        if not self.line.shown and self._wanted == self.filter:
            self.action_find()
        if not self.line.shown:
            # Another stream was opened with the filter of the last one: the user has not asked for this search.
            self.table.empty = f"not searched: {plan.time} for {plan.size.text} events · f and enter run it"
            return
        # The keys come first, and one index is enough: there may be little room.
        advice = f"\nan index would make it quick: {plan.advice[0]}" if plan.advice else ""
        self.line.say(f"enter runs it · esc does not\nthis {plan.cost}{advice}", question=True)

    def stop(self) -> bool:
        """Stop a search; return whether one was running."""
        return isinstance(self._source, SearchResults) and self.table.stop()

    def clear_filter(self) -> bool:
        """Show all events again; return whether there was a filter."""
        if self.line.shown:
            self.line.close()
            self.table.focus()
        if not self.filter:
            return False
        row = self.table.row
        if self.filter == self.usual:
            self.usual = Filter()
        self.filter = Filter()
        at = None if row is None else row.global_seq if self.stream_id is None else row.stream_seq
        self.show(at=at)
        return True

    def action_go(self) -> None:
        """Open the line for the place to go to."""
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
            self.notify(place.doubt.text, severity="warning" if place.doubt.broken else "information")
        if place.first is not None:
            self.table.go_to(place.first)
            return
        if self.newest_first[stream_id is None]:
            self.table.action_first()
        else:
            self.table.action_last()
        ends = f"The list ends before {visible(text, limit=60)}: this is its last event."
        self.notify(ends, title=title_if_hidden(self))
