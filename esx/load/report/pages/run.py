"""One run as a page: its options, its figures over time, and the verdict with its evidence."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from esx.load.archive import SavedRun
from esx.load.collisions import TITLES, collision_rows
from esx.load.model import DatabaseFigures, LoadProgress, LoadSummary
from esx.load.report.describe import verdict_text
from esx.load.report.pages.html import page
from esx.load.report.pages.scale import Axis, number, percent
from esx.load.report.pages.svg import Drawing, Series, heat_map, line_chart
from esx.load.report.series import Points, conflicts_a_second, conflicts_by_stream, latency_curve, over_time
from esx.load.report.text import milliseconds, too_slow
from esx.text import counted

_PAIRS = 50
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
        (1, "0"),
        (2, "50"),
        (10, "90"),
        (100, "99"),
        (1e3, "99.9"),
        (1e4, "99.99"),
        (1e5, "99.999"),
        (1e6, "99.9999"),
    ],
)


def run_page(run: SavedRun) -> str:
    """Return a run as a self-contained page of HTML."""
    summary = run.summary
    rows, columns = conflicts_by_stream(run.series, summary)
    return page(
        "run.html",
        f"Load test {run.id}",
        run=run,
        tiles=[] if summary is None else _tiles(summary),
        notes=[] if summary is None else _notes(summary),
        judged=None if summary is None else ", ".join(verdict_text(summary)),
        over_time=over_time_charts(run.series),
        latency=latency_chart(summary) if summary is not None and summary.histograms else None,
        percentiles=[] if summary is None else _percentiles(summary),
        conflicts=heat_map("", rows, columns, unit="conflicts/s") if rows else None,
        collisions=[] if summary is None else collision_rows(summary.pairs, _PAIRS),
        collision_titles=list(TITLES),
        database=list(database_charts(run.series)),
        environment=_environment(run),
    )


def _tiles(summary: LoadSummary) -> list[tuple[str, str]]:
    return [
        (f"{summary.goodput:,.0f}/s", "goodput: appends that succeeded"),
        (percent(summary.conflict_rate), "of attempts were conflicts"),
        (f"{summary.tries_per_success:.2f}" if summary.tries_per_success else "-", "tries per success"),
        (f"{milliseconds(summary.percentiles.get('p50', 0.0))} ms", "median of an append"),
        (f"{milliseconds(summary.percentiles.get('p99', 0.0))} ms", "99th percentile"),
        (f"{summary.total.successes:,}", f"appends in {summary.elapsed:,.1f} s"),
    ]


def _notes(summary: LoadSummary) -> list[str]:
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
        notes.append(f"The rate was {behind}. The commands that were due but not made are in no figure.")
    if summary.interrupted:
        notes.append("The run was ended early; these figures cover what ran.")
    return notes


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
    """Return the whole distribution of times, up to the highest percentiles."""
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


def _percentiles(summary: LoadSummary) -> list[list[str]]:
    return [
        [name, *(milliseconds(found[each]) for each in found)]
        for name, found in (
            ("service time", summary.percentiles),
            ("response time", summary.response),
            ("time to success", summary.time_to_success),
        )
        if found
    ]


def database_charts(lines: Sequence[LoadProgress]) -> Iterator[Drawing]:
    """Yield the database's figures over time; nothing where they are not known."""
    if not any(line.database for line in lines):
        return
    written = Series("WAL", _figures(lines, lambda database: database.wal_bytes / 1e6), 3, filled=True)
    yield line_chart("WAL written", [written], SECONDS, Axis("MB a second", low=0.0))
    commits = Series("commits", _figures(lines, lambda database: database.commits), 1)
    rollbacks = Series("rollbacks", _figures(lines, lambda database: database.rollbacks), 2)
    yield line_chart("Transactions", [commits, rollbacks], SECONDS, Axis("a second", low=0.0))
    kinds: Counter[str] = Counter()
    for line in lines:
        if line.database:
            kinds.update(line.database.waits)
    waits = [
        Series(kind, _figures(lines, partial(_waiting, kind)), tone)
        for tone, (kind, _) in enumerate(kinds.most_common(6), 1)
    ]
    if waits:
        yield line_chart("What writers waited for", waits, SECONDS, Axis("writers", low=0.0), width=1060)


def _waiting(kind: str, database: DatabaseFigures) -> float:
    return database.waits.get(kind, 0.0)


def _figures(lines: Sequence[LoadProgress], value: Callable[[DatabaseFigures], float]) -> Points:
    return over_time(lines, lambda line: value(line.database) if line.database else None)


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
    if summary.appends_per_commit is not None:
        found.append(("appends per commit", number(summary.appends_per_commit)))
    if summary.feed is not None and summary.feed.subscribers:
        feed = summary.feed
        found.append(
            ("subscribers", f"{counted(feed.subscribers, 'was', 'were')} given {counted(feed.delivered, 'event')}")
        )
        if feed.lag:
            found.append(("lag of the feed", f"p50 {milliseconds(feed.lag.get('p50', 0.0))} ms"))
    found.append(("CPU of the generator", f"{summary.generator_cpu:.0%} of a core"))
    return found
