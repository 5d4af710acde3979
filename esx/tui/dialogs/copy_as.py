"""Choosing how to copy what is shown."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.locators import Locator
from esx.store.views import View
from esx.text import shell_word, visible
from esx.tui.cells import MUTED, fit
from esx.tui.dialogs.dialog import OptionsDialog
from esx.tui.tasks import start

_LINES = 4
_ROWS = 1000
"""How many rows a copied command or query reads: the view may have millions."""


class CopyAs(OptionsDialog[tuple[str, str]]):
    """Offers texts by their titles, with the beginning of each; the result is the title and text that were chosen.

    The texts are the command that prints the view that is `shown`, with `options` to name its database, the query that
    reads it, and the event with `global_seq`, if any, with its locator in `connection`. If they cannot be read,
    `failed` gets the error. In place of a view there may be the words of a command, which is then the only text.
    """

    KEYMAP_PREFIX = "copy"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,x", "close", "Close"),
        *OptionsDialog.LETTERS,
    ]

    def __init__(
        self,
        store: EventStore,
        shown: View | Sequence[str],
        global_seq: int | None,
        options: Sequence[str],
        connection: str | None,
        failed: Callable[[EsxError], object],
    ) -> None:
        super().__init__()
        self._store = store
        self._shown = shown
        self._global_seq = global_seq
        self._options = options
        self._connection = connection
        self._failed = failed
        self._choices: list[tuple[str, str]] = []

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        options = OptionList(Option("reading …", disabled=True))
        options.border_title = "copy what is shown as"
        options.border_subtitle = "enter copies · esc closes"
        yield options

    def on_mount(self) -> None:
        """Begin to read only now: a dialog that opened after reading might cover something else."""
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

    async def _read(self) -> list[tuple[str, str]]:
        view = self._shown
        if not isinstance(view, View):
            return [("esx command", " ".join(map(shell_word, ["esx", *view])))]
        choices = [("esx command", view.command(_ROWS, self._options))]
        if view.queried:
            choices.append(("SQL for psql", await self._store.sql(view, limit=_ROWS)))
        event = None if self._global_seq is None else await self._store.event(self._global_seq)
        if event is not None:
            choices.append((f"event {event.global_seq} as JSON", event.to_json()))
            locator = Locator(self._connection, event.stream_id, event.stream_seq)
            choices.append(("its locator, for esx open", locator.text))
        return choices

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
