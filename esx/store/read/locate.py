"""Finds the place of a time, or of a global_seq, in a list of events, by bisection along the list's own index.

It needs no index on created_at, because created_at nearly grows along the list. Only nearly: it is the time at which a
transaction began, so an event of a long transaction comes after younger events. So the bisection, some 25 probes at ten
million events, finds a place where the time is reached, and then all events near it are looked at. If times are far out
of order, as after an import of older events, there may be several such places. So the rest of the list is looked
through if that is cheap (see `esx.store.read.order_check`); else the answer has a doubt.
"""

from datetime import datetime
from functools import partial
from typing import NamedTuple

import asyncpg

from esx.errors import InvalidQuery
from esx.layouts.layout import Layout
from esx.store.read.event_list import EventList
from esx.store.read.order_check import LOOK, Doubt, look_beyond

NEAR = 1000
"""How many events on either side of the place found are looked at."""
_LAST = 2**63 - 1
# An event without a time, or with an infinite one, does not say where a time is reached.
REACHED = "e.created_at >= {0}::timestamptz AND e.created_at < 'infinity'"
_NOT_YET = "e.created_at < {0}::timestamptz"


class Place(NamedTuple):
    """Where a list reaches a point in time or a number, by the list's own numbers.

    `first` is the first event at or after it, None if there is none. From the number `end` on, all events are at or
    after it; between the two, some are before it. With a `doubt` there may be an earlier `first`, with an `end_doubt` a
    later `end`.
    """

    first: int | None
    end: int
    doubt: Doubt | None = None
    end_doubt: Doubt | None = None


async def place_of_moment(
    connection: asyncpg.Connection, layout: Layout, events: EventList, moment: datetime, *, look: float = LOOK
) -> Place:
    """Return where the list reaches `moment`; events of exactly that time count as at or after it.

    `look` is what the search for events out of order may cost, in the planner's units. Raises InvalidQuery.
    """
    near = await place_near(connection, layout, events, moment)
    beyond = partial(look_beyond, connection, layout, events, look=look)
    below = await beyond("<", _LAST if near.first is None else near.first, REACHED, moment)
    above = await beyond(">=", near.end, _NOT_YET, moment)
    first = near.first if below.number is None else below.number
    return Place(first, near.end if above.number is None else above.number + 1, below.doubt, above.doubt)


async def place_near(connection: asyncpg.Connection, layout: Layout, events: EventList, moment: datetime) -> Place:
    """Return the place that bisection finds, as far as the events close to it tell.

    Raises InvalidQuery where created_at holds no times.
    """
    events.table(layout)  # which says that there is no order, before what else is missing
    await check_timed(connection, layout, events)
    start = await _bisect(connection, layout, events, REACHED.format("$1"), moment)
    if start is None:
        return Place(None, 0)
    key = events.key
    within = f"FROM {events.table(layout)} e WHERE {events.condition(layout, 3)}"
    row = await connection.fetchrow(
        f"""
        SELECT (SELECT min({key}) FROM (
                    (SELECT e.{key}, e.created_at {within} AND e.{key} < $2::bigint ORDER BY e.{key} DESC LIMIT {NEAR})
                    UNION ALL
                    (SELECT e.{key}, e.created_at {within} AND e.{key} >= $2::bigint ORDER BY e.{key} LIMIT {NEAR})
                ) e WHERE {REACHED.format("$1")}),
               (SELECT max({key}) FROM (
                    SELECT e.{key}, e.created_at {within} AND e.{key} >= $2::bigint ORDER BY e.{key} LIMIT {NEAR}
                ) e WHERE {_NOT_YET.format("$1")})
        """,
        moment,
        start,
        *events.arguments,
    )
    assert row is not None
    return Place(row[0], start if row[1] is None else row[1] + 1)


