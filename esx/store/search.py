"""Events chosen by type, JSONPath and time, in slices that look at a bounded number of events each.

What a search would cost is known before it runs: `plan_search` asks PostgreSQL for its estimates and for an index that
leads to the matches. Where there is one it is used; where there is none, all events are looked at one after the other,
along the index that orders the list, slice by slice, so that one can see how far it has come and can end it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from esx.store.barrier import Filter
from esx.store.careful import CREATED_AT, fetch, fetchval, readable
from esx.store.estimating import COUNTED, Estimate, count_events
from esx.store.explaining import explain
from esx.store.family import below
from esx.store.glob import glob_literal, glob_to_regex
from esx.store.jsonpath import read_path
from esx.store.locating import place_near
from esx.store.model import Event, EventPreview
from esx.store.ordering import look_above, look_below
from esx.text import round_estimate

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

    from esx.store.careful import Fetch, Rows
    from esx.store.jsonpath import JsonPath
    from esx.store.layout import Layout
    from esx.store.ordering import Doubt
    from esx.store.scope import Scope

Found = TypeVar("Found", Event, EventPreview)

LARGE = 2.0
"""Seconds. A search expected to take longer than this is worth asking before it runs."""

# Events looked at in a second: measured at 1.2 million events in memory, on one core, and halved.
_RATE = 400_000
_PATH_RATE = 200_000
_SLICE = 0.25
_MOST_SCANNED = 100_000
_MOST_TYPES = 20
_TYPES_LOOKED_AT = 1000
_BEFORE_ALL, _AFTER_ALL = -1, 2**63


class Pace:
    """Decides how many events the next slice looks at, from how long the last one took: a context manager."""

    def __init__(self) -> None:
        self.scan = 2_000
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(self, *_error: object) -> None:
        took = perf_counter() - self._began
        if took < _SLICE:
            self.scan = min(self.scan * 2, _MOST_SCANNED)
        elif took > _SLICE * 3:
            self.scan = max(self.scan // 2, 1_000)


class Slice(NamedTuple, Generic[Found]):
    """A part of a search's result, as events or as their previews.

    `events` were found among the `looked_at` events of this slice. `position` is the number to go on from in the same
    direction (of the last event looked at); None: nothing is left. A slice can be empty with more to come.
    """

    events: list[Found]
    looked_at: int
    position: int | None


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How a search will be run, and what it costs.

    `size` is how many events are in the list, between the times given, and `total` is that or, where it may be far
    off, the most that it can be. Some `reads` of them have to be looked at, by PostgreSQL's statistics, which takes
    some `seconds`. `index` is the index that leads to the matches, and `leads_to` to how many, None if that cannot be
    told beforehand. `advice` are statements that make one, each of which would help this search; it is empty where the
    search is cheap. With a `doubt`, events of the times given may lie outside of what is looked at.
    """

    scope: Scope
    where: Filter
    path: JsonPath | None
    since: datetime | None
    until: datetime | None
    first: int
    end: int
    size: Estimate
    total: int
    reads: int
    seconds: float
    index: str | None
    leads_to: Estimate | None
    advice: tuple[str, ...]
    types: tuple[str, ...] | None
    by_path: bool
    doubt: Doubt | None

    @property
    def most(self) -> Estimate | None:
        """How many events have to be looked at, at worst; None if that cannot be told beforehand."""
        return self.leads_to if self.index else self.size

    @property
    def large(self) -> bool:
        """Whether it takes so long that one should be asked first."""
        return self.seconds > LARGE

    @property
    def time(self) -> str:
        """How long it takes, roughly and for people."""
        for limit, text in (
            (1, "less than a second"),
            (10, "a few seconds"),
            (50, "less than a minute"),
            (100, "about a minute"),
            (3000, f"some {round(self.seconds / 60)} minutes"),
        ):
            if self.seconds < limit:
                return text
        return "an hour or more"

    @property
    def cost(self) -> str:
        """What it costs, in words that follow "this"."""
        events = f"{self.size.text if self.size.known else f'up to {round_estimate(self.total):,}'} events"
        if self.index:
            some = "those" if self.leads_to is None else f"the {self.leads_to.text}"
            events = f"{some} of {events} that index {self.index} leads to"
        elif self.reads < self.total:
            events = f"up to {events.removeprefix('up to ')}, until enough are found"
        cold = ", longer if they are not in memory" if self.large else ""
        return f"looks at {events}: {self.time}{cold}"


