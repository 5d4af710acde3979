"""Choosing how to copy what is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from esx.store.errors import EsxError
from esx.text import visible
from esx.tui.cells import MUTED, fit
from esx.tui.widgets.dialog import Dialog
from esx.tui.work import start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from textual.app import ComposeResult

_LINES = 4


class CopyAs(Dialog[tuple[str, str]]):
    """Offers texts by their titles, with the beginning of each; the result is the one chosen, behind its title.

    `read` returns them; if it raises, `failed` is told why, and there is nothing to choose from.
    """

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

    def __init__(
        self, read: Callable[[], Awaitable[Sequence[tuple[str, str]]]], failed: Callable[[EsxError], object]
    ) -> None:
        super().__init__()
        self._read = read
        self._failed = failed
        self._choices: Sequence[tuple[str, str]] = ()

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        options = OptionList(Option("reading …", disabled=True))
        options.border_title = "copy what is shown as"
        options.border_subtitle = "enter copies · esc closes"
        yield options

    def on_mount(self) -> None:
        """Begin to read."""
        start(self, self._fill, "read")

    async def _fill(self) -> None:
        try:
            self._choices = await self._read()
        except EsxError as error:
            self.end(None)
            self._failed(error)
            return
        width = max(min(self.app.size.width * 9 // 10, 110) - 8, 20)
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(self._text(*choice, width)) for choice in self._choices])
        options.highlighted = 0

    @staticmethod
    def _text(title: str, text: str, width: int) -> Content:
        lines = text[:4000].split("\n")
        shown = [fit(visible(line, limit=500), width).rstrip() for line in lines[:_LINES]]
        if len(lines) > _LINES:
            shown[-1] = "…"
        return Content.assemble((title, "bold"), *((f"\n  {line}", MUTED) for line in shown))

    @on(OptionList.OptionSelected)
    def _selected(self, message: OptionList.OptionSelected) -> None:
        self.end(self._choices[message.option_index])
