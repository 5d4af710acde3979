"""What was done in a run and what came of it: written down by clients and readers, judged by `check`."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from esx import ANY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from esx import AppendResult
    from esx.expected import ExpectedVersion

Outcome = Literal["acknowledged", "refused", "unknown"]

STOPPED = "stopped"
CHANGED = "HistoryChanged"


class Row(NamedTuple):
    """An event of the table."""

    global_seq: int
    stream_id: str
    stream_seq: int
    event_id: UUID


class Seen(NamedTuple):
    """An event as a reader got it."""

    global_seq: int
    event_id: UUID


class Part(NamedTuple):
    """What one call appends to one stream."""

    stream_id: str
    ids: tuple[UUID, ...]
    expected: ExpectedVersion = ANY


@dataclass
class Call:
    """An append. `began` and `ended` are ticks of the history, `first_era` and `last_era` its eras at those."""

    kind: str
    parts: tuple[Part, ...]
    began: int
    first_era: int
    ended: int = 0
    last_era: int = 0
    outcome: Outcome = "unknown"
    results: Sequence[AppendResult] = ()
    """One for each part, if it was acknowledged."""
    error: str = ""

    @property
    def ids(self) -> list[UUID]:
        return [event_id for part in self.parts for event_id in part.ids]


@dataclass
class Reading:
    """What one subscription gave, from its start to its end.

    `ended` is None as long as it goes on, STOPPED if its reader ended it, else the type of the error that did.
    """

    name: str
    after: int
    prefix: str
    first_era: int
    last_era: int
    seen: list[Seen] = field(default_factory=list)
    ended: str | None = None
    error: str = ""

    def wants(self, row: Row) -> bool:
        return row.global_seq > self.after and row.stream_id.startswith(self.prefix)


@dataclass
class Failover:
    """`known` is a tick: what was acknowledged until then had reached the standby. `inherited` is what it came with."""

    known: int
    inherited: list[Row]


class History:
    """The record of a run.

    An era is the time between two failovers. `tables` has what each era's server held in the end, `failovers` what led
    from each to the next.
    """

    def __init__(self) -> None:
        self.era = 0
        self.calls: list[Call] = []
        self.readings: list[Reading] = []
        self.tables: list[list[Row]] = []
        self.failovers: list[Failover] = []
        self.projected: list[Seen] = []
        """What the projection wrote, in the order in which it did."""
        self.surprises: list[str] = []
        """Errors that nobody is told to expect."""
        self.ended: list[str] = []
        """What ended projections."""
        self.acknowledged = 0
        self.errors: Counter[str] = Counter()
        self._ticks = itertools.count(1)

    def tick(self) -> int:
        """Return a number above all that were returned before."""
        return next(self._ticks)

    def begin(self, kind: str, parts: Sequence[Part]) -> Call:
        call = Call(kind, tuple(parts), self.tick(), self.era)
        self.calls.append(call)
        return call

    def end(self, call: Call, outcome: Outcome, results: Sequence[AppendResult] = (), error: str = "") -> None:
        """Write down what came of a call, once."""
        if not call.ended:
            call.outcome, call.results, call.error = outcome, results, error
            call.ended, call.last_era = self.tick(), self.era
            self.acknowledged += outcome == "acknowledged"

    def read(self, name: str, after: int, prefix: str) -> Reading:
        reading = Reading(name, after, prefix, self.era, self.era)
        self.readings.append(reading)
        return reading

    def close(self) -> None:
        """Take what subscriptions are given or told from now on for no part of the run."""
        for place, reading in enumerate(self.readings):
            if reading.ended is None:
                reading.last_era = self.era
                self.readings[place] = replace(reading, seen=list(reading.seen))
