"""What happened in a time window, over the screen from which it was asked for."""

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from esx.errors import EsxError, StoreUnavailable
from esx.eventstore import EventStore
from esx.filter_language import filter_text
from esx.filters import Filter
from esx.glob import glob_of
from esx.store.overview.summary import WindowSummary
from esx.store.read.estimates import Estimate
from esx.store.views import SummaryView
from esx.text import lapse, present, visible
from esx.times import clock
from esx.tui.lists.rowtable import RowTable
from esx.tui.panels.filter_line import FilterLine, types_meant
from esx.tui.panels.panel import Panel
from esx.tui.panels.summary import SummaryList, summary_rows
from esx.tui.panes import title_if_hidden
from esx.tui.screens.base import StorePane
from esx.tui.screens.main import ExplorerScreen
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import cancel, start
from esx.tui.widgets.askline import AskLine

_WINDOWS = (
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(days=1),
    timedelta(days=7),
)


class SummaryPane(StorePane):
    """Counts events by category and type, against the window before; enter finds the events of a line."""

    TITLE = "Lately"
    KEYMAP_PREFIX = "summary"
    FIRST_FOCUS = "#summary"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("W", "summary", "Longer", tooltip="A longer window: ten minutes, an hour, six, a day, a week"),
        Binding("left_square_bracket", "step(-1)", "Window before", key_display="["),
        Binding("right_square_bracket", "step(1)", "Window after", show=False, key_display="]"),
        Binding(
            "f,slash", "find", "Filter", key_display="f /", tooltip="Choose events, and the window: orders-* since:-1h"
        ),
        Binding("r", "refresh", "Refresh", tooltip="Count again, up to now"),
        Binding("escape", "back", "Back", tooltip="Back to where you came from"),
    ]

    def __init__(self, session: ExplorerSession, *, source: str, id: str) -> None:
        """`source` is the name of the screen that it was opened from."""
        super().__init__(session, id=id)
        self.table = SummaryList(id="summary")
        self.panel = Panel(session, id="summary-panel")
        self.line = FilterLine(session, id="summary-line")
        self.where = Filter()
        self._from = source
        self.length = _WINDOWS[0]
        self.until: datetime | None = None
        """Where the window ends; None before the first reading."""
        self.found: WindowSummary | None = None

    def compose(self) -> ComposeResult:
        """Lay out the line for the filter above the list."""
        with self.panel:
            yield from (self.line, self.table)

    def connected(self) -> None:
        """Count, if that has not succeeded yet."""
        if self.found is None:
            self.action_refresh()

    def jumped(self) -> None:
        """Count again."""
        self.action_refresh()

    def view(self) -> SummaryView | None:
        """Return what is shown, as a value."""
        found = self.found
        return None if found is None else SummaryView(found.since, found.until, self.where)

    def action_refresh(self) -> None:
        """Count again, up to now."""
        self.session.retry()
        self._look(present())

    def action_summary(self) -> None:
        """Take the next longer window, after the longest the shortest; it ends where this one does."""
        longer = [each for each in _WINDOWS if each > self.length]
        self.length = longer[0] if longer else _WINDOWS[0]
        with contextlib.suppress(OverflowError):
            self._look(self.until or present())

    def action_step(self, by: int) -> None:
        """Go to the window before, or after; not beyond now."""
        if self.until is not None:
            with contextlib.suppress(OverflowError):  # there is no earlier time
                self._look(min(self.until + by * self.length, present()))

    def _look(self, until: datetime) -> None:
        """Count in the window that ends at `until`. Raises OverflowError, and changes nothing, if it has no start."""
        store = self.session.store
        since = until - self.length
        self.until = until
        self.panel.entitle(self._title(), "looking …", way=[self._from])
        if store is not None:
            start(self, partial(self._read, store, since, until), "summary")

    async def _read(self, store: EventStore, since: datetime, until: datetime) -> None:
        try:
            found = await store.happened(since, until, where=self.where)
        except (EsxError, OverflowError) as error:
            self.panel.entitle(subtitle="")
            if isinstance(error, StoreUnavailable):
                self.session.report(error, of=title_if_hidden(self))
            else:
                self.table.set_rows([], cursor=0, offset=0)
                self.table.problem = str(error)
            return
        meant = await types_meant(store, self.where) if not found.rows else ""
        self.table.problem = ""
        self.table.empty = meant or "nothing happened then, nor in the window before"
        self.found = found
        self._show(found)

    def _show(self, found: WindowSummary) -> None:
        rows, table = summary_rows(found), self.table
        chosen = None if table.row is None else table.row[:2]
        at = next((at for at, row in enumerate(rows) if row[:2] == chosen), 0)
        table.set_rows(rows, cursor=at, offset=max(at - table.body_height // 2, 0))
        vague = sum(not (row.events.known and row.before.known) for row in found.rows)
        noun = "event" if found.events == Estimate.counted(1) else "events"
        said = [f"{found.events.text} {noun}, {found.before.text} in the {lapse(self.length.total_seconds())} before"]
        said += [f"{vague} not known: a shorter window is counted"] if vague else []
        said += [visible(found.doubt.text, limit=200)] if found.doubt is not None else []
        self.panel.entitle(self._title(), " · ".join(said), way=[self._from])

    def _title(self) -> str:
        until = self.until or present()
        since = until - self.length
        ends = clock(until)
        window = f"{clock(since)} to {ends[11:] if clock(since)[:10] == ends[:10] else ends}"
        chosen = f" · {visible(filter_text(self.where), limit=80)}" if self.where else ""
        return f"lately · {lapse(self.length.total_seconds())}, {window}{chosen}"

    @on(RowTable.Chosen, "#summary")
    def _chosen(self, message: RowTable.Chosen) -> None:
        found, row = self.found, message.row
        if found is None:
            return
        named = [each.category for each in found.rows if row.event_type in (None, each.event_type)]
        stream = self.where.stream
        if len(set(named)) > 1:
            separator = "-" if self.session.store is None else self.session.store.separator
            stream = f"{glob_of(row.category + separator)}*"
        event_type = self.where.event_type if row.event_type is None else glob_of(row.event_type)
        where = replace(self.where, stream=stream, event_type=event_type, since=found.since, until=found.until)
        self.post_message(self.EventsWanted(self, where))

    def action_find(self) -> None:
        """Open the line for the filter."""
        self.line.ask_filter(
            self.where, hint="since: and until: too · enter counts · → completes · ↑ earlier ones · esc leaves"
        )

    @on(FilterLine.Entered)
    def _entered(self, message: FilterLine.Entered) -> None:
        message.stop()
        chosen = message.where
        try:
            until = chosen.until or message.now
            length = self.length if chosen.since is None else until - chosen.since
        except OverflowError as error:
            self.line.say(str(error), error=True)
            return
        if length <= timedelta(0):
            self.line.say("since: is in the future: there is nothing in that window", error=True)
            return
        self.where = replace(chosen, since=None, until=None)
        self.length = length
        self.line.close()
        self.table.focus()
        self._look(until)

    @on(AskLine.Left)
    def _left(self, message: AskLine.Left) -> None:
        message.stop()
        self.table.focus()

    async def action_back(self) -> None:
        """Stop counting, or go back to the screen before."""
        cancel(self, "summary")
        await cast("ExplorerScreen", self.screen).close_over()