async def plan_search(
    connection: asyncpg.Connection,
    layout: Layout,
    scope: Scope,
    where: Filter,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    wanted: int | None = None,
) -> SearchPlan:
    """Return how to search the list for events that pass `where`, created from `since` on and before `until`.

    `wanted` is how many are wanted, None all: where many events pass, a few are found early. Raises InvalidQuery for
    a pattern or a path that is none.
    """
    literal = None if where.event_type is None else glob_literal(where.event_type)
    regex = None if where.event_type is None else glob_to_regex(where.event_type)
    path = None if where.where is None else await read_path(connection, where.where)
    span = await _span(connection, layout, scope, since, until)
    first, end = span.first, span.end
    names = Filter(stream=where.stream, event_type=where.event_type)
    size = await count_events(connection, layout, scope, first, end)
    total = size.count if size.known else size.high or size.count
    share = await _share(connection, layout, names)
    candidates = max(round(total * share), 1) if total else 0

    plan = SearchPlan(
        scope=scope, where=where, path=path, since=since, until=until, first=first, end=end, size=size, total=total,
        reads=0, seconds=0.0, index=None, leads_to=None, advice=(), types=None, by_path=False, doubt=span.doubt,
    )  # fmt: skip
    if not where:
        # What is between the times is given; what is out of order lies behind much that is not.
        return _priced(plan, total, _RATE) if span.wide else plan
    rate = _RATE if path is None else _PATH_RATE
    enough = total if wanted is None else wanted

    index = await _index_for_path(connection, layout, scope, plan, enough)
    if index is not None:
        name, matches = index
        return _priced(plan, min(matches, total), rate, index=name, by_path=True)
    index_name = None if regex is None else await _type_index(connection, layout, scope)
    if index_name is not None:
        types = (literal,) if literal is not None else await _types(connection, layout, scope, regex or "")
        if types is not None and len(types) * candidates <= max(total, 1):
            leads_to = await _count_types(connection, layout, plan, types)
            reads = max(candidates, leads_to.low) if leads_to.high is None else leads_to.count
            if path is None and where.stream is None:
                reads = min(reads, enough)
            return replace(_priced(plan, reads, rate, index=index_name, types=types), leads_to=leads_to)
    reads = total if path is not None else min(total, round(enough / max(share, 1e-9)))
    plan = _priced(plan, reads, rate)
    if not plan.large:
        return plan
    return _advised(plan, layout, index_name, candidates)


async def common_types(connection: asyncpg.Connection, layout: Layout) -> list[str]:
    """Return the most common event types, most common first, as the last ANALYZE found them; none before it."""
    types: list[str] | None = await fetchval(
        connection,
        f"""
        SELECT s.most_common_vals::text::text[]
        FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = s.schemaname
        WHERE c.oid = {layout.base_oid} AND s.attname = 'event_type' ORDER BY s.inherited DESC LIMIT 1
        """,
    )
    return types or []


