"""A line to type into that loses nothing silently."""

from __future__ import annotations

import re
from dataclasses import dataclass

from textual.events import Paste
from textual.message import Message
from textual.widgets import Input


class Line(Input):
    """An input that says what its `restrict` refuses, and takes all lines that are pasted, as one."""

    @dataclass
    class Refused(Message):
        """A text was not taken, because the value would not have been one of this field."""

        line: Line
        text: str

        @property
        def control(self) -> Line:
            """The field."""
            return self.line

    _offered = ""

    def replace(self, text: str, start: int, end: int) -> None:
        """Replace a part of the value."""
        self._offered = " ".join(re.split(r"\r\n|\r|\n", text))
        super().replace(self._offered, start, end)

    def restricted(self) -> None:
        """Tell what was not taken, rather than ring the bell."""
        self.post_message(self.Refused(self, self._offered))

    def _on_paste(self, event: Paste) -> None:
        # Textual takes only the first line, and says nothing of the others.
        event.stop()
        event.prevent_default()
        if text := event.text.rstrip("\r\n"):
            self.replace(text, *self.selection)
