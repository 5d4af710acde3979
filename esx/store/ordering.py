"""Whether a list is in order where bisection took it to be: what is out of order may lie anywhere.

Events of a time stand together only as far as created_at rises with the list's numbers. An import of older events, a
clock that was set back or a long transaction breaks that. So what lies outside the place that was found is looked
through where PostgreSQL's planner calls it cheap: in a list of up to some million events, or along an index on
created_at. Elsewhere some events are drawn by chance: one that is out of order proves it, and if none is, no more than
a small part of the list can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from esx.store.estimating import DRAWS, places
from esx.store.explaining import explain

if TYPE_CHECKING:
    import asyncpg

    from esx.store.layout import Layout
    from esx.store.scope import Scope

CHEAP = 100_000.0
"""What a look through may cost, in the planner's units: a second or so for what is in memory."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What remains open about an answer: whether events are known to be out of order, and the index that would help."""

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
    """What lies beyond a place: the farthest event that should not be there, None if there is none.

    With a `doubt` there may be others, still farther away.
    """

    number: int | None
    doubt: Doubt | None


async def look_below(
    connection: asyncpg.Connection, layout: Layout, scope: Scope, edge: int, condition: str, *arguments: Any
) -> Beyond:
    """Look for events that meet the condition and are numbered below `edge`.

    The condition is on the event ``e``, with {0}, {1} and so on for the arguments.
    """
    return await _look(connection, layout, scope, ("<", "min"), edge, condition, arguments)


async def look_above(
    connection: asyncpg.Connection, layout: Layout, scope: Scope, edge: int, condition: str, *arguments: Any
) -> Beyond:
    """Look for events that meet the condition and are numbered from `edge` on."""
    return await _look(connection, layout, scope, (">=", "max"), edge, condition, arguments)


async def _look(
    connection: asyncpg.Connection,
    layout: Layout,
    scope: Scope,
    side: tuple[str, str],
    edge: int,
    condition: str,
    arguments: tuple[Any, ...],
) -> Beyond:
    step, farthest = side
    key = scope.key
    side_of = (edge, *scope.arguments)
    within = f"e.{key} {step} $1::bigint AND {scope.condition(2)}"
    given = (*side_of, *arguments)
    meets = condition.format(*(f"${len(side_of) + number}" for number in range(1, len(arguments) + 1)))
    # Added to, so that the planner does not look for the first one from the list's end, past all the others.
    query = f"SELECT {farthest}(e.{key} + 0) FROM {layout.table} e WHERE {within} AND {meets}"
    if (await explain(connection, query, *given))["Total Cost"] <= CHEAP:
        async with connection.transaction(readonly=True):
            # As it was priced: a plan for any value could look at all.
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            return Beyond(await connection.fetchval(query, *given), None)
    ends = await connection.fetchrow(
        f"SELECT (SELECT e.{key} FROM {layout.table} e WHERE {within} ORDER BY e.{key} LIMIT 1), "
        f"(SELECT e.{key} FROM {layout.table} e WHERE {within} ORDER BY e.{key} DESC LIMIT 1)",
        *side_of,
    )
    assert ends is not None
    if ends[0] is None:
        return Beyond(None, None)
    number: int | None = await connection.fetchval(
        f"""
        SELECT {farthest}(drawn.{key}) FROM unnest(${len(given) + 1}::bigint[]) place
        CROSS JOIN LATERAL (SELECT e.{key}, {meets} AS hit FROM {layout.table} e
                            WHERE {within} AND e.{key} >= place ORDER BY e.{key} LIMIT 1) drawn
        WHERE drawn.hit
        """,
        *given,
        places(int(ends[0]), int(ends[1]), DRAWS),
    )
    return Beyond(number, Doubt(number is not None, await _index(connection, layout, broken=number is not None)))


async def _index(connection: asyncpg.Connection, layout: Layout, *, broken: bool) -> str | None:
    """Return the statement that makes an index on created_at; None if there is one already."""
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
