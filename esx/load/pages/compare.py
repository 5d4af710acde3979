"""Runs side by side as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.load.compare import Compared, ratio, ratio_text, shown_figures
from esx.load.describe import parameters, workload
from esx.load.pages.html import charts, page, table, text
from esx.load.pages.run import PERCENTILE_AXIS, SECONDS
from esx.load.pages.scale import Axis, percent
from esx.load.pages.svg import TONES, Series, line_chart
from esx.load.series import latency_curve, over_time
from esx.text import iso_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from esx.load.model import LoadProgress


def compare_page(runs: Sequence[Compared]) -> str:
    """Return a comparison as a self-contained page of HTML."""
    return page(f"Load tests {', '.join(each.run.id for each in runs)}", _body(runs))


def _body(runs: Sequence[Compared]) -> Iterator[str]:
    yield f"<h1>{len(runs)} load tests side by side</h1>"
    yield f'<p class="muted">{text(workload(runs[0].run.header.options))}</p>'
    yield table(
        ["", "run", "started, UTC", "verdict", "differs in"],
        [
            (
                each.letter,
                each.run.id,
                iso_utc(each.run.header.started_at)[:16].replace("T", " "),
                each.summary.verdict or "none",
                each.differs or "nothing",
            )
            for each in runs
        ],
        names=5,
    )
    yield "<h2>Figures</h2>"
    yield _figures(runs)
    yield "<h2>Over time</h2>"
    yield charts(
        line_chart(title, _series(runs, value), SECONDS, axis).inline()
        for title, value, axis in (
            ("Goodput", lambda line: line.goodput, Axis("appends a second", low=0.0)),
            ("Conflict rate", lambda line: line.conflict_rate, Axis("of attempts", text=percent, low=0.0)),
            ("Median of an append", lambda line: line.p50_ms, Axis("milliseconds", low=0.0)),
            ("99th percentile of an append", lambda line: line.p99_ms, Axis("milliseconds", log=True)),
        )
    )
    yield "<h2>Latency</h2>"
    for key, title in (
        ("success", "An append that was stored"),
        ("response", "From the intended start to the answer"),
        ("time_to_success", "From a command's first try to its success"),
    ):
        curves = [
            Series(_name(each), points, _tone(at), _dashed(at))
            for at, each in enumerate(runs)
            if (key != "response" or each.summary.response)
            and (points := latency_curve(each.summary.histograms.get(key, "")))
        ]
        if curves:
            chart = line_chart(title, curves, PERCENTILE_AXIS, Axis("milliseconds", log=True), width=1060, height=280)
            yield charts([chart.inline()])
    yield "<h2>Parameters</h2>"
    columns = [dict(parameters(each.run.header.options)) for each in runs]
    yield table(["", *(each.letter for each in runs)], [(name, *(of[name] for of in columns)) for name in columns[0]])


def _figures(runs: Sequence[Compared]) -> str:
    first, *others = runs
    titles = ["", first.letter]
    for each in others:
        titles += [each.letter, f"{each.letter} / {first.letter}"]
    rows = []
    for figure in shown_figures(runs):
        base = figure.read(first.summary)
        row = [figure.name, "-" if base is None else figure.text(base)]
        for each in others:
            value = figure.read(each.summary)
            row += ["-" if value is None else figure.text(value), ratio_text(ratio(value, base))]
        rows.append(row)
    return table(titles, rows)


def _series(runs: Sequence[Compared], value: Callable[[LoadProgress], float]) -> list[Series]:
    return [
        Series(_name(each), over_time(each.run.series, value), _tone(at), _dashed(at)) for at, each in enumerate(runs)
    ]


def _name(each: Compared) -> str:
    return f"{each.letter}  {each.differs or each.run.id}"


def _tone(at: int) -> int:
    return at % TONES + 1


def _dashed(at: int) -> bool:
    return at // TONES % 2 == 1
