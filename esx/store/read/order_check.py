"""Checks whether a list is in the order that a bisection assumed.

Events of a time are together only if created_at rises with the list's numbers. An import of older events, a clock that
was set back or a long transaction breaks that. So the rest of the list is looked through if PostgreSQL's planner calls
that cheap: in a list of up to some million events, or along an index on created_at. Else some events are drawn at
random: one that is out of order proves that the list is, and if none is, only a small part of the list can be.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import asyncpg

from esx.layouts.layout import Layout
from esx.postgres.values import explain
from esx.store.read.estimates import DRAWS, places
from esx.store.read.event_list import EventList

LOOK = 100_000.0
"""What looking through a list may cost, in the planner's units: a second or so for data in memory."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A doubt about an answer: `broken` if events are known to be out of order; `index` makes an index that helps."""

    broken: bool
    index: str | None

    @property
    def text(self) -> str:
        """The doubt in words, with the remedy."""
        help_ = "" if self.index is None else f"; an index makes it certain: {self.index}"
        if self.broken:
            return f"times do not rise along this list: events of that time may stand elsewhere{help_}"
        return (
            f"found by bisection, as times rise: none of {DRAWS:,} other events drawn by chance says otherwise, but a "
            f"few may{help_}"
        )


class Beyond(NamedTuple):
    """The farthest event on the wrong side of a place, None without one. With a `doubt` there may be farther ones."""

    number: int | None
    doubt: Doubt | None


async def look_beyond(
    connection: asyncpg.Connection,
    layout: Layout,
    events: EventList,
    side: Literal["<", ">="],
    edge: int,
    condition: str,
    *arguments: Any,
    look: float = LOOK,
) -> Beyond:
    """Look for events that meet the condition and are numbered below `edge` (``<``), or from it on (``>=``).

    The condition is on the event ``e``, with {0}, {1} and so on for the arguments. `look` is what it may cost to look
    at all events there, in the planner's units.
    """
    farthest = "min" if side == "<" else "max"
    key = events.key
    side_of = (edge, *events.arguments)
    within = f"e.{key} {side} $1::bigint AND {events.condition(layout, 2)}"
    given = (*side_of, *arguments)
    meets = condition.format(*(f"${len(side_of) + number}" for number in range(1, len(arguments) + 1)))
    # `+ 0` keeps the planner from walking from the list's end to the first match, past all other events.
    query = f"SELECT {farthest}(e.{key} + 0) FROM {events.table(layout)} e WHERE {within} AND {meets}"
    if (await explain(connection, query, *given))["Total Cost"] <= look:
        async with connection.transaction(readonly=True):
            # The plan that was priced: a generic one could look at all events.
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            return Beyond(await connection.fetchval(query, *given), None)
    ends = await connection.fetchrow(
        f"SELECT (SELECT e.{key} FROM {events.table(layout)} e WHERE {within} ORDER BY e.{key} LIMIT 1), "
        f"(SELECT e.{key} FROM {events.table(layout)} e WHERE {within} ORDER BY e.{key} DESC LIMIT 1)",
        *side_of,
    )
    assert ends is not None
    if ends[0] is None:
        return Beyond(None, None)
    number: int | None = await connection.fetchval(
        f"""
        SELECT {farthest}(drawn.{key}) FROM unnest(${len(given) + 1}::bigint[]) place
        CROSS JOIN LATERAL (SELECT e.{key}, {meets} AS hit FROM {events.table(layout)} e
                            WHERE {within} AND e.{key} >= place ORDER BY e.{key} LIMIT 1) drawn
        WHERE drawn.hit
        """,
        *given,
        places(int(ends[0]), int(ends[1]), DRAWS),
    )
    return Beyond(number, Doubt(number is not None, await _index(connection, layout, broken=number is not None)))


async def _index(connection: asyncpg.Connection, layout: Layout, *, broken: bool) -> str | None:
    """Return the statement that makes an index on created_at; None if there is one, or the table is another tool's."""
    if layout.foreign is not None:
        return None
    known: bool = await connection.fetchval(
        """
        SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                       WHERE i.indrelid = $1::text::regclass AND i.indisvalid AND a.attname = 'created_at')
        """,
        layout.table,
    )
    if known:
        return None
    # A block range index is tiny, and of use only where times rise.
    return f"CREATE INDEX CONCURRENTLY ON {layout.called} {'' if broken else 'USING brin '}(created_at)"
