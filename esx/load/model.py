"""What a load test is asked to do, and what it says: plain values, one JSON object a line between processes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """A load test's workload.

    `users` writers run for `duration` seconds, starting at `spawn_rate` a second (None: all at once). Each picks
    one of `streams` streams, reads its version and appends one event at it. With `hot_streams` above 0, that many
    of the streams take the fraction `hot_share` (0 to 1) of all appends. `seed` makes two runs draw the same.
    """

    users: int = 10
    duration: float = 30.0
    spawn_rate: float | None = None
    streams: int = 100
    hot_streams: int = 0
    hot_share: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class LoadCounts:
    """What became of the appends so far: `attempts` is the sum of the four others.

    A conflict (wrong version) is an outcome, not an error. An outcome is unknown when the connection was lost
    before the answer came.
    """

    attempts: int = 0
    successes: int = 0
    conflicts: int = 0
    errors: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """One line a second.

    `elapsed` is in seconds. `goodput` (successful appends a second), `conflict_rate` (conflicts per attempt, 0 to
    1) and the latencies of all attempts, in milliseconds, are those of the last second.
    """

    elapsed: float
    users: int
    total: LoadCounts
    goodput: float
    conflict_rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """The last line, over the whole run.

    `percentiles` maps "p50", "p90", "p95", "p99", "p99.9" and "max" to milliseconds of an append, as the writer
    saw it. `stored` is the number of the run's events found in the database afterwards, None if that could not be
    read; the `verdict` is "pass" or "fail", and `evidence` says why in a few lines.
    """

    run: str
    elapsed: float
    users: int
    total: LoadCounts
    goodput: float
    conflict_rate: float
    percentiles: dict[str, float]
    stored: int | None = None
    verdict: str | None = None
    evidence: tuple[str, ...] = ()
    last_error: str | None = None
    interrupted: bool = False


def to_dict(line: LoadProgress | LoadSummary) -> dict[str, Any]:
    """Return the line as one flat JSON object, `kind` being ``progress`` or ``summary``; the counts are spread."""
    fields = asdict(line)
    counts = fields.pop("total")
    kind = "summary" if isinstance(line, LoadSummary) else "progress"
    return {"kind": kind, **counts, **fields}


def from_dict(line: Mapping[str, Any]) -> LoadProgress | LoadSummary:
    """Return the line that `to_dict` made; raises ValueError if it is not one."""
    kinds: dict[Any, type[LoadProgress] | type[LoadSummary]] = {"progress": LoadProgress, "summary": LoadSummary}
    try:
        kind = kinds[line["kind"]]
        counts = LoadCounts(**{field.name: line[field.name] for field in fields(LoadCounts)})
        own = {field.name: line[field.name] for field in fields(kind) if field.name in line}
        if "evidence" in own:
            own["evidence"] = tuple(own["evidence"])
        return kind(total=counts, **own)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a line of a load test: {error!r}") from None


def run_prefix(run: str) -> str:
    """Return what the ids of all streams of a run start with."""
    return f"load-{run}-"
