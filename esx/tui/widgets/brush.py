"""Drawing line by line: what the lines that are drawn together have in common is looked up once."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from textual.scroll_view import ScrollView

if TYPE_CHECKING:
    from textual.geometry import Region
    from textual.strip import Strip


class Brush:
    """The width, the colours and the styles of a widget, as they are now."""

    def __init__(self, widget: BrushedView) -> None:
        self.width: int = widget.scrollable_content_region.width
        self.base: Style = widget.rich_style
        self.dark: bool = widget.app.current_theme.dark
        self._widget = widget
        self._roles: dict[str, Style] = {}

    def role(self, name: str) -> Style:
        """Return what a role adds to the style of its line."""
        style = self._roles.get(name)
        if style is None:
            widget = self._widget
            style = widget.get_component_rich_style(f"{widget.ROLES}--{name}")
            if name not in widget.WITH_BACKGROUND:
                # The background belongs to the line.
                style = Style(color=style.color, bold=style.bold)
            self._roles[name] = style
        return style


class BrushedView(ScrollView, inherit_bindings=False):
    """A view whose `render_line` takes its styles from `brush`: Textual works a style out anew each time it is asked.

    The component classes are called `ROLES`, two dashes, and the role; those `WITH_BACKGROUND` have one of their own.
    """

    ROLES: ClassVar[str]
    WITH_BACKGROUND: ClassVar[frozenset[str]] = frozenset()
    _brush: Brush | None = None

    @property
    def brush(self) -> Brush:
        """What to draw with."""
        return self._brush or Brush(self)

    def render_lines(self, crop: Region) -> list[Strip]:
        """Draw lines with one brush."""
        self._brush = Brush(self)
        try:
            return super().render_lines(crop)
        finally:
            self._brush = None
