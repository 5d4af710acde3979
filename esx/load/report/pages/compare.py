"""Runs side by side as a page."""

from collections.abc import Callable, Iterator, Sequence

from esx.load.model import LoadProgress
from esx.load.report.compare import Compared, figure_rows
from esx.load.report.describe import parameters
from esx.load.report.pages.html import page
from esx.load.report.pages.run import PERCENTILE_AXIS, SECONDS
from esx.load.report.pages.scale import Axis, percent
from esx.load.report.pages.svg import Drawing, Series, line_chart, style
from esx.load.report.series import Points, latency_curve, over_time


def compare_page(runs: Sequence[Compared]) -> str:
    """Return a comparison as a self-contained page of HTML."""
    columns = [dict(parameters(each.run.header.options)) for each in runs]
    return page(
        "compare.html",
        f"Load tests {', '.join(each.run.id for each in runs)}",
        runs=runs,
        figures=list(figure_rows(runs)),
        over_time=[
            line_chart(title, _series(runs, value), SECONDS, axis)
            for title, value, axis in (
                ("Goodput", lambda line: line.goodput, Axis("appends a second", low=0.0)),
                ("Conflict rate", lambda line: line.conflict_rate, Axis("of attempts", text=percent, low=0.0)),
                ("Median of an append", lambda line: line.p50_ms, Axis("milliseconds", low=0.0)),
                ("99th percentile of an append", lambda line: line.p99_ms, Axis("milliseconds", log=True)),
            )
        ],
        latency=list(_latency(runs)),
        parameters=[(name, *(of[name] for of in columns)) for name in columns[0]],
    )


def _latency(runs: Sequence[Compared]) -> Iterator[Drawing]:
    for key, title in (
        ("success", "An append that was stored"),
        ("response", "From the intended start to the answer"),
        ("time_to_success", "From a command's first try to its success"),
    ):
        curves = [
            _line(at, each, points)
            for at, each in enumerate(runs)
            if (key != "response" or each.summary.response)
            and (points := latency_curve(each.summary.histograms.get(key, "")))
        ]
        if curves:
            yield line_chart(title, curves, PERCENTILE_AXIS, Axis("milliseconds", log=True), width=1060, height=280)


def _series(runs: Sequence[Compared], value: Callable[[LoadProgress], float]) -> list[Series]:
    return [_line(at, each, over_time(each.run.series, value)) for at, each in enumerate(runs)]


def _line(at: int, each: Compared, points: Points) -> Series:
    return Series(f"{each.letter}  {each.differs or each.run.id}", points, *style(at))
