"""One event in full: read when it is wanted, and what can be done with it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.content import Content

from esx.store.errors import EsxError
from esx.text import visible
from esx.tui.cells import size_of
from esx.tui.parts.part import Part
from esx.tui.widgets.eventdetail import EventDetail
from esx.tui.work import start

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from esx.store.model import Event
    from esx.tui.link import Link

_MOST_COPIED = 1_000_000


class EventPart(Part):
    """Shows the event of a global_seq. `empty` is said where there is nothing to copy."""

    KEYS: ClassVar[list[Binding]] = [Binding("y", "copy", "Copy", tooltip="Copy the event as JSON")]

    def __init__(self, link: Link, *, id: str, detail_id: str, empty: str = "there is no event to copy") -> None:
        super().__init__(link, id=id)
        self._detail_id = detail_id
        self._empty = empty

    def compose(self) -> ComposeResult:
        """Lay out the event."""
        self.border_title = "event"
        yield EventDetail(id=self._detail_id)

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
        text = event.to_json()
        if len(text) > _MOST_COPIED:
            self.notify(
                f"{size_of(len(text))} is more than terminals take: use esx read with --json instead",
                severity="warning",
                markup=False,
            )
            return
        self.app.copy_to_clipboard(text)
        self.notify(f"event {event.global_seq} copied as JSON, {size_of(len(text))}", markup=False)
