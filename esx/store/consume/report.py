"""A consumer as its operators see it: what it does, how far it is, and who runs it."""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from esx.store.feed.batch import Writer
from esx.store.feed.comparison import Difference, DifferenceKind
from esx.text import ago, counted, encodable, iso_utc, lapse

COUNTED = 10_000
"""Up to how many events or rows are counted."""


class ConsumerState(StrEnum):
    """What a consumer does.

    ACTIVE: an instance runs it. WAITING: it does not go on now, for what `ConsumerReport.waits_for` says, and nothing
    has to be repaired. PAUSED: a user paused it. FAILED: an error ended it, and it needs a user. PARKED: an instance
    runs it, and has put events aside that need a user.
    """

    ACTIVE = "active"
    WAITING = "waiting"
    PAUSED = "paused"
    FAILED = "failed"
    PARKED = "parked"


class ProjectionOwner(NamedTuple):
    """The session of the active instance, with None for what PostgreSQL does not show to this user."""

    pid: int
    application: str | None
    client: str | None
    since: datetime | None


class Runner(NamedTuple):
    """The instance that runs a consumer, with None for what is not known.

    `host` and `pid` are its machine and its process, `since` when it became the active one. `backend` is the process of
    the server that has its lease, None behind a connection pooler, where there is no lease.
    """

    host: str | None
    pid: int | None
    since: datetime | None
    backend: int | None

    def __str__(self) -> str:
        if self.pid is None:
            return f"PostgreSQL's pid {self.backend}{f' from {self.host}' if self.host else ''}"
        return f"pid {self.pid} on {self.host}"


@dataclass(frozen=True, slots=True)
class ConsumerReport:
    """A projection or a relay, as `kind` says.

    `position` is the global_seq up to which all events are handled, `head` the highest one drawn. `lag` is the
    number of visible events after the position, `lag_seconds` the age of the first of them by its created_at: 0 if
    there is none, None where it has no time that says so. `lag`
    is exact up to 10,000; above that it is the distance in numbers to the last visible event, missing ones
    included. `held_by` are the open transactions that may still fill a gap right after the position. `owner` is the
    session that has its lease, `runner` the instance in it. `last_error` is the error that stopped it at the event
    after the position: `error_seq` is the global_seq of that event if it is known, `failed_at` when that was.
    `difference` says how the store differs from the history that it has read; unless it is None, it does not go on
    by itself. `rate` is how many events a second it handled when it last moved, 0 if that was half a minute ago or
    nothing runs it. `parked` and `skipped` count the events that were put aside, up to 10,001; None where this user
    may not read them. It began after `start`.
    """

    name: str
    position: int
    head: int
    lag: int
    lag_seconds: float | None
    paused: bool
    owner: ProjectionOwner | None
    held_by: tuple[Writer, ...]
    last_error: str | None
    updated_at: datetime
    difference: Difference | None = None
    kind: str = "projection"
    runner: Runner | None = None
    error_seq: int | None = None
    failed_at: datetime | None = None
    rate: float = 0.0
    parked: int | None = 0
    skipped: int | None = 0
    start: int = 0

    @property
    def beyond(self) -> int:
        """How far the position is above the head; 0 if it is not."""
        return max(self.position - self.head, 0)

    @property
    def lag_exact(self) -> bool:
        """Whether `lag` was counted."""
        return self.lag <= COUNTED

    @property
    def active(self) -> bool:
        """Whether an instance has its lease. An instance behind a connection pooler has none: see `runner`."""
        return self.owner is not None

    @property
    def state(self) -> ConsumerState:
        """What it does; see `ConsumerState`."""
        if self.paused:
            return ConsumerState.PAUSED
        if self.difference is not None and self.difference.kind is not DifferenceKind.BEHIND:
            return ConsumerState.FAILED
        if self.last_error is not None and self.runner is None:
            return ConsumerState.FAILED
        if self.waits_for is not None:
            return ConsumerState.WAITING
        return ConsumerState.PARKED if self.parked else ConsumerState.ACTIVE

    @property
    def waits_for(self) -> str | None:
        """What it waits for: an instance, a writer, a standby, or what passes; None if for none of these."""
        if self.runner is None:
            return "no program runs it"
        if self.difference is not None:
            return self.difference.reason
        if self.last_error is not None:
            return "it tries again"
        if self.held_by:
            return f"{', '.join(writer.who for writer in self.held_by)} may still fill a gap before it"
        return None

    @property
    def lag_text(self) -> str:
        """How far it is behind in events, for people."""
        if self.beyond:
            return f"{self.beyond:,} beyond the head"
        return f"{'' if self.lag_exact else 'about '}{counted(self.lag, 'event')} behind"

    @property
    def age_text(self) -> str:
        """How old the oldest event is that is not handled, for people; "" if there is none, or it is not known."""
        return lapse(self.lag_seconds) if self.lag and self.lag_seconds is not None else ""

    @property
    def about(self) -> str:
        """What a user should know beside the state, in a line: the error, what it waits for, what is parked."""
        told = []
        if self.difference is not None:
            told.append(str(self.difference))
        elif self.last_error is not None:
            at = "at the next event" if self.error_seq is None else f"at event {self.error_seq:,}"
            told.append(f"{at}: {self.last_error}")
        if self.state is ConsumerState.WAITING and self.difference is None:
            told.append(self.waits_for or "")
        if self.parked:
            told.append(f"{'more than ' if self.parked > COUNTED else ''}{min(self.parked, COUNTED):,} parked")
        return "; ".join(told)

    @property
    def run_by(self) -> str:
        """Who runs it and since when, for people; ``-`` if nobody does."""
        if self.runner is None:
            return "-"
        return f"{self.runner}{f', {ago(self.runner.since)}' if self.runner.since else ''}"

    def to_json(self) -> str:
        """Return it as one line of NDJSON. `lag` is exact unless `lag_exact` is false."""
        runner = self.runner
        fields = {
            "name": self.name,
            "kind": self.kind,
            "state": str(self.state),
            "waits_for": self.waits_for,
            "position": self.position,
            "head": self.head,
            "beyond_head": self.beyond,
            "lag": self.lag,
            "lag_exact": self.lag_exact,
            "lag_seconds": self.lag_seconds,
            "rate": round(self.rate, 3),
            "last_error": self.last_error,
            "error_seq": self.error_seq,
            "failed_at": _time(self.failed_at),
            "history": None if self.difference is None else str(self.difference),
            "parked": self.parked,
            "skipped": self.skipped,
            "host": None if runner is None else runner.host,
            "pid": None if runner is None else runner.pid,
            "since": None if runner is None else _time(runner.since),
            "backend": None if runner is None else runner.backend,
            "updated_at": _time(self.updated_at),
        }
        return encodable(json.dumps(fields, ensure_ascii=False))


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else iso_utc(moment)


ProjectionStatus = ConsumerReport
"""The status of a projection."""
