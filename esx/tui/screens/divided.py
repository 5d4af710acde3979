"""Screens of several parts: the keys that move the borders between the parts, and the zoom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from textual import on
from textual.binding import Binding, BindingType

from esx.tui.lists.column import enough_for
from esx.tui.lists.rowtable import RowTable
from esx.tui.screens.base import StorePane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.events import Resize
    from textual.widget import Widget


_STEP, _LEAST = 5, 10
"""Percent of the screen by which a key moves a border, and that a part has at least."""
_AROUND = 3
"""The cells around a list: its frame and its scrollbar."""
_EVENT = 66
"""Cells in which an event is shown in full without a line that goes on: that of a UUID with its name."""


class Division(NamedTuple):
    """Parts beside each other, or below: a name to remember them by, the percent of each at first, and the parts.

    Each part is one or more widgets.
    """

    name: str
    percent: tuple[int, ...]
    parts: Sequence[Sequence[Widget]]


def share_of_event(width: int, most: int) -> int:
    """Return the percent of a screen that an event in full gets beside lists, at most `most`: they get what is left."""
    return min(most, -(-_EVENT * 100 // max(width, 1)))


def share_of_list(rows: RowTable[Any], width: int, least: int, most: int) -> int:
    """Return the percent of a screen that a list needs for the rows that have been on screen."""
    needed = enough_for(rows.columns, width * most // 100 - _AROUND, rows.needed) + _AROUND
    return min(max(-(-needed * 100 // max(width, 1)), least), most)


class DividedPane(StorePane):
    """A screen of parts, which are of the class ``panel``."""

    KEYMAP_PREFIX = "parts"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("z", "zoom", "Zoom", show=False, tooltip="Give the focused part the whole screen, and back"),
        Binding("L,shift+right", "resize(1, True)", "Wider", show=False, tooltip="Make the focused part wider"),
        Binding("H,shift+left", "resize(-1, True)", "Narrower", show=False, tooltip="Make the focused part narrower"),
        Binding("J,shift+down", "resize(1, False)", "Higher", show=False, tooltip="Make the focused part higher"),
        Binding("K,shift+up", "resize(-1, False)", "Lower", show=False, tooltip="Make the focused part lower"),
    ]
    DEFAULT_CSS = """
    DividedPane.-zoomed {
        .panel { display: none !important; }
        .panel.-zoomed { display: block !important; row-span: 1; }
    }
    """

    @property
    def is_narrow(self) -> bool:
        """Whether there is no room for all parts side by side."""
        return self.has_class("-narrow")

    def division(self, *, across: bool) -> Division | None:  # noqa: ARG002
        """Return the parts beside each other, or below each other; None if there is only one that way."""
        return None

    def place(self, across: Sequence[int] | None, down: Sequence[int] | None) -> None:
        """Lay the parts out by their shares; None: there is one part only that way."""

    def on_resize(self, event: Resize) -> None:
        """Use the shares for this size."""
        super().on_resize(event)
        self._place()

    @on(RowTable.Widened)
    def _widened(self) -> None:
        self._place()

    def _shares(self, division: Division) -> list[int]:
        return self.session.remembered.get(division.name, division.percent)

    def _place(self) -> None:
        divisions = [None if self.has_class("-zoomed") else self.division(across=across) for across in (True, False)]
        self.place(*(None if division is None else self._shares(division) for division in divisions))

    def action_resize(self, by: int, across: bool) -> None:
        """Give the focused part more room, or less: its neighbour gets what is left."""
        division, focused = self.division(across=across), self.screen.focused
        if division is None or focused is None or self.has_class("-zoomed"):
            return
        inside = set(focused.ancestors_with_self)
        at = next((at for at, part in enumerate(division.parts) if inside & set(part)), None)
        if at is None:
            return
        shares = self._shares(division)
        other = at + 1 if at + 1 < len(shares) else at - 1
        step = min(_STEP, shares[other] - _LEAST) if by > 0 else max(-_STEP, _LEAST - shares[at])
        shares[at] += step
        shares[other] -= step
        self.session.remembered.set(division.name, shares)
        self._place()

    def action_zoom(self) -> None:
        """Give the focused part the whole screen, or give the others their place back."""
        self.toggle_class("-zoomed")
        self._place()
        self._mark_zoomed(self.screen.focused)

    def _mark_zoomed(self, focused: Widget | None) -> None:
        for part in self.query(".panel"):
            inside = focused is not None and part in focused.ancestors
            part.set_class(self.has_class("-zoomed") and inside, "-zoomed")

    def reveal(self, widget: Widget) -> None:
        """Let the zoom follow the focus."""
        if self.has_class("-zoomed"):
            self._mark_zoomed(widget)
