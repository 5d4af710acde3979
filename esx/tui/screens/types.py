"""Screen Types: the event types of a store, and the shape of the data of each."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from esx.errors import EsxError, StoreUnavailable
from esx.eventstore import EventStore
from esx.filters import Filter
from esx.fold.type_shapes import TypeShape, changed_first, type_shapes
from esx.glob import glob_of
from esx.store.overview.types import TypeSurvey
from esx.store.views import TypesView
from esx.text import visible
from esx.tui.lists.rowtable import RowTable
from esx.tui.panels.panel import SearchLine
from esx.tui.panels.types import ShapePanel, TypeList
from esx.tui.panes import title_if_hidden
from esx.tui.screens.pair import PairPane
from esx.tui.session.follower import Follower
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import cancel, start

_ORDERS = ("by count", "changed first", "by name", "newest first")


class TypesPane(PairPane):
    """Looks at a sample of the store when it is shown first, and again only when asked: it is no live screen."""

    TITLE = "Types"
    FIRST_FOCUS = "#types"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", tooltip="Show only the types with a text in their names"),
        Binding(
            "s",
            "sort",
            "Sort",
            tooltip="Types by count, those whose shape changed first, by name, or by their newest event",
        ),
        Binding("m", "more", "Count all", tooltip="Look at all events, where only a sample was looked at"),
        Binding("r", "refresh", "Refresh", show=False, tooltip="Look at the store again"),
        *PairPane.FOCUS_KEYS,
        Binding("escape", "back", "Back", show=False, tooltip="Clear the filter, or go back to the list"),
    ]

    def __init__(self, session: ExplorerSession, follower: Follower, *, id: str) -> None:
        self.types, self.shape = TypeList(id="types"), ShapePanel(session, id="paths-panel")
        super().__init__(session, self.types, self.shape, focus=self.shape.paths, id=id)
        self.follower = follower
        self._line = SearchLine("a text in the name of the type", id="types-filter")
        self._survey: TypeSurvey | None = None
        self._found: list[TypeShape] = []
        self._full = False
        self._looking = False
        self._order = _ORDERS[0]

    def compose(self) -> ComposeResult:
        """Lay out the types beside the shape of one."""
        self.panel.entitle("types")
        yield from self.compose_body(self._line)

    def on_mount(self) -> None:
        """Start the clock: ages grow, and events come."""
        self.every(1, self._tick)

    def connected(self) -> None:
        """Look, if that has not been done."""
        if self._survey is None:
            self.action_refresh()

    def jumped(self) -> None:
        """Look again."""
        self.action_refresh()

    def view(self) -> TypesView | None:
        """Return the types that are listed."""
        if self._survey is None:
            return None
        return TypesView(tuple(one.to_json() for one in self._found), full=self._full)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to count all where that would tell more."""
        if action == "more":
            return self._survey is not None and not self._survey.complete
        return super().check_action(action, parameters)

    def action_refresh(self) -> None:
        """Look at the store again."""
        self.session.retry()
        self._look(full=self._full)

    def action_more(self) -> None:
        """Look at all events."""
        self._look(full=True)

    def _look(self, *, full: bool) -> None:
        store = self.session.store
        if store is not None:
            self._looking = True
            self.panel.entitle(subtitle="looking at all events … esc stops" if full else "looking …")
            start(self, partial(self._read, store, full=full), "types")

    async def _read(self, store: EventStore, *, full: bool) -> None:
        try:
            survey = await store.types(full=full)
            # The data of some thousand events are parsed: keys must not wait for that.
            found = await asyncio.to_thread(type_shapes, survey)
        except EsxError as error:
            self._looking = False
            if isinstance(error, StoreUnavailable):
                self.session.report(error, of=title_if_hidden(self))
            elif self._survey is None:
                self.types.problem = str(error)
            else:
                # What was found before stays.
                self.notify(visible(str(error), limit=300), severity="error", timeout=8)
            self._write()
            return
        self._looking = False
        self.types.problem = ""
        # Without the events themselves, whose data can be large.
        self._survey, self._found, self._full = replace(survey, sample={}), found, full
        if survey.doubt is not None:
            self.notify(survey.doubt.text, severity="warning" if survey.doubt.broken else "information")
        self._show()
        self.refresh_bindings()

    def _tick(self) -> None:
        self.types.refresh_ages()
        self._write()

    def _show(self) -> None:
        if self._survey is None:
            return
        wanted = self._line.value.strip().lower()
        rows = [one for one in self._found if wanted in one.summary.event_type.lower()]
        if self._order == "changed first":
            rows = changed_first(rows)
        elif self._order == "by name":
            rows.sort(key=lambda one: one.summary.event_type)
        elif self._order == "newest first":
            rows.sort(key=lambda one: -one.summary.last.global_seq)
        table = self.types
        name = None if table.row is None else table.row.summary.event_type
        at = next((at for at, one in enumerate(rows) if one.summary.event_type == name), 0)
        table.empty = "no type has that in its name" if wanted else "no events yet: esx append, or a load test (3)"
        table.set_rows(rows, cursor=at, offset=max(at - table.body_height // 2, 0))
        self._write()
        if not rows:
            self.shape.show(None)

    def _write(self) -> None:
        """Say what was looked at, what that leaves open, and what has come since."""
        survey = self._survey
        if self._looking:
            return
        if survey is None:
            self.panel.entitle(subtitle="")
            return
        shown, known = len(self.types.rows), len(self._found)
        number = f"{known:,}" if shown == known else f"{shown:,} of {known:,}"
        changed = sum(one.changed_at is not None for one in self._found)
        self.panel.entitle(f"types {self._order} · {number} · {changed or 'none'} changed shape")
        if survey.complete and survey.looked_at:
            counted = all(one.events.exact for one in survey.types)
            events = f"{sum(one.events.count for one in survey.types):,}" if counted else survey.events.text
            said = [f"all {events} events"]
        elif survey.looked_at:
            rare = max(survey.events.count // survey.looked_at, 1) * 3
            said = [f"{survey.looked_at:,} of {survey.events.text} events", f"rarer than {rare:,}: may be missing"]
            said += ["m counts all"]
        else:
            said = []
        self.panel.entitle(subtitle=" · ".join([*said, *self._newer()]))

    def _newer(self) -> list[str]:
        """Return how many events came since the store was looked at, in words."""
        newest = max((one.summary.last.global_seq for one in self._found), default=0)
        newer, follower = self.follower.position - newest, self.follower
        if newer <= 0 or not follower.started:
            return []
        exact = follower.began <= newest and not follower.counts.dead
        return [f"{'' if exact else 'up to '}{newer:,} newer, r reads them"]

    @on(RowTable.Highlighted, "#types")
    def _highlighted(self, message: RowTable.Highlighted) -> None:
        self.shape.show(message.row)

    @on(RowTable.Chosen, "#types")
    def _type_chosen(self, message: RowTable.Chosen) -> None:
        self._find(message.row, None)

    @on(RowTable.Chosen, "#paths")
    def _path_chosen(self, message: RowTable.Chosen) -> None:
        if self.types.row is not None:
            self._find(self.types.row, message.row.path)

    def _find(self, one: TypeShape, path: str | None) -> None:
        where = None if path is None else f"exists({path})"
        self.post_message(self.EventsWanted(self, Filter(event_type=glob_of(one.summary.event_type), where=where)))

    def action_sort(self) -> None:
        """Order the types another way."""
        self._order = _ORDERS[(_ORDERS.index(self._order) + 1) % len(_ORDERS)]
        self._show()

    def action_filter(self) -> None:
        """Open the line for the filter."""
        self._line.open()

    @on(SearchLine.Typed)
    def _typed(self) -> None:
        self._show()

    @on(Input.Submitted, "#types-filter")
    def _entered(self, message: Input.Submitted) -> None:
        message.stop()
        self._show()
        if not self._line.value:
            self._line.close()
        self.types.focus()

    def action_back(self) -> None:
        """Clear the filter, or go back to the list."""
        if self._looking:
            cancel(self, "types")
            self._looking = False
            self._write()
        elif self._line.is_open:
            self._line.close()
            self._show()
            self.types.focus()
        elif self.has_class("-zoomed"):
            self.action_zoom()
        elif self.shape.paths.has_focus:
            self.types.focus()
