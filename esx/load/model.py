"""A load test's options, progress and summary: plain values, between processes one JSON object a line."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

PERCENTILES = ("p50", "p90", "p95", "p99", "p99.9", "max")
"""The keys of every mapping of percentiles; the values are milliseconds."""
EXPECTED = ("exact", "any", "none")
ON_CONFLICT = ("give-up", "retry", "backoff", "queue", "single-writer")
STRATEGIES = ("conditional", "row-lock")
NOTIFICATIONS = ("doorbell", "every", "off")
GROUPING = ("off", "on")
RECORDING = ("off", "on")
APPENDERS = ("esx", "messagedb", "marten")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """A load test's workload.

    `users` writers run for `warm_up` seconds that are not counted and then for `duration` seconds that are, starting
    at `spawn_rate` a second (None: all at once). They stop earlier once they have stored `max_appends` appends. More
    than one of `processes` share the users, as Locust's workers.

    Each command picks one of `streams` streams. With `hot_streams` above 0, that many of them take the fraction
    `hot_share` (0 to 1) of all commands; with `zipf` above 0, stream n is picked in proportion to 1 / (n + 1)^zipf.
    It appends `events_per_append` events with some `payload_bytes` bytes of data each (0: the smallest).

    `expected` is ``exact`` (read the version, decide, append at it), ``any``, or ``none`` (the stream must be new).
    After a conflict it does as `on_conflict` says, up to `max_tries` times in all: ``give-up``, ``retry`` at once,
    ``backoff`` (wait a little, jittered and growing, then retry), ``queue`` (lock the stream, read, append), or
    ``single-writer`` (the writers of a process take turns at the stream, each from the version that the last one left).
    `strategy` ``row-lock`` locks from the first try on. `notification` is ``doorbell``, ``every`` or ``off``;
    `subscribers` follow the run's events meanwhile. With `grouping` ``on`` the writers of a process append together, as
    those of an application do; ``off``, each writer stands for a process of its own. With `record_conflicts` ``on`` a
    sample of the conflicts is recorded in the table conflicts, and the summary tells which types collided.

    `rate` None is a closed loop: a user's next command follows `think_time` seconds after the last, jittered by half.
    Otherwise it is an open loop: so many commands a second in all are due at times drawn beforehand (a Poisson
    process, as with ``pgbench -R``).

    `seed` makes two runs draw the same. `run_id` None means a new one. `yes_write_to`, ``HOST/DATABASE``, names the
    store that may be written to although it is not local or holds other events.

    `like` is the path of a file of learned traffic (docs/learn.md), of which `times` as much is sent: its categories,
    streams, types and sizes take the place of those that other options make, and `rate` None is that of its busiest
    part. `replay` is the path of a capsule whose appends are sent at their recorded times, `times` as fast.

    `appender` is ``esx`` or the kind of another tool's store, which then appends by that tool's function; `append_sql`
    is the path of a file with a statement that appends instead. `store` is the table, view or kind of store that the
    events are in, None for the table events.
    """

    users: int = 10
    duration: float = 30.0
    spawn_rate: float | None = None
    streams: int = 100
    hot_streams: int = 0
    hot_share: float = 0.0
    seed: int | None = None
    zipf: float = 0.0
    events_per_append: int = 1
    payload_bytes: int = 0
    expected: str = "exact"
    on_conflict: str = "give-up"
    max_tries: int = 100
    strategy: str = "conditional"
    notification: str = "doorbell"
    grouping: str = "off"
    record_conflicts: str = "off"
    subscribers: int = 0
    rate: float | None = None
    think_time: float = 0.0
    warm_up: float = 0.0
    max_appends: int = 10_000_000
    processes: int = 1
    run_id: str | None = None
    yes_write_to: str | None = None
    appender: str = "esx"
    append_sql: str | None = None
    like: str | None = None
    replay: str | None = None
    times: float = 1.0
    store: str | None = None

    @property
    def by_esx(self) -> bool:
        """Whether esx itself appends."""
        return self.appender == "esx" and self.append_sql is None

    @property
    def where(self) -> str | None:
        """The store that the events are in, as `EventStore.connect` takes it: an appender finds that of its kind."""
        return self.store or (None if self.appender == "esx" else self.appender)


@dataclass(frozen=True, slots=True)
class LoadCounts:
    """The outcomes of appends so far: `attempts` is the sum of the four others. Each try is an attempt.

    A conflict (wrong version) is an outcome, not an error. An outcome is unknown where the connection was lost
    before the answer came.
    """

    attempts: int = 0
    successes: int = 0
    conflicts: int = 0
    errors: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """The outcomes in one stream. `stream` is its number, the n of ``load-<run>-<n>``."""

    stream: int
    successes: int
    conflicts: int


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How often an append that began with type `lost` was refused because of type `won` ("": no event won).

    Estimated from the sample that was recorded. They were on so many `streams`, most of them, `most`, on `most_on`,
    such as "stream 7".
    """

    lost: str
    won: str
    conflicts: int
    streams: int
    most_on: str
    most: int


