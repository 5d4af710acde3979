"""A field that holds one of a few words."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from esx.tui.keymap import Keyed


class Choice(Keyed, Widget, can_focus=True):
    """Shows the chosen word; right or a click chooses the next one, left the previous."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space", "turn(1)", "Next", show=False, tooltip="Choose the next"),
        Binding("left", "turn(-1)", "Previous", show=False, tooltip="Choose the one before"),
    ]
    DEFAULT_CSS = """
    Choice { height: 1; background: $boost; padding: 0 1; pointer: pointer; }
    Choice:focus { background: $primary 25%; }
    Choice:disabled { color: $text-disabled; }
    """

    class Changed(Message):
        """Another word is chosen."""

    def __init__(self, words: Sequence[str], value: str, *, id: str) -> None:
        super().__init__(id=id)
        self.words = list(words)
        self.value = value

    def choose(self, value: str) -> None:
        """Choose a word, if it is among them."""
        if value in self.words and value != self.value:
            self.value = value
            self.refresh()
            self.post_message(self.Changed())

    def action_turn(self, by: int) -> None:
        """Choose the word so many places further."""
        self.choose(self.words[(self.words.index(self.value) + by) % len(self.words)])

    def on_click(self) -> None:
        """Choose the next word."""
        self.action_turn(1)

    def render(self) -> RenderResult:
        """Draw the word, with arrows where there is room."""
        room = max(self.content_size.width - 2, 1)
        mark = "$text-primary" if self.has_focus else "$foreground 40%"
        return Content.assemble((self.value[:room].ljust(room), ""), (" ⇄" if room > 4 else "", mark))
