"""A titled box of labels and values."""

from textual.content import Content
from textual.widgets import Static

from esx.text import visible
from esx.tui.cells import MUTED, wrap_words

_LABEL = 14

Line = tuple[str, str, str]
"""A label, a value and the value's style."""


class Figures(Static):
    """A titled box of labels and values."""

    DEFAULT_CSS = """
    Figures {
        height: auto; min-height: 3; padding: 0 1;
        border: round $foreground 25%; border-title-color: $text-primary; border-title-style: bold;
        border-subtitle-color: $text-muted;
        background: $surface; text-wrap: nowrap; text-overflow: ellipsis;
    }
    """

    def __init__(self, title: str, *, id: str, classes: str = "") -> None:
        super().__init__(id=id, classes=classes)
        self.border_title = title
        self._said: tuple[list[Line], bool, int] = ([], True, -1)

    def say(self, lines: list[Line], *, labelled: bool = True) -> None:
        """Show the figures, one on a line; with `labelled`, long values are wrapped beside their labels."""
        width = self.content_size.width
        if (lines, labelled, width) == self._said:
            # To lay out what is there already would cost more than all else.
            return
        self._said = lines, labelled, width
        beside = _LABEL if labelled and any(label for label, _, _ in lines) else 0
        room = max(self.content_size.width - beside, 10)
        parts: list[str | tuple[str, str]] = []
        for label, value, style in lines:
            for number, piece in enumerate(
                wrap_words(visible(value, limit=1000), room) if labelled else [visible(value, limit=1000)]
            ):
                parts += [((label if number == 0 else "").ljust(beside), MUTED), (piece, style), "\n"]
        self.update(Content.assemble(*parts[:-1]))

    def on_resize(self) -> None:
        """Wrap the values for the new width."""
        lines, labelled, _ = self._said
        if lines:
            self.say(lines, labelled=labelled)
