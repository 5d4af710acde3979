"""A sweep as a page and as a picture: the curves over the knob, and where they bend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.load.bend import axis_of, curves, in_words, is_numeric, spots
from esx.load.describe import knob, parameters
from esx.load.pages.html import bullets, charts, facts, page, table, text
from esx.load.pages.scale import Axis, number, percent
from esx.load.pages.svg import TONES, Drawing, Series, line_chart, standalone
from esx.load.report import milliseconds
from esx.load.sweep_text import sweep_command
from esx.text import iso_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esx.load.bend import Curve, Spot
    from esx.load.sweep import Sweep, Value

_RATE = Axis("of attempts", text=percent, low=0.0, high=1.0)


def sweep_page(sweep: Sweep) -> str:
    """Return a sweep as a self-contained page of HTML."""
    return page(f"Sweep {sweep.id}", _body(sweep))


def sweep_picture(sweep: Sweep) -> str:
    """Return goodput and conflict rate over the knob as one SVG file."""
    return standalone([sweep_charts(sweep)[:2]], title="")


def _body(sweep: Sweep) -> Iterator[str]:
    plan = sweep.plan
    yield f"<h1>Sweep {text(sweep.id)}</h1>"
    yield (
        f'<p class="muted"><code>{text(sweep_command(sweep))}</code><br>'
        f"{text(sweep.database)} · {text(iso_utc(sweep.started_at)[:16].replace('T', ' '))} UTC</p>"
    )
    ran, planned = len(sweep.results), len(plan.runs())
    if ran < planned:
        yield f"<p>It was ended early: {ran} of {planned} runs.</p>"
    yield f'<div class="said">{bullets(in_words(sweep))}</div>'
    yield "<h2>Curves</h2>"
    yield charts(drawing.inline() for drawing in sweep_charts(sweep))
    yield "<h2>Figures</h2>"
    yield _table(sweep)
    if plan.rounds > 1:
        yield f'<p class="muted">Medians of {plan.rounds} rounds; lowest and highest are those of goodput.</p>'
    yield "<h2>What does not vary</h2>"
    varied = {knob(name) for name, _ in plan.vary}
    yield facts((name, value) for name, value in parameters(plan.base) if name not in varied)
    yield f"<footer>Made by esx {text(sweep.esx)}.</footer>"


def sweep_charts(sweep: Sweep) -> list[Drawing]:
    """Return goodput, conflict rate, tries and times over the knob."""
    return [
        _chart(sweep, "Goodput", lambda spot: spot.goodput, Axis("appends a second", low=0.0)),
        _chart(
            sweep,
            "Conflict rate",
            lambda spot: spot.conflict_rate,
            Axis("of attempts", text=percent, low=0.0, high=1.0),
        ),
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
    tones, dashes = _styles(found)
    for curve, tone, dashed in zip(found, tones, dashes, strict=True):
        points = [(place(at), height) for at, spot in curve.spots if (height := value(spot)) is not None]
        series.append(Series(curve.name, points, tone, dashed, dots=True))
    return line_chart(title, series, across, axis, height=290)


def _across(sweep: Sweep, places: list[Value]) -> tuple[Axis, Callable[[Value], float]]:
    name = knob(axis_of(sweep))
    if not is_numeric(sweep):
        order = list(places)
        ticks = [(float(at), str(value)) for at, value in enumerate(order)]
        return Axis(name, ticks=ticks, low=-0.3, high=len(order) - 0.7), lambda value: float(order.index(value))
    numbers = sorted(float(value) for value in places)
    logarithmic = numbers[0] > 0 and numbers[-1] / numbers[0] >= 10
    return Axis(name, log=logarithmic, ticks=[(value, number(value)) for value in numbers]), float


def _styles(found: list[Curve]) -> tuple[list[int], list[bool]]:
    """Return a colour and whether it is dashed for each curve: where two knobs differ, one is colour, one is dash."""
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
        return (
            [by_name[tone].index(curve.point[tone]) + 1 for curve in found],
            [by_name[dash].index(curve.point[dash]) == 1 for curve in found],
        )
    return [at % TONES + 1 for at in range(len(found))], [at // TONES % 2 == 1 for at in range(len(found))]


def _table(sweep: Sweep) -> str:
    names = [name for name, _ in sweep.plan.vary]
    order = [tuple(point.values()) for point in sweep.plan.points()]
    rows = [
        [
            *(spot.point[name] for name in names),
            f"{spot.goodput:,.0f}",
            *([f"{spot.lowest:,.0f}", f"{spot.highest:,.0f}"] if sweep.plan.rounds > 1 else []),
            f"{spot.conflict_rate:.1%}",
            f"{spot.tries_per_success:.2f}" if spot.tries_per_success else "-",
            milliseconds(spot.p50),
            milliseconds(spot.p99),
            milliseconds(spot.to_success_p99) if spot.to_success_p99 else "-",
        ]
        for spot in sorted(spots(sweep.results), key=lambda spot: order.index(tuple(spot.point.values())))
    ]
    spread = ["lowest", "highest"] if sweep.plan.rounds > 1 else []
    titles = [*map(knob, names), "goodput/s", *spread, "conflicts", "tries", "p50 ms", "p99 ms", "p99 to success"]
    return table(titles, rows, names=len(names))
