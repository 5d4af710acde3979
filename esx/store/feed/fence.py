"""The fence: the highest number below which no transaction can be writing any more, stored in the database.

A reader proves it when all writers that it listed have ended (gap_barrier.py). A later reader need not wait for open
writers at gaps below the fence. The row names its history: on another server, or after a failover, it proves nothing.
"""

from typing import NamedTuple

import asyncpg

from esx.layouts.layout import Layout
from esx.postgres.literals import literal
from esx.store.feed.comparison import compare
from esx.store.feed.history import History
from esx.store.feed.server import read_server

_LOCK = 0x65737866  # "esxf"


class _Row(NamedTuple):
    position: int
    history: str


async def read_fence(connection: asyncpg.Connection, layout: Layout) -> int:
    """Return the highest number up to which no event can appear; 0 if none is stored for this history."""
    # The table feed_fence belongs to the table events of its schema only.
    if not layout.own or not (await _rights(connection, layout))[0]:
        return 0
    row = await _row(connection, layout)
    return row.position if row is not None and await _holds(connection, layout, row) else 0


async def advance_fence(connection: asyncpg.Connection, layout: Layout, history: History) -> bool:
    """Store that no event can appear at or below the position of `history`; return whether it was stored.

    Within a history the fence only moves forwards. Nothing is stored, without an error, where this user or session may
    not write or may not ask which server this is. It does not wait for locks.
    """
    if not layout.own or not (await _rights(connection, layout))[1] or not _names_its_server(history):
        return False
    if history.server != await read_server(connection, layout):
        return False
    row = await _row(connection, layout)
    table = layout.ours("feed_fence")
    if row is None:
        # It does not wait for another session that inserts the row now.
        added = await connection.fetchval(
            f"INSERT INTO {table} (position, history) SELECT $1::bigint, $2::text::jsonb "
            f"WHERE pg_try_advisory_xact_lock({_LOCK}, {literal(table)}::regclass::oid::int) "
            "ON CONFLICT DO NOTHING RETURNING true",
            history.position,
            history.to_json(),
        )
        return bool(added)
    if row.position >= history.position and await _holds(connection, layout, row):
        return False
    try:
        moved = await connection.fetchval(
            f"""
            UPDATE {table} SET position = $1, history = $2::text::jsonb, advanced_at = now()
            WHERE one IN (SELECT one FROM {table} WHERE position = $3 AND history = $4::text::jsonb
                          FOR UPDATE SKIP LOCKED)
            RETURNING true
            """,
            history.position,
            history.to_json(),
            *row,
        )
    except asyncpg.SerializationError:
        # Another session moved it first.
        return False
    return bool(moved)


async def _rights(connection: asyncpg.Connection, layout: Layout) -> tuple[bool, bool]:
    """Return whether this user may read the fence, and whether this session may also write it."""
    row = await connection.fetchrow(
        """
        SELECT coalesce(has_table_privilege(fence, 'SELECT'), false),
               coalesce(has_table_privilege(fence, 'SELECT') AND has_table_privilege(fence, 'INSERT')
                        AND has_table_privilege(fence, 'UPDATE'), false)
               AND NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'
        FROM (SELECT to_regclass($1)::oid AS fence) found
        """,
        layout.ours("feed_fence"),
    )
    assert row is not None
    return row[0], row[1]


async def _row(connection: asyncpg.Connection, layout: Layout) -> _Row | None:
    row = await connection.fetchrow(f"SELECT position, history::text FROM {layout.ours('feed_fence')}")
    return None if row is None else _Row._make(row)


async def _holds(connection: asyncpg.Connection, layout: Layout, row: _Row) -> bool:
    """Return whether the fence holds for the server and the history of this connection."""
    try:
        history = History.from_json(row.history)
    except ValueError:
        return False
    return (
        history.position == row.position
        and _names_its_server(history)
        and history.server == await read_server(connection, layout)
        and await compare(connection, layout, history) is None
    )


def _names_its_server(history: History) -> bool:
    return None not in history.server and bool(history.marks)
