"""Common to all screens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.message import Message

from esx.filters import Filter
from esx.locators import Locator
from esx.store.views import View
from esx.tui.event.detail import EventDetail
from esx.tui.keymap import Keyed
from esx.tui.panes import Pane
from esx.tui.session.session import ExplorerSession


@runtime_checkable
class Describes(Protocol):
    """A part that can say what it shows, so that it can be copied as a command or a query, and exported."""

    def view(self) -> View | None:
        """Return what is shown, as a value; None for nothing."""
        ...


class StorePane(Keyed, Pane):
    """One of the explorer's screens. It is made when it is first shown, and stays."""

    KEYMAP_PREFIX = "pane"

    @dataclass
    class TrailWanted(Message):
        """The trail of an event was asked for."""

        pane: StorePane
        global_seq: int

    @dataclass
    class EventWanted(Message):
        """An event was asked for, in its stream."""

        pane: StorePane
        stream_id: str
        stream_seq: int

    @dataclass
    class EventsWanted(Message):
        """The events of all streams that pass a filter were asked for."""

        pane: StorePane
        where: Filter

    @dataclass
    class SummaryWanted(Message):
        """What happened lately was asked for."""

        pane: StorePane

    @dataclass
    class MentionsWanted(Message):
        """The events that mention a value were asked for, or, without one, the stream at hand."""

        pane: StorePane
        value: str | None

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "trail", "Trail", tooltip="What shares the event's correlation id, and what caused what"),
        Binding(
            "A", "mentions", "Mentions", tooltip="All events that mention the stream or the value at hand, anywhere"
        ),
        Binding("W", "summary", "Lately", tooltip="What happened in the last ten minutes, by type"),
    ]
    DEFAULT_CSS = """
    StorePane { height: 1fr; width: 1fr; }
    """

    def __init__(self, session: ExplorerSession, *, id: str) -> None:
        super().__init__(id=id)
        self.session = session
        self.ready = False
        """Whether it is laid out."""

    def on_mount(self) -> None:
        """Begin, if there is a connection. Textual calls this after the `on_mount` of the subclass."""
        self.ready = True
        if self.session.store is not None:
            self.connected()

    def on_resize(self, event: Resize) -> None:
        """Put parts above each other where there is no room for all side by side."""
        self.set_class(event.size.width < 150, "-narrow")

    def connected(self) -> None:
        """Do what is due when the store answers, for the first time or again."""

    def jumped(self) -> None:
        """Do what is due when the clock of a recording has jumped: everything may be different now."""
        self.connected()

    def stop(self, then: Callable[[], object]) -> str:  # noqa: ARG002
        """Begin to stop what leaving would cut off; call `then` when it has ended.

        Return what is being stopped; an empty text, and no call, if there is nothing.
        """
        return ""

    def view(self) -> View | None:
        """Return what the focused part shows, as a value; None where it has no rows that a command could print."""
        focused = self.screen.focused
        for part in focused.ancestors_with_self if focused is not None else ():
            if part is self:
                break
            if isinstance(part, Describes):
                return part.view()
        return None

    def command(self) -> list[str] | None:
        """Return the words of the command that does what is shown, where that is no view; None if there is none."""
        return None

    def event_at_hand(self) -> int | None:
        """Return the global_seq of the event that keys act on, None if there is none."""
        return None

    def place_at_hand(self) -> Locator | int | None:
        """Return what a bookmark keeps here: a stream or an event, an event's global_seq, or None."""
        return self.event_at_hand()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the trail, and what mentions an event's stream, where there are events."""
        if action in ("trail", "mentions") and type(self).event_at_hand is StorePane.event_at_hand:
            return False
        return super().check_action(action, parameters)

    def action_trail(self) -> None:
        """Show the trail of the event at hand."""
        number = self.event_at_hand()
        if number is None:
            self.notify("choose an event first", severity="warning")
        else:
            self.post_message(self.TrailWanted(self, number))

    def action_mentions(self) -> None:
        """Find all events that mention the value under the cursor, or the stream at hand."""
        focused = self.screen.focused
        value = focused.text_at_cursor if isinstance(focused, EventDetail) else None
        self.post_message(self.MentionsWanted(self, value))

    def action_summary(self) -> None:
        """Show what happened lately."""
        self.post_message(self.SummaryWanted(self))

    async def action_panel(self, panel_id: str, action: str) -> None:
        """Run an action of a part of this screen; see `keys_of`."""
        await self.query_one(f"#{panel_id}").run_action(action)