async def read_slice(
    connection: asyncpg.Connection,
    layout: Layout,
    plan: SearchPlan,
    shape: type[Found],
    *,
    after: int | None = None,
    before: int | None = None,
    limit: int,
    scan: int,
    backwards: bool = False,
) -> Slice[Found]:
    """Return up to `limit` matches among the next `scan` events between the numbers `after` and `before`."""
    sql, arguments = slice_sql(layout, plan, backwards=backwards, previews=shape is EventPreview)
    low = max(plan.first - 1, _BEFORE_ALL if after is None else after)
    high = min(plan.end, _AFTER_ALL if before is None else before)

    async def run(fetch: Fetch) -> Rows:
        # With a plan of its own for these very values: one for any value could not use a partial index.
        async with connection.transaction(readonly=True):
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            return await fetch(sql, low, high - 1, scan, limit, *arguments)

    moment = 2 + EventPreview._fields.index("created_at") if shape is EventPreview else CREATED_AT
    rows = await readable(connection, run, moment=moment)
    looked_at, last = rows[0][0], rows[0][1]
    events = [shape._make(row[2:]) for row in rows if row[2] is not None]
    at_end = looked_at < scan and len(events) < limit
    return Slice(events, looked_at, None if at_end else last)


def slice_sql(layout: Layout, plan: SearchPlan, *, backwards: bool, previews: bool = False) -> tuple[str, list[Any]]:
    """Return the query for a slice, and its arguments after $1 after, $2 up to, $3 scan and $4 limit."""
    key, table = plan.scope.key, layout.table
    order, reached = ("DESC", ">=") if backwards else ("ASC", "<=")
    last = "min" if backwards else "max"
    given = _Given(4)
    hit = _hit(plan, given)
    within = [f"e.{key} > $1", f"e.{key} <= $2"]
    if plan.scope.stream_id is not None:
        within.append(plan.scope.condition(given.add(plan.scope.stream_id)))
    looked = f"SELECT e.{key} AS number, e.global_seq, {hit} AS hit FROM {table} e"
    if plan.types is not None:
        # Type by type, each along the index, and merged: an index cannot give several types in one order.
        within.append("e.event_type = type.name")
        looked = f"""
            SELECT of_type.* FROM unnest(${given.add(list(plan.types))}::text[]) type (name)
            CROSS JOIN LATERAL ({looked} WHERE {" AND ".join(within)} ORDER BY e.{key} {order} LIMIT $3) of_type
            ORDER BY 1 {order} LIMIT $3
        """
    else:
        if plan.by_path and plan.path is not None:
            within.append(plan.path.indexable(given.add(plan.path.text)) or "true")
        looked += f" WHERE {' AND '.join(within)} ORDER BY e.{key} {order} LIMIT $3"
    sql = f"""
        WITH looked AS MATERIALIZED ({looked}),
        hits AS MATERIALIZED (SELECT number, global_seq FROM looked WHERE hit ORDER BY number {order} LIMIT $4),
        done AS (SELECT count(*) AS looked_at, {last}(number) AS last FROM looked
                 WHERE number {reached} (SELECT {last}(number) FROM hits HAVING count(*) = $4)
                    OR (SELECT count(*) FROM hits) < $4)
        SELECT done.looked_at, done.last, {layout.preview() if previews else layout.columns()}
        FROM done LEFT JOIN (hits JOIN {table} e ON e.global_seq = hits.global_seq) ON true
        ORDER BY hits.number {order}
    """
    return sql, given.values


class _Given:
    """The arguments of a query as they come, and their numbers."""

    def __init__(self, before: int) -> None:
        self._before = before
        self.values: list[Any] = []

    def add(self, value: Any) -> int:
        self.values.append(value)
        return self._before + len(self.values)


def _hit(plan: SearchPlan, given: _Given) -> str:
    names = Filter(stream=plan.where.stream, event_type=None if plan.types is not None else plan.where.event_type)
    conditions, arguments = names.sql(5)
    for argument in arguments:
        given.add(argument)
    if plan.path is not None:
        conditions.append(plan.path.condition(given.add(plan.path.text)))
    if plan.since is not None:
        conditions.append(f"e.created_at >= ${given.add(plan.since)}::timestamptz")
    if plan.until is not None:
        conditions.append(f"e.created_at < ${given.add(plan.until)}::timestamptz")
    return " AND ".join(conditions) or "true"


# -- estimates and indexes --------------------------------------------------------------------------------------


