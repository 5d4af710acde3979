"""Runs side by side: the figures of each, and their ratios to those of the first one."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from string import ascii_uppercase
from typing import Any

from esx.load.archive import SavedRun
from esx.load.errors import InvalidOptions
from esx.load.model import LoadSummary
from esx.load.report.describe import arguments, differing, knob, value_text
from esx.load.report.text import milliseconds
from esx.times import clock

_SIDE_BY_SIDE = 3
"""How many runs fit beside each other in 80 columns; more are listed below each other."""


@dataclass(frozen=True)
class Figure:
    """A compared figure: how it is read from a summary and written.

    `more` says whether a higher value is better; None: neither is better.
    """

    name: str
    read: Callable[[LoadSummary], float | None]
    text: Callable[[float], str]
    more: bool | None = None


def _count(value: float) -> str:
    return f"{value:,.0f}"


FIGURES = (
    Figure("goodput, /s", lambda summary: summary.goodput, lambda value: f"{value:,.1f}", more=True),
    Figure("conflict rate", lambda summary: summary.conflict_rate, lambda value: f"{value:.1%}", more=False),
    Figure(
        "tries per success", lambda summary: summary.tries_per_success or None, lambda value: f"{value:.2f}", more=False
    ),
    Figure("appends per commit", lambda summary: summary.appends_per_commit, lambda value: f"{value:,.1f}", more=True),
    Figure("attempts", lambda summary: summary.total.attempts, _count),
    Figure("successes", lambda summary: summary.total.successes, _count),
    Figure("conflicts", lambda summary: summary.total.conflicts, _count),
    Figure("errors", lambda summary: summary.total.errors, _count),
    Figure("unknown", lambda summary: summary.total.unknown, _count),
    Figure("append p50, ms", lambda summary: summary.percentiles.get("p50"), milliseconds, more=False),
    Figure("append p99, ms", lambda summary: summary.percentiles.get("p99"), milliseconds, more=False),
    Figure("append max, ms", lambda summary: summary.percentiles.get("max"), milliseconds, more=False),
    Figure("response p50, ms", lambda summary: summary.response.get("p50"), milliseconds, more=False),
    Figure("response p99, ms", lambda summary: summary.response.get("p99"), milliseconds, more=False),
    Figure("to success p50, ms", lambda summary: summary.time_to_success.get("p50"), milliseconds, more=False),
    Figure("to success p99, ms", lambda summary: summary.time_to_success.get("p99"), milliseconds, more=False),
    Figure(
        "WAL per append, kB",
        lambda summary: (
            summary.database.wal_bytes / 1e3 / (summary.total.successes + summary.warm_up.successes)
            if summary.database and summary.total.successes + summary.warm_up.successes
            else None
        ),
        lambda value: f"{value:.2f}",
        more=False,
    ),
    Figure("generator CPU", lambda summary: summary.generator_cpu or None, lambda value: f"{value:.0%}"),
)
_SHORT = ("goodput, /s", "conflict rate", "tries per success", "append p50, ms", "append p99, ms", "to success p99, ms")


@dataclass(frozen=True)
class Compared:
    """A run among others, with the letter that stands for it."""

    letter: str
    run: SavedRun
    summary: LoadSummary
    differs: str
    """In which options it differs from the others, e.g. ``strategy=row-lock``, and whether it was stopped."""


def compare(runs: Sequence[SavedRun]) -> list[Compared]:
    """Return runs to be shown beside each other; raises InvalidOptions for one without a summary."""
    names = differing(run.header.options for run in runs)
    found = []
    for at, run in enumerate(runs):
        if run.summary is None:
            raise InvalidOptions(f"run {run.id} ended without a summary, so there is nothing to compare")
        said = [f"{knob(name)}={value_text(getattr(run.header.options, name))}" for name in names]
        if run.summary.interrupted:
            said.append(f"stopped after {run.summary.elapsed:.0f} s")
        differs = ", ".join(said)
        letter = ascii_uppercase[at] if at < len(ascii_uppercase) else str(at + 1)
        found.append(Compared(letter, run, run.summary, differs))
    return found


def ratio(value: float | None, first: float | None) -> float | None:
    """Return what `value` is of `first`, None where that cannot be said."""
    return value / first if value is not None and first else None


def shown_figures(runs: Sequence[Compared]) -> list[Figure]:
    """Return the figures that any of the runs has; failures only where there were any."""
    return [
        figure
        for figure in FIGURES
        if any(
            value is not None and (value or figure.name not in ("errors", "unknown"))
            for value in (figure.read(each.summary) for each in runs)
        )
    ]


def comparison_lines(runs: Sequence[Compared]) -> Iterator[str]:
    """Yield a comparison as lines of at most 80 columns, if the parameters are short enough."""
    for each in runs:
        started = clock(each.run.header.started_at)[:16]
        yield f"{each.letter}  {each.run.id}  {started}  {each.summary.elapsed:.0f} s  {each.summary.verdict or '-'}"
        if each.differs:
            yield from textwrap.wrap(
                each.differs, 79, initial_indent="   ", subsequent_indent="   ", break_on_hyphens=False
            )
    if all(not each.differs for each in runs):
        same = f"all with the same parameters: {arguments(runs[0].run.header.options) or 'the usual ones'}"
        yield from textwrap.wrap(same, 79, initial_indent="   ", subsequent_indent="   ", break_on_hyphens=False)
    yield ""
    if len(runs) <= _SIDE_BY_SIDE:
        yield from _side_by_side(runs)
    else:
        yield from _below_each_other(runs)


def figure_rows(runs: Sequence[Compared]) -> Iterator[list[str]]:
    """Yield the rows of a table, its titles first: each figure of each run, and its ratio to the first run's."""
    first, *others = runs
    yield ["", first.letter, *(title for each in others for title in (each.letter, f"{each.letter} / {first.letter}"))]
    for figure in shown_figures(runs):
        base = figure.read(first.summary)
        row = [figure.name, figure_text(figure, base)]
        for each in others:
            value = figure.read(each.summary)
            row += [figure_text(figure, value), ratio_text(ratio(value, base))]
        yield row


