"""Runs a search slice by slice; each slice looks at a bounded number of events."""

from dataclasses import replace
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeVar

import asyncpg

from esx.layouts.layout import Layout
from esx.model import Event, EventPreview
from esx.postgres.values import CREATED_AT, Fetch, Rows, readable
from esx.store.filter_sql import filter_sql
from esx.store.rows import events_of
from esx.store.search.plan import SearchPlan
from esx.store.search.span import AFTER_ALL, BEFORE_ALL

Found = TypeVar("Found", Event, EventPreview)

_SLICE = 0.25
"""How many seconds a slice should take."""


class Pace:
    """A context manager around each slice: sets `scan`, how many events the next slice looks at, up to `most`."""

    def __init__(self, most: int) -> None:
        self.scan = min(2_000, most)
        self._most = most
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(self, *_error: object) -> None:
        took = perf_counter() - self._began
        if took < _SLICE:
            self.scan = min(self.scan * 2, self._most)
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
    low = max(plan.first - 1, BEFORE_ALL if after is None else after)
    high = min(plan.end, AFTER_ALL if before is None else before)

    async def run(fetch: Fetch) -> Rows:
        # A plan for these values: a generic one could not use a partial index.
        async with connection.transaction(readonly=True):
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            return await fetch(sql, low, high - 1, scan, limit, *arguments)

    moment = 2 + EventPreview._fields.index("created_at") if shape is EventPreview else CREATED_AT
    rows = await readable(connection, run, moment=moment)
    looked_at, last = rows[0][0], rows[0][1]
    events = list(events_of(layout, shape)([row[2:] for row in rows if row[2] is not None]))
    at_end = looked_at < scan and len(events) < limit
    return Slice(events, looked_at, None if at_end else last)


class _Arguments:
    """The arguments of a query that is put together from pieces; the first comes after `before` others."""

    def __init__(self, before: int) -> None:
        self._before = before
        self.values: list[Any] = []

    def add(self, value: Any) -> int:
        """Add a value, and return the number of its parameter."""
        self.values.append(value)
        return self._before + len(self.values)


def slice_sql(layout: Layout, plan: SearchPlan, *, backwards: bool, previews: bool = False) -> tuple[str, list[Any]]:
    """Return the query for a slice, and its arguments after $1 after, $2 up to, $3 scan and $4 limit."""
    key, table = plan.within.key, plan.within.table(layout)
    order, reached = ("DESC", ">=") if backwards else ("ASC", "<=")
    last = "min" if backwards else "max"
    given = _Arguments(4)
    hit = _hit(plan, given)
    within, same = [f"e.{key} > $1::bigint", f"e.{key} <= $2::bigint"], "e.global_seq = hits.global_seq"
    if plan.within.stream_id is not None:
        stream = plan.within.condition(layout, given.add(plan.within.stream_id))
        within.append(stream)
        if layout.foreign is not None:  # whose index on global_seq may be of another table
            same = f"e.{key} = hits.number AND {stream}"
    looked = f"SELECT e.{key} AS number, e.global_seq, {hit} AS hit FROM {table} e"
    if plan.types is not None:
        # Type by type along the index, then merged: an index does not have several types in one order.
        within.append("e.event_type = type.name")
        looked = f"""
            SELECT of_type.* FROM unnest(${given.add(list(plan.types))}::text[]) type (name)
            CROSS JOIN LATERAL ({looked} WHERE {" AND ".join(within)} ORDER BY e.{key} {order} LIMIT $3) of_type
            ORDER BY 1 {order} LIMIT $3
        """
    else:
        if plan.by_member is not None:
            within.append(plan.by_member.condition(given.add(plan.by_member.value)))
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
        FROM done LEFT JOIN (hits JOIN {table} e ON {same}) ON true
        ORDER BY hits.number {order}
    """
    return sql, given.values


def _hit(plan: SearchPlan, given: _Arguments) -> str:
    names = replace(
        plan.where, event_type=None if plan.types is not None else plan.where.event_type, where=None, also=()
    )
    conditions, arguments = filter_sql(names, 5)
    for argument in arguments:
        given.add(argument)
    for path in plan.also:
        conditions.append(path.condition(given.add(path.text)))
    if plan.path is not None:
        conditions.append(plan.path.condition(given.add(plan.path.text)))
    if plan.since is not None:
        conditions.append(f"e.created_at >= ${given.add(plan.since)}::timestamptz")
    if plan.until is not None:
        conditions.append(f"e.created_at < ${given.add(plan.until)}::timestamptz")
    return " AND ".join(conditions) or "true"
