"""The history that a position belongs to: what a reader keeps beside its position, to recognise the history.

A position is a number, and numbers can be used again: after TRUNCATE ... RESTART IDENTITY, a restored dump, a crash
without synchronous commits, or a failover to a standby that lagged behind. So a reader also keeps

- the numbers and the identities of the last few events that it got;
- how many events were visible in a window of numbers before its position. Below a safe position no event can appear, so
  a lower count means that events are gone. That finds a lost event that is not among the last few: WAL is not in the
  order of global_seq, so a promoted standby can hold number 100 and lack 95;
- the server's system identifier and timeline, if the user may ask for them. They do not decide alone, as a logical copy
  has others; but a missing event counts as erased only on the same timeline.

The table erased_events has the numbers of events that esx itself erased; they are not counted as missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg

from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.values import fetch
from esx.store.feed.server import Server, look

MARKS = 16
"""How many of the last events a history keeps."""
WINDOW = 10_000
"""The largest window, in numbers, in which events are counted."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class HistoryMark(NamedTuple):
    """An event that was handed out.

    `identity` is its event_id; without one, a hash of stream_id, stream_seq and created_at.
    """

    global_seq: int
    identity: str

    @classmethod
    def of(cls, event: Event) -> HistoryMark:
        """Return the mark of an event."""
        event_id = None if event.event_id is None else str(event.event_id)
        return cls(
            event.global_seq, identity(event_id, event.stream_id, event.stream_seq, _microseconds(event.created_at))
        )


@dataclass(frozen=True, slots=True)
class History:
    """What is known of the history up to a position.

    Above `low` and up to `position` at least `count` events were visible, `upper` of them above `middle`. `marks` are
    the last events that were handed out, in ascending order, at most 16.
    """

    server: Server
    position: int
    low: int
    count: int
    marks: tuple[HistoryMark, ...] = ()
    middle: int | None = None
    upper: int = 0

    def moved(self, events: Sequence[Event], position: int, passed: int) -> History:
        """Return the history at a later `position`, after `events` were handed out.

        `passed` is the number of visible events between the two positions, handed out or not; a smaller number does no
        harm. The window then begins some 5,000 to 10,000 numbers before the position, if so many have been seen.
        """
        marks = (*self.marks, *(HistoryMark.of(event) for event in events[-MARKS:]))[-MARKS:]
        low, count = self.low, self.count + passed
        middle, upper = (self.position, 0) if self.middle is None else (self.middle, self.upper)
        upper += passed
        if position - low > WINDOW:
            low, count = middle, upper
        if position - low > WINDOW:
            # Of the events that were passed, it is known only for those handed out that they are in the window.
            low = middle = position - WINDOW
            count = upper = sum(event.global_seq > low for event in events)
        if middle <= low and position - low >= WINDOW // 2:
            middle, upper = position, 0
        return History(self.server, position, low, count, marks, middle, upper)

    def on(self, server: Server) -> History:
        """Return this history as one of `server`, which was found to hold all of it."""
        return replace(self, server=server)

    def to_json(self) -> str:
        """Return it as a JSON object of less than 2 kB."""
        return json.dumps(
            {
                "system": self.server.system,
                "timeline": self.server.timeline,
                "position": self.position,
                "low": self.low,
                "count": self.count,
                "middle": self.middle,
                "upper": self.upper,
                "marks": self.marks,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> History:
        """Return the history that `to_json` wrote; unknown keys are ignored. Raises ValueError for other text."""
        try:
            found = json.loads(text)
            position, low = _number(found["position"]), _number(found["low"])
            marks = tuple(HistoryMark(_number(number), _text(identity)) for number, identity in found["marks"])
            if low > position:
                raise ValueError(f"{low} is above {position}")
            return cls(
                Server(_known(found["system"]), _known(found["timeline"])),
                position,
                low,
                _number(found["count"]),
                marks[-MARKS:],
                _known(found.get("middle")),
                _number(found.get("upper", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"this is no history as esx keeps it: {text[:100]!r}") from error


async def history_at(connection: asyncpg.Connection, layout: Layout, position: int) -> History:
    """Return the history of what is visible now up to a position, for a reader that begins there."""
    here = await look(connection, layout)
    low = max(position - WINDOW, 0)
    rows = await fetch(
        connection,
        f"""
        SELECT counted.n, m.* FROM (SELECT count(*) AS n FROM {layout.numbers}
                                    WHERE global_seq > $1::bigint AND global_seq <= $2::bigint) counted
        LEFT JOIN (SELECT e.global_seq, {identity_columns(layout)} FROM {layout.table} e
                   WHERE e.global_seq > $1::bigint AND e.global_seq <= $2::bigint
                   ORDER BY e.global_seq DESC LIMIT {MARKS}) m ON true
        ORDER BY m.global_seq
        """,
        low,
        position,
    )
    marks = tuple(HistoryMark(row[1], identity(*row[2:])) for row in rows if row[1] is not None)
    return History(here.server, position, low, rows[0][0], marks)


def identity_columns(layout: Layout) -> str:
    """Return the select list for `identity`. Unneeded values are left out, so that no odd one is decoded."""
    event_id = "NULL::text" if layout.event_id is None else f"e.{layout.event_id}::text"
    stream, number, _ = layout.place("e")
    if not layout.timed and layout.event_id is not None:
        return f"{event_id}, CASE WHEN {event_id} IS NULL THEN {stream} END, {number}, NULL::bigint"
    return (
        f"{event_id}, CASE WHEN {event_id} IS NULL THEN {stream} END, {number}, "
        f"CASE WHEN {event_id} IS NULL AND e.created_at >= '0002-01-01 00:00+00' "
        "AND e.created_at < '9999-01-01 00:00+00' THEN round(extract(epoch FROM e.created_at) * 1000000)::bigint END"
    )


def identity(event_id: str | None, stream_id: str | None, stream_seq: int, microseconds: int | None) -> str:
    """Return what identifies an event: its id, or without one a hash of the other arguments."""
    if event_id is not None:
        return event_id
    text = f"{stream_seq} {microseconds} {stream_id}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _microseconds(created_at: object) -> int | None:
    """Return the microseconds since 1970; None for a time near or beyond the limits of datetime, as in SQL above."""
    if not isinstance(created_at, datetime) or not 2 <= created_at.year < 9999:
        return None
    aware = created_at if created_at.tzinfo is not None else created_at.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def _number(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{value!r} is not a bigint")
    return value


def _known(value: Any) -> int | None:
    return None if value is None else _number(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value
