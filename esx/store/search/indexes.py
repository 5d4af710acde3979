"""Finds the indexes that a search can use."""

from typing import Any, NamedTuple

import asyncpg

from esx.filters import MetadataMatch
from esx.layouts.layout import Layout
from esx.layouts.table_tree import below
from esx.postgres.literals import literal
from esx.postgres.values import explain, fetch, fetchval
from esx.store.filter_sql import member_pattern
from esx.store.read.estimates import COUNTED, Estimate
from esx.store.read.event_list import EventList
from esx.store.search.jsonpath import JsonPath
from esx.store.trail.ids import find_ids
from esx.store.trail.trail import FieldNames

_MOST_TYPES = 20
_TYPES_LOOKED_AT = 1000
_NEWEST = 1000


async def common_types(connection: asyncpg.Connection, layout: Layout) -> list[str]:
    """Return the most common event types, most common first, as of the last ANALYZE."""
    types: list[str] | None = await fetchval(
        connection,
        f"""
        SELECT s.most_common_vals::text::text[]
        FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = s.schemaname
        WHERE c.oid = {layout.base_oid} AND s.attname = {literal(layout.stored("event_type"))}
        ORDER BY s.inherited DESC LIMIT 1
        """,
    )
    return types or []


async def newest_types(connection: asyncpg.Connection, layout: Layout) -> list[str]:
    """Return the types of the newest events, the most common first."""
    rows = await fetch(
        connection,
        f"SELECT event_type FROM (SELECT {layout.place('e')[2]} AS event_type FROM {layout.table} e "
        f"ORDER BY e.global_seq DESC LIMIT {_NEWEST}) e GROUP BY 1 ORDER BY count(*) DESC, 1",
    )
    return [row[0] for row in rows]


async def index_for_path(
    connection: asyncpg.Connection,
    layout: Layout,
    events: EventList,
    path: JsonPath | None,
    numbers: range,
    wanted: int,
) -> tuple[str, int] | None:
    """Return the index that PostgreSQL would use for the path, and about how many events it finds."""
    condition = None if path is None else path.indexable(1)
    if path is None or condition is None:
        return None
    key = events.key
    query = (
        f"SELECT FROM {events.table(layout)} e WHERE {condition} AND e.{key} >= $2::bigint AND e.{key} <= $3::bigint "
        f"AND {events.condition(layout, 4)}"
    )
    arguments = (path.text, numbers.start, numbers.stop - 1, *events.arguments)
    page = await explain(connection, f"{query} ORDER BY e.{key} LIMIT {min(wanted, 1000)}", *arguments)
    name: str | None = await connection.fetchval(
        f"""
        WITH RECURSIVE {below(layout.tables)}
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
    return name, int((await explain(connection, query, *arguments))["Plan Rows"])


class MemberIndex(NamedTuple):
    """An index on members of the metadata: the expressions that it has, and about how many events have the `value`."""

    name: str
    values: tuple[str, ...]
    value: str
    events: int

    def condition(self, parameter: int) -> str:
        """Return the condition on an event ``e`` that the index serves; `value` is the argument of its parameter."""
        return f"({' OR '.join(f'{each} = ${parameter}::text' for each in self.values)})"


async def index_for_member(connection: asyncpg.Connection, layout: Layout, member: MetadataMatch) -> MemberIndex | None:
    """Return the index that finds events by a member of the metadata, None if there is none or it would not be used.

    Where some of its names have an index, these are the store's names.
    """
    value = member_pattern(member).literal
    if value is None:
        return None
    ids = await find_ids(connection, layout, FieldNames(correlation=member.names))
    values = tuple(each.value for each in ids.correlation if each.indexed)
    if not values:
        return None
    found = MemberIndex("", values, value, 0)
    plan = await explain(connection, f"SELECT FROM {layout.table} e WHERE {found.condition(1)}", value)
    names = _indexes(plan)
    return found._replace(name=names[0], events=int(plan["Plan Rows"])) if names else None


async def type_index(connection: asyncpg.Connection, layout: Layout, events: EventList) -> str | None:
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
        [*events.fixed, "event_type", events.key],
    )
    return name


async def matching_types(
    connection: asyncpg.Connection, layout: Layout, events: EventList, regex: str
) -> tuple[str, ...] | None:
    """Return the types that match, by skipping along the index; None if there are too many to go through."""
    within = f"FROM {events.table(layout)} e WHERE {events.condition(layout, 2)}"
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
        *events.arguments,
    )
    found = tuple(name for name, matches in rows if matches)
    return None if len(rows) >= _TYPES_LOOKED_AT or len(found) > _MOST_TYPES else found


async def count_types(
    connection: asyncpg.Connection, layout: Layout, events: EventList, types: tuple[str, ...], numbers: range
) -> Estimate:
    """Return how many events have one of the types, by their index, up to a bound."""
    key = events.key
    counted: int = await connection.fetchval(
        f"""
        SELECT count(*) FROM (
            SELECT FROM unnest($1::text[]) type (name) CROSS JOIN LATERAL (
                SELECT FROM {events.table(layout)} e WHERE {events.condition(layout, 4)} AND e.event_type = type.name
                AND e.{key} >= $2::bigint AND e.{key} <= $3::bigint ORDER BY e.{key} LIMIT {COUNTED + 1}) of_type
            LIMIT {COUNTED + 1}) counted
        """,
        list(types),
        numbers.start,
        numbers.stop - 1,
        *events.arguments,
    )
    return Estimate.counted(counted) if counted <= COUNTED else Estimate.at_least(counted)


def _indexes(plan: dict[str, Any]) -> list[str]:
    names = [plan["Index Name"]] if "Index Name" in plan else []
    for part in plan.get("Plans", ()):
        names += _indexes(part)
    return names
