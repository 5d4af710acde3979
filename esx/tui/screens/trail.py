"""Screen Trail: what shares an event's correlation id, as a tree of what caused what."""

from dataclasses import replace
from functools import partial
from typing import ClassVar, NamedTuple, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from esx.errors import EsxError, StoreUnavailable
from esx.eventstore import EventStore
from esx.model import place_text
from esx.store.trail.trail import COMMON_FIELDS, FieldNames, Trail, TrailNode, extent, remark, since, what
from esx.store.views import TrailView, View
from esx.text import visible
from esx.tui.cells import Cell, tint_of
from esx.tui.lists.column import ListColumn
from esx.tui.lists.dates import time_column
from esx.tui.lists.previews import Previews
from esx.tui.lists.rows import PREVIEW, shown_start
from esx.tui.lists.rowtable import RowTable
from esx.tui.panels.event import EventPanel
from esx.tui.panels.panel import keys_of
from esx.tui.panes import title_if_hidden
from esx.tui.screens.list_and_event import ListAndEventPane
from esx.tui.screens.main import ExplorerScreen
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import start


class TrailRow(NamedTuple):
    """A line of the trail, its texts safe to show."""

    rails: str
    event_type: str
    where: str
    after: str
    preview: str
    anchor: bool
    node: TrailNode


def trail_rows(trail: Trail, *, by_cause: bool) -> list[TrailRow]:
    """Return the lines of a trail, as a tree or in the global order."""
    order = trail.tree if by_cause else range(len(trail.nodes))
    rows = []
    for index in order:
        node = trail.nodes[index]
        event = node.event
        rows.append(
            TrailRow(
                trail.rails(index) if by_cause else "",
                visible(event.event_type, limit=PREVIEW),
                place_text(visible(event.stream_id, limit=PREVIEW), event.stream_seq),
                since(trail, node),
                visible(shown_start(event.preview, event.data_bytes), limit=PREVIEW),
                event.global_seq == trail.anchor,
                node,
            )
        )
    return rows


def trail_columns() -> list[ListColumn[TrailRow]]:
    """Return the columns of a trail."""
    previews = Previews()
    number = ListColumn[TrailRow](
        "global",
        lambda row: Cell(str(row.node.event.global_seq), "strong" if row.anchor else "number"),
        width=6,
        right=True,
    )
    after = ListColumn[TrailRow]("after", lambda row: Cell(row.after, "muted"), width=5, right=True)
    # In one cell, so that the lines of the tree lead to the types.
    kind = ListColumn[TrailRow](
        "type", lambda row: Cell(row.rails + row.event_type, tint=tint_of(row.event_type, row.where)), share=4
    )
    rest = [
        ListColumn[TrailRow]("stream", lambda row: Cell(row.where, "strong" if row.anchor else ""), 0, 3, middle=True),
        time_column(lambda row: row.node.event.created_at, needs=100),
        ListColumn[TrailRow](
            "data", lambda row: Cell(previews.text(row), "muted"), needs=60, rest=True, prepare=previews.prepare
        ),
    ]
    return [number, after, kind, *rest]


