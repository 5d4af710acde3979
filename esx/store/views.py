"""What a screen shows, as values: a command, a query and an export of the same rows are made from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from esx.store.barrier import Filter

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class StreamsView:
    """Streams by name or by `recent` activity, chosen by `prefix`, the glob `match`, or a text that ids `contains`."""

    prefix: str = ""
    match: str | None = None
    contains: str | None = None
    recent: bool = False


@dataclass(frozen=True, slots=True)
class EventsView:
    """The events of a stream, or with `stream_id` None of all streams, from the number `start` on, included.

    `where` chooses among them (its `stream` is not used), `since` and `until` by their time.
    """

    stream_id: str | None = None
    start: int | None = None
    backwards: bool = False
    where: Filter = field(default_factory=Filter)
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class EventView:
    """One event in full."""

    global_seq: int


@dataclass(frozen=True, slots=True)
class FeedView:
    """The ordered feed after global_seq `after`."""

    after: int = 0
    where: Filter = field(default_factory=Filter)


@dataclass(frozen=True, slots=True)
class TrailView:
    """The trail of an event: the `members` that were found, looking at up to `scan` events where no index helps."""

    global_seq: int
    members: tuple[int, ...]
    scan: int | None = None


View = StreamsView | EventsView | EventView | FeedView | TrailView
"""What can be shown."""
