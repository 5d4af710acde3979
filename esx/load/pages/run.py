"""One run as a page: what was asked, what came of it second by second, and the verdict with its evidence."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from esx.load.describe import arguments, parameters, workload
from esx.load.pages.html import badge, bullets, charts, facts, page, table, text, tiles
from esx.load.pages.scale import Axis, number, percent
from esx.load.pages.svg import Drawing, Series, heat_map, line_chart
from esx.load.report import milliseconds, too_slow
from esx.load.series import conflicts_a_second, conflicts_by_stream, latency_curve, over_time
from esx.text import iso_utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from esx.load.archive import SavedRun
    from esx.load.model import LoadProgress, LoadSummary

SECONDS = Axis("seconds", low=0.0, tight=True)
_CURVES = (
    ("success", "stored", 1, False),
    ("conflict", "conflict", 2, False),
    ("response", "response, from the intended start", 4, True),
    ("time_to_success", "from a command's first try to its success", 3, True),
)
PERCENTILE_AXIS = Axis(
    "percentile",
    log=True,
    low=1.0,
    ticks=[
        (1.0, "0"),
        (2.0, "50"),
        (10.0, "90"),
        (100.0, "99"),
        (1e3, "99.9"),
        (1e4, "99.99"),
        (1e5, "99.999"),
        (1e6, "99.9999"),
    ],
)


def run_page(run: SavedRun) -> str:
    """Return a run as a self-contained page of HTML."""
    return page(f"Load test {run.id}", _body(run))


def _body(run: SavedRun) -> Iterator[str]:
    header, summary = run.header, run.summary
    verdict = None if summary is None else summary.verdict
    yield f"<h1>Load test {text(run.id)} {badge(verdict)}</h1>"
    yield (
        f'<p class="muted">{text(workload(header.options))}<br>{text(header.database)} · '
        f"{text(iso_utc(header.started_at)[:19].replace('T', ' '))} UTC</p>"
    )
    if summary is None:
        yield "<p>It was broken off before it could tell its summary; this is what it told until then.</p>"
    else:
        yield from _headline(summary)
    if summary is not None:
        yield "<h2>Verdict</h2>"
        yield bullets(summary.evidence) if summary.evidence else "<p>None was reached.</p>"
    yield "<h2>Over time</h2>"
    yield charts(drawing.inline() for drawing in over_time_charts(run.series))
    if summary is not None and summary.histograms:
        yield "<h2>Latency</h2>"
        yield charts([latency_chart(summary).inline()])
        yield _percentiles(summary)
    yield "<h2>Conflicts by stream and time</h2>"
    rows, columns = conflicts_by_stream(run.series, summary)
    if rows:
        yield charts([heat_map("", rows, columns, unit="conflicts/s").inline()])
        yield '<p class="muted">The streams with the most conflicts, the hottest first; of each second its hottest.</p>'
    else:
        yield "<p>There were none.</p>"
    database = list(database_charts(run.series))
    if database:
        yield "<h2>The database meanwhile</h2>"
        yield charts(drawing.inline() for drawing in database)
    yield '<div class="columns"><div><h2>Parameters</h2>'
    yield facts(parameters(header.options))
    yield "</div><div><h2>Environment</h2>"
    yield facts(_environment(run))
    yield "</div></div>"
    yield f"<h2>Again</h2><pre><code>esx load {text(arguments(header.options))}</code></pre>"
    yield f"<footer>Made by esx {text(header.esx)}. Events went to the streams load-{text(run.id)}-N.</footer>"


def _headline(summary: LoadSummary) -> Iterator[str]:
    figures = [
        (f"{summary.goodput:,.0f}/s", "goodput: appends that succeeded"),
        (percent(summary.conflict_rate), "of attempts were conflicts"),
        (f"{summary.tries_per_success:.2f}" if summary.tries_per_success else "-", "tries per success"),
        (f"{milliseconds(summary.percentiles.get('p50', 0.0))} ms", "median of an append"),
        (f"{milliseconds(summary.percentiles.get('p99', 0.0))} ms", "99th percentile"),
        (f"{summary.total.successes:,}", f"appends in {summary.elapsed:,.1f} s"),
    ]
    yield tiles(figures)
    notes = []
    total = summary.total
    if total.errors or total.unknown:
        notes.append(f"{total.errors:,} errors and {total.unknown:,} unknown outcomes; the last: {summary.last_error}")
    if summary.saturated:
        notes.append(
            f"The load generator was saturated ({summary.generator_cpu:.0%} of a core, "
            f"{summary.generator_wait:.0%} of the time waiting for one): it measured itself more than the database. "
            "Use --processes, fewer users, or a quieter machine."
        )
    if (behind := too_slow(summary)) is not None:
        notes.append(f"The rate was {behind}. Those that were due and not made are in no figure.")
    if summary.interrupted:
        notes.append("The run was ended early; these figures cover what ran.")
    if notes:
        yield bullets(notes)


def over_time_charts(lines: Sequence[LoadProgress]) -> Iterator[Drawing]:
    """Yield goodput and conflicts, the conflict rate, percentiles and the generator's CPU over time."""
    yield line_chart(
        "Goodput and conflicts",
        [
            Series("appends stored", over_time(lines, lambda line: line.goodput), 1, filled=True),
            Series("conflicts", over_time(lines, conflicts_a_second(lines)), 2),
        ],
        SECONDS,
        Axis("a second", low=0.0),
    )
    yield line_chart(
        "Conflict rate",
        [Series("conflicts per attempt", over_time(lines, lambda line: line.conflict_rate), 2, filled=True)],
        SECONDS,
        Axis("of attempts", text=percent, low=0.0),
    )
    series = [
        Series("p50", over_time(lines, lambda line: line.p50_ms), 1),
        Series("p95", over_time(lines, lambda line: line.p95_ms), 5),
        Series("p99", over_time(lines, lambda line: line.p99_ms), 2),
    ]
    response = over_time(lines, lambda line: line.response_p99_ms)
    if response:
        series.append(Series("response p99", response, 4, dashed=True))
    yield line_chart("Service time of an append", series, SECONDS, Axis("milliseconds", log=True))
    yield line_chart(
        "CPU of the load generator",
        [Series("busiest process", over_time(lines, lambda line: line.generator_cpu), 6, filled=True)],
        SECONDS,
        Axis("of a core", text=percent, low=0.0, high=1.0),
    )


