"""A sweep as a page and as a picture."""

from collections.abc import Callable

from esx.load.report.describe import knob, parameters
from esx.load.report.pages.html import page
from esx.load.report.pages.scale import Axis, number, percent
from esx.load.report.pages.svg import TONES, Drawing, Series, line_chart, standalone, style
from esx.load.report.text import milliseconds
from esx.load.sweep.knee import Curve, Spot, axis_of, curves, in_words, is_numeric, spots
from esx.load.sweep.sweep import Sweep, Value
from esx.load.sweep.text import sweep_command

_RATE = Axis("of attempts", text=percent, low=0.0, high=1.0)


def sweep_page(sweep: Sweep) -> str:
    """Return a sweep as a self-contained page of HTML."""
    varied = {knob(name) for name, _ in sweep.plan.vary}
    return page(
        "sweep.html",
        f"Sweep {sweep.id}",
        sweep=sweep,
        command=sweep_command(sweep),
        planned=len(sweep.plan.runs()),
        findings=in_words(sweep),
        curves=sweep_charts(sweep),
        rows=_table(sweep),
        fixed=[(name, value) for name, value in parameters(sweep.plan.base) if name not in varied],
    )


def sweep_picture(sweep: Sweep) -> str:
    """Return goodput and conflict rate over the knob as one SVG file."""
    return standalone([sweep_charts(sweep)[:2]], title="")


def sweep_charts(sweep: Sweep) -> list[Drawing]:
    """Return goodput, conflict rate, tries and times over the knob."""
    return [
        _chart(sweep, "Goodput", lambda spot: spot.goodput, Axis("appends a second", low=0.0)),
        _chart(sweep, "Conflict rate", lambda spot: spot.conflict_rate, _RATE),
        _chart(sweep, "99th percentile of an append", lambda spot: spot.p99 or None, Axis("milliseconds", log=True)),
        _chart(
            sweep,
            "From first try to success, 99th percentile",
            lambda spot: spot.to_success_p99 or None,
            Axis("milliseconds", log=True),
        ),
    ]


def _chart(sweep: Sweep, title: str, value: Callable[[Spot], float | None], axis: Axis) -> Drawing:
    found = curves(sweep)
    places = list(dict(sweep.plan.vary)[axis_of(sweep)])
    across, place = _across(sweep, places)
    series = []
    for curve, (tone, dashed) in zip(found, _styles(found), strict=True):
        points = [(place(at), height) for at, spot in curve.spots if (height := value(spot)) is not None]
        series.append(Series(curve.name, points, tone, dashed, dots=True))
    return line_chart(title, series, across, axis, height=290)


def _across(sweep: Sweep, places: list[Value]) -> tuple[Axis, Callable[[Value], float]]:
    name = knob(axis_of(sweep))
    if not is_numeric(sweep):
        ticks = [(float(at), str(value)) for at, value in enumerate(places)]
        return Axis(name, ticks=ticks, low=-0.3, high=len(places) - 0.7), lambda value: float(places.index(value))
    numbers = sorted(float(value) for value in places)
    logarithmic = numbers[0] > 0 and numbers[-1] / numbers[0] >= 10
    return Axis(name, log=logarithmic, ticks=[(value, number(value)) for value in numbers]), float


def _styles(found: list[Curve]) -> list[tuple[int, bool]]:
    """Return each curve's colour and whether it is dashed: where two knobs differ, one is the colour, one the dash."""
    by_name: dict[str, list[Value]] = {}
    for curve in found:
        for name, value in curve.point.items():
            values = by_name.setdefault(name, [])
            if value not in values:
                values.append(value)
    two = [name for name, values in by_name.items() if len(values) == 2]
    others = [name for name in by_name if name not in two[:1]]
    if len(by_name) == 2 and two and len(by_name[others[0]]) <= TONES:
        dash, tone = two[0], others[0]
        return [
            (by_name[tone].index(curve.point[tone]) + 1, by_name[dash].index(curve.point[dash]) == 1) for curve in found
        ]
    return [style(at) for at in range(len(found))]


def _table(sweep: Sweep) -> list[list[Value]]:
    """Return the rows of the table, its titles first."""
    names = [name for name, _ in sweep.plan.vary]
    spread = sweep.plan.rounds > 1
    titles = [*map(knob, names), "goodput/s", *(["lowest", "highest"] if spread else [])]
    head: list[Value] = [*titles, "conflicts", "tries", "p50 ms", "p99 ms", "p99 to success"]
    rows = (
        [
            *(spot.point[name] for name in names),
            f"{spot.goodput:,.0f}",
            *([f"{spot.lowest:,.0f}", f"{spot.highest:,.0f}"] if spread else []),
            f"{spot.conflict_rate:.1%}",
            f"{spot.tries_per_success:.2f}" if spot.tries_per_success else "-",
            milliseconds(spot.p50),
            milliseconds(spot.p99),
            milliseconds(spot.to_success_p99) if spot.to_success_p99 else "-",
        ]
        for spot in spots(sweep)
    )
    return [head, *rows]
