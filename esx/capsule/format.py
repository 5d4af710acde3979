"""What is in a capsule: a zip of files of JSON, one object a line, with a table of contents and SHA-256 sums.

`events.ndjson` has the events as `esx export` writes them, in ascending global_seq, so that `esx import` reads them.
The other members have what was seen, each with the time at which it was seen, by the server's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from esx.doctor import Finding
from esx.errors import EsxError
from esx.moment import FarTime
from esx.store.consume.others import OtherConsumers
from esx.store.consume.report import ConsumerReport
from esx.store.feed.batch import Counts, Gap, Missed
from esx.store.health import Health
from esx.store.table_shape import TableShape

FORMAT = 1
"""The version of the format: another number means that this esx cannot read the file."""
SUFFIX = ".esx"
CONTENTS = "capsule.json"
SUMS = "SHA256SUMS"
EVENTS = "events.ndjson"
FEED = "feed.ndjson"
CONSUMERS = "consumers.ndjson"
HEALTH = "health.ndjson"
DOCTOR = "doctor.ndjson"
LOAD = "load.ndjson"
TABLES = "tables.ndjson"
MEMBERS = (EVENTS, FEED, CONSUMERS, HEALTH, DOCTOR, LOAD, TABLES)
"""The members that `CONTENTS` lists. A capsule has these, `CONTENTS` and `SUMS`, and nothing else."""

At = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone."""
Number = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]
"""A global_seq, or a count."""

T = TypeVar("T")


class BadCapsule(EsxError):
    """A file is no capsule, or one that cannot be used. The message names it and says what is wrong."""


@dataclass(frozen=True, slots=True)
class CapsuleBounds:
    """How much of a capsule is read; what has more is refused. Sizes are bytes, after unpacking.

    `ratio` is how many times as large as it is packed a member may be, if it has more than `small` bytes. `lines` is
    how many lines a member may have, and `runs` how many runs of visible numbers all moments of the feed.
    """

    file: int = 4 * 2**30 - 1
    events: int = 8 * 2**30
    member: int = 2**28
    lines: int = 20_000_000
    line: int = 2**26
    beside: int = 2**24
    runs: int = 1_000_000
    ratio: int = 400
    small: int = 2**24
    contents: int = 2**20

    def most(self, name: str) -> int:
        """How many bytes a member may have."""
        if name == EVENTS:
            return self.events
        return self.contents if name in (CONTENTS, SUMS) else self.member

    def longest(self, name: str) -> int:
        """How many bytes a line of a member may have."""
        return self.line if name == EVENTS else self.beside


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """How many bytes and lines a member has, and its SHA-256 sum in hexadecimal digits."""

    bytes: int
    lines: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CapsuleInfo:
    """What a capsule says of itself.

    It has the events with a global_seq above `after` that pass the filter. `begun` is when the recording began, and
    `ended` when it ended: what was seen of the feed and of consumers is of the time between. `since` is the earliest
    time that was asked for, None for all. Everything up to `until` is final: no event could appear there any more.
    `filter` is the glob of the streams, None for all. `masks` are the paths whose values are pseudonyms, `masked_ids`
    says that ids of streams and correlations are too, and `masked` is how many values there were. `notes` say in a line
    each what is not as it was.
    """

    format: int
    esx: str
    server: str
    database: str
    store: str
    begun: At
    ended: At
    since: At | None
    after: Number
    until: Number
    followed: bool
    filter: str | None
    masks: tuple[str, ...]
    masked_ids: bool
    masked: int
    events: int
    first: Number | None
    last: Number | None
    notes: Annotated[tuple[str, ...], msgspec.Meta(max_length=100)]
    members: dict[str, MemberFacts]
    kind: str = "capsule"
    first_in_stream: int = 0

    @property
    def left_out(self) -> bool:
        """Whether the store had other events than these, for all that is known: older ones, or of other streams."""
        return self.since is not None or self.after > 0 or self.filter is not None


@dataclass(frozen=True, slots=True)
class FeedMoment:
    """What a subscriber saw of the feed at a moment.

    `counts` has the position up to which the events had been handed out, and what had been counted since the recording
    began. The feed waited at `gap`. `head` is the highest number drawn, and `gaps` are the first missing numbers that
    might still have appeared, where these were looked up. `visible` are runs of numbers, first and last, that were
    visible beyond the position and had not been seen before. `late` maps numbers that had been handed out since the
    moment before, and had come after higher ones, to their delays in seconds; `missed` are events that appeared below
    the position since then.
    """

    at: At
    counts: Counts
    gap: Gap | None = None
    head: Number | None = None
    gaps: tuple[Gap, ...] = ()
    visible: tuple[tuple[Number, Number], ...] = ()
    late: dict[int, float] = field(default_factory=dict)
    missed: tuple[Missed, ...] = ()
    listening: bool = True
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ConsumersMoment:
    """The consumers at a moment: esx's own, or those of another tool's store; or why they could not be read."""

    at: At
    consumers: tuple[ConsumerReport, ...] = ()
    others: OtherConsumers = field(default_factory=OtherConsumers)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class HealthMoment:
    """The figures of the store at a moment."""

    at: At
    health: Health


@dataclass(frozen=True, slots=True)
class DoctorMoment:
    """What the doctor found at a moment."""

    at: At
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class LoadSecond:
    """A line of a load test's run, as `esx load --json` prints it."""

    at: At
    run: str
    line: dict[str, Any]


KINDS: dict[str, type[Any]] = {
    FEED: FeedMoment,
    CONSUMERS: ConsumersMoment,
    HEALTH: HealthMoment,
    DOCTOR: DoctorMoment,
    LOAD: LoadSecond,
    TABLES: TableShape,
}
"""What a line of each member is, but for the events."""


class EventLine(msgspec.Struct):
    """A line of `events.ndjson`, as far as it is looked into here."""

    global_seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    stream_id: str | None
    event_type: str | None
    data: msgspec.Raw
    stream_seq: int | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"null")
    created_at: str | None = None
    event_id: str | None = None


def encode(value: object) -> bytes:
    """Return a line, with its end."""
    return msgspec.json.encode(value, enc_hook=_other) + b"\n"


def _other(value: object) -> object:
    # A time that Python does not have, such as infinity, is none that a clock can show.
    if isinstance(value, FarTime):
        return None
    raise NotImplementedError(f"a {type(value).__name__} has no form in a capsule")
