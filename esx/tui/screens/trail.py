"""Screen Trail: what shares an event's correlation id, as a tree of what caused what."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, cast

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from esx.store.errors import EsxError, StoreUnavailable
from esx.store.trail import COMMON_FIELDS, extent, remark, since, what
from esx.store.views import TrailView
from esx.text import visible
from esx.times import clock
from esx.tui.cells import Cell
from esx.tui.parts.eventpart import EventPart
from esx.tui.parts.part import Part, keys_of
from esx.tui.rows import PREVIEW
from esx.tui.screens.pane import Pane
from esx.tui.stage import from_behind
from esx.tui.widgets.rowtable import Column, RowTable
from esx.tui.work import start

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.timer import Timer

    from esx.store.trail import FieldNames, Trail, TrailNode
    from esx.store.views import View
    from esx.tui.link import Link

FIRST_LOOK = 200_000
"""How many events are looked at, where no index helps, before one is asked."""
_UNNOTICED = 50_000
"""Looking at so many events takes no time that one would notice."""
_SETTLE = 0.04


class _Travels(Protocol):
    """What the screen needs of the explorer."""

    async def go_back(self) -> None: ...


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
                f"{visible(event.stream_id, limit=PREVIEW)}@{event.stream_seq}",
                since(trail, node),
                "(large)" if event.preview is None else visible(event.preview, limit=PREVIEW),
                event.global_seq == trail.anchor,
                node,
            )
        )
    return rows


def trail_columns() -> list[Column[TrailRow]]:
    """Return the columns of a trail."""
    number = Column[TrailRow](
        "global",
        lambda row: Cell(str(row.node.event.global_seq), "strong" if row.anchor else "number"),
        width=9,
        right=True,
    )
    after = Column[TrailRow]("after", lambda row: Cell(row.after, "muted"), width=13, right=True)
    # In one cell, so that the lines lead to the types.
    kind = Column[TrailRow]("type", lambda row: Cell(row.rails + row.event_type, tint=row.event_type), share=4)
    rest = [
        Column[TrailRow]("stream", lambda row: Cell(row.where, "strong" if row.anchor else ""), share=3),
        Column[TrailRow]("time", lambda row: Cell(clock(row.node.event.created_at), "muted"), 19, needs=110),
        Column[TrailRow]("data", lambda row: Cell(row.preview, "muted"), share=3, needs=90),
    ]
    return [number, after, kind, *rest]


class TrailTable(RowTable[TrailRow]):
    """The lines of a trail."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "To its stream", tooltip="Show the event in its stream"),
    ]

    def on_resize(self) -> None:
        """Keep the cursor in the middle: what led to the event above it, what came of it below."""
        self.scroll_to(y=max(self.cursor - self.body_height // 2, 0), animate=False, force=True)


class TrailPane(Pane):
    """Reads the trail of one event; enter goes to an event in its stream, escape back to where one came from."""

    TITLE = "Trail"
    FIRST_FOCUS = "#trail"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "order", "Order", tooltip="As a tree of causes, or in the global order"),
        Binding("m", "more", "Look further", tooltip="Look at more events, where no index finds them"),
        *keys_of("trail-detail-part", EventPart.KEYS),
        Binding("right,l", "focus_detail", "To the event in full", show=False),
        Binding("left,h", "focus_list", "To the list", show=False),
        Binding("r", "refresh", "Read again", show=False),
        Binding("escape", "back", "Back", tooltip="Back to where you came from"),
    ]
    DEFAULT_CSS = """
    TrailPane {
        layout: vertical;
        #trail-body { height: 1fr; layout: horizontal; }
        #trail-part { width: 3fr; }
        #trail-detail-part { width: 2fr; }
        #trail-note { height: auto; max-height: 5; padding: 0 1; color: $text-warning; display: none; }
        #trail-note.-shown { display: block; }
    }
    TrailPane.-narrow {
        #trail-body { layout: vertical; }
        #trail-part { width: 1fr; }
        #trail-detail-part { width: 1fr; height: 2fr; }
        #trail-part { height: 3fr; }
    }
    """

    def __init__(self, link: Link, global_seq: int, *, fields: FieldNames = COMMON_FIELDS, id: str) -> None:
        super().__init__(link, id=id)
        self.global_seq = global_seq
        self._fields = fields
        self.trail: Trail | None = None
        self.by_cause = True
        self._scan = FIRST_LOOK
        self._event_timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the trail beside the event."""
        with Container(id="trail-body"):
            with Part(self.link, id="trail-part"):
                yield TrailTable(trail_columns(), id="trail", empty="looking …")
            yield EventPart(self.link, id="trail-detail-part", detail_id="trail-detail")
        yield Static(id="trail-note")

    @property
    def table(self) -> TrailTable:
        """The list of events."""
        return self.query_one("#trail", TrailTable)

    @property
    def event_part(self) -> EventPart:
        """The part with the event in full."""
        return self.query_one("#trail-detail-part", EventPart)

    def view(self) -> View | None:
        """Return the trail, or the event that has the focus, as a value."""
        if self.event_part.detail.has_focus or self.trail is None:
            return super().view()
        members = tuple(node.event.global_seq for node in self.trail.nodes)
        return TrailView(self.global_seq, members, self._scan)

    def event_at_hand(self) -> int | None:
        """Return the event under the cursor."""
        return None if self.table.row is None else self.table.row.node.event.global_seq

    def connected(self) -> None:
        """Read it, or again what could not be read."""
        if self.trail is None:
            self.action_refresh()

    # -- reading ------------------------------------------------------------------------------------------------

    def action_refresh(self) -> None:
        """Read the trail."""
        self.link.retry()
        self.query_one("#trail-part").border_title = Content(f"trail of event {self.global_seq}")
        start(self, self._read, "trail")

    async def _read(self) -> None:
        store = self.link.store
        if store is None:
            return
        try:
            self.trail = await store.trail(
                self.global_seq, fields=self._fields, scan=self._scan, on_progress=self._progress
            )
        except EsxError as error:
            self.table.problem = str(error)
            self.table.refresh()
            if isinstance(error, StoreUnavailable):
                self.link.report(error, of=from_behind(self))
            return
        self.table.problem = ""
        self._show(self.trail, self.event_at_hand() or self.global_seq)

    def _progress(self, looked: int, found: int) -> None:
        self.query_one("#trail-part").border_subtitle = Content(
            f"no index finds them: {looked:,} looked at, {found:,} found · esc stops"
        )

    def _show(self, trail: Trail, cursor: int) -> None:
        rows = trail_rows(trail, by_cause=self.by_cause)
        table = self.table
        table.empty = "nothing here"
        at = next((index for index, row in enumerate(rows) if row.node.event.global_seq == cursor), 0)
        table.set_rows(rows, cursor=at, offset=max(at - table.body_height // 2, 0))
        part = self.query_one("#trail-part")
        part.border_title = Content(f"trail · {what(trail)}")
        part.border_subtitle = Content(extent(trail))
        self._write_note()
        self.screen.refresh_bindings()

    def _write_note(self) -> None:
        trail, row = self.trail, self.table.row
        lines = []
        if row is not None and remark(row.node):
            lines.append(f"event {row.node.event.global_seq}: {remark(row.node)}")
        if trail is not None and trail.more:
            lines.append(f"there are more; the first {len(trail.nodes):,} are shown")
        if trail is not None and trail.scan is not None and (not trail.scan.whole or trail.scan.looked > _UNNOTICED):
            scan = trail.scan
            about = "all there are" if scan.whole else "the nearest ones; m looks further"
            lines.append(f"no index finds these: {scan.looked:,} events looked at, {about}. This would help:")
            lines += scan.indexes
        note = self.query_one("#trail-note", Static)
        note.set_class(bool(lines), "-shown")
        note.update(Content("\n".join(lines)))

    # -- the event at hand ----------------------------------------------------------------------------------------

    @on(RowTable.Highlighted, "#trail")
    def _highlighted(self, message: RowTable.Highlighted) -> None:
        message.stop()
        self._write_note()
        if self._event_timer is not None:
            self._event_timer.stop()
        self._event_timer = self.set_timer(_SETTLE, self._open_event)

    def _open_event(self) -> None:
        number, shown = self.event_at_hand(), self.event_part.event
        if shown is None or shown.global_seq != number:
            self.event_part.open(number)

    @on(RowTable.Chosen, "#trail")
    def _chosen(self, message: RowTable.Chosen) -> None:
        message.stop()
        event = message.row.node.event
        self.post_message(self.EventWanted(self, event.stream_id, event.stream_seq))

    # -- keys ---------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what makes sense here: no trail of a trail."""
        if action == "trail":
            return False
        if action == "more":
            return self.trail is not None and self.trail.scan is not None and not self.trail.scan.whole
        return super().check_action(action, parameters)

    async def action_back(self) -> None:
        """Go back to where one came from."""
        await cast(_Travels, self.app).go_back()

    def action_order(self) -> None:
        """Show the tree, or the global order."""
        self.by_cause = not self.by_cause
        if self.trail is not None:
            self._show(self.trail, self.event_at_hand() or self.global_seq)

    def action_more(self) -> None:
        """Look at ten times as many events."""
        self._scan *= 10
        self.action_refresh()

    def action_focus_detail(self) -> None:
        """Go to the event in full."""
        self.event_part.detail.focus()

    def action_focus_list(self) -> None:
        """Go to the list."""
        self.table.focus()
