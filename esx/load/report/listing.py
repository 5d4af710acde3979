"""Saved runs as lines of at most 80 columns."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from esx.load.archive import Entry
from esx.text import iso_utc, visible
from esx.times import clock

_TITLES = f"{'run':<18}{'started':<18}{'users':>6}{'time':>7}{'appends/s':>11}{'conflicts':>11}  verdict"


def listing(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield a line of titles and a line for each run."""
    yield _TITLES
    for entry in entries:
        started = clock(entry.header.started_at)[:16]
        summary = entry.summary
        if summary is None:
            yield f"{entry.id:<18}{started:<18}{entry.header.options.users:>6}   ended without a summary"
            continue
        verdict = visible(summary.verdict or "none", limit=8)
        yield (
            f"{entry.id:<18}{started:<18}{summary.users:>6}{summary.elapsed:>6.0f}s{summary.goodput:>11,.0f}"
            f"{summary.conflict_rate:>11.1%}  {verdict}"
        )


def listing_json(entry: Entry) -> dict[str, Any]:
    """Return a run as one flat object: its options, and the figures of its summary."""
    header, summary = entry.header, entry.summary
    figures: dict[str, Any] = {}
    if summary is not None:
        figures = {
            "elapsed": summary.elapsed,
            **asdict(summary.total),
            "goodput": summary.goodput,
            "conflict_rate": summary.conflict_rate,
            "percentiles": summary.percentiles,
            "verdict": summary.verdict,
            "interrupted": summary.interrupted,
        }
    return {
        "run": entry.id,
        "started_at": iso_utc(header.started_at),
        "database": header.database,
        "sweep": header.sweep,
        "options": asdict(header.options),
        **figures,
    }
