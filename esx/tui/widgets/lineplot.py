"""Lines over time, drawn by plotext."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text
from textual.app import RenderResult
from textual.color import Color
from textual_plotext import PlotextPlot

from esx.load.report.pages.scale import Axis, scale


class PlotLine(NamedTuple):
    """A line: its name, its points, and the theme's variable for its colour."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str


class LinePlot(PlotextPlot):
    """Shows lines over seconds, from zero up, in the colours of the theme."""

    DEFAULT_CSS = """
    LinePlot { background: $surface; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._lines: list[PlotLine] = []
        self._seconds = 1.0

    def on_mount(self) -> None:
        """Draw empty axes."""
        super().on_mount()
        self.show([], 1.0)

    def on_resize(self) -> None:
        """Label the axes as densely as there is room for."""
        self.show(self._lines, self._seconds)

    def render(self) -> RenderResult:
        """Draw the plot, with axes paler than the lines."""
        width, height = self.size
        plot = self.plt
        plot.plotsize(width, height)
        plot._set_size(width, height)  # see PlotextPlot.render: plotsize alone does not shrink it
        variables = self.app.theme_variables
        ground, ink = Color.parse(variables["surface"]), Color.parse(variables["foreground"])
        plot.canvas_color(ground.rgb)
        plot.axes_color(ground.rgb)
        plot.ticks_color(ground.blend(ink, 0.75).rgb)
        return Text.from_ansi(plot.build())

    def show(self, lines: Sequence[PlotLine], seconds: float) -> None:
        """Show lines; the axis goes to `seconds`."""
        self._lines, self._seconds = list(lines), max(seconds, 1.0)
        plot = self.plt
        plot.clear_data()
        variables = self.app.theme_variables
        for line in self._lines:
            if line.points:
                across, up = zip(*line.points, strict=True)
                colour = Color.parse(variables[line.colour]).rgb
                plot.plot(list(across), list(up), marker="braille", color=colour)
        highest = max((up for line in self._lines for _, up in line.points), default=0.0)
        rows = scale(Axis(low=0.0), [highest or 1.0], about=max(self.size.height // 4, 1))
        columns = scale(Axis(low=0.0), [self._seconds], about=max(self.size.width // 14, 1))
        plot.ylim(0, rows.high)
        plot.xlim(0, self._seconds)
        plot.yticks([value for value, _ in rows.ticks], [text for _, text in rows.ticks])
        within = [tick for tick in columns.ticks if tick[0] <= self._seconds]
        plot.xticks([value for value, _ in within], [f"{text}s" for _, text in within])
        plot.xaxes(True, False)
        plot.yaxes(True, False)
        self.refresh()
