"""What happened in a time window, by category and type, against the window before it of the same length.

Up to a bound the events of a window are counted. Beyond it they are drawn at random from its numbers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import asyncpg

from esx.filters import Filter
from esx.layouts.category import category_sql
from esx.layouts.layout import Layout
from esx.postgres.values import fetch, fetchrow
from esx.store.filter_sql import filter_sql, stored_filter
from esx.store.read.estimates import Estimate, Sample, count_events, places
from esx.store.read.event_list import EventList
from esx.store.read.order_check import LOOK, Doubt
from esx.store.search.span import find_span
from esx.text import encodable, iso_utc

COUNTED_OF_WINDOW = 200_000
"""How many events of a window are counted."""
DRAWN = 10_000
"""How many numbers are drawn in a window with more events."""
_LAST = 2**63 - 1


class Happened(NamedTuple):
    """How many events of a category and a type were in the window, and in the one before."""

    category: str
    event_type: str
    events: Estimate
    before: Estimate

    def to_json(self) -> str:
        """Return them as one line of NDJSON. A number is null where only `at_least` is known."""
        fields = {
            "category": self.category,
            "event_type": self.event_type,
            **_numbers("events", self.events),
            **_numbers("before", self.before),
        }
        return encodable(json.dumps(fields, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class WindowSummary:
    """What happened from `since` on and before `until`; the window before begins at `before_since`.

    `rows` are in the order of their counts. `events` and `before` are how many there were in all. With a `doubt`,
    events of these times may be elsewhere in the global order, and are not counted.
    """

    before_since: datetime
    since: datetime
    until: datetime
    events: Estimate
    before: Estimate
    rows: tuple[Happened, ...]
    doubt: Doubt | None

    @property
    def categories(self) -> list[tuple[str, int, int]]:
        """The categories, each with its count in the window and before, the largest first."""
        now: Counter[str] = Counter()
        then: Counter[str] = Counter()
        for row in self.rows:
            now[row.category] += row.events.count
            then[row.category] += row.before.count
        return [(name, now[name], then[name]) for name in sorted(now, key=lambda name: (-now[name], name))]

    def to_json(self) -> str:
        """Return the window and its sums as one line of NDJSON."""
        fields = {
            "since": iso_utc(self.since),
            "until": iso_utc(self.until),
            "before_since": iso_utc(self.before_since),
            **_numbers("events", self.events),
            **_numbers("before", self.before),
        }
        return json.dumps(fields)


def _numbers(name: str, estimate: Estimate) -> dict[str, int | bool | None]:
    return {
        name: estimate.count if estimate.known else None,
        f"{name}_exact": estimate.exact,
        f"{name}_at_least": estimate.low,
    }


class _Counts(NamedTuple):
    of: dict[tuple[str, str], Estimate]
    all: Estimate
    unseen: Estimate
    """What is said of a category and type that none of the events had."""
    doubt: Doubt | None


async def summarise(
    connection: asyncpg.Connection,
    layout: Layout,
    since: datetime,
    until: datetime,
    where: Filter,
    *,
    look: float = LOOK,
) -> WindowSummary:
    """Return what happened between the two times. Raises InvalidQuery where created_at has no times."""
    where = stored_filter(layout, where)
    before_since = since - (until - since)
    now = await _count(connection, layout, since, until, where, look)
    then = await _count(connection, layout, before_since, since, where, look)
    rows = [Happened(*key, now.of.get(key, now.unseen), then.of.get(key, then.unseen)) for key in {**now.of, **then.of}]
    rows.sort(key=lambda row: (-row.events.count, -row.before.count, row.category, row.event_type))
    return WindowSummary(before_since, since, until, now.all, then.all, tuple(rows), now.doubt or then.doubt)


async def _count(
    connection: asyncpg.Connection, layout: Layout, since: datetime, until: datetime, where: Filter, look: float
) -> _Counts:
    events = EventList()
    span = await find_span(connection, layout, events, since, until, look=look)
    end = min(span.end, _LAST)
    size = await count_events(connection, layout, events, span.first, end)
    stream, _, kind = layout.place("e")
    conditions, arguments = filter_sql(where, 5)
    condition = " AND ".join(["e.created_at >= $3::timestamptz AND e.created_at < $4::timestamptz", *conditions])
    columns = f"{category_sql(layout, stream)} AS category, {kind} AS kind"
    if size.exact or (size.known and size.count <= COUNTED_OF_WINDOW):
        rows = await fetch(
            connection,
            f"SELECT {columns}, count(*) FROM {layout.table} e WHERE e.global_seq >= $1::bigint "
            f"AND e.global_seq < $2::bigint AND {condition} GROUP BY 1, 2",
            span.first,
            end,
            since,
            until,
            *arguments,
        )
        counts = {(row[0], row[1]): Estimate.counted(row[2]) for row in rows}
        all_ = Estimate.counted(sum(each.count for each in counts.values()))
        return _Counts(counts, all_, Estimate.counted(0), span.doubt)
    low, high = await _ends(connection, layout, span.first, end)
    draws = min(DRAWN, high - low + 1)
    rows = await fetch(
        connection,
        f"SELECT {columns} FROM {layout.table} e WHERE e.global_seq = ANY ($1::bigint[]) "
        f"AND $2::bigint IS NOT NULL AND {condition}",
        places(low, high, draws),
        0,
        since,
        until,
        *arguments,
    )
    found: Sequence[tuple[str, str]] = [(row[0], row[1]) for row in rows]
    sample = Sample(high - low + 1, draws, tuple(("\0".join(key), 1.0) for key in found))
    counts = {key: sample.streams(seen, _is(key)) for key, seen in Counter(found).items()}
    return _Counts(counts, sample.events(len(found)), sample.streams(0, lambda _: False), span.doubt)


def _is(key: tuple[str, str]) -> Callable[[str], bool]:
    wanted = "\0".join(key)
    return lambda name: name == wanted


async def _ends(connection: asyncpg.Connection, layout: Layout, first: int, end: int) -> tuple[int, int]:
    within = f"FROM {layout.table} e WHERE e.global_seq >= $1::bigint AND e.global_seq < $2::bigint"
    row = await fetchrow(
        connection,
        f"SELECT (SELECT e.global_seq {within} ORDER BY e.global_seq LIMIT 1), "
        f"(SELECT e.global_seq {within} ORDER BY e.global_seq DESC LIMIT 1)",
        first,
        end,
    )
    return int(row[0]), int(row[1])
