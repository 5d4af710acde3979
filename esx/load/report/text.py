"""A load test's figures as lines of text that fit a terminal of 80 columns."""

import math
import textwrap

from esx.load.collisions import TITLES, collision_rows
from esx.load.model import LoadProgress, LoadSummary
from esx.load.report.describe import verdict_text
from esx.text import counted, visible

_NAME = 14
_COUNT = 13
_WIDTH = 79
_PAIRS = 10
_CELL = 24
_RIGHT = ("conflicts", "share", "streams")


def render_progress(line: LoadProgress) -> str:
    """Return one line: time, users, appends a second, conflicts, latencies of the last second, and failures."""
    total = line.total
    parts = [
        f"{line.elapsed:6.1f} s",
        f"{line.users:3d} users",
        f"{line.goodput:7,.0f} appends/s",
        f"{line.conflict_rate:5.1%} conflicts",
        f"p50 {milliseconds(line.p50_ms)}",
        f"p99 {milliseconds(line.p99_ms)} ms",
    ]
    if total.errors:
        parts.append(f"{total.errors:,} errors")
    if total.unknown:
        parts.append(f"{total.unknown:,} unknown")
    return "  ".join(parts)


def render_summary(summary: LoadSummary) -> str:
    """Return the summary as lines of text, the verdict and its evidence last."""
    total = summary.total
    title = f"run {summary.run}: {summary.users} users, {summary.elapsed:.1f} s"
    if summary.interrupted:
        title += ", interrupted"
    lines = [title, ""]
    lines.append(_row("appends/s", f"{summary.goodput:,.1f}", "successful appends a second"))
    lines.append(_row("attempts", f"{total.attempts:,}", _tries(summary)))
    for name in ("successes", "conflicts", "errors", "unknown"):
        count = getattr(total, name)
        lines.append(_row(name, f"{count:,}", f"{count / (total.attempts or 1):.1%}"))
    if summary.appends_per_commit is not None:
        lines.append(_row("per commit", f"{summary.appends_per_commit:,.1f}", "appends that shared a transaction"))
    if summary.last_error:
        lines.append(f"{'last error':<{_NAME}}  {visible(summary.last_error, limit=60)}")
    if summary.warm_up.attempts:
        lines.append(_row("warm-up", f"{summary.warm_up.attempts:,}", "attempts before, not counted above"))
    if (behind := too_slow(summary)) is not None:
        lines.append(f"{'rate':<{_NAME}}  {behind}")
    lines += ["", *latencies(summary)]
    told = [*_generator(summary), *_database(summary), *_feed(summary)]
    if told:
        lines += ["", *told]
    lines += _collisions(summary)
    lines += ["", _row("rows stored", "not known" if summary.stored is None else f"{summary.stored:,}")]
    lines.append(_row("verdict", *verdict_text(summary)))
    for evidence in summary.evidence:
        lines += textwrap.wrap(visible(evidence), _WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return "\n".join(lines)


def _collisions(summary: LoadSummary) -> list[str]:
    """Return which types of events collided, as a table, if that was recorded."""
    if summary.recording is None and not summary.pairs:
        return []
    lines = ["", f"{'collisions':<{_NAME}}  {visible(summary.recording or '', limit=200)}".rstrip()]
    rows = [list(TITLES), *collision_rows(summary.pairs, _PAIRS)] if summary.pairs else []
    cells = [[visible(cell, limit=_CELL) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        texts = [
            cell.rjust(width) if title in _RIGHT else cell.ljust(width)
            for title, cell, width in zip(TITLES, row, widths, strict=True)
        ]
        lines.append(f"  {'  '.join(texts)}"[:_WIDTH].rstrip())
    if len(summary.pairs) > _PAIRS:
        lines.append(f"  and {counted(len(summary.pairs) - _PAIRS, 'rarer pair')}")
    return lines


def too_slow(summary: LoadSummary) -> str | None:
    """Return a line if an open loop's rate was not reached, else None."""
    rate = None if summary.options is None else summary.options.rate
    # Runs that an older esx saved do not have the number of commands.
    if rate is None or not summary.commands or not summary.elapsed:
        return None
    assert summary.options is not None
    if summary.options.replay is not None:
        # It ends when all has been sent, whatever its mean rate is.
        cut = not summary.interrupted and summary.elapsed >= summary.options.duration - 0.5
        return f"not all of the capsule was sent within {summary.options.duration:g} s" if cut else None
    if summary.interrupted and summary.options.like is not None:
        return None  # of bursts only the whole run has the mean rate
    due = rate * summary.elapsed
    if due - summary.commands <= max(due / 20, 4 * math.sqrt(due)):  # within the spread of a Poisson process
        return None
    return f"not reached: {summary.commands / summary.elapsed:,.0f} of {rate:,.0f} commands/s were made"


def _tries(summary: LoadSummary) -> str:
    return f"{summary.tries_per_success:.2f} for each success" if summary.tries_per_success else ""


def latencies(summary: LoadSummary) -> list[str]:
    """Return a line of titles, and a line for each kind of time that was measured."""
    names = list(summary.percentiles)
    lines = [f"{'latency, ms':<{_NAME}}" + "".join(f"{name:>10}" for name in names)]
    for title, found in (
        ("append", summary.percentiles),
        ("response", summary.response),
        ("to success", summary.time_to_success),
        ("feed's lag", summary.feed.lag if summary.feed else {}),
    ):
        if found:
            figures = "".join(f"{milliseconds(found.get(name, 0.0)):>10}" for name in names)
            lines.append(f"{title:<{_NAME}}{figures}")
    return lines


def _generator(summary: LoadSummary) -> list[str]:
    if summary.saturated and summary.generator_wait > summary.generator_cpu:
        note = f"of a core, {summary.generator_wait:.0%} waiting for one: saturated"
    elif summary.saturated:
        note = "of a core: saturated, so use --processes"
    else:
        note = "of a core, by the busiest generating process"
    return [_row("generator CPU", f"{summary.generator_cpu:.0%}", note)] if summary.generator_cpu else []


def _database(summary: LoadSummary) -> list[str]:
    figures = summary.database
    if figures is None:
        return []
    lines = [
        _row("WAL", f"{figures.wal_bytes / 1e6:,.1f} MB", "written by the whole server"),
        _row("commits", f"{figures.commits:,.0f}", f"and {figures.rollbacks:,.0f} rollbacks, of all sessions"),
    ]
    waits = sorted(figures.waits.items(), key=lambda wait: -wait[1])[:2]
    if waits:
        named = ", ".join(f"{visible(kind, limit=24)} {count:.1f}" for kind, count in waits)
        lines.append(f"{'waited for':<{_NAME}}{'':>{_COUNT}}  {named}")
    return lines


def _feed(summary: LoadSummary) -> list[str]:
    feed = summary.feed
    if feed is None or not feed.subscribers:
        return []
    who = counted(feed.subscribers, "subscriber")
    return [_row("delivered", f"{feed.delivered:,}", f"to {who}")]


def _row(name: str, value: str, note: str = "") -> str:
    return f"{name:<{_NAME}}{value:>{_COUNT}}  {note}".rstrip()


def milliseconds(milliseconds: float) -> str:
    """Return milliseconds as text, short values with microseconds."""
    if milliseconds < 10:
        return f"{milliseconds:.3f}"
    return f"{milliseconds:.2f}" if milliseconds < 100 else f"{milliseconds:,.1f}"
