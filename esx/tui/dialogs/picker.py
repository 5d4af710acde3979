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
    """Lists the databases by name, the current one with the state of its connection, and below it its other stores.

    Those, and the other databases of its server, are looked for while the list is shown already.
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
        databases: Callable[[], Awaitable[list[ConnectionChoice]]],
    ) -> None:
        super().__init__()
        choices = connections.choices
        first = [] if current in choices else [current]
        self._choices: list[ConnectionChoice | str | None] = [*first, *choices, None]
        self._lines = list(self._choices)
        """The choices as they are shown; a text is a heading, None the line for an address."""
        self._connections = connections
        self._stores = stores
        self._databases = databases
        self._current = current
        self._state = state
        self._others: list[ConnectionChoice] = []
        """The other databases of the same server, whose address need not be said again."""
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
        """Add what is found while the list is shown: in the same database, and on this machine."""
        stores = [choice for choice in await self._stores() if choice.store != self._current.store]
        if stores:
            at = self._choices.index(self._current) + 1
            # Not at the end, which may be far below the screen.
            self._choices[at:at] = ["stores in this database", *stores, "other connections"]
            self._show_choices()
        known = {choice.where for choice in self._connections.choices}
        self._others = [choice for choice in await self._databases() if choice.where not in known]
        if self._others:
            self._choices += ["other databases of this server", *self._others]
            self._show_choices()
        found = await asyncio.to_thread(self._connections.on_this_machine)
        if found:
            self._choices += ["on this machine", *found]
            self._show_choices()

    def _show_choices(self) -> None:
        """Show the choices as they are now; the cursor stays on its own."""
        options = self.query_one(OptionList)
        chosen = None if options.highlighted is None else self._lines[options.highlighted]
        self._lines = list(self._choices)
        options.set_options(map(self._option, self._lines))
        options.highlighted = next((at for at, each in enumerate(self._lines) if each is chosen), None)

    def _option(self, choice: ConnectionChoice | str | None) -> Option:
        if choice is None:
            return Option(Content.assemble("  type an address …"))
        if isinstance(choice, str):  # a heading, which is never chosen
            return Option(Content.styled(f"  {choice}", MUTED), disabled=True)
        return Option(self._line(choice))

    def _line(self, choice: ConnectionChoice) -> Content:
        state, colour = self._state if choice is self._current else ("", "")
        mark = "●" if choice is self._current else " "
        # The name may be the address itself.
        where = "" if choice.where == choice.name or choice in self._others else choice.where
        name = visible(choice.name, limit=200)
        return Content.assemble(
            (f"{mark} ", colour),
            (fit(name, 24) if where else name, "bold"),
            (f" {fit(visible(where, limit=200), 46)} " if where else "  ", MUTED),
            (state, colour),
        )

    @on(OptionList.OptionSelected)
    def _selected(self, message: OptionList.OptionSelected) -> None:
        choice = self._lines[message.option_index]
        if isinstance(choice, ConnectionChoice):
            self.end(choice)
            return
        self._ask.ask(
            "address",
            placeholder="postgresql://user@host/database, user@host:port/database, or a name",
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
