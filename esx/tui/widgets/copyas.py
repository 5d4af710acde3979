"""Choosing how to copy what is shown."""

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

_LINES = 4


class CopyAs(Dialog[int]):
    """Offers texts by their titles, with the beginning of each; the result is the number of the one chosen."""

    PART = "copy"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,x", "close", "Close"),
        Binding("j", "app.simulate_key('down')", "Down", show=False),
        Binding("k", "app.simulate_key('up')", "Up", show=False),
        Binding("q", "app.quit", "Quit", show=False),
    ]
    DEFAULT_CSS = """
    CopyAs {
        align: center middle;
        OptionList {
            width: 90%; max-width: 110; height: auto; max-height: 90%;
            border: round $primary; background: $surface; padding: 0 1;
            &:focus { border: round $primary; }
        }
    }
    """

    def __init__(self, choices: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._choices = choices

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        width = max(min(self.app.size.width * 9 // 10, 110) - 8, 20)
        options = OptionList(*(Option(self._text(*choice, width)) for choice in self._choices))
        options.border_title = "copy what is shown as"
        options.border_subtitle = "enter copies · esc closes"
        yield options

    @staticmethod
    def _text(title: str, text: str, width: int) -> Content:
        lines = text[:4000].split("\n")
        shown = [fit(visible(line, limit=500), width).rstrip() for line in lines[:_LINES]]
        if len(lines) > _LINES:
            shown[-1] = "…"
        return Content.assemble((title, "bold"), *((f"\n  {line}", MUTED) for line in shown))

    @on(OptionList.OptionSelected)
    def _selected(self, message: OptionList.OptionSelected) -> None:
        self.end(message.option_index)
