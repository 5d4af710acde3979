"""One event in full: read when it is wanted, and what can be done with it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input

from esx.store.errors import EsxError
from esx.text import visible
from esx.tui.parts.part import Part
from esx.tui.widgets.eventdetail import EventDetail
from esx.tui.work import start

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.timer import Timer

    from esx.store.model import Event
    from esx.tui.link import Link

_TYPING = 0.15


class EventPart(Part):
    """Shows the event of a global_seq. `empty` is said where there is nothing to copy."""

    KEYS: ClassVar[list[Binding]] = [Binding("y", "copy", "Copy", tooltip="Copy the event as JSON")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", key_display="/", tooltip="Look for text in the JSON; n and N go on"),
        Binding("Y", "copy", "Copy event", show=False, tooltip="Copy the whole event as JSON"),
        Binding("escape", "back", "Back", show=False, tooltip="End the search"),
    ]
    DEFAULT_CSS = """
    EventPart {
        .search { display: none; height: 1; border: none; padding: 0 1; background: $boost; }
        .search.-shown { display: block; }
        EventDetail { height: 1fr; }
    }
    """

    def __init__(self, link: Link, *, id: str, detail_id: str, empty: str = "there is no event to copy") -> None:
        super().__init__(link, id=id)
        self._detail_id = detail_id
        self._empty = empty
        self._needle = ""
        self._typing: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the event."""
        self.border_title = "event"
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
            self.link.report(error)
            return
        self.show(event)

    def show(self, event: Event | None) -> None:
        """Show an event that has been read."""
        self.detail.show(event, "no event chosen" if event is None else None)
        self.border_title = Content("event" if event is None else visible(event.event_type, limit=60))

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
        else:
            raise SkipAction

    @on(EventDetail.Changed)
    def _write_found(self, message: EventDetail.Changed) -> None:
        message.stop()
        text = ""
        if self._needle:
            current, total = self.detail.found
            text = f"{total:,} found" if current is None else f"{current:,} of {total:,}"
        elif not self.detail.as_tree:
            text = "text"
        self.border_subtitle = Content(text)