class _Span(NamedTuple):
    """The numbers of the list between which events of the times asked for are.

    `wide` says that events out of order made it wider than where the times are.
    """

    first: int
    end: int
    wide: bool
    doubt: Doubt | None


async def _span(
    connection: asyncpg.Connection, layout: Layout, scope: Scope, since: datetime | None, until: datetime | None
) -> _Span:
    first, end = _BEFORE_ALL + 1, _AFTER_ALL
    conditions, times = [], []
    if since is not None:
        place = await place_near(connection, layout, scope, since)
        first = place.end if place.first is None else min(place.first, place.end)
        times.append(since)
        conditions.append("e.created_at >= {0}::timestamptz")
    if until is not None:
        end = max((await place_near(connection, layout, scope, until)).end, first)
        times.append(until)
        conditions.append(f"e.created_at < {{{len(times) - 1}}}::timestamptz")
    condition = " AND ".join(conditions)
    low, high = first, end
    doubts = []
    if since is not None:
        below = await look_below(connection, layout, scope, first, condition, *times)
        low = first if below.number is None else below.number
        doubts.append(below.doubt)
    if until is not None:
        above = await look_above(connection, layout, scope, end, condition, *times)
        high = end if above.number is None else above.number + 1
        doubts.append(above.doubt)
    found = [doubt for doubt in doubts if doubt is not None]
    if any(doubt.broken for doubt in found):
        # Some are known to be out of order, and more may be: all are looked at.
        return _Span(_BEFORE_ALL + 1, _AFTER_ALL, True, None)
    return _Span(low, high, (low, high) != (first, end), next(iter(found), None))


async def _count_types(
    connection: asyncpg.Connection, layout: Layout, plan: SearchPlan, types: tuple[str, ...]
) -> Estimate:
    """Return how many events have one of the types, by their index, up to a bound."""
    key, scope = plan.scope.key, plan.scope
    counted: int = await connection.fetchval(
        f"""
        SELECT count(*) FROM (
            SELECT FROM unnest($1::text[]) type (name) CROSS JOIN LATERAL (
                SELECT FROM {layout.table} e WHERE {scope.condition(4)} AND e.event_type = type.name
                AND e.{key} >= $2 AND e.{key} <= $3 ORDER BY e.{key} LIMIT {COUNTED + 1}) of_type
            LIMIT {COUNTED + 1}) counted
        """,
        list(types),
        plan.first,
        plan.end - 1,
        *scope.arguments,
    )
    return Estimate.counted(counted) if counted <= COUNTED else Estimate.at_least(counted)


async def _share(connection: asyncpg.Connection, layout: Layout, names: Filter) -> float:
    """Return about which share of all events has a matching stream and type."""
    if not names:
        return 1.0
    conditions, arguments = names.sql(1)
    everything = await explain(connection, f"SELECT FROM {layout.table} e")
    some = await explain(connection, f"SELECT FROM {layout.table} e WHERE {' AND '.join(conditions)}", *arguments)
    return min(float(some["Plan Rows"]) / max(float(everything["Plan Rows"]), 1.0), 1.0)


async def _index_for_path(
    connection: asyncpg.Connection, layout: Layout, scope: Scope, plan: SearchPlan, wanted: int
) -> tuple[str, int] | None:
    """Return the index that PostgreSQL would use for the path, and about how many events it leads to."""
    if plan.path is None or plan.path.indexable(1) is None:
        return None
    given = _Given(0)
    conditions = [
        plan.path.indexable(given.add(plan.path.text)) or "true",
        f"e.{scope.key} >= ${given.add(plan.first)}::bigint",
        f"e.{scope.key} <= ${given.add(plan.end - 1)}::bigint",
    ]
    if scope.stream_id is not None:
        conditions.append(scope.condition(given.add(scope.stream_id)))
    query = f"SELECT FROM {layout.table} e WHERE {' AND '.join(conditions)}"
    page = await explain(connection, f"{query} ORDER BY e.{scope.key} LIMIT {min(wanted, 1000)}", *given.values)
    name: str | None = await connection.fetchval(
        f"""
        WITH RECURSIVE {below(f"SELECT {layout.base_oid}::oid")}
        SELECT c.relname::text
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
        WHERE i.indrelid IN (SELECT oid FROM below) AND c.relname::text = ANY ($1::text[])
          AND (i.indpred IS NOT NULL OR a.amname = 'gin')
        LIMIT 1
        """,
        _indexes(page),
    )
    if name is None:
        return None
    matches = await explain(connection, query, *given.values)
    return name, int(matches["Plan Rows"])


