"""A sweep in the terminal: its table, its curves, and the findings in words."""

import textwrap
from collections.abc import Callable, Iterator, Sequence

from esx.load.report.describe import argument_words, knob
from esx.load.report.pages.scale import Axis, scale
from esx.load.report.text import milliseconds
from esx.load.sweep.knee import Curve, Spot, axis_of, curves, in_words, is_numeric, spots
from esx.load.sweep.sweep import Plan, Sweep
from esx.text import shell_word, visible
from esx.times import clock

WIDTH = 78
_HEIGHT = 13
_MARKS = "●▲■◆○△□◇"
_COLOURS = (
    (66, 128, 255),
    (224, 96, 32),
    (20, 160, 145),
    (150, 90, 230),
    (190, 135, 20),
    (215, 60, 135),
    (120, 130, 145),
    (60, 170, 60),
    (200, 60, 60),
)
"""Readable on light and dark backgrounds."""
_FIGURES: tuple[tuple[str, int, Callable[[Spot], str]], ...] = (
    ("goodput/s", 10, lambda spot: f"{spot.goodput:,.0f}"),
    ("conflicts", 10, lambda spot: f"{spot.conflict_rate:.1%}"),
    ("tries", 6, lambda spot: f"{spot.tries_per_success:.2f}" if spot.tries_per_success else "-"),
    ("p50 ms", 7, lambda spot: milliseconds(spot.p50)),
    ("p99 ms", 7, lambda spot: milliseconds(spot.p99)),
)


def sweep_command(sweep: Sweep) -> str:
    """Return the command that makes this sweep."""
    return " ".join(map(shell_word, ["esx", *_words(sweep.plan)]))


def plan_words(plan: Plan) -> list[str]:
    """Return the words of the command that runs a plan, a sweep or one test, without ``esx`` and the database."""
    words = _words(plan) if plan.vary else ["load", *argument_words(plan.base)]
    # The same store needs the same consent.
    return words if plan.base.yes_write_to is None else [*words, "--yes-write-to", plan.base.yes_write_to]


def _words(plan: Plan) -> list[str]:
    vary = [("--vary", f"{knob(name)}={','.join(map(str, values))}") for name, values in plan.vary]
    rounds = ["--rounds", str(plan.rounds)] if plan.rounds > 1 else []
    return ["load", "sweep", *(word for pair in vary for word in pair), *rounds, *argument_words(plan.base)]


def sweep_lines(sweep: Sweep, *, colour: bool) -> Iterator[str]:
    """Yield a sweep as lines; with `colour` the plots hold escape sequences for colours."""
    plan = sweep.plan
    yield visible(f"sweep {sweep.id}  {clock(sweep.started_at)[:16]}  {sweep.database}")
    yield from textwrap.wrap(
        visible(sweep_command(sweep)), WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
    )
    ran, planned = len(sweep.results), len(plan.runs())
    if ran < planned:
        yield f"  ended early: {ran} of {planned} runs"
    yield ""
    yield from table(sweep)
    found = curves(sweep)
    if found:
        yield ""
        yield from plots(sweep, found, colour=colour) if is_numeric(sweep) else bars(found)
        yield ""
    for line in in_words(sweep):
        yield from textwrap.wrap(visible(line), WIDTH, initial_indent="- ", subsequent_indent="  ")


def table(sweep: Sweep) -> Iterator[str]:
    """Yield a line for each combination, with the medians of its rounds."""
    names = [name for name, _ in sweep.plan.vary]
    widths = [max(len(knob(name)), *(len(str(value)) for value in values)) + 1 for name, values in sweep.plan.vary]
    yield "".join(f"{knob(name):<{width}}" for name, width in zip(names, widths, strict=True)) + "".join(
        f"{title:>{width}}" for title, width, _ in _FIGURES
    )
    for spot in spots(sweep):
        values = "".join(f"{spot.point[name]!s:<{width}}" for name, width in zip(names, widths, strict=True))
        yield visible(values) + "".join(f"{text(spot):>{width}}" for _, width, text in _FIGURES)


