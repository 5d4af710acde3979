"""Conflicts as plain values: one that was recorded, pairs of event types that collide, and how recording goes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from esx.text import encodable, iso_utc

KEPT = 100_000
"""How many rows the table conflicts keeps: the newest."""
LOOKED_AT = 20
"""Of how many events that won the types are looked at."""
TYPES = 8
"""How many types of one conflict are kept on each side."""
SLOTS = 24
"""How many parts of equal length a time is cut into, to show when conflicts were."""
NOBODY = ""
"""What stands for the type that won where no event did: the stream was behind the expected version."""


@dataclass(frozen=True, slots=True)
class ConflictRecording:
    """How recording goes, in conflicts since the store was opened.

    `seen` were noticed, `recorded` are told by rows (one row may stand for several), `dropped` by none. `problem` says
    in one line why none can be recorded now; None while it works.
    """

    seen: int = 0
    recorded: int = 0
    dropped: int = 0
    problem: str | None = None

    def plus(self, other: ConflictRecording | None) -> ConflictRecording:
        """Return the sum of two, as those of the processes of a load test."""
        if other is None:
            return self
        return ConflictRecording(
            self.seen + other.seen,
            self.recorded + other.recorded,
            self.dropped + other.dropped,
            self.problem or other.problem,
        )

    @property
    def text(self) -> str:
        """The same in one line."""
        told = f"{self.recorded:,} of {self.seen:,} conflicts recorded"
        if self.dropped:
            told += f", {self.dropped:,} dropped"
        return told if self.problem is None else f"{told}; not now: {self.problem}"


@dataclass(frozen=True, slots=True)
class RecordedConflict:
    """A conflict that was recorded: an append that was refused, and what had been stored in its place.

    `expected` is the version that the append expected: -1 for NO_STREAM, None for STREAM_EXISTS. `actual` is the
    stream's. `lost_types` are the types that were to be appended, each once; `won_types` those of the events after the
    expected version, of which the first is `won_seq`. They are empty and None if the stream was behind. Users and
    correlation ids are of the first event of each side, None where its metadata have none. `stands_for` is how many
    conflicts the row stands for: 1, or more where there were too many to record each.
    """

    at: datetime
    stream_id: str
    expected: int | None
    actual: int
    lost_types: tuple[str, ...]
    lost_user: str | None
    lost_correlation: str | None
    won_types: tuple[str, ...]
    won_seq: int | None
    won_user: str | None
    won_correlation: str | None
    stands_for: float
    commutes: bool | None
    """Whether all that lost commutes with all that won, by the rules given; None without rules."""

    def to_json(self) -> str:
        """Return it as one line of NDJSON."""
        fields = {
            "at": iso_utc(self.at),
            "stream_id": self.stream_id,
            "expected": self.expected,
            "actual": self.actual,
            "lost_types": self.lost_types,
            "lost_user": self.lost_user,
            "lost_correlation": self.lost_correlation,
            "won_types": self.won_types,
            "won_seq": self.won_seq,
            "won_user": self.won_user,
            "won_correlation": self.won_correlation,
            "stands_for": self.stands_for,
            "commutes": self.commutes,
        }
        return encodable(json.dumps(fields, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class ConflictPair:
    """How often an append that began with type `lost` was refused because of an event of type `won`.

    `won` is "" where no event won: the append expected a version that the stream has not reached. `conflicts` is how
    many there were, estimated if not `exact`; `recorded` is the number of rows. `streams` are the streams with most of
    them, each with its number, of `stream_count` streams. `times` are how many there were in each of `SLOTS` parts of
    the time from the survey's `first_at` to its `last_at`.

    `commuting` is how many of them commute, by the rules given: all types of the append with all types that won. It is
    None without rules.
    """

    lost: str
    won: str
    conflicts: int
    exact: bool
    recorded: int
    streams: tuple[tuple[str, int], ...]
    stream_count: int
    first_at: datetime
    last_at: datetime
    times: tuple[int, ...]
    commuting: int | None

    @property
    def commutes(self) -> bool | None:
        """Whether the pair commutes: all of its conflicts. None without rules, or if only some of them do."""
        if self.commuting is None or 0 < self.commuting < self.conflicts:
            return None
        return self.commuting > 0

    def to_json(self) -> str:
        """Return it as one line of NDJSON."""
        fields = {
            "lost": self.lost,
            "won": self.won or None,
            "conflicts": self.conflicts,
            "conflicts_exact": self.exact,
            "recorded": self.recorded,
            "stream_count": self.stream_count,
            "streams": [{"stream_id": stream_id, "conflicts": count} for stream_id, count in self.streams],
            "first_at": iso_utc(self.first_at),
            "last_at": iso_utc(self.last_at),
            "times": self.times,
            "commuting": self.commuting,
            "commutes": self.commutes,
        }
        return encodable(json.dumps(fields, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class ConflictSurvey:
    """The pairs that collided, the most frequent first, from `first_at` to `last_at` (None without any).

    `conflicts` is how many there were in all, an estimate if not `exact`, `recorded` the number of rows. `more_pairs`
    says that rarer pairs were left out. `by_load_tests` is how many of the conflicts are on streams ``load-*``, as load
    tests name theirs. `oldest` is when the oldest row was recorded of all that the table holds; with
    `full`, older ones have been dropped.
    """

    pairs: tuple[ConflictPair, ...]
    conflicts: int
    exact: bool
    recorded: int
    first_at: datetime | None
    last_at: datetime | None
    more_pairs: bool
    oldest: datetime | None
    full: bool
    by_load_tests: int = 0

    @property
    def load_tests_text(self) -> str:
        """Whether load tests are among them, in a few words; empty if none are."""
        if not self.by_load_tests:
            return ""
        tilde = "" if self.exact else "~"
        return f"load tests count too: {tilde}{self.by_load_tests:,} of {tilde}{self.conflicts:,} are on streams load-*"

    @property
    def commuting(self) -> int | None:
        """How many of the conflicts commute, by the rules given; None without rules."""
        known = [pair.commuting for pair in self.pairs if pair.commuting is not None]
        return sum(known) if known else None
