"""The event types of a store, from a bounded number of events.

Up to a bound all events are looked at. Beyond it events are drawn at random from the global order, together with the
oldest and the newest: of a type that has one event in a thousand, three thousand draws miss all in one of twenty cases.
With an index on the type all types are found by skipping along it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import asyncpg

from esx.layouts.category import category_of
from esx.layouts.layout import Layout
from esx.model import Event
from esx.moment import FarTime
from esx.postgres.values import CREATED_AT, fetch
from esx.store.read.estimates import COUNTED, Estimate, Sample, count_events, places
from esx.store.read.event_list import EventList
from esx.store.read.order_check import Doubt
from esx.store.rows import events_of
from esx.store.search.indexes import type_index
from esx.store.search.span import NumberSpan

DRAWS = 3_000
"""How many events are drawn."""
EDGE = 1_000
"""How many of the oldest and of the newest events are looked at."""
SHAPED = 100
"""Of how many events of a type the data are read."""
_SHAPED_OF_ALL = 4_000
_LARGE = 8_192
_TYPES = 1_000
_COUNTED_OF_ONE = 1_000


class EventMoment(NamedTuple):
    """An event's place in the global order, and its time."""

    global_seq: int
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class TypeSummary:
    """An event type. `first` and `last` are its first and last event of those looked at, `exact` says of all.

    `rate` is how many events of it came in a second, counted from the oldest of the newest thousand events until now;
    None where that cannot be told. `categories` are those of its streams that were looked at, the most common first.
    """

    event_type: str
    events: Estimate
    first: EventMoment
    last: EventMoment
    exact: bool
    rate: float | None
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TypeSurvey:
    """The types of a store, the most common first.

    `complete` says that there is no other type; else a type of fewer than about `events` / `looked_at` events can be
    missing. `events` is how many events there are, `looked_at` how many were looked at. `sample` are events of each
    type, in order, with their data; `large` counts those that were left out because their data are large.
    """

    types: tuple[TypeSummary, ...]
    complete: bool
    events: Estimate
    looked_at: int
    sample: dict[str, tuple[Event, ...]]
    large: int
    doubt: Doubt | None = None


class _Row(NamedTuple):
    global_seq: int
    event_type: str
    stream_id: str
    created_at: datetime | None


class _Exact(NamedTuple):
    """A type, of which the first and the last event are known."""

    event_type: str
    events: Estimate
    first: int
    last: int


async def survey_types(
    connection: asyncpg.Connection,
    layout: Layout,
    span: NumberSpan,
    *,
    full: bool = False,
    samples: int = SHAPED,
    now: datetime | None = None,
) -> TypeSurvey:
    """Return the types of the events in `span`; `full` counts all events, which takes a scan."""
    layout.check_numbered()
    total = await count_events(connection, layout, EventList(), span.first, span.end)
    if total.exact and total.count <= COUNTED:
        rows = await _rows(connection, layout, span, "true")
        sample = Sample(0, 0, ())
    else:
        rows, sample = await _drawn(connection, layout, span)
    of_type: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        of_type[row.event_type].append(row)
    complete = not sample.draws
    exact: dict[str, _Exact] = {}
    if not complete:
        found = await (_scanned(connection, layout, span) if full else _by_index(connection, layout, span, sample))
        complete = found is not None
        exact = {one.event_type: one for one in found or ()}
        ends = [number for one in exact.values() for number in (one.first, one.last)]
        for row in await _rows(connection, layout, span, "e.global_seq = ANY ($3::bigint[])", "", ends):
            of_type[row.event_type].append(row)
    rates = _rates(rows[-EDGE:], now or datetime.now(UTC))
    types = [
        _summary(name, found, exact.get(name), sample, rates, partial(category_of, layout))
        for name, found in of_type.items()
    ]
    types.sort(key=lambda one: (-one.events.count, one.event_type))
    events, large = await _sampled(connection, layout, of_type, samples)
    return TypeSurvey(tuple(types), complete, total, len(rows), events, large, span.doubt)


def _summary(
    name: str,
    rows: Sequence[_Row],
    exact: _Exact | None,
    sample: Sample,
    rates: dict[str, float] | None,
    categorised: Callable[[str], str],
) -> TypeSummary:
    ordered = sorted(rows, key=lambda row: row.global_seq)
    seen = len({row.global_seq for row in rows})
    events = sample.streams(seen, lambda each: each == name) if sample.draws else Estimate.counted(seen)
    first, last = (EventMoment(row.global_seq, row.created_at) for row in (ordered[0], ordered[-1]))
    categories = Counter(filter(None, (categorised(row.stream_id) for row in rows)))
    return TypeSummary(
        name,
        events if exact is None else exact.events,
        first,
        last,
        exact is not None or not sample.draws,
        None if rates is None else rates.get(name, 0.0),
        tuple(category for category, _ in categories.most_common(3)),
    )


def _rates(newest: Sequence[_Row], now: datetime) -> dict[str, float] | None:
    times = [row.created_at for row in newest if row.created_at is not None and not isinstance(row.created_at, FarTime)]
    lasted = (now - min(times)).total_seconds() if times else 0.0
    if lasted <= 0:
        return None
    return {name: count / lasted for name, count in Counter(row.event_type for row in newest).items()}


