"""Screen Feed: the ordered feed as it comes, with what holds it back and what was missed."""

from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import Static

from esx.errors import EsxError, InvalidQuery
from esx.eventstore import EventStore
from esx.filter_language import EXAMPLE, filter_text
from esx.filters import Filter
from esx.store.views import FeedView, View
from esx.text import visible
from esx.tui.lists.feedlist import FeedList, feed_columns
from esx.tui.lists.rowtable import RowTable
from esx.tui.panels.event import EventPanel
from esx.tui.panels.feed_figures import figures
from esx.tui.panels.filter_line import FilterLine, types_meant
from esx.tui.panels.panel import keys_of
from esx.tui.panes import title_if_hidden
from esx.tui.screens.list_and_event import ListAndEventPane
from esx.tui.session.follower import Follower
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import start
from esx.tui.widgets.askline import AskLine
from esx.tui.widgets.frame import Frame

_WAITING = "waiting for events …"
_NONE = "this store has no feed · 1 lists its streams"
_ENDED = "the feed has ended · r restarts it, near the present"


class FeedPane(ListAndEventPane):
    """Follows the feed live. A pause stops the view, never the counting."""

    TITLE = "Feed"
    FIRST_FOCUS = "#feed"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pause", "Pause", tooltip="Stop the view and keep counting; again to go on"),
        Binding("f,slash", "filter", "Filter", key_display="f /", tooltip=f"Choose events: {EXAMPLE}"),
        *keys_of("feed-detail-panel", EventPanel.KEYS),
        *keys_of("feed-detail-panel", [replace(key, show=False) for key in EventPanel.PAST_KEYS]),
        *ListAndEventPane.FOCUS_KEYS,
        Binding("escape", "back", "Close the event in full, or take the filter away", show=False),
        Binding("r", "retry", "Retry the connection, or restart the feed", show=False),
    ]
    DEFAULT_CSS = """
    FeedPane {
        #feed-figures { height: auto; }
        &.-zoomed #feed-figures { display: none; }
        #feed-numbers { width: 1fr; height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
        #feed-detail-panel { display: none; }
        &.-detail #feed-detail-panel { display: block; }
        &.-paused #feed-panel { border: round $warning; border-title-color: $text-warning; }
    }
    """

    def __init__(self, session: ExplorerSession, follower: Follower, *, id: str) -> None:
        self.table = FeedList(feed_columns(follower.log.late), id="feed", empty=_WAITING)
        super().__init__(session, self.table, id=id, empty="choose an event with enter first")
        self.follower = follower
        self._numbers = Static(id="feed-numbers")
        self._line = FilterLine(session, id="feed-line")
        self._written_at = 0.0
        self._lines = 0
        self._received = -1
        self._nothing = _WAITING
        self._restarts = follower.restarts

    def compose(self) -> ComposeResult:
        """Lay out the figures above the list and the event."""
        with Frame("feed", id="feed-figures"):
            yield self._numbers
        yield from self.compose_body(self._line)

    def view(self) -> View | None:
        """Return the feed from the first event that is kept, or the event that has the focus, as a value."""
        if self.detail.has_focus:
            return super().view()
        rows = self.table.rows
        if self.follower.orderless is not None:
            return None
        return FeedView(rows[0].global_seq - 1 if rows else self.follower.position, self.follower.where)

    def event_at_hand(self) -> int | None:
        """Return the event under the cursor, or the one in full where that has the focus."""
        shown = self.event_panel.event
        if self.detail.has_focus and shown is not None:
            return shown.global_seq
        return None if self.table.row is None else self.table.row.global_seq

    def on_mount(self) -> None:
        """Start the clocks. While another screen is shown, events wait in the log, counted."""
        self.every(1 / 12, self._flush)
        self.every(5, self.table.refresh_ages)
        self.watch(self.app, "theme", self._write_soon, init=False)

    def on_resize(self, event: Resize) -> None:
        """Fit the figures into the new width at once."""
        super().on_resize(event)
        self._write_soon()

    def _write_soon(self) -> None:
        self.call_after_refresh(lambda: self._write(self.follower.now))

    def _flush(self) -> None:
        if self._restarts != self.follower.restarts:
            self._restart()
            return
        log = self.follower.log
        gone = log.flush()
        if gone is not None:
            self.table.take(log.rows, gone)
        now = self.follower.now
        # Without events, figures move by the second.
        if gone is not None or now - self._written_at >= (0.25 if log.received != self._received else 1.0):
            self._received = log.received
            self._written_at = now
            self._write(now)

    def _write(self, now: float) -> None:
        log = self.follower.log
        numbers = self._numbers
        none = self.follower.orderless is not None
        self.table.empty = _NONE if none else _ENDED if self.follower.ended else self._nothing
        ground = self.app.theme_variables["ground"]
        rows = 2 if self.size.height < 28 else 3
        shown = figures(self.follower, now, width=max(numbers.size.width, 20), types=rows, ground=ground)
        # A new layout costs more than drawing; only another number of lines makes it necessary.
        lines = shown.plain.count("\n")
        numbers.update(shown, layout=lines != self._lines)
        self._lines = lines
        self.set_class(log.paused, "-paused")
        if log.paused:
            title = f"paused · {log.waiting:,} new"
        elif none:
            title = "no feed"
        elif self.follower.ended:
            title = "ended"
        elif self.table.following:
            title = "following"
        else:
            title = f"not following · {self.table.behind:,} below · end follows again"
        chosen = filter_text(self.follower.where)
        gone = f" · {log.gone:,} earlier no longer kept" if log.gone else ""
        self.panel.entitle(
            f"{title} · {visible(chosen, limit=80)}" if chosen else title,
            "" if none else f"{len(log.rows):,} shown{gone}",
        )

    def action_pause(self) -> None:
        """Stop the view, or go on."""
        log = self.follower.log
        log.paused = not log.paused
        self._written_at = 0.0
        self._flush()

    @on(RowTable.Highlighted, "#feed")
    def _highlighted(self, message: RowTable.Highlighted) -> None:
        # While the list follows the feed, each new event would be read from the database one by one.
        if self.has_class("-detail") and not self.table.following and message.row is not None:
            self.event_panel.open(message.row.global_seq)

    @on(RowTable.Chosen, "#feed")
    def _chosen(self, message: RowTable.Chosen) -> None:
        self.table.following = False
        self.add_class("-detail")
        self.event_panel.open(message.row.global_seq)

    def action_filter(self) -> None:
        """Open the line for the filter."""
        self._line.ask_filter(
            self.follower.where,
            hint="enter applies · → completes · ↑ earlier ones · empty shows all · esc leaves",
            types=(row.event_type for row in self.table.rows),
        )

    @on(FilterLine.Entered)
    def _entered(self, message: FilterLine.Entered) -> None:
        message.stop()
        start(self, partial(self._choose, message.where), "filter")

    @on(AskLine.Left)
    def _left(self, message: AskLine.Left) -> None:
        message.stop()
        self.table.focus()

    async def _choose(self, where: Filter) -> None:
        if where == self.follower.where:
            self._line.close()
            self.table.focus()
            return
        try:
            await self.follower.choose(where)
        except InvalidQuery as error:
            self._line.say(str(error), error=True)
            return
        except EsxError as error:
            self.session.report(error, of=title_if_hidden(self))
            return
        self._line.close()
        self.table.focus()
        self._restart()

    def jumped(self) -> None:
        """Begin anew: the follower has."""
        self.action_close_detail()
        self._restart()

    def _restart(self) -> None:
        self._restarts = self.follower.restarts
        chosen = bool(self.follower.where)
        self.table.following = True
        self.table.take([], 0)
        self._nothing = "nothing among the latest events passes the filter" if chosen else _WAITING
        self._written_at = 0.0
        self._flush()
        store = self.session.store
        if store is not None and chosen:
            start(self, partial(self._say_meant, store, self.follower.where), "like")

    async def _say_meant(self, store: EventStore, chosen: Filter) -> None:
        """Say so where no type that is known passes the filter: it would wait for ever."""
        meant = await types_meant(store, chosen)
        if meant and chosen == self.follower.where:
            self._nothing = meant
            self._written_at = 0.0
            self._flush()

    def action_back(self) -> None:
        """Undo the last narrowing: the line of the filter, the event in full, the filter."""
        if self._line.shown:
            self._line.close()
            self.table.focus()
        elif self.has_class("-detail"):
            self.action_close_detail()
        elif self.follower.where:
            start(self, partial(self._choose, Filter()), "filter")

    def action_focus_detail(self) -> None:
        """Go to the event in full."""
        if not self.has_class("-detail"):
            self.table.action_choose()
        super().action_focus_detail()

    def action_close_detail(self) -> None:
        """Close the event in full."""
        self.remove_class("-detail")
        self.event_panel.show(None)
        self.table.focus()

    def action_retry(self) -> None:
        """Try to reach the database now, or restart a feed that has ended."""
        self.session.retry()
        if self.follower.over:
            self.follower.restart()
            self._restart()
