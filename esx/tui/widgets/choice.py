"""A field that holds one of a few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Key
from textual.message import Message
from textual.widget import Widget

from esx.tui.keymap import Keyed


class Choice(Keyed, Widget, can_focus=True):
    """Shows the chosen word; right or a click chooses the next one, left the previous."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "turn(1)", "Next", show=False, tooltip="Choose the next"),
        Binding("left", "turn(-1)", "Previous", show=False, tooltip="Choose the one before"),
    ]
    DEFAULT_CSS = """
    Choice { height: 1; background: $boost; padding: 0 1; pointer: pointer; }
    Choice:focus { background: $primary 25%; }
    Choice:disabled { color: $text-disabled; }
    """

    class Changed(Message):
        """The user, or `choose`, has chosen another word."""

        def __init__(self, choice: Choice) -> None:
            super().__init__()
            self.choice = choice

        @property
        def control(self) -> Choice:
            """The field."""
            return self.choice

    def __init__(self, words: Sequence[str], value: str, *, id: str) -> None:
        super().__init__(id=id)
        self.words = list(words)
        self.value = value

    def choose(self, value: str) -> None:
        """Choose a word, if it is among them."""
        if value in self.words and value != self.value:
            self.say(value)
            self.post_message(self.Changed(self))

    def say(self, value: str) -> None:
        """Show a word, without telling anybody."""
        self.value = value
        self.refresh()

    def action_turn(self, by: int) -> None:
        """Choose the word so many places further."""
        self.choose(self.words[(self.words.index(self.value) + by) % len(self.words)])

    def check_consume_key(self, key: str, character: str | None) -> bool:  # noqa: ARG002
        """Take digits, which in a form are never meant for the screens."""
        return character is not None and character.isdigit()

    def on_key(self, event: Key) -> None:
        """Choose the word with that number."""
        if self.check_consume_key(event.key, event.character):
            event.stop()
            event.prevent_default()
            number = int(event.character or 0) if event.key in "123456789" else 0
            if 0 < number <= len(self.words):
                self.choose(self.words[number - 1])

    def on_click(self) -> None:
        """Choose the next word."""
        self.action_turn(1)

    def render(self) -> RenderResult:
        """Draw the word, with arrows where there is room."""
        room = max(self.content_size.width - 2, 1)
        mark = "$text-primary" if self.has_focus else "$foreground 40%"
        return Content.assemble((self.value[:room].ljust(room), ""), (" ⇄" if room > 4 else "", mark))
