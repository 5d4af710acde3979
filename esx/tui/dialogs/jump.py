"""Asking for a time of a recording."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from esx.text import visible
from esx.tui.cells import MUTED
from esx.tui.dialogs.dialog import Dialog
from esx.tui.widgets.line import Line

_HINT = "14:03:20, -2m or +30s from the time that is shown, start, begin (of the recording), end, or #99 (an event)"


class Jump(Dialog[datetime]):
    """Asks for a time; `parse` returns the one that a text means, or raises ValueError."""

    KEYMAP_PREFIX = "jump"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Leave it")]
    DEFAULT_CSS = """
    Jump {
        align: center middle;
        & > Vertical {
            width: 80%; max-width: 100; height: auto;
            border: round $primary; background: $surface; padding: 0 1;
        }
        Input { border: none; height: 1; padding: 0; background: $boost; }
        Static { height: auto; }
    }
    """

    def __init__(self, parse: Callable[[str], datetime]) -> None:
        super().__init__()
        self._parse = parse

    def compose(self) -> ComposeResult:
        """Lay out the line above its hint."""
        with Vertical() as box:
            box.border_title = "jump to"
            yield Line(placeholder="a time of the recording", compact=True)
            yield Static(Content.styled(_HINT, MUTED))

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        try:
            at = self._parse(message.value)
        except ValueError as error:
            self.query_one(Static).update(Content.styled(visible(str(error), limit=300), "$text-error"))
            return
        self.end(at)
