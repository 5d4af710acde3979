"""A part of a screen in a frame."""

from textual.containers import Container
from textual.content import Content


class Frame(Container):
    """Has a border with a title, which stands out while the focus is within."""

    DEFAULT_CSS = """
    Frame {
        border: round $foreground 25%;
        border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
        background: $surface;
        padding: 0 1;
    }
    Frame:focus-within { border: round $primary; border-title-color: $text-primary; border-title-style: bold; }
    """

    def __init__(self, title: str | Content = "", *, id: str, classes: str = "") -> None:
        super().__init__(id=id, classes=classes)
        self.border_title = title
