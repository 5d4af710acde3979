"""What a sweep shows: its curves, where they bend, and which setting is best, in words."""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from esx.load.report.describe import knob
from esx.load.sweep.sweep import Result, Sweep, Value, point_text

_FLAT = 1.5
"""A curve whose highest point is less than this many times its lowest does not bend."""

_STRAIGHT = 0.2
"""A curve whose slope, on logarithmic axes, changes by less than this from place to place has no knee."""


_LOSS = 0.2
"""A step along the axis that loses more than this share of the goodput is told first."""

_MEDIANS = ("goodput", "conflict_rate", "tries_per_success", "p50", "p99", "to_success_p99")


@dataclass(frozen=True)
class Spot:
    """One combination: the medians of its runs, and the `lowest` and the `highest` goodput."""

    point: dict[str, Value]
    lowest: float
    highest: float
    goodput: float
    conflict_rate: float
    tries_per_success: float
    p50: float
    p99: float
    to_success_p99: float


@dataclass(frozen=True)
class Curve:
    """What all its spots have in common, as text and as values, and the spots by the value on the axis."""

    name: str
    point: dict[str, Value]
    spots: tuple[tuple[Value, Spot], ...]


def spots(sweep: Sweep) -> list[Spot]:
    """Return each combination that ran, in the order of the plan."""
    by_point: dict[str, list[Result]] = {point_text(point): [] for point in sweep.plan.points()}
    for result in sweep.results:
        by_point[point_text(result.point)].append(result)
    return [_spot(runs) for runs in by_point.values() if runs]


def _spot(runs: Sequence[Result]) -> Spot:
    goodputs = [run.goodput for run in runs]
    medians = {name: median(getattr(run, name) for run in runs) for name in _MEDIANS}
    return Spot(runs[0].point, min(goodputs), max(goodputs), **medians)


def axis_of(sweep: Sweep) -> str:
    """Return the knob on the axis: the first whose values are numbers, else the first."""
    names = [name for name, _ in sweep.plan.vary]
    return next((name for name in names if _is_numeric(sweep, name)), names[0])


def is_numeric(sweep: Sweep) -> bool:
    """Return whether the axis has numbers on it."""
    return _is_numeric(sweep, axis_of(sweep))


def _is_numeric(sweep: Sweep, name: str) -> bool:
    return all(isinstance(value, int | float) for value in dict(sweep.plan.vary)[name])


def curves(sweep: Sweep) -> list[Curve]:
    """Return a curve for each combination of the other knobs, its spots in the axis's order."""
    axis = axis_of(sweep)
    order = list(dict(sweep.plan.vary)[axis])
    if is_numeric(sweep):
        order.sort(key=float)
    by_rest: dict[str, list[Spot]] = defaultdict(list)
    rest: dict[str, dict[str, Value]] = {}
    for spot in spots(sweep):
        others = {name: value for name, value in spot.point.items() if name != axis}
        name = ", ".join(str(value) if isinstance(value, str) else point_text({key: value})
                         for key, value in others.items())  # fmt: skip
        by_rest[name].append(spot)
        rest[name] = others
    return [
        Curve(name, rest[name], tuple(sorted(((each.point[axis], each) for each in found),
                                             key=lambda pair: order.index(pair[0]))))
        for name, found in by_rest.items()
    ]  # fmt: skip


def in_words(sweep: Sweep) -> list[str]:
    """Return where the curves bend and which setting is best, a finding a line."""
    found = curves(sweep)
    if not found:
        return ["No run has ended, so there is nothing to show."]
    axis = axis_of(sweep)
    lines = []
    if is_numeric(sweep):
        lines += [line for curve in found if (line := _bend(axis, curve, alone=len(found) == 1))]
    lines += _best(axis, found)
    saturated = [result for result in sweep.results if result.saturated]
    if saturated:
        lines.append(
            f"In {len(saturated)} of {len(sweep.results)} runs the load generator was saturated: there it measured "
            "itself as well. Leave it a core of its own, or use --processes 2."
        )
    failed = [result for result in sweep.results if result.verdict != "pass"]
    if failed:
        lines.append(
            f"{len(failed)} runs did not pass their verdict: {', '.join(result.run for result in failed[:5])}."
        )
    return lines


