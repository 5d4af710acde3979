"""Choosing another database, or another store in the same one."""

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from esx.text import visible
from esx.tui.cells import MUTED, fit
from esx.tui.dialogs.dialog import OptionsDialog
from esx.tui.session.connections import ConnectionChoice
from esx.tui.tasks import start


class ConnectionPicker(OptionsDialog["ConnectionChoice"]):
    """Lists the databases by name, the current one with the state of its connection; below, its other stores.

    The stores are looked for while the list is shown already.
    """

    KEYMAP_PREFIX = "connections"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close"),
        *OptionsDialog.LETTERS,
    ]
    DEFAULT_CSS = """
    ConnectionPicker OptionList { max-width: 100; max-height: 80%; padding: 1 1; }
    """

    def __init__(
        self,
        choices: Sequence[ConnectionChoice],
        current: ConnectionChoice,
        state: tuple[str, str],
        others: Callable[[], Awaitable[list[ConnectionChoice]]],
    ) -> None:
        super().__init__()
        self._choices = list(choices)
        if current not in self._choices:
            self._choices.insert(0, current)
        self._others = others
        self._current = current
        self._state = state

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        options = OptionList(*(Option(self._line(choice)) for choice in self._choices))
        options.border_title = "connections"
        options.border_subtitle = "enter opens · esc closes"
        yield options

    def on_mount(self) -> None:
        """Start at the current one."""
        self.query_one(OptionList).highlighted = self._choices.index(self._current)
        start(self, self._add_stores, "stores")

    async def _add_stores(self) -> None:
        found = [choice for choice in await self._others() if choice.store != self._current.store]
        if found:
            heading = Option(Content.from_text("  stores in this database").stylize("dim"), disabled=True)
            self._choices += [self._current, *found]  # the heading is never chosen
            self.query_one(OptionList).add_options([heading, *(Option(self._line(choice)) for choice in found)])

    def _line(self, choice: ConnectionChoice) -> Content:
        state, colour = self._state if choice is self._current else ("", "")
        mark = "●" if choice is self._current else " "
        # The name may be the address itself.
        where = "" if choice.where == choice.name else choice.where
        name = visible(choice.name, limit=200)
        return Content.assemble(
            (f"{mark} ", colour),
            (fit(name, 24) if where else name, "bold"),
            (f" {fit(visible(where, limit=200), 46)} " if where else "  ", MUTED),
            (state, colour),
        )

    @on(OptionList.OptionSelected)
    def _selected(self, message: OptionList.OptionSelected) -> None:
        self.end(self._choices[message.option_index])
