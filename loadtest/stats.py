"""What became of the appends, counted without slowing them down.

Users note outcomes in the event loop's thread (`Outcomes`: one append to a deque each). A few times a second a
greenlet collects them (`Collector`): into counts and HDR histograms in microseconds, exact to three digits at any
size, and in one step into Locust's own statistics, which feed its web UI, console and CSV files. Workers report
running totals to the master, so that a lost report is made good by the next.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from hdrh.histogram import HdrHistogram
from locust.stats import StatsEntry, StatsError, bucket_response_time

from esx.load.model import LoadCounts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from locust.stats import RequestStats

SUCCESS, CONFLICT, ERROR, UNKNOWN = OUTCOMES = ("success", "conflict", "error", "unknown")
METHOD = "esx"
"""What Locust's tables show in the column Type."""
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}

_HIGHEST_US = 600_000_000  # ten minutes; what takes longer counts as that
_DIGITS = 3
_NAMES = {SUCCESS: "append", CONFLICT: "append (conflict)", ERROR: "append", UNKNOWN: "append"}


class Outcomes:
    """Takes the outcomes down, in the users' thread; `drain` hands them over to another. Times are nanoseconds."""

    def __init__(self) -> None:
        self._successes: deque[int] = deque()
        self._conflicts: deque[int] = deque()
        self._failures: deque[tuple[str, int, str]] = deque()
        self.success = self._successes.append
        """Note a successful append that took so many nanoseconds."""
        self.conflict = self._conflicts.append
        """Note a wrong version, which took so many nanoseconds to be told."""

    def error(self, took: int, message: str) -> None:
        """Note an append that failed: nothing was stored."""
        self._failures.append((ERROR, took, message))

    def unknown(self, took: int, message: str) -> None:
        """Note an append whose answer was lost: it may have been stored."""
        self._failures.append((UNKNOWN, took, message))

    def drain(self) -> tuple[dict[str, list[int]], list[tuple[str, int, str]]]:
        """Return the times noted since the last call, by outcome, and the failures among them."""
        # A deque's append and popleft are atomic, and the length is taken first: nothing is lost or seen twice.
        times = {
            SUCCESS: [self._successes.popleft() for _ in range(len(self._successes))],
            CONFLICT: [self._conflicts.popleft() for _ in range(len(self._conflicts))],
            ERROR: [],
            UNKNOWN: [],
        }
        failures = [self._failures.popleft() for _ in range(len(self._failures))]
        for outcome, took, _ in failures:
            times[outcome].append(took)
        return times, failures


class Tally:
    """Counts and latencies by outcome. Tallies add up exactly."""

    def __init__(self) -> None:
        self._histograms = {outcome: _histogram() for outcome in OUTCOMES}
        self.last_error: str | None = None

    def record(self, outcome: str, microseconds: int, count: int = 1) -> None:
        """Add `count` appends that ended so and took so long each."""
        self._histograms[outcome].record_value(min(max(microseconds, 1), _HIGHEST_US), count)

    def add(self, other: Tally) -> None:
        """Add all that the other counted."""
        for outcome, histogram in self._histograms.items():
            if other.count(outcome):
                histogram.add(other._histograms[outcome])
        self.last_error = other.last_error or self.last_error

    def count(self, outcome: str) -> int:
        """Return how many appends ended so."""
        return int(self._histograms[outcome].get_total_count())

    @property
    def counts(self) -> LoadCounts:
        """All counts."""
        successes, conflicts, errors, unknown = (self.count(outcome) for outcome in OUTCOMES)
        return LoadCounts(successes + conflicts + errors + unknown, successes, conflicts, errors, unknown)

    def percentiles(self) -> dict[str, float]:
        """Return the latencies of all attempts, in milliseconds, by the names in PERCENTILES; zeros if none."""
        merged = _histogram()
        for outcome, histogram in self._histograms.items():
            if self.count(outcome):
                merged.add(histogram)
        if not merged.get_total_count():
            return dict.fromkeys(PERCENTILES, 0.0)
        found = merged.get_percentile_to_value_dict(list(PERCENTILES.values()))
        # The bucket's upper end can be above what was seen.
        highest = merged.get_max_value()
        return {name: min(found[percentile], highest) / 1000 for name, percentile in PERCENTILES.items()}

    def to_wire(self) -> dict[str, Any]:
        """Return the tally as plain values, for a worker's report."""
        encoded = {
            outcome: histogram.encode() for outcome, histogram in self._histograms.items() if self.count(outcome)
        }
        return {"histograms": encoded, "last_error": self.last_error}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Tally:
        """Return the tally that `to_wire` encoded."""
        tally = cls()
        tally.last_error = wire["last_error"]
        for outcome, encoded in wire["histograms"].items():
            tally._histograms[outcome].decode_and_add(encoded)
        return tally


class Collector:
    """Brings the outcomes of one run together; on a master also those that workers report.

    All methods belong to greenlets.
    """

    def __init__(self, run: str, stats: RequestStats) -> None:
        self.run = run
        self.outcomes = Outcomes()
        self._stats = stats
        self._total = Tally()
        self._recent = Tally()
        self._workers: dict[str, Tally] = {}
        self._workers_recent = Tally()

    def collect(self) -> None:
        """Take in what users noted since the last call, and show it in Locust's statistics."""
        times, failures = self.outcomes.drain()
        for outcome, nanoseconds in times.items():
            if nanoseconds:
                for microseconds, count in Counter([took // 1000 for took in nanoseconds]).items():
                    self._recent.record(outcome, microseconds, count)
                _into_locust(self._stats, outcome, nanoseconds)
        for (_, message), count in Counter((outcome, message) for outcome, _, message in failures).items():
            self._recent.last_error = message
            _errors_into_locust(self._stats, message, count)

    def recent(self) -> Tally:
        """Return what came in since the last call of this method, everywhere."""
        self.collect()
        recent, self._recent = self._recent, Tally()
        self._total.add(recent)
        if self._workers:
            recent.add(self._workers_recent)
            self._workers_recent = Tally()
        return recent

    def total(self) -> Tally:
        """Return what came in since the start of the run, everywhere."""
        self.collect()
        total = Tally()
        for part in (self._total, self._recent, *self._workers.values()):
            total.add(part)
        return total

    def report(self, data: dict[str, Any]) -> None:
        """Put this worker's totals, and what is new in them, into its report to the master."""
        recent = self.recent()
        data["esx"] = {"run": self.run, "recent": recent.to_wire(), "total": self.total().to_wire()}

    def take_report(self, worker: str, data: Mapping[str, Any]) -> None:
        """Take in a worker's report; one about another run is ignored."""
        report = data.get("esx")
        if report is None or report["run"] != self.run:
            return
        self._workers[worker] = Tally.from_wire(report["total"])
        self._workers_recent.add(Tally.from_wire(report["recent"]))


def _histogram() -> Any:
    return HdrHistogram(1, _HIGHEST_US, _DIGITS)


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
