"""A framed text that scrolls by lines."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

SCROLL_KEYS: list[BindingType] = [
    Binding("down,j", "scroll_by(1)", "Down", show=False),
    Binding("up,k", "scroll_by(-1)", "Up", show=False),
]


class ScrolledText(VerticalScroll):
    """The frame and the scrolling; a subclass has `SCROLL_KEYS` among its own keys, under its own name."""

    DEFAULT_CSS: ClassVar[str] = """
    ScrolledText {
        height: 1fr; border: round $foreground 25%; border-title-color: $text-muted;
        border-subtitle-color: $text-muted; background: $surface; padding: 0 1;
        &:focus { border: round $primary; border-title-color: $text-primary; border-title-style: bold; }
    }
    """

    def action_scroll_by(self, by: int) -> None:
        """Scroll by lines."""
        self.scroll_relative(y=by, animate=False)
