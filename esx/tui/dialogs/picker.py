"""Choosing another database, or another store in the same one."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from esx.errors import EsxError
from esx.text import visible
from esx.tui.cells import MUTED, fit
from esx.tui.dialogs.dialog import OptionsDialog
from esx.tui.session.connections import ConnectionChoice, Connections
from esx.tui.tasks import cancel, start
from esx.tui.widgets.askline import AskLine


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
    ConnectionPicker AskLine { width: 90%; max-width: 100; }
    """

    def __init__(
        self,
        connections: Connections,
        current: ConnectionChoice,
        state: tuple[str, str],
        stores: Callable[[], Awaitable[list[ConnectionChoice]]],
    ) -> None:
        super().__init__()
        choices = connections.choices
        self._choices: list[ConnectionChoice | None] = [*([] if current in choices else [current]), *choices, None]
        self._connections = connections
        self._stores = stores
        self._current = current
        self._state = state
        self._ask = AskLine(id="address")

    def compose(self) -> ComposeResult:
        """Lay out the list above the line for an address."""
        options = OptionList(*(self._option(choice) for choice in self._choices))
        options.border_title = "connections"
        options.border_subtitle = "enter opens · esc closes"
        yield options
        yield self._ask

    def on_mount(self) -> None:
        """Start at the current one."""
        self.query_one(OptionList).highlighted = self._choices.index(self._current)
        start(self, self._add_others, "stores")

    async def _add_others(self) -> None:
        """Add what is found while the list is shown: on this machine, and in the same database."""
        self._add("on this machine", await asyncio.to_thread(self._connections.on_this_machine))
        stores = [choice for choice in await self._stores() if choice.store != self._current.store]
        self._add("stores in this database", stores)

    def _add(self, title: str, found: list[ConnectionChoice]) -> None:
        if found:
            heading = Option(Content.from_text(f"  {title}").stylize("dim"), disabled=True)
            self._choices += [self._current, *found]  # the heading is never chosen
            self.query_one(OptionList).add_options([heading, *(self._option(choice) for choice in found)])

    def _option(self, choice: ConnectionChoice | None) -> Option:
        if choice is None:
            return Option(Content.assemble("  type an address …"))
        return Option(self._line(choice))

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
        choice = self._choices[message.option_index]
        if choice is not None:
            self.end(choice)
            return
        self._ask.ask(
            "address",
            placeholder="postgresql://user@host/database",
            hint="enter tries it · ADDRESS as NAME saves it in the config file · esc leaves",
        )

    @on(AskLine.Answered)
    def _answered(self, message: AskLine.Answered) -> None:
        message.stop()
        if message.text.strip():
            self._ask.say("trying …")
            start(self, partial(self._try, message.text), "try")

    async def _try(self, text: str) -> None:
        try:
            choice = await self._connections.typed(text)
        except EsxError as error:
            self._ask.say(str(error), error=True)
        else:
            self.end(choice)

    @on(AskLine.Left)
    def _left(self, message: AskLine.Left) -> None:
        message.stop()
        cancel(self, "try")
        self.query_one(OptionList).focus()