async def _rows(
    connection: asyncpg.Connection,
    layout: Layout,
    span: NumberSpan,
    condition: str,
    order: str = "",
    *arguments: object,
) -> list[_Row]:
    stream, _, kind = layout.place("e")
    query = (
        f"SELECT e.global_seq, {kind}, {stream}, e.created_at FROM {layout.table} e "
        f"WHERE e.global_seq >= $1::bigint AND e.global_seq < $2::bigint AND {condition} "
        f"{order or 'ORDER BY e.global_seq'}"
    )
    return [_Row._make(row) for row in await fetch(connection, query, span.first, span.end, *arguments, moment=3)]


async def _drawn(connection: asyncpg.Connection, layout: Layout, span: NumberSpan) -> tuple[list[_Row], Sample]:
    """Return the events that were drawn, with the oldest and the newest, in order; and the draws alone."""
    oldest = await _rows(connection, layout, span, "true", f"ORDER BY e.global_seq LIMIT {EDGE}")
    newest = await _rows(connection, layout, span, "true", f"ORDER BY e.global_seq DESC LIMIT {EDGE}")
    low, high = oldest[0].global_seq, newest[0].global_seq
    draws = min(DRAWS, high - low + 1)
    numbers = places(low, high, draws)
    drawn = await _rows(connection, layout, span, "e.global_seq = ANY ($3::bigint[])", "", numbers)
    rows = {row.global_seq: row for row in (*oldest, *drawn, *newest)}
    sample = Sample(high - low + 1, draws, tuple((row.event_type, 1.0) for row in drawn))
    return [rows[number] for number in sorted(rows)], sample


async def _by_index(
    connection: asyncpg.Connection, layout: Layout, span: NumberSpan, sample: Sample
) -> list[_Exact] | None:
    """Return all types by skipping along an index on type and global_seq; None without one, or if there are too many.

    Events of a type are counted up to a bound, and estimated by the `sample` beyond.
    """
    if await type_index(connection, layout, EventList()) is None:
        return None
    within = f"FROM {layout.table} e WHERE e.event_type = types.name AND e.global_seq >= $1::bigint"
    within += " AND e.global_seq < $2::bigint"
    rows = await fetch(
        connection,
        f"""
        WITH RECURSIVE types (name, n) AS (
            (SELECT e.event_type, 1 FROM {layout.table} e ORDER BY e.event_type LIMIT 1)
            UNION ALL
            SELECT (SELECT e.event_type FROM {layout.table} e WHERE e.event_type > types.name
                    ORDER BY e.event_type LIMIT 1), n + 1
            FROM types WHERE name IS NOT NULL AND n <= {_TYPES}
        )
        SELECT types.name::text, first.global_seq, last.global_seq, counted.events
        FROM types
        CROSS JOIN LATERAL (SELECT e.global_seq {within} ORDER BY e.global_seq LIMIT 1) first
        CROSS JOIN LATERAL (SELECT e.global_seq {within} ORDER BY e.global_seq DESC LIMIT 1) last
        CROSS JOIN LATERAL (SELECT count(*) AS events FROM (SELECT {within} LIMIT {_COUNTED_OF_ONE + 1}) e) counted
        WHERE types.name IS NOT NULL
        """,
        span.first,
        span.end,
    )
    if len(rows) > _TYPES:
        return None
    return [_Exact(row[0], _more_than(row[0], row[3], sample), row[1], row[2]) for row in rows]


def _more_than(name: str, counted: int, sample: Sample) -> Estimate:
    if counted <= _COUNTED_OF_ONE:
        return Estimate.counted(counted)
    return sample.streams(counted, lambda each: each == name)


async def _scanned(connection: asyncpg.Connection, layout: Layout, span: NumberSpan) -> list[_Exact]:
    """Return all types by looking at each event."""
    rows = await fetch(
        connection,
        f"SELECT {layout.place('e')[2]}, count(*), min(e.global_seq), max(e.global_seq) FROM {layout.table} e "
        "WHERE e.global_seq >= $1::bigint AND e.global_seq < $2::bigint GROUP BY 1",
        span.first,
        span.end,
    )
    return [_Exact(row[0], Estimate.counted(row[1]), row[2], row[3]) for row in rows]


async def _sampled(
    connection: asyncpg.Connection, layout: Layout, of_type: dict[str, list[_Row]], samples: int
) -> tuple[dict[str, tuple[Event, ...]], int]:
    """Return some events of each type with their data, spread over their numbers, and how many were too large."""
    most = max(min(samples, _SHAPED_OF_ALL // max(len(of_type), 1)), 3)
    numbers: list[int] = []
    for rows in of_type.values():
        own = sorted({row.global_seq for row in rows})
        last = len(own) - 1
        chosen = own if len(own) <= most else [own[round(at * last / (most - 1))] for at in range(most)]
        numbers += chosen
    size = f"coalesce(pg_column_size(e.data{'_raw' if layout.packed else ''}), 0) <= {_LARGE}"
    found = await fetch(
        connection,
        f"SELECT {layout.columns()} FROM {layout.table} e WHERE e.global_seq = ANY ($1::bigint[]) AND {size} "
        "ORDER BY e.global_seq",
        numbers,
        moment=CREATED_AT,
    )
    events: dict[str, list[Event]] = {name: [] for name in of_type}
    for event in events_of(layout)(found):
        events.setdefault(event.event_type, []).append(event)
    return {name: tuple(own) for name, own in events.items()}, len(numbers) - len(found)
