"""Counting the outcomes of appends without slowing them down.

A few times a second a greenlet collects (`Collector`) what users noted (`Outcomes`): into counts and histograms, and in
one step into Locust's own statistics, which feed its web UI, console and CSV files. Workers report running totals to
the master, so that the next report makes up for a lost one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

from locust.stats import RequestStats, StatsEntry, StatsError, bucket_response_time

from esx.load.histogram import histogram, percentiles, record
from esx.load.model import PERCENTILES, LoadCounts, LoadPart, StreamCounts
from esx.loadtest.effort import Effort, Gauge
from esx.loadtest.outcomes import COMMANDS, CONFLICT, ERROR, OUTCOMES, SUCCESS, UNKNOWN, Outcomes

METHOD = "esx"
"""What Locust's tables show in the column Type."""

_NAMES = {SUCCESS: "append", CONFLICT: "append (conflict)", ERROR: "append", UNKNOWN: "append"}
_HOTTEST = 20
_HOTTEST_SENT = 200  # by each worker


class OutcomeTally:
    """Counts and latencies by outcome, and those of whole commands. Tallies add up exactly."""

    def __init__(self) -> None:
        self._histograms = {kind: histogram() for kind in (*OUTCOMES, *COMMANDS)}
        self.last_error: str | None = None

    def record(self, kind: str, microseconds: int, count: int = 1) -> None:
        """Add `count` appends of an outcome, or commands, that took that long each."""
        record(self._histograms[kind], microseconds, count)

    def add(self, other: OutcomeTally) -> None:
        """Add another tally to this one."""
        for kind, times in self._histograms.items():
            if other.count(kind):
                times.add(other._histograms[kind])
        self.last_error = other.last_error or self.last_error

    def count(self, kind: str) -> int:
        """Return the number of appends of an outcome, or of commands."""
        return int(self._histograms[kind].get_total_count())

    @property
    def counts(self) -> LoadCounts:
        """All counts."""
        return counts_of([self.count(outcome) for outcome in OUTCOMES])

    def percentiles(self, *kinds: str) -> dict[str, float]:
        """Return the times of these kinds together, all outcomes if none is named: milliseconds by PERCENTILES.

        Zeros if there are none.
        """
        merged = histogram()
        for kind in kinds or OUTCOMES:
            if self.count(kind):
                merged.add(self._histograms[kind])
        return percentiles(merged) or dict.fromkeys(PERCENTILES, 0.0)

    def histograms(self) -> dict[str, str]:
        """Return the histograms that are not empty: base64 of their compressed encoding, by kind."""
        return {kind: times.encode().decode() for kind, times in self._histograms.items() if self.count(kind)}

    def to_wire(self) -> dict[str, Any]:
        """Return the tally as plain values, for a worker's report."""
        return {"histograms": self.histograms(), "last_error": self.last_error}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> OutcomeTally:
        """Return the tally that `to_wire` encoded."""
        tally = cls()
        tally.last_error = wire["last_error"]
        for kind, encoded in wire["histograms"].items():
            tally._histograms[kind].decode_and_add(encoded)
        return tally


class Heatmap:
    """Successes and conflicts by stream in a short time."""

    def __init__(self) -> None:
        self.successes: Counter[int] = Counter()
        self.conflicts: Counter[int] = Counter()

    def add(self, successes: Mapping[int, int], conflicts: Mapping[int, int]) -> None:
        """Count some more."""
        self.successes.update(successes)
        self.conflicts.update(conflicts)

    def hottest(self, most: int = _HOTTEST) -> tuple[StreamCounts, ...]:
        """Return the streams with the most conflicts, then the most successes, in the order of their numbers."""
        chosen = [stream for stream, _ in self.conflicts.most_common(most)]
        if len(chosen) < most:
            known = set(chosen)
            rest = (stream for stream, _ in self.successes.most_common(most) if stream not in known)
            chosen += [stream for stream, _ in zip(rest, range(most - len(chosen)), strict=False)]
        return tuple(
            StreamCounts(stream, self.successes.get(stream, 0), self.conflicts.get(stream, 0))
            for stream in sorted(chosen)
        )

    def to_wire(self) -> list[list[int]]:
        """Return the hottest as plain values."""
        return [list(astuple(stream)) for stream in self.hottest(_HOTTEST_SENT)]

    def add_wire(self, wire: list[list[int]]) -> None:
        """Add what `to_wire` made."""
        for stream, successes, conflicts in wire:
            self.add({stream: successes}, {stream: conflicts})


