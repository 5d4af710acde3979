"""What a reader of the global order gets, as plain values: batches, and the gaps between events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from esx.model import Event

NOBODY_LATE: Mapping[int, float] = MappingProxyType({})

PRIMARY = "primary"


class Writer(NamedTuple):
    """A transaction that has written to the events table and is still open.

    `key` identifies the transaction; `pid` is None for a prepared one. The other fields are None where PostgreSQL does
    not show them to this user. `since` is when the transaction began.
    """

    key: str
    pid: int | None
    since: datetime | None
    state: str | None
    application: str | None

    @property
    def who(self) -> str:
        """What to call it."""
        if self.pid is not None:
            return f"pid {self.pid}"
        return "a transaction" if self.key == PRIMARY else "a prepared transaction"


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing numbers, `first` to `last` inclusive, of events that may still appear.

    One or more of the `writers` may have drawn them; no other transaction can have.
    """

    first: int
    last: int
    writers: tuple[Writer, ...]


class Missed(NamedTuple):
    """An event that became visible below a safe position, and so was not handed out."""

    global_seq: int
    stream_id: str
    event_type: str


class Batch(NamedTuple):
    """The result of one step.

    `events` are safe, and in order. Each is made when it is asked for, so go through them once, or keep a list.
    `position` is the global_seq up to which no event can appear any more. `full` says
    that there is more to read now; `gap` is the gap that the reader waits at, or None. `late` maps the numbers that
    became visible after higher ones to how long the reader saw them missing, in seconds. `missed` are events that
    appeared at or below an earlier position, which should not happen: they are in no batch. At most a hundred are
    named at a time.

    Counts of this step: `looked` visible events, wanted or not, and `dead` numbers that no event has, both between the
    last position and this one; `missed_count` missed events; `erased` events that were handed out and are gone.
    """

    events: Sequence[Event]
    position: int
    full: bool
    gap: Gap | None
    late: Mapping[int, float] = NOBODY_LATE
    missed: tuple[Missed, ...] = ()
    looked: int = 0
    dead: int = 0
    missed_count: int = 0
    erased: int = 0

    @property
    def counts_something(self) -> bool:
        """Whether it moves a cursor or changes a count."""
        return bool(self.looked or self.missed_count or self.erased)


class Counts(NamedTuple):
    """The position of a feed, and its counters: see the properties of `Feed`."""

    position: int = 0
    dead: int = 0
    late: int = 0
    looked: int = 0
    missed: int = 0
    erased: int = 0

    def after(self, batch: Batch) -> Counts:
        """Return the counts after a batch."""
        return Counts(
            batch.position,
            self.dead + batch.dead,
            self.late + len(batch.late),
            self.looked + batch.looked,
            self.missed + batch.missed_count,
            self.erased + batch.erased,
        )


@dataclass(frozen=True, slots=True)
class FeedState:
    """Where a feed stands.

    `cursor` is the global_seq up to which the feed has handed out events. `safe` is the position up to which no event
    can appear any more, `head` the highest global_seq that a writer has drawn. The writers named in `gaps` may still
    fill them; `looked` is the number up to which gaps were looked for. `dead` counts the numbers that were passed
    because no event has them. `listening` is false if the feed polls, `problem` says why it polls or is not connected.
    """

    cursor: int
    safe: int
    head: int
    gaps: tuple[Gap, ...]
    dead: int
    listening: bool
    problem: str | None
    looked: int