def _side_by_side(runs: Sequence[Compared]) -> Iterator[str]:
    for name, first, *others in figure_rows(runs):
        cells = zip(others, cycle((12, 8)), strict=False)
        yield f"{name:<20}{first:>12}" + "".join(f"{cell:>{width}}" for cell, width in cells)


def _below_each_other(runs: Sequence[Compared]) -> Iterator[str]:
    figures = [figure for figure in shown_figures(runs) if figure.name in _SHORT]
    base = figures[0].read(runs[0].summary)
    yield f"   {figures[0].name:>12}{f'/ {runs[0].letter}':>7}" + "".join(f"{_head(each):>11}" for each in figures[1:])
    for run in runs:
        value = figures[0].read(run.summary)
        line = f"{run.letter:<3}{figure_text(figures[0], value):>12}{ratio_text(ratio(value, base)):>7}"
        yield line + "".join(f"{figure_text(each, each.read(run.summary)):>11}" for each in figures[1:])


def _head(figure: Figure) -> str:
    return {
        "conflict rate": "conflicts",
        "tries per success": "tries",
        "append p50, ms": "p50 ms",
        "append p99, ms": "p99 ms",
        "to success p99, ms": "p99 to ok",
    }[figure.name]


def figure_text(figure: Figure, value: float | None) -> str:
    """Return a figure's value as it is written, ``-`` for none."""
    return "-" if value is None else figure.text(value)


def ratio_text(value: float | None) -> str:
    """Return a ratio so that it takes few columns."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def comparison_json(runs: Sequence[Compared]) -> Iterator[dict[str, Any]]:
    """Yield an object a run: its figures, and under ``ratios`` what they are of the first one's."""
    first = {figure.name: figure.read(runs[0].summary) for figure in FIGURES}
    for each in runs:
        values = {figure.name: figure.read(each.summary) for figure in FIGURES}
        yield {
            "run": each.run.id,
            "started_at": each.run.header.started_at.isoformat(),
            "differs": each.differs,
            "verdict": each.summary.verdict,
            "figures": values,
            "ratios": {name: ratio(value, first[name]) for name, value in values.items()},
        }
