"""What the screens have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from textual.binding import Binding, BindingType
from textual.message import Message

from esx.tui.keymap import Keyed
from esx.tui.stage import Scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.events import Resize

    from esx.store.views import View
    from esx.tui.link import Link


_NARROW = 150
"""Below this width parts stand above each other, not all side by side."""


@runtime_checkable
class Describes(Protocol):
    """A part that can say what it shows, so that it can be copied as a command or a query, and exported."""

    def view(self) -> View | None:
        """Return what is shown, as a value; None for nothing."""
        ...


class Pane(Keyed, Scene):
    """One of the explorer's screens. It is made when it is first looked at, and stays."""

    class TrailWanted(Message):
        """Somebody wants the trail of an event."""

        def __init__(self, pane: Pane, global_seq: int) -> None:
            super().__init__()
            self.pane = pane
            self.global_seq = global_seq

    class EventWanted(Message):
        """Somebody wants to see an event in its stream."""

        def __init__(self, pane: Pane, stream_id: str, stream_seq: int) -> None:
            super().__init__()
            self.pane = pane
            self.stream_id = stream_id
            self.stream_seq = stream_seq

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "trail", "Trail", tooltip="What shares the event's correlation id, and what caused what"),
    ]
    DEFAULT_CSS = """
    Pane { height: 1fr; width: 1fr; }
    """

    def __init__(self, link: Link, *, id: str) -> None:
        super().__init__(id=id)
        self.link = link
        self.ready = False
        """Whether everything in it is in place."""

    def on_mount(self) -> None:
        """Begin, if there is a connection. Textual calls this after the `on_mount` of the screen itself."""
        self.ready = True
        if self.link.store is not None:
            self.connected()

    def on_resize(self, event: Resize) -> None:
        """Lay the parts out by the room there is."""
        self.set_class(event.size.width < _NARROW, "-narrow")

    def connected(self) -> None:
        """Take note that the store answers, for the first time or again."""

    def stop(self, then: Callable[[], object]) -> str:  # noqa: ARG002
        """Begin to stop what should not be cut off by leaving; call `then` when it has ended.

        Returns what is waited for, an empty text if there is nothing.
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

    def event_at_hand(self) -> int | None:
        """Return the global_seq of the event that keys act on, None if there is none."""
        return None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the trail where there are events."""
        if action == "trail" and type(self).event_at_hand is Pane.event_at_hand:
            return False
        return super().check_action(action, parameters)

    def action_trail(self) -> None:
        """Show what belongs to the event at hand."""
        number = self.event_at_hand()
        if number is None:
            self.notify("choose an event first", severity="warning")
        else:
            self.post_message(self.TrailWanted(self, number))

    async def action_part(self, part_id: str, action: str) -> None:
        """Do what a part of this screen has a key for; see `keys_of`."""
        await self.query_one(f"#{part_id}").run_action(action)
