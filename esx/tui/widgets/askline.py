"""A line to type an answer into, and under it a hint or an error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input, Static

from esx.text import visible
from esx.tui.cells import MUTED
from esx.tui.keymap import Keyed
from esx.tui.widgets.line import Line

_ERROR, _QUESTION = "$text-error", "$text-warning"


class AskLine(Keyed, Vertical):
    """Hidden until something is asked. `subject` names the question."""

    @dataclass
    class Answered(Message):
        """Enter was pressed. `again` says that it confirms this very text."""

        subject: str
        text: str
        again: bool

    class Left(Message):
        """The line was closed without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave it", show=False, tooltip="Close the line, changing nothing"),
        Binding("up", "history(-1)", "Earlier", show=False, tooltip="What was entered before"),
        Binding("down", "history(1)", "Later", show=False, tooltip="What was entered after that"),
    ]
    DEFAULT_CSS = """
    AskLine {
        display: none;
        height: auto;
        background: $boost;
        padding: 0 1;
        &.-shown { display: block; }
        Input { height: 1; border: none; padding: 0; background: $boost; }
        Static { height: auto; max-height: 6; }
    }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.subject = ""
        self._hint = ""
        self._answered: str | None = None
        self._questioned = False
        self._history: list[str] = []
        self._place = 0
        self._draft = ""

    def compose(self) -> ComposeResult:
        """Lay out the line above its hint."""
        yield Line(compact=True)
        yield Static(markup=False)

    @property
    def line(self) -> Input:
        """The input field."""
        return self.query_one(Input)

    @property
    def shown(self) -> bool:
        """Whether the line is shown."""
        return self.has_class("-shown")

    def ask(
        self,
        subject: str,
        *,
        text: str = "",
        placeholder: str,
        hint: str,
        complete: Callable[[str], str | None] | None = None,
        history: Sequence[str] = (),
    ) -> None:
        """Ask for an answer, starting from `text`; `complete` returns the completion of a text, if there is one.

        `history` are earlier answers, the newest last, for the keys up and down.
        """
        self.subject = subject
        self._hint = hint
        self._answered = None
        self._history = [each for each in history if each != text]
        self._place = len(self._history)
        line = self.line
        line.placeholder = placeholder
        line.suggester = None if complete is None else _Completed(complete)
        line.value = text
        line.cursor_position = len(text)
        self.say(hint)
        self.add_class("-shown")
        # Not `focus`, which takes effect later: keys that were typed ahead belong here.
        self.screen.set_focus(line)

    def say(self, text: str, *, error: bool = False, question: bool = False) -> None:
        """Write below the line: a hint, an error, or a question that enter answers."""
        self._questioned = question
        if question:
            self._answered = self.line.value
        style = _ERROR if error else _QUESTION if question else MUTED
        shown = "\n".join(visible(part, limit=1000) for part in text.split("\n"))
        self.query_one(Static).update(Content.styled(shown, style))

    def close(self) -> None:
        """Hide the line."""
        self.remove_class("-shown")

    @on(Input.Changed)
    def _changed(self, message: Input.Changed) -> None:
        message.stop()
        if self._answered is not None and message.value != self._answered:
            self._answered = None
            self.say(self._hint)

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        again = self._questioned and message.value == self._answered
        self._answered = message.value
        self.post_message(self.Answered(self.subject, message.value, again=again))

    def action_history(self, by: int) -> None:
        """Show an earlier answer, or a later one; after the newest comes what was typed."""
        if self._place == len(self._history):
            self._draft = self.line.value
        self._place = max(0, min(self._place + by, len(self._history)))
        shown = self._draft if self._place == len(self._history) else self._history[self._place]
        self.line.value = shown
        self.line.cursor_position = len(shown)

    def action_leave(self) -> None:
        """Close the line."""
        self.close()
        self.post_message(self.Left())


class _Completed(Suggester):
    def __init__(self, complete: Callable[[str], str | None]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._complete = complete

    async def get_suggestion(self, value: str) -> str | None:
        """Return the completion."""
        return self._complete(value)
