"""Asking before something is changed."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from esx.text import visible
from esx.tui.dialogs.dialog import Dialog


class Agree(Dialog[bool]):
    """Says what will happen; the result is True if the user agrees, else None."""

    KEYMAP_PREFIX = "agree"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+y", "agree", "Do it", tooltip="Do what is said here"),
        Binding("escape", "close", "Leave it"),
        Binding("q", "app.quit", "Quit", show=False),
    ]
    DEFAULT_CSS = """
    Agree {
        align: center middle;
        & > VerticalScroll {
            width: 90%; max-width: 100; height: auto; max-height: 90%;
            border: round $warning; background: $surface; padding: 1 2;
        }
    }
    """

    def __init__(self, title: str, effects: Sequence[str]) -> None:
        super().__init__()
        self._title = title
        self._effects = [visible(effect, limit=1000) for effect in effects]

    def compose(self) -> ComposeResult:
        """Lay out what will happen."""
        with VerticalScroll() as scroll:
            scroll.border_title = Content(visible(self._title, limit=80))
            scroll.border_subtitle = "ctrl+y does it · esc leaves it as it is"
            yield Static(Content("\n".join(f"- {effect}" for effect in self._effects)))

    def action_agree(self) -> None:
        """Agree."""
        self.end(True)