async def _type_index(connection: asyncpg.Connection, layout: Layout, scope: Scope) -> str | None:
    """Return the index that has the events of a type in the order of the list, if there is one."""
    name: str | None = await connection.fetchval(
        f"""
        SELECT c.relname::text
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
        CROSS JOIN LATERAL (
            SELECT array_agg(column_.attname::text ORDER BY part.place) AS names
            FROM unnest(i.indkey::int2[]) WITH ORDINALITY part (number, place)
            LEFT JOIN pg_attribute column_ ON column_.attrelid = i.indrelid AND column_.attnum = part.number
        ) parts
        WHERE i.indrelid = {layout.base_oid} AND i.indisvalid AND i.indpred IS NULL AND a.amname = 'btree'
          AND parts.names[1:cardinality($1::text[])] = $1::text[]
        ORDER BY cardinality(parts.names) LIMIT 1
        """,
        [*scope.fixed, "event_type", scope.key],
    )
    return name


async def _types(connection: asyncpg.Connection, layout: Layout, scope: Scope, regex: str) -> tuple[str, ...] | None:
    """Return the types that match, by skipping along the index; None if there are too many to go through."""
    within = f"FROM {layout.table} e WHERE {scope.condition(2)}"
    rows = await fetch(
        connection,
        f"""
        WITH RECURSIVE types (name, n) AS (
            (SELECT e.event_type, 1 {within} ORDER BY e.event_type LIMIT 1)
            UNION ALL
            SELECT (SELECT e.event_type {within} AND e.event_type > types.name ORDER BY e.event_type LIMIT 1), n + 1
            FROM types WHERE name IS NOT NULL AND n < {_TYPES_LOOKED_AT}
        )
        SELECT name, name ~ $1::text FROM types WHERE name IS NOT NULL
        """,
        regex,
        *scope.arguments,
    )
    found = tuple(name for name, matches in rows if matches)
    return None if len(rows) >= _TYPES_LOOKED_AT or len(found) > _MOST_TYPES else found


def _priced(
    plan: SearchPlan,
    reads: int,
    rate: float,
    *,
    index: str | None = None,
    types: tuple[str, ...] | None = None,
    by_path: bool = False,
) -> SearchPlan:
    return replace(plan, reads=reads, seconds=reads / rate, index=index, types=types, by_path=by_path)


def _advised(plan: SearchPlan, layout: Layout, type_index: str | None, candidates: int) -> SearchPlan:
    """Name the indexes that would help: one on the type if that chooses few events, one on the path if any can."""
    advice = []
    keys = [*plan.scope.fixed, plan.scope.key]
    if plan.where.event_type is not None and type_index is None and candidates * 10 <= plan.total:
        columns = ", ".join([*plan.scope.fixed, "event_type", plan.scope.key])
        advice.append(f"CREATE INDEX {layout.index_on} ({columns})")
    if plan.path is not None:
        statement = plan.path.index(layout.index_on, ", ".join(keys))
        if statement is not None:
            advice.append(statement)
    return replace(plan, advice=tuple(advice))


def _indexes(plan: dict[str, Any]) -> list[str]:
    names = [plan["Index Name"]] if "Index Name" in plan else []
    for part in plan.get("Plans", ()):
        names += _indexes(part)
    return names