class TrailTable(RowTable[TrailRow]):
    """The lines of a trail."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "To its stream", key_display="enter", tooltip="Show the event in its stream"),
    ]

    def on_resize(self) -> None:
        """Keep the cursor in the middle: causes above it, effects below."""
        self.scroll_to(y=max(self.cursor - self.body_height // 2, 0))


class TrailPane(ListAndEventPane):
    """The trail of one event; enter goes to an event in its stream, escape back to the screen before."""

    TITLE = "Trail"
    FIRST_FOCUS = "#trail"
    DOWN = (60, 40)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "order", "Order", tooltip="As a tree of causes, or in the global order"),
        Binding("m", "more", "Look further", tooltip="Look at more events, where no index finds them"),
        *keys_of("trail-detail-panel", EventPanel.KEYS),
        *keys_of("trail-detail-panel", [replace(key, show=False) for key in EventPanel.PAST_KEYS]),
        *ListAndEventPane.FOCUS_KEYS,
        Binding("r", "refresh", "Read again", show=False),
        Binding("escape", "back", "Back", tooltip="Back to where you came from"),
    ]
    DEFAULT_CSS = """
    TrailPane {
        #trail-note { height: auto; max-height: 5; padding: 0 1; color: $text-warning; display: none; }
        #trail-note.-shown { display: block; }
    }
    TrailPane.-narrow {
        #trail-panel { height: 3fr; }
        #trail-detail-panel { height: 2fr; }
    }
    """

    def __init__(
        self,
        session: ExplorerSession,
        global_seq: int,
        *,
        fields: FieldNames = COMMON_FIELDS,
        source: str = "",
        id: str,
    ) -> None:
        """`source` is the name of the screen that it was opened from."""
        self.table = TrailTable(trail_columns(), id="trail", empty="looking …")
        super().__init__(session, self.table, id=id, empty="there is no event to copy")
        self.global_seq = global_seq
        self._note = Static(id="trail-note")
        self._fields = fields
        self._from = source
        self.trail: Trail | None = None
        self.by_cause = True
        self._scan = session.tuning.trail_scan

    def compose(self) -> ComposeResult:
        """Lay out the trail beside the event."""
        yield from self.compose_body()
        yield self._note

    def view(self) -> View | None:
        """Return the trail, or the event that has the focus, as a value."""
        if self.detail.has_focus or self.trail is None:
            return super().view()
        members = tuple(node.event.global_seq for node in self.trail.nodes)
        return TrailView(self.global_seq, members, self._scan)

    def event_at_hand(self) -> int | None:
        """Return the event under the cursor."""
        return None if self.table.row is None else self.table.row.node.event.global_seq

    def connected(self) -> None:
        """Read the trail, if that has not succeeded yet."""
        if self.trail is None:
            self.action_refresh()

    def jumped(self) -> None:
        """Read the trail again."""
        self.action_refresh()

    def action_refresh(self) -> None:
        """Read the trail."""
        self.session.retry()
        self.panel.entitle(f"trail of event {self.global_seq}")
        store = self.session.store
        if store is not None:
            start(self, partial(self._read, store), "trail")

    async def _read(self, store: EventStore) -> None:
        try:
            self.trail = await store.trail(
                self.global_seq, fields=self._fields, scan=self._scan, on_progress=self._progress
            )
        except EsxError as error:
            self.table.problem = str(error)
            if isinstance(error, StoreUnavailable):
                self.session.report(error, of=title_if_hidden(self))
            return
        self.table.problem = ""
        self._show(self.trail, self.event_at_hand() or self.global_seq)

    def _progress(self, looked: int, found: int) -> None:
        self.panel.entitle(subtitle=f"no index finds them: {looked:,} looked at, {found:,} found · esc stops")

    def _show(self, trail: Trail, cursor: int) -> None:
        rows = trail_rows(trail, by_cause=self.by_cause)
        table = self.table
        table.empty = "nothing here"
        at = next((index for index, row in enumerate(rows) if row.node.event.global_seq == cursor), 0)
        table.set_rows(rows, cursor=at, offset=max(at - table.body_height // 2, 0))
        self.panel.entitle(f"trail · {what(trail)}", extent(trail), way=self._way(trail))
        self._write_note()
        self.screen.refresh_bindings()

    def _way(self, trail: Trail) -> list[str]:
        """Return the way to here: the screen, and the stream of the event."""
        anchor = next((node.event for node in trail.nodes if node.event.global_seq == trail.anchor), None)
        stream = "" if anchor is None else visible(anchor.stream_id, limit=60)
        return [step for step in (self._from, stream) if step]

    def _write_note(self) -> None:
        trail, row = self.trail, self.table.row
        lines = []
        if row is not None and remark(row.node):
            lines.append(f"event {row.node.event.global_seq}: {remark(row.node)}")
        if trail is not None and trail.more:
            lines.append(f"there are more; the first {len(trail.nodes):,} are shown")
        scan = None if trail is None else trail.scan
        # To look at fewer takes no noticeable time.
        if scan is not None and (not scan.whole or scan.looked > 50_000):
            about = "all there are" if scan.whole else "the nearest ones; m looks further"
            helpful = ". This would help:" if scan.indexes else ""
            lines.append(f"no index finds these: {scan.looked:,} events looked at, {about}{helpful}")
            lines += scan.indexes
        self._note.set_class(bool(lines), "-shown")
        self._note.update(Content("\n".join(lines)))

    @on(RowTable.Highlighted, "#trail")
    def _highlighted(self) -> None:
        self._write_note()
        number, shown = self.event_at_hand(), self.event_panel.event
        if shown is None or shown.global_seq != number:
            self.event_panel.open(number)

    @on(RowTable.Chosen, "#trail")
    def _chosen(self, message: RowTable.Chosen) -> None:
        event = message.row.node.event
        self.post_message(self.EventWanted(self, event.stream_id, event.stream_seq))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer no trail of a trail."""
        if action == "trail":
            return False
        if action == "more":
            return self.trail is not None and self.trail.scan is not None and not self.trail.scan.whole
        return super().check_action(action, parameters)

    async def action_back(self) -> None:
        """Go back to the screen before."""
        await cast("ExplorerScreen", self.screen).close_over()

    def action_order(self) -> None:
        """Show the tree, or the global order."""
        self.by_cause = not self.by_cause
        if self.trail is not None:
            self._show(self.trail, self.event_at_hand() or self.global_seq)

    def action_more(self) -> None:
        """Look at ten times as many events."""
        self._scan *= 10
        self.action_refresh()
