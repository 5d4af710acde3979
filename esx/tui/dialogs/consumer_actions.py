"""Choosing what to do to a consumer."""

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from esx.text import visible
from esx.tui.dialogs.dialog import OptionsDialog


class ConsumerActions(OptionsDialog[str]):
    """Lists what can be done; the result is the action's name."""

    KEYMAP_PREFIX = "consumer-actions"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close"),
        *OptionsDialog.LETTERS,
    ]

    def __init__(self, title: str, actions: Sequence[tuple[str, str]]) -> None:
        """Offer `actions`, each with its name and what it does."""
        super().__init__()
        self._title = title
        self._actions = actions

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        options = OptionList(*(Option(Content(about), id=name) for name, about in self._actions))
        options.border_title = Content(visible(self._title, limit=80))
        options.border_subtitle = "enter chooses, and you are asked once more · esc closes"
        yield options

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.end(event.option.id)
