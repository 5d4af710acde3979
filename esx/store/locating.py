"""Finding the place of a time, or of a global_seq, in a list of events: by bisection, along the list's own index.

No index on created_at is needed, because it nearly grows with the list's order. Only nearly: it is the time at which
a transaction began, so an event of a long one stands behind events that are younger. So the bisection, some 25 probes
at ten million events, finds a place where the time is reached, and then the events close to it are looked at one by
one. Where times are far out of order, as after an import of older events, the place may be one of several: so the rest
of the list is looked through as far as that is cheap, see `esx.store.ordering`, and what is not certain is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from esx.store.errors import InvalidQuery
from esx.store.ordering import look_above, look_below

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

    from esx.store.layout import Layout
    from esx.store.ordering import Doubt
    from esx.store.scope import Scope

NEAR = 1000
"""How many events on either side of the place found are looked at one by one."""
_LAST = 2**63 - 1
# An event without a time, or with an infinite one, says nothing of where a time is reached.
_REACHED = "e.created_at >= {0}::timestamptz AND e.created_at < 'infinity'"
_NOT_YET = "e.created_at < {0}::timestamptz"


class Place(NamedTuple):
    """Where a list reaches a point in time or a number, by its own numbers.

    `first` is the first event at or after it, None if there is none. `end` is the number from which on all events are
    at or after it: between the two, some are before it. A doubt says that there may be an earlier `first`, an
    `end_doubt` that there may be a later `end`.
    """

    first: int | None
    end: int
    doubt: Doubt | None = None
    end_doubt: Doubt | None = None


async def place_of_moment(connection: asyncpg.Connection, layout: Layout, scope: Scope, moment: datetime) -> Place:
    """Return where the list reaches `moment`; events of the same time are all at or after it."""
    near = await place_near(connection, layout, scope, moment)
    below = await look_below(connection, layout, scope, _LAST if near.first is None else near.first, _REACHED, moment)
    above = await look_above(connection, layout, scope, near.end, _NOT_YET, moment)
    first = near.first if below.number is None else below.number
    return Place(first, near.end if above.number is None else above.number + 1, below.doubt, above.doubt)


async def place_near(connection: asyncpg.Connection, layout: Layout, scope: Scope, moment: datetime) -> Place:
    """Return the place that bisection finds, as far as the events close to it tell.

    Raises InvalidQuery where created_at holds no times.
    """
    if not layout.timed:
        raise InvalidQuery(
            f"column created_at of {layout.table} holds no times to find an event by: `esx doctor` names the remedy"
        )
    start = await _bisect(connection, layout, scope, _REACHED.format("$1"), moment)
    if start is None:
        return Place(None, 0)
    key = scope.key
    within = f"FROM {layout.table} e WHERE {scope.condition(3)}"
    row = await connection.fetchrow(
        f"""
        SELECT (SELECT min({key}) FROM (
                    (SELECT e.{key}, e.created_at {within} AND e.{key} < $2 ORDER BY e.{key} DESC LIMIT {NEAR})
                    UNION ALL
                    (SELECT e.{key}, e.created_at {within} AND e.{key} >= $2 ORDER BY e.{key} LIMIT {NEAR})
                ) e WHERE {_REACHED.format("$1")}),
               (SELECT max({key}) FROM (
                    SELECT e.{key}, e.created_at {within} AND e.{key} >= $2 ORDER BY e.{key} LIMIT {NEAR}
                ) e WHERE {_NOT_YET.format("$1")})
        """,
        moment,
        start,
        *scope.arguments,
    )
    assert row is not None
    return Place(row[0], start if row[1] is None else row[1] + 1)


async def place_of_number(connection: asyncpg.Connection, layout: Layout, scope: Scope, number: int) -> int | None:
    """Return the list's own number of the first event from `number` on, None behind the last."""
    found: int | None = await connection.fetchval(
        f"SELECT e.{scope.key} FROM {layout.table} e WHERE {scope.condition(2)} AND e.{scope.key} >= $1 "
        f"ORDER BY e.{scope.key} LIMIT 1",
        number,
        *scope.arguments,
    )
    return found


async def place_of_global_seq(connection: asyncpg.Connection, layout: Layout, scope: Scope, global_seq: int) -> Place:
    """Return where the list has its first event with that global_seq or a higher one."""
    if scope.stream_id is None:
        first = await place_of_number(connection, layout, scope, global_seq)
        return Place(first, global_seq)
    # Appends to a stream wait for each other, so its global_seq rise: unless somebody drew them by hand.
    start = await _bisect(connection, layout, scope, "e.global_seq >= $1::bigint", global_seq)
    first = None if start is None else await place_of_number(connection, layout, scope, start)
    edge = _LAST if first is None else first
    below = await look_below(connection, layout, scope, edge, "e.global_seq >= {0}::bigint", global_seq)
    above = await look_above(connection, layout, scope, start or 0, "e.global_seq < {0}::bigint", global_seq)
    end = (start or 0) if above.number is None else above.number + 1
    return Place(first if below.number is None else below.number, end, below.doubt, above.doubt)


async def _bisect(
    connection: asyncpg.Connection, layout: Layout, scope: Scope, reached: str, value: object
) -> int | None:
    """Return the lowest number from which on events have `reached` the value $1, None if the list is empty.

    One statement: each step probes the next event from the middle on, so that holes cost nothing.
    """
    key, table = scope.key, layout.table
    within = f"FROM {table} e WHERE {scope.condition(2)}"
    found: int | None = await connection.fetchval(
        f"""
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
        """,
        value,
        *scope.arguments,
    )
    return found
