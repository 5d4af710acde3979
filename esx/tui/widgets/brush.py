"""Drawing line by line: styles are looked up once for all lines that are drawn together."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual.geometry import Region
from textual.scroll_view import ScrollView
from textual.strip import Strip


class Brush:
    """The current width, colours and styles of a widget."""

    def __init__(self, widget: BrushedView, roles: dict[str, Style]) -> None:
        """`roles` are styles that were looked up for earlier frames."""
        self.width: int = widget.scrollable_content_region.width
        self.base: Style = widget.rich_style
        self.ground: str = widget.app.theme_variables["ground"]
        self._widget = widget
        self._roles = roles

    def role(self, name: str) -> Style:
        """Return the style that a role adds to that of its line."""
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
    """A view whose `render_line` takes its styles from `brush`, because Textual computes a style each time it is asked.

    The component classes are named `ROLES`, two dashes, and the role; those `WITH_BACKGROUND` have one of their own.
    """

    DEFAULT_CSS = """
    BrushedView {
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
        overflow-x: hidden;
        scrollbar-background: $surface;
        scrollbar-background-hover: $surface;
        scrollbar-color: $foreground 25%;
        background: $surface;
        color: $foreground;
    }
    """
    ROLES: ClassVar[str]
    WITH_BACKGROUND: ClassVar[frozenset[str]] = frozenset()
    _brush: Brush | None = None
    _roles: dict[str, Style] | None = None
    """The styles that were looked up since they changed last."""

    @property
    def brush(self) -> Brush:
        """The brush of this frame."""
        return self._brush or self._new_brush()

    def _new_brush(self) -> Brush:
        if self._roles is None:
            self._roles = {}
        return Brush(self, self._roles)

    def notify_style_update(self) -> None:
        """Look the styles up again."""
        super().notify_style_update()
        self._roles = None

    def render_lines(self, crop: Region) -> list[Strip]:
        """Draw lines with one brush."""
        self._brush = self._new_brush()
        try:
            return super().render_lines(crop)
        finally:
            self._brush = None


def role_classes(prefix: str, names: str) -> set[str]:
    """Return the component classes of roles; their names are separated by spaces."""
    return {f"{prefix}--{name}" for name in names.split()}