@dataclass(frozen=True, slots=True)
class DatabaseFigures:
    """What the database did: in a progress line per second, in the summary over the run, warm-up included.

    `wal_bytes` are those of the whole server, `commits` and `rollbacks` those of all sessions in the database.
    `waits` maps what writers waited for, e.g. ``Lock:tuple`` or ``IO:WalSync``, to how many did so on average.
    """

    wal_bytes: float = 0.0
    commits: float = 0.0
    rollbacks: float = 0.0
    waits: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeedFigures:
    """What all subscribers together received since the start of the run.

    `duplicates` and `disordered` count events that came again or out of order: 0 if the feed is correct. `lag` maps
    PERCENTILES to milliseconds from an append's start to its delivery; in a progress line those of the last second.
    """

    subscribers: int = 0
    delivered: int = 0
    duplicates: int = 0
    disordered: int = 0
    lag: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadPart:
    """What one of several generating processes counted; the run's counts and histograms are the sums of these.

    `cpu` is the share of a core that it used, `histograms` are as in `LoadSummary`.
    """

    process: str
    cpu: float
    total: LoadCounts
    histograms: dict[str, str]


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """One line a second.

    `elapsed` is in seconds since the users could begin; `total` counts from the end of the warm-up. `goodput`
    (successful appends a second), `conflict_rate` (conflicts per attempt, 0 to 1), `tries_per_success` and the
    times are those of the last second: `p50_ms` and so on of the service time, which is that of the append alone, and
    `response_p50_ms` and so on from the intended start, in open loop only. `generator_cpu` is the share of a core (0
    to 1) that the busiest generating process used, `generator_wait` the share of time in which it was ready to run but
    other processes had all cores. `streams` are the hottest of the last second, at most 20, in the order of their
    numbers.
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
    warming_up: bool = False
    tries_per_success: float = 0.0
    response_p50_ms: float | None = None
    response_p95_ms: float | None = None
    response_p99_ms: float | None = None
    generator_cpu: float = 0.0
    streams: tuple[StreamCounts, ...] = ()
    database: DatabaseFigures | None = None
    feed: FeedFigures | None = None
    generator_wait: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """The last line, over the whole run without its warm-up; the progress lines are its series.

    `elapsed` is in seconds, warm-up left out. `percentiles` are those of the service time, an append as the writer
    saw it; `response` those from the intended start, in open loop only; `time_to_success` those from a command's
    first try to its success. `histograms` holds all of them, and one for each outcome, as HDR histograms in
    microseconds, base64 of the standard compressed encoding: ``success``, ``conflict``, ``error``, ``unknown``,
    ``response``, ``time_to_success``.

    `streams` are those with the most conflicts, at most 100. `stored` is the number of the run's events found in the
    database afterwards, None if that could not be read; the `verdict` is "pass" or "fail", and `evidence` says why
    in a few lines. `warm_up` counts what was left out of `total`. A `saturated` generator, one that for more than 90%
    of the time ran or waited for a core, measures itself more than the database. `parts` are those of several
    processes, empty if there was one. `commands` is how many commands ended, each once however often it was tried.
    `appends_per_commit` is how many appends shared a transaction on average, None if they were not grouped. `pairs` are
    the pairs of event types that collided, if conflicts were recorded, warm-up included; `recording` says in one line
    how that went, None if they were not.
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
    options: LoadOptions | None = None
    environment: dict[str, str] = field(default_factory=dict)
    warm_up: LoadCounts = LoadCounts()
    tries_per_success: float = 0.0
    response: dict[str, float] = field(default_factory=dict)
    time_to_success: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, str] = field(default_factory=dict)
    streams: tuple[StreamCounts, ...] = ()
    generator_cpu: float = 0.0
    saturated: bool = False
    database: DatabaseFigures | None = None
    feed: FeedFigures | None = None
    parts: tuple[LoadPart, ...] = ()
    generator_wait: float = 0.0
    commands: int = 0
    appends_per_commit: float | None = None
    pairs: tuple[PairCounts, ...] = ()
    recording: str | None = None


def to_dict(line: LoadProgress | LoadSummary) -> dict[str, Any]:
    """Return the line as one flat JSON object with its counts; `kind` is ``progress`` or ``summary``."""
    fields = asdict(line)
    counts = fields.pop("total")
    kind = "summary" if isinstance(line, LoadSummary) else "progress"
    return {"kind": kind, **counts, **fields}


def from_dict(line: Mapping[str, Any]) -> LoadProgress | LoadSummary:
    """Return the line that `to_dict` made. Raises ValueError, which names the field that is wrong."""
    kinds: dict[Any, type[LoadProgress] | type[LoadSummary]] = {"progress": LoadProgress, "summary": LoadSummary}
    kind = kinds.get(line.get("kind"))
    if kind is None or line.get("attempts") is None:
        raise ValueError("not a line of a load test")
    return msgspec.convert({**line, "total": line}, kind)


def run_prefix(run: str) -> str:
    """Return what the ids of all streams of a run start with."""
    return f"load-{run}-"