def sweep_markdown(sweep: Sweep) -> str:
    """Return goodput and conflict rate as a Markdown table: a row for each place on the axis, a column a curve."""
    found = curves(sweep)
    places = dict.fromkeys(place for curve in found for place, _ in curve.spots)
    rows = [[knob(axis_of(sweep)), *(curve.name or "appends/s, conflicts" for curve in found)]]
    rows.append(["---", *("---:" for _ in found)])
    for place in sorted(places, key=float) if is_numeric(sweep) else places:
        spots_there = [dict(curve.spots).get(place) for curve in found]
        cells = ["" if spot is None else f"{spot.goodput:,.0f}/s, {spot.conflict_rate:.0%}" for spot in spots_there]
        rows.append([str(place), *cells])
    return "".join(f"| {' | '.join(visible(cell) for cell in row)} |\n" for row in rows)


def plots(sweep: Sweep, found: Sequence[Curve], *, colour: bool) -> Iterator[str]:
    """Yield goodput and conflict rate over the knob as plots, and what the marks mean."""
    shown = found[: len(_MARKS)]
    axis = knob(axis_of(sweep))
    yield from _plot(shown, lambda spot: spot.goodput, f"goodput, appends/s, over {axis}", colour=colour)
    yield from _plot(
        shown, lambda spot: spot.conflict_rate * 100, f"conflicts, % of attempts, over {axis}", colour=colour
    )
    if len(found) > 1:
        for at, curve in enumerate(shown):
            yield f"  {_mark(at, colour=colour)} {visible(curve.name)}"
        if len(found) > len(_MARKS):
            yield f"  (the first {len(_MARKS)} of {len(found)} are drawn)"


def _mark(at: int, *, colour: bool) -> str:
    red, green, blue = _COLOURS[at]
    return f"\x1b[38;2;{red};{green};{blue}m{_MARKS[at]}\x1b[0m" if colour else _MARKS[at]


def _plot(found: Sequence[Curve], value: Callable[[Spot], float], title: str, *, colour: bool) -> Iterator[str]:
    from textual_plotext.plot import Plot

    plot = Plot()
    plot.plotsize(WIDTH, _HEIGHT)
    plot._set_size(WIDTH, _HEIGHT)
    plot.theme("clear" if not colour else "textual-clear")
    places = sorted({float(place) for curve in found for place, _ in curve.spots})
    logarithmic = places[0] > 0 and places[-1] / places[0] >= 10
    highest = 0.0
    for at, curve in enumerate(found):
        across = [float(place) for place, _ in curve.spots]
        up = [value(spot) for _, spot in curve.spots]
        highest = max(highest, *up)
        plot.plot(across, up, marker="braille", color=_COLOURS[at])
        plot.scatter(across, up, marker=_MARKS[at], color=_COLOURS[at])
    if logarithmic:
        plot.xscale("log")
    plot.xticks(places, [f"{place:g}" for place in places])
    up_scale = scale(Axis(low=0.0), [highest], about=4)
    plot.ylim(0, up_scale.high)
    plot.yticks([value for value, _ in up_scale.ticks], [text for _, text in up_scale.ticks])
    plot.title(title)
    drawn = plot.build()
    yield from (drawn if colour else Plot.uncolorize(drawn)).rstrip("\n").split("\n")


def bars(found: Sequence[Curve]) -> Iterator[str]:
    """Yield goodput as bars, for a knob whose values are not numbers."""
    longest = max((spot.goodput for curve in found for _, spot in curve.spots), default=0.0) or 1.0
    rows = [(f"{curve.name} {place}".strip(), spot) for curve in found for place, spot in curve.spots]
    width = max(len(name) for name, _ in rows)
    room = max(WIDTH - width - 12, 10)
    for name, spot in rows:
        bar = "█" * round(spot.goodput / longest * room) or "▏"
        yield f"{visible(name):<{width}}  {bar} {spot.goodput:,.0f}/s"
