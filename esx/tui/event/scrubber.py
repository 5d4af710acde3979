"""A bar over the versions of a stream: it marks the shown one, and takes clicks."""

from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

_EDGE = 3
"""Cells at either side, with the key that goes that way."""


class Scrubber(Widget):
    """``[ ━━━━━━●────── ]``, from version 0 to the last."""

    @dataclass
    class Moved(Message):
        """A version was clicked."""

        version: int

    COMPONENT_CLASSES: ClassVar[set[str]] = {"scrubber--done", "scrubber--knob", "scrubber--rest", "scrubber--key"}
    DEFAULT_CSS = """
    Scrubber {
        height: 1;
        background: $surface;
        & > .scrubber--done { color: $primary; }
        & > .scrubber--knob { color: $text-primary; text-style: bold; }
        & > .scrubber--rest { color: $foreground 25%; }
        & > .scrubber--key { color: $text-muted; }
    }
    """
    version = 0
    last = 0

    def show(self, version: int, last: int) -> None:
        """Mark one of the versions from 0 to `last`."""
        self.version, self.last = version, max(last, version)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw the bar."""
        base = self.rich_style
        if y:
            return Strip.blank(self.size.width, base)
        room = self._room
        knob = round(self.version / max(self.last, 1) * (room - 1))
        pieces = [
            (" [ ", "key"),
            ("━" * knob, "done"),
            ("●", "knob"),
            ("─" * (room - knob - 1), "rest"),
            (" ] ", "key"),
        ]
        segments = [Segment(text, base + self.get_component_rich_style(f"scrubber--{role}")) for text, role in pieces]
        return Strip(segments).adjust_cell_length(self.size.width, base)

    @property
    def _room(self) -> int:
        return max(self.size.width - 2 * _EDGE, 1)

    def on_click(self, event: events.Click) -> None:
        """Go to the version that was clicked; at the edges, one back or forth."""
        event.stop()
        at = event.x - _EDGE
        if at < 0:
            version = self.version - 1
        elif at >= self._room:
            version = self.version + 1
        else:
            version = round(at / max(self._room - 1, 1) * self.last)
        self.post_message(self.Moved(max(0, min(version, self.last))))