def latency_chart(summary: LoadSummary) -> Drawing:
    """Return the whole distribution of times, each percentile further out."""
    series = [
        Series(name, points, tone, dashed)
        for key, name, tone, dashed in _CURVES
        if (key != "response" or summary.response) and (points := latency_curve(summary.histograms.get(key, "")))
    ]
    return line_chart(
        "Distribution of times, every append counted",
        series,
        PERCENTILE_AXIS,
        Axis("milliseconds", log=True),
        width=1060,
        height=300,
    )


def _percentiles(summary: LoadSummary) -> str:
    rows = [
        [name, *(milliseconds(found[each]) for each in found)]
        for name, found in (
            ("service time", summary.percentiles),
            ("response time", summary.response),
            ("time to success", summary.time_to_success),
        )
        if found
    ]
    return table(["milliseconds", *summary.percentiles], rows)


def database_charts(lines: Sequence[LoadProgress]) -> Iterator[Drawing]:
    """Yield what the database did over time; nothing where that is not known."""
    if not any(line.database for line in lines):
        return
    yield line_chart(
        "WAL written",
        [
            Series(
                "WAL",
                over_time(lines, _megabytes),
                3,
                filled=True,
            )
        ],
        SECONDS,
        Axis("MB a second", low=0.0),
    )
    yield line_chart(
        "Transactions",
        [
            Series("commits", over_time(lines, lambda line: line.database.commits if line.database else None), 1),
            Series("rollbacks", over_time(lines, lambda line: line.database.rollbacks if line.database else None), 2),
        ],
        SECONDS,
        Axis("a second", low=0.0),
    )
    kinds: dict[str, float] = {}
    for line in lines:
        if line.database:
            for kind, waiting in line.database.waits.items():
                kinds[kind] = kinds.get(kind, 0.0) + waiting
    hottest = sorted(kinds, key=lambda kind: -kinds[kind])[:6]
    if hottest:
        yield line_chart(
            "What writers waited for",
            [Series(kind, over_time(lines, partial(_waiting, kind)), tone) for tone, kind in enumerate(hottest, 1)],
            SECONDS,
            Axis("writers", low=0.0),
            width=1060,
        )


def _megabytes(line: LoadProgress) -> float | None:
    return line.database.wal_bytes / 1e6 if line.database else None


def _waiting(kind: str, line: LoadProgress) -> float | None:
    return line.database.waits.get(kind, 0.0) if line.database else None


def _environment(run: SavedRun) -> list[tuple[str, object]]:
    summary = run.summary
    found: list[tuple[str, object]] = [("database", run.header.database)]
    if summary is None:
        return found
    found += list(summary.environment.items())
    if summary.database is not None:
        found.append(("WAL written", f"{summary.database.wal_bytes / 1e6:,.1f} MB"))
        found.append(("commits", number(summary.database.commits)))
        found.append(("rollbacks", number(summary.database.rollbacks)))
    if summary.feed is not None and summary.feed.subscribers:
        feed = summary.feed
        found.append(("subscribers", f"{feed.subscribers} were given {feed.delivered:,} events"))
        if feed.lag:
            found.append(("lag of the feed", f"p50 {milliseconds(feed.lag.get('p50', 0.0))} ms"))
    found.append(("CPU of the generator", f"{summary.generator_cpu:.0%} of a core"))
    return found
