"""Charts as SVG: lines and heat maps, for light and dark backgrounds. Texts are escaped here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape as escape_html

from esx.load.report.pages.scale import Axis, AxisScale, number, scale
from esx.text import visible

TONES = 6
"""How many colours lines have."""

_LIGHT = (
    "--ground:#fff;--panel:#f6f7f9;--ink:#1b1f27;--muted:#646d7d;--grid:#e3e6eb;"
    "--t1:#2458d3;--t2:#cf4a12;--t3:#0c8276;--t4:#7a3fd1;--t5:#a86a08;--t6:#b8256e;"
)
_DARK = (
    "--ground:#14161b;--panel:#1c1f26;--ink:#e8eaef;--muted:#99a2b2;--grid:#2d323c;"
    "--t1:#76a5ff;--t2:#ff8c61;--t3:#4fd0c2;--t4:#b797ff;--t5:#e5bd62;--t6:#f58abb;"
)
COLOURS = f":root{{{_LIGHT}}}@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
"""The variables that everything is drawn with."""

MARKS = (
    "svg text{font:11px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:var(--muted)}"
    "svg .title{font-size:13px;font-weight:600;fill:var(--ink)}svg .legend{fill:var(--ink)}"
    "svg .grid{stroke:var(--grid);stroke-width:1;shape-rendering:crispEdges}"
    "svg .line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}"
    "svg .dashed{stroke-dasharray:5 4}svg .area{stroke:none;opacity:.12}"
    "svg .empty{fill:var(--grid);opacity:.45}"
    + "".join(f"svg .s{at}{{stroke:var(--t{at})}}svg .f{at}{{fill:var(--t{at})}}" for at in range(1, TONES + 1))
)

_LETTER = 6.1  # the usual width of a letter of 11 pixels
_LEGEND_LINE = 17
_NOTHING = "nothing to show"


@dataclass(frozen=True)
class Series:
    """A line: `tone` (1 to 6) is its colour; `filled` shades the area below it, `dots` marks its points."""

    name: str
    points: Sequence[tuple[float, float]]
    tone: int = 1
    dashed: bool = False
    filled: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Drawing:
    """A chart of a size in pixels, and the SVG within it."""

    width: int
    height: int
    body: str
    title: str

    def __html__(self) -> str:
        """Return it as an element for a page with `COLOURS` and `MARKS`; templates do not escape it."""
        return (
            f'<svg class="chart" role="img" aria-label="{escape(self.title)}" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}">{self.body}</svg>'
        )


def style(at: int) -> tuple[int, bool]:
    """Return the tone of the series number `at`, and whether it is dashed: no two of twelve look the same."""
    return at % TONES + 1, at // TONES % 2 == 1


def standalone(drawings: Sequence[Sequence[Drawing]], *, title: str = "", padding: int = 14) -> str:
    """Return rows of charts as one SVG file."""
    top = padding + (24 if title else 0)
    width = max(sum(each.width for each in row) + padding * (len(row) - 1) for row in drawings) + 2 * padding
    pieces = []
    y = top
    for row in drawings:
        x = padding
        for each in row:
            pieces.append(f'<svg x="{x}" y="{y}" width="{each.width}" height="{each.height}">{each.body}</svg>')
            x += each.width + padding
        y += max(each.height for each in row) + padding
    heading = f'<text class="title" x="{padding}" y="{padding + 12}">{escape(title)}</text>' if title else ""
    colours = COLOURS.replace(":root", "svg")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}">'
        f"<title>{escape(title)}</title><style>{colours}{MARKS}</style>"
        f'<rect width="100%" height="100%" fill="var(--ground)"/>{heading}{"".join(pieces)}</svg>\n'
    )


def line_chart(
    title: str, series: Sequence[Series], x: Axis, y: Axis, *, width: int = 520, height: int = 250
) -> Drawing:
    """Return lines over an axis, with their legend above; `title` may be empty."""
    across = scale(x, [point[0] for each in series for point in each.points], about=6)
    up = scale(y, [point[1] for each in series for point in each.points], about=4)
    legend, legend_height = _legend(series, width) if len(series) > 1 else ("", 0)
    top = (22 if title else 6) + legend_height + (17 if y.label else 4)
    left = 12 + max((len(text) for _, text in up.ticks), default=1) * _LETTER
    right, bottom = width - 14.0, height - (34.0 if x.label else 20.0)
    frame = _Frame(left, right, top, bottom, across, up)
    parts = []
    if title:
        parts.append(f'<text class="title" x="0" y="13">{escape(title)}</text>')
    if legend:
        parts.append(f'<g transform="translate(0 {20 if title else 4})">{legend}</g>')
    parts.append(frame.grid(x, y))
    parts.extend(frame.line(each, x, y) for each in series)
    if not any(each.points for each in series):
        parts.append(_text((left + right) / 2, (top + bottom) / 2, _NOTHING, anchor="middle"))
    return Drawing(width, height, "".join(parts), title)


@dataclass(frozen=True)
class _Frame:
    left: float
    right: float
    top: float
    bottom: float
    across: AxisScale
    up: AxisScale

    def x(self, value: float) -> float:
        return self.left + self.across.place(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - self.up.place(value) * (self.bottom - self.top)

    def grid(self, x: Axis, y: Axis) -> str:
        parts = []
        for value, text in self.up.ticks:
            at = self.y(value)
            parts.append(f'<line class="grid" x1="{self.left:.1f}" x2="{self.right:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(_text(self.left - 6, at + 4, text, anchor="end"))
        free = -1.0
        for value, text in self.across.ticks:
            at, half = self.x(value), len(text) * _LETTER / 2
            if at - half < free:
                continue
            free = at + half + 6
            anchor = "end" if at + half > self.right + 14 else "middle"
            parts.append(_text(at + (14 if anchor == "end" else 0), self.bottom + 15, text, anchor=anchor))
        if y.label:
            parts.append(_text(0, self.top - 8, y.label))
        if x.label:
            parts.append(_text((self.left + self.right) / 2, self.bottom + 30, x.label, anchor="middle"))
        return "".join(parts)

    def line(self, series: Series, x: Axis, y: Axis) -> str:
        points = [(self.x(across), self.y(up)) for across, up in series.points]
        if not points:
            return ""
        path = "M" + "L".join(f"{across:.1f} {up:.1f}" for across, up in points)
        dashed = " dashed" if series.dashed else ""
        parts = []
        if series.filled and len(points) > 1:
            area = f"{path}L{points[-1][0]:.1f} {self.bottom:.1f}L{points[0][0]:.1f} {self.bottom:.1f}Z"
            parts.append(f'<path class="area f{series.tone}" d="{area}"/>')
        parts.append(f'<path class="line s{series.tone}{dashed}" d="{path}"/>')
        if series.dots or len(points) == 1:
            for (across, up), (value_x, value_y) in zip(points, series.points, strict=True):
                tip = escape(f"{series.name}: {y.text(value_y)} at {x.text(value_x)}")
                place = f'cx="{across:.1f}" cy="{up:.1f}" r="3"'
                parts.append(f'<circle class="f{series.tone}" {place}><title>{tip}</title></circle>')
        return "".join(parts)


def heat_map(
    title: str,
    rows: Sequence[tuple[str, Sequence[float]]],
    columns: Sequence[str],
    *,
    unit: str,
    tone: int = 2,
    width: int = 1060,
    text: Callable[[float], str] = number,
) -> Drawing:
    """Return a row of cells for each name, darker for higher values; `columns` names the cells of every row."""
    top = 22 if title else 4
    left = 12 + min(max((len(name) for name, _ in rows), default=1), 34) * _LETTER
    height_of_row = 16 if len(rows) <= 24 else 11
    bottom = top + height_of_row * max(len(rows), 2)
    cell = (width - left - 10) / max(len(columns), 1)
    highest = max((value for _, values in rows for value in values), default=0.0)
    parts = [f'<text class="title" x="0" y="13">{escape(title)}</text>'] if title else []
    for index, (name, values) in enumerate(rows):
        y = top + index * height_of_row
        parts.append(_text(left - 6, y + height_of_row - 4, _short(name, 34), anchor="end"))
        for column, value in enumerate(values):
            share = (value / highest) ** 0.6 if highest else 0.0
            place = f'x="{left + column * cell:.2f}" y="{y}" width="{cell + 0.15:.2f}" height="{height_of_row - 1}"'
            if share == 0:
                parts.append(f'<rect class="empty" {place}/>')
                continue
            tip = escape(f"{name}, {columns[column]}: {text(value)} {unit}")
            parts.append(f'<rect class="f{tone}" opacity="{0.1 + 0.9 * share:.2f}" {place}><title>{tip}</title></rect>')
    if not rows:
        parts.append(_text(width / 2, top + 16, _NOTHING, anchor="middle"))
    free = -1.0
    for column in range(0, len(columns), max(len(columns) // 10, 1)):
        at = left + column * cell
        if at >= free and at + len(columns[column]) * _LETTER <= width:
            parts.append(_text(at, bottom + 14, columns[column]))
            free = at + (len(columns[column]) + 2) * _LETTER
    parts.append(_key(left, bottom + 24, tone, f"0 to {text(highest)} {unit}") if highest else "")
    return Drawing(width, bottom + 40, "".join(parts), title)


def _key(x: float, y: float, tone: int, text: str) -> str:
    cells = "".join(
        f'<rect class="f{tone}" opacity="{0.1 + 0.9 * at / 7:.2f}" '
        f'x="{x + at * 14:.1f}" y="{y}" width="14" height="9"/>'
        for at in range(8)
    )
    return cells + _text(x + 120, y + 9, text)


def _legend(series: Sequence[Series], width: int) -> tuple[str, int]:
    parts = []
    x = y = 0.0
    for each in series:
        needs = 30 + len(each.name) * _LETTER
        if x and x + needs > width:
            x, y = 0.0, y + _LEGEND_LINE
        dashed = " dashed" if each.dashed else ""
        parts.append(
            f'<path class="line s{each.tone}{dashed}" d="M{x:.1f} {y + 8:.1f}h18"/>'
            f'<text class="legend" x="{x + 23:.1f}" y="{y + 12:.1f}">{escape(each.name)}</text>'
        )
        x += needs + 10
    return "".join(parts), int(y) + _LEGEND_LINE + 3


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else "…" + text[-limit + 1 :]


def escape(text: str) -> str:
    """Return text for XML, which cannot hold control characters, not even escaped."""
    return escape_html(visible(text, limit=500))
