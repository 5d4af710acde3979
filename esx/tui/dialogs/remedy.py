"""What can be done about the state of a store."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from esx.text import visible
from esx.tui.dialogs.dialog import Dialog


class RemedyStep(NamedTuple):
    """What can be done: in words, and what to run, if anything."""

    words: str
    run: str = ""


class Remedy(Dialog[str]):
    """Shows steps in words, each with what to run; the result is what was copied, if anything."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter", "close", "Close"),
        Binding("y", "copy", "Copy", tooltip="Copy the first statement or command"),
        Binding("q", "app.quit", "Quit", show=False),
    ]
    DEFAULT_CSS = """
    Remedy {
        align: center middle;
        & > VerticalScroll {
            width: 90%; max-width: 100; height: auto; max-height: 90%;
            border: round $primary; background: $surface; padding: 1 2;
        }
    }
    """

    def __init__(self, title: str, steps: Sequence[RemedyStep]) -> None:
        super().__init__()
        self._title = title
        self._steps = steps
        self._first = next((step.run for step in steps if step.run), "")

    def compose(self) -> ComposeResult:
        """Lay out the steps one below the other."""
        parts: list[str | tuple[str, str]] = []
        for step in self._steps:
            parts.append(f"{visible(step.words, limit=1000)}\n")
            if step.run:
                parts.append((f"  {visible(step.run, limit=1000)}\n", "bold"))
        with VerticalScroll() as scroll:
            scroll.border_title = Content(f"{self._title}: what to do")
            scroll.border_subtitle = "y copies the first statement · esc closes" if self._first else "esc closes"
            yield Static(Content.assemble(*parts))

    def action_copy(self) -> None:
        """Copy the first statement or command."""
        if self._first:
            self.end(self._first)