async def check_timed(connection: asyncpg.Connection, layout: Layout, events: EventList) -> None:
    """Raise InvalidQuery where there are no times to find an event by."""
    if layout.foreign is None:
        if not layout.timed:
            raise InvalidQuery(
                f"column created_at of {layout.table} holds no times to find an event by: `esx doctor` names the remedy"
            )
        return
    store = f"this store of {layout.foreign.kind.title}"
    if not layout.timed:
        raise InvalidQuery(f"{store} keeps no times to find an event by")
    if layout.stored("created_at"):
        return
    # A time within a text or a payload can be missing, or encrypted.
    last = await connection.fetchrow(
        f"SELECT e.created_at FROM {events.table(layout)} e WHERE {events.condition(layout, 1)} "
        f"ORDER BY e.{events.key} DESC LIMIT 1",
        *events.arguments,
    )
    if last is not None and last[0] is None:
        raise InvalidQuery(f"{store} keeps no times that esx can read: choose events by their numbers")


async def place_of_number(connection: asyncpg.Connection, layout: Layout, events: EventList, number: int) -> int | None:
    """Return the list's number of the first event from `number` on, None after the last event."""
    found: int | None = await connection.fetchval(
        f"SELECT e.{events.key} FROM {events.table(layout)} e WHERE {events.condition(layout, 2)} "
        f"AND e.{events.key} >= $1::bigint ORDER BY e.{events.key} LIMIT 1",
        number,
        *events.arguments,
    )
    return found


async def place_of_global_seq(
    connection: asyncpg.Connection, layout: Layout, events: EventList, global_seq: int, *, look: float = LOOK
) -> Place:
    """Return where the list has its first event with that global_seq or above; `look` as in `place_of_moment`."""
    if events.stream_id is None:
        first = await place_of_number(connection, layout, events, global_seq)
        return Place(first, global_seq)
    layout.check_numbered()
    # Appends to a stream wait for each other, so its global_seq rise, unless numbers were drawn by hand.
    start = await _bisect(connection, layout, events, "e.global_seq >= $1::bigint", global_seq)
    first = None if start is None else await place_of_number(connection, layout, events, start)
    edge = _LAST if first is None else first
    beyond = partial(look_beyond, connection, layout, events, look=look)
    below = await beyond("<", edge, "e.global_seq >= {0}::bigint", global_seq)
    above = await beyond(">=", start or 0, "e.global_seq < {0}::bigint", global_seq)
    end = (start or 0) if above.number is None else above.number + 1
    return Place(first if below.number is None else below.number, end, below.doubt, above.doubt)


async def _bisect(
    connection: asyncpg.Connection, layout: Layout, events: EventList, reached: str, value: object
) -> int | None:
    """Return the lowest number from which on events have `reached` the value $1; None for an empty list."""
    found: int | None = await connection.fetchval(bisect_sql(layout, events, reached), value, *events.arguments)
    return found


def bisect_sql(layout: Layout, events: EventList, reached: str = REACHED.format("$1")) -> str:
    """Return the query for the lowest number from which on events have `reached` the value $1, such as a time.

    One statement: each step probes the next event from the middle on, so that holes cost nothing.
    """
    key, table = events.key, events.table(layout)
    within = f"FROM {table} e WHERE {events.condition(layout, 2)}"
    return f"""
        WITH RECURSIVE search (low, high) AS (
            SELECT (SELECT e.{key} {within} ORDER BY e.{key} LIMIT 1),
                   (SELECT e.{key} + 1 {within} ORDER BY e.{key} DESC LIMIT 1)
            UNION ALL
            SELECT CASE WHEN probe.reached THEN span.low ELSE coalesce(probe.{key} + 1, span.low) END,
                   CASE WHEN coalesce(probe.reached, true) THEN span.middle ELSE span.high END
            FROM (SELECT low, high, low + (high - low) / 2 AS middle FROM search WHERE low < high) span
            LEFT JOIN LATERAL (
                SELECT e.{key}, coalesce({reached}, false) AS reached {within} AND e.{key} >= span.middle
                ORDER BY e.{key} LIMIT 1
            ) probe ON true
        )
        SELECT low FROM search WHERE low >= high LIMIT 1
    """
