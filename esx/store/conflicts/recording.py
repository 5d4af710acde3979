"""The statements that record conflicts in the table conflicts."""

from __future__ import annotations

import asyncpg

from esx.errors import StoreFailed
from esx.filters import CORRELATION_NAMES, USER_NAMES
from esx.layouts.layout import Layout
from esx.postgres.literals import literal
from esx.store.conflicts.conflict import LOOKED_AT, TYPES
from esx.store.filter_sql import jsonb

COLUMNS = {
    "id": "bigint",
    "at": "timestamp with time zone",
    "stream_id": "text",
    "expected": "bigint",
    "actual": "bigint",
    "lost_types": "text[]",
    "lost_user": "text",
    "lost_correlation": "text",
    "won_types": "text[]",
    "won_seq": "bigint",
    "won_user": "text",
    "won_correlation": "text",
    "stands_for": "real",
}
"""The columns of the table conflicts and their types."""
_RIGHTS = ("SELECT", "INSERT", "DELETE")
_USABLE = """
    SELECT c.oid IS NOT NULL,
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute a
            JOIN ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) wanted (name, type)
              ON a.attname = wanted.name AND pg_catalog.format_type(a.atttypid, NULL) = wanted.type
            WHERE a.attrelid = c.oid AND NOT a.attisdropped),
           (SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, r))
            FROM pg_catalog.unnest($4::text[]) r),
           (SELECT t.relkind = 'r' AND (t.relowner = e.relowner OR o.rolsuper OR o.rolname = CURRENT_USER)
            FROM pg_catalog.pg_class t JOIN pg_catalog.pg_roles o ON o.oid = t.relowner, pg_catalog.pg_class e
            WHERE t.oid = c.oid AND e.oid = {events})
    FROM (SELECT pg_catalog.to_regclass($1)::oid AS oid) c
"""


async def check_recordable(connection: asyncpg.Connection, layout: Layout) -> None:
    """Raise StoreFailed, which says what is missing, unless conflicts can be written there."""
    await check_there(connection, layout)
    row = await _usable(connection, layout, _RIGHTS)
    if not row[2]:
        raise StoreFailed("it takes SELECT, INSERT and DELETE on table conflicts")


async def check_there(connection: asyncpg.Connection, layout: Layout) -> None:
    """Raise StoreFailed unless there is a table conflicts of schema.sql."""
    if layout.foreign is not None or not layout.own:
        raise StoreFailed(f"conflicts are kept for the table events of schema.sql, and this is {layout.called}")
    row = await _usable(connection, layout, ())
    if not row[0]:
        raise StoreFailed("there is no table conflicts: `esx init` adds it")
    if row[1] != len(COLUMNS) or not row[3]:
        # Its owner's triggers would run with the rights of who writes there.
        raise StoreFailed(
            "conflicts there is not esx's, as it has other columns or another owner: rename it, then `esx init`"
        )


async def _usable(connection: asyncpg.Connection, layout: Layout, rights: tuple[str, ...]) -> asyncpg.Record:
    row = await connection.fetchrow(
        _USABLE.format(events=layout.base_oid),
        layout.ours("conflicts"),
        list(COLUMNS),
        list(COLUMNS.values()),
        list(rights),
    )
    assert row is not None
    return row


async def write(connection: asyncpg.Connection, layout: Layout, rows: str, keep: int) -> None:
    """Record conflicts, given as a JSON array, with what is stored in their places; keep `keep` rows."""
    await connection.execute(_statement(layout), rows, keep)


def _statement(layout: Layout) -> str:
    table = layout.ours("conflicts")
    members = {
        "user": _member(USER_NAMES),
        "correlation": _member(CORRELATION_NAMES),
    }
    return f"""
        WITH given AS MATERIALIZED (
            SELECT * FROM pg_catalog.jsonb_to_recordset($1::jsonb) AS n (at timestamptz, stream_id text,
                expected bigint, actual bigint, lost_types jsonb, lost_user text, lost_correlation text,
                stands_for real)
        ), made AS (
            INSERT INTO {table} (at, stream_id, expected, actual, lost_types, lost_user, lost_correlation, stands_for,
                                 won_types, won_seq, won_user, won_correlation)
            SELECT n.at, n.stream_id, n.expected, n.actual,
                   ARRAY(SELECT pg_catalog.jsonb_array_elements_text(n.lost_types)),
                   n.lost_user, n.lost_correlation, n.stands_for,
                   coalesce(won.types[1:{TYPES}], '{{}}'), won.seq, won."user", won.correlation
            FROM given n LEFT JOIN LATERAL (
                SELECT (SELECT pg_catalog.array_agg(t.event_type ORDER BY t.place)
                        FROM (SELECT w.event_type, pg_catalog.min(w.stream_seq) AS place
                              FROM (SELECT e.stream_seq, pg_catalog."left"(e.event_type, 500) AS event_type
                                    FROM {layout.table} e
                                    WHERE e.stream_id = n.stream_id AND e.stream_seq > n.expected
                                      AND e.stream_seq <= n.actual
                                    ORDER BY e.stream_seq LIMIT {LOOKED_AT}) w
                              GROUP BY w.event_type) t) AS types,
                       first.global_seq AS seq, first."user", first.correlation
                FROM (SELECT e.global_seq, {members["user"]} AS "user", {members["correlation"]} AS correlation
                      FROM {layout.table} e
                      WHERE e.stream_id = n.stream_id AND e.stream_seq > n.expected AND e.stream_seq <= n.actual
                      ORDER BY e.stream_seq LIMIT 1) first
            ) won ON true
            RETURNING id
        )
        DELETE FROM {table} WHERE id <= (SELECT pg_catalog.max(id) FROM made) - $2::bigint
    """


def _member(names: tuple[str, ...]) -> str:
    metadata = jsonb("e.metadata")
    found = ", ".join(f"{metadata} ->> {literal(name)}" for name in names)
    return f'pg_catalog."left"(coalesce({found}), 500)'
