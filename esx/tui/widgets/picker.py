"""Choosing another database."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from esx.text import visible
from esx.tui.cells import MUTED, fit
from esx.tui.widgets.dialog import Dialog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from esx.tui.connections import Choice

_NAME = 24
_WHERE = 46


class ConnectionPicker(Dialog["Choice"]):
    """Lists the databases by name; the one that is shown says how it is connected."""

    PART = "connections"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close"),
        Binding("j", "app.simulate_key('down')", "Down", show=False),
        Binding("k", "app.simulate_key('up')", "Up", show=False),
        Binding("q", "app.quit", "Quit", show=False),
    ]
    DEFAULT_CSS = """
    ConnectionPicker {
        align: center middle;
        OptionList {
            width: 90%; max-width: 100; height: auto; max-height: 80%;
            border: round $primary; background: $surface; padding: 1 1;
            &:focus { border: round $primary; }
        }
    }
    """

    def __init__(self, choices: Sequence[Choice], current: Choice, state: tuple[str, str]) -> None:
        super().__init__()
        self._choices = choices
        self._current = current
        self._state = state

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        options = OptionList(*(Option(self._line(choice)) for choice in self._choices))
        options.border_title = "connections"
        options.border_subtitle = "enter opens · esc closes"
        yield options

    def on_mount(self) -> None:
        """Start at the one that is shown."""
        self.query_one(OptionList).highlighted = self._choices.index(self._current)

    def _line(self, choice: Choice) -> Content:
        state, colour = self._state if choice is self._current else ("", "")
        mark = "●" if choice is self._current else " "
        # The name says it all where it is the address.
        where = "" if choice.where == choice.name else choice.where
        name = visible(choice.name, limit=200)
        return Content.assemble(
            (f"{mark} ", colour),
            (fit(name, _NAME) if where else name, "bold"),
            (f" {fit(visible(where, limit=200), _WHERE)} " if where else "  ", MUTED),
            (state, colour),
        )

    @on(OptionList.OptionSelected)
    def _selected(self, message: OptionList.OptionSelected) -> None:
        self.end(self._choices[message.option_index])