def _bend(axis: str, curve: Curve, *, alone: bool) -> str | None:
    found = [(value, spot) for value, spot in curve.spots if spot.goodput > 0]
    if len(found) < 2:
        return None
    who = "It" if alone else f"{curve.name}: it"
    name = knob(axis)
    goodputs = [spot.goodput for _, spot in found]
    if max(goodputs) < min(goodputs) * _FLAT:
        highest = max(spot.conflict_rate for _, spot in found)
        conflicts = f"at most {highest:.0%} conflicts" if highest >= 0.005 else "no conflicts"
        return f"{who} hardly bends: {min(goodputs):,.0f} to {max(goodputs):,.0f} appends/s, {conflicts}."
    half = _half(name, found)
    for (before, low), (after, high) in itertools.pairwise(found):
        if (lost := 1 - high.goodput / low.goodput) > _LOSS:
            figures = [(before, low), (after, high), *([found[-1]] if found[-1][0] != after else [])]
            return f"{who} loses {lost:.0%} at {name}={after}, its first step that loses more than {_LOSS:.0%}: " + (
                f"{_figures(figures)}.{half}"
            )
    knee = _knee(found)
    ends = _figures([found[0], *knee, found[-1]])
    where = f"bends at {name}={knee[0][0]}" if knee else f"depends on {name}"
    return f"{who} {where}: {ends}.{half}"


def _figures(shown: Sequence[tuple[Value, Spot]]) -> str:
    return ", ".join(
        f"{spot.goodput:,.0f}/s and {spot.conflict_rate:.0%} conflicts at {value}" for value, spot in shown
    )


def _knee(found: Sequence[tuple[Value, Spot]]) -> list[tuple[Value, Spot]]:
    """Return the place where the slope of the curve changes most, on logarithmic axes where the values allow it."""
    numbers = [float(value) for value, _ in found]
    across = [math.log(each) for each in numbers] if min(numbers) > 0 else [float(at) for at in range(len(numbers))]
    up = [math.log(spot.goodput) for _, spot in found]
    slopes = [(up[at + 1] - up[at]) / (across[at + 1] - across[at]) for at in range(len(found) - 1)]
    if len(slopes) < 2:
        return []
    sharpest = max(range(len(slopes) - 1), key=lambda at: abs(slopes[at + 1] - slopes[at]))
    if abs(slopes[sharpest + 1] - slopes[sharpest]) < _STRAIGHT:
        return []
    return [found[sharpest + 1]]


def _half(name: str, found: Sequence[tuple[Value, Spot]]) -> str:
    for (below, low), (above, high) in itertools.pairwise(found):
        if (low.conflict_rate - 0.5) * (high.conflict_rate - 0.5) < 0:
            return f" Conflicts pass half of the attempts between {name}={below} and {above}."
    return ""


def _best(axis: str, found: Sequence[Curve]) -> list[str]:
    """Return which curve is highest at each place, or, with one curve, which place is best."""
    if len(found) == 1:
        ranked = sorted(found[0].spots, key=lambda pair: -pair[1].goodput)
        if len(ranked) < 2:
            return []
        value, best = ranked[0]
        others = ", ".join(
            f"{_times(best.goodput, spot.goodput)} {other} ({spot.goodput:,.0f}/s)" for other, spot in ranked[1:5]
        )
        return [f"Best: {knob(axis)}={value} with {best.goodput:,.0f} appends/s. That is {others}."]
    lines = []
    places = list(dict.fromkeys(value for curve in found for value, _ in curve.spots))
    for place in places:
        there = sorted(
            ((curve.name, spot) for curve in found for value, spot in curve.spots if value == place),
            key=lambda pair: -pair[1].goodput,
        )
        if len(there) < 2:
            continue
        (name, best), (_, second), (worst_name, worst) = there[0], there[1], there[-1]
        even = " (hardly: the next is as good)" if best.goodput < second.goodput * 1.05 else ""
        lines.append(
            f"At {knob(axis)}={place} best is {name}{even}: {best.goodput:,.0f}/s, "
            f"{best.conflict_rate:.0%} conflicts; {_times(best.goodput, worst.goodput)} the worst, {worst_name}."
        )
    return lines


def _times(value: float, other: float) -> str:
    if not other:
        return "infinitely more than"
    ratio = value / other
    return f"{ratio:.1f} x" if ratio < 10 else f"{ratio:.0f} x"
