"""A heat map in cells of the terminal: a row for each name, time from left to right."""

from collections.abc import Callable, Sequence

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.widget import Widget

from esx.tui.cells import fit

_LABEL = 11
_LEVELS = 12


class HeatMap(Widget):
    """Draws values as colours: the higher, the stronger. Rows that have no room are not drawn.

    `resized` is called when it has another size, for other rows.
    """

    DEFAULT_CSS = """
    HeatMap { height: 1fr; background: $surface; color: $text-muted; }
    """

    def __init__(self, resized: Callable[[], None], *, id: str) -> None:
        super().__init__(id=id)
        self._resized = resized
        self.rows: list[tuple[str, Sequence[float]]] = []
        self.highest = 0.0
        self._columns = 1
        self._colours: tuple[str, list[Style]] = ("", [])

    def on_resize(self) -> None:
        """Ask for the rows of the new size."""
        self._resized()

    @property
    def room(self) -> int:
        """How many columns there are for values."""
        return max(self.size.width - _LABEL, 1)

    def show(self, rows: Sequence[tuple[str, Sequence[float]]], columns: int) -> None:
        """Show rows of values; `columns` of them fill the width, so a shorter row leaves room on the right."""
        self.rows = list(rows)
        self._columns = max(columns, 1)
        self.highest = max((value for _, values in rows for value in values), default=0.0)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw one row: its name and its values, equal ones in one piece."""
        width, base = self.size.width, self.rich_style
        if y >= len(self.rows):
            if y == 0:
                return Strip([Segment(fit("no conflicts", width), base)], width)
            return Strip.blank(width, base)
        name, values = self.rows[y]
        styles = self._styles()
        segments = [Segment(fit(name, _LABEL - 1, right=True) + " ", base)]
        room = self.room
        last, run = -1, 0
        for x in range(room):
            at = x * self._columns // room
            level = self._level(values[at]) if at < len(values) else 0
            if level != last and run:
                segments.append(Segment(" " * run, styles[last]))
                run = 0
            last, run = level, run + 1
        segments.append(Segment(" " * run, styles[last]))
        return Strip(segments, width)

    def _level(self, value: float) -> int:
        if value <= 0 or not self.highest:
            return 0
        # An exponent below 1, so that small values are visible.
        share: float = (value / self.highest) ** 0.6
        return max(round(share * _LEVELS), 1)

    def _styles(self) -> list[Style]:
        theme = self.app.theme
        if self._colours[0] != theme:
            variables = self.app.theme_variables
            cold, hot = Color.parse(variables["surface"]), Color.parse(variables["error"])
            self._colours = (
                theme,
                [Style(bgcolor=cold.blend(hot, level / _LEVELS).rich_color) for level in range(_LEVELS + 1)],
            )
        return self._colours[1]