class Collector:
    """Collects the outcomes of one run; on a master also those that workers report.

    All methods are for greenlets.
    """

    def __init__(self, run: str, stats: RequestStats) -> None:
        self.run = run
        self.outcomes = Outcomes()
        self.gauge = Gauge()
        self._stats = stats
        self._total = OutcomeTally()
        self._recent = OutcomeTally()
        self._heat = Heatmap()
        self._workers: dict[str, OutcomeTally] = {}
        self._workers_recent = OutcomeTally()
        self._workers_warm_up: dict[str, list[int]] = {}
        self._workers_effort: dict[str, tuple[Effort, Effort]] = {}

    def collect(self) -> None:
        """Count what users noted since the last call, also in Locust's statistics."""
        drained = self.outcomes.drain()
        for kind, nanoseconds in drained.times.items():
            if nanoseconds:
                for microseconds, count in Counter([took // 1000 for took in nanoseconds]).items():
                    self._recent.record(kind, microseconds, count)
                if kind in _NAMES:
                    _into_locust(self._stats, kind, nanoseconds)
        self._heat.add(drained.successes, drained.conflicts)
        for message, count in drained.messages.items():
            self._recent.last_error = message
            _errors_into_locust(self._stats, message, count)

    def recent(self) -> OutcomeTally:
        """Return the tally since the last call of this method, of all processes."""
        self.collect()
        recent, self._recent = self._recent, OutcomeTally()
        self._total.add(recent)
        if self._workers:
            recent.add(self._workers_recent)
            self._workers_recent = OutcomeTally()
        return recent

    def heat(self) -> Heatmap:
        """Return the outcomes by stream since the last call of this method, of all processes."""
        heat, self._heat = self._heat, Heatmap()
        return heat

    def total(self) -> OutcomeTally:
        """Return the tally since the start of the run, of all processes."""
        self.collect()
        total = OutcomeTally()
        for part in (self._total, self._recent, *self._workers.values()):
            total.add(part)
        return total

    def warm_up(self) -> LoadCounts:
        """Return the counts of the warm-up, of all processes."""
        return counts_of(
            [sum(each) for each in zip(self.outcomes.warm_up, *self._workers_warm_up.values(), strict=True)]
        )

    def effort(self) -> tuple[Effort, Effort]:
        """Return the effort of the busiest generating process: since the last call, and since the warm-up."""
        if self._workers:
            efforts = list(self._workers_effort.values())
            return max(lately for lately, _ in efforts), max(whole for _, whole in efforts)
        return self.gauge.recent(), self.gauge.whole()

    @property
    def workers(self) -> set[str]:
        """The workers that have reported figures of the run."""
        return set(self._workers)

    def parts(self) -> tuple[LoadPart, ...]:
        """Return what each worker counted; none if there are no workers."""
        return tuple(
            LoadPart(worker, self._workers_effort[worker][1].cpu, tally.counts, tally.histograms())
            for worker, tally in sorted(self._workers.items())
        )

    def report(self, data: dict[str, Any]) -> None:
        """Put this worker's totals, and what is new since the last report, into its report to the master."""
        recent, heat = self.recent(), self.heat()
        data["esx"] = {
            "run": self.run,
            "recent": recent.to_wire(),
            "total": self.total().to_wire(),
            "warm_up": self.outcomes.warm_up,
            "heat": heat.to_wire(),
            "effort": [list(self.gauge.recent()), list(self.gauge.whole())],
        }

    def take_report(self, worker: str, data: Mapping[str, Any]) -> None:
        """Add a worker's report; one about another run is ignored."""
        report = data.get("esx")
        if report is None or report["run"] != self.run:
            return
        self._workers[worker] = OutcomeTally.from_wire(report["total"])
        self._workers_recent.add(OutcomeTally.from_wire(report["recent"]))
        self._workers_warm_up[worker] = list(report["warm_up"])
        lately, whole = report["effort"]
        self._workers_effort[worker] = (Effort(*lately), Effort(*whole))
        self._heat.add_wire(report["heat"])


def counts_of(outcomes: list[int]) -> LoadCounts:
    """Return the counts, given in the order of OUTCOMES."""
    successes, conflicts, errors, unknown = outcomes
    return LoadCounts(successes + conflicts + errors + unknown, successes, conflicts, errors, unknown)


def _into_locust(stats: RequestStats, outcome: str, nanoseconds: list[int]) -> None:
    """Add a batch of requests to Locust's statistics as if each had been logged now."""
    batch = StatsEntry(stats, _NAMES[outcome], METHOD)
    now = time.time()
    count = len(nanoseconds)
    batch.start_time = batch.last_request_timestamp = now
    batch.num_requests = count
    batch.num_reqs_per_sec[int(now)] = count
    batch.total_response_time = sum(nanoseconds) / 1e6  # type: ignore[assignment]  # Locust's floats are called int
    batch.min_response_time = min(nanoseconds) / 1e6  # type: ignore[assignment]
    batch.max_response_time = max(nanoseconds) / 1e6  # type: ignore[assignment]
    for milliseconds, times in Counter([round(took / 1e6) for took in nanoseconds]).items():
        batch.response_times[bucket_response_time(milliseconds)] += times
    if outcome in (ERROR, UNKNOWN):
        batch.num_failures = count
        batch.num_fail_per_sec[int(now)] = count
    stats.entries[batch.name, METHOD].extend(batch)
    stats.total.extend(batch)


def _errors_into_locust(stats: RequestStats, message: str, count: int) -> None:
    key = StatsError.create_key(METHOD, _NAMES[ERROR], message)
    now = time.time()
    error = stats.errors.setdefault(key, StatsError(METHOD, _NAMES[ERROR], message, first_seen=now))
    error.occurrences += count
    error.last_seen = now
