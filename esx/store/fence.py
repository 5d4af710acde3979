"""The fence: the highest number below which nobody can be writing any more, remembered in the database.

A reader proves it when it lists the writers, once all of those have ended (see barrier.py). A fresh process that starts
from there need not wait for writers that are open now at gaps that are older than they are. The row names the history
that it belongs to: on any other server, or after a failover, it proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from esx.store.history import History, compare, read_server
from esx.store.layout import literal

if TYPE_CHECKING:
    from esx.store.layout import Layout


_LOCK = 0x65737866  # "esxf"


class _Rights(NamedTuple):
    read: bool
    write: bool


class _Row(NamedTuple):
    position: int
    history: str


async def read_fence(connection: asyncpg.Connection, layout: Layout) -> int:
    """Return the highest number that is known to be settled; 0 where nothing is known, or not of this history."""
    # The table feed_fence belongs to the table events beside it, not to any other that was named.
    if not layout.own or not (await _rights(connection, layout)).read:
        return 0
    row = await _row(connection, layout)
    return row.position if row is not None and await _holds(connection, layout, row) else 0


async def advance_fence(connection: asyncpg.Connection, layout: Layout, history: History) -> bool:
    """Remember that nobody can be writing at or below the position of `history`; return whether that was written.

    It only moves forwards within one history. Not written, and no error, where this user or session may not write, or
    where it cannot be told which server this is. Waits for nobody.
    """
    if not layout.own or not (await _rights(connection, layout)).write or not _names_its_server(history):
        return False
    if history.server != await read_server(connection, layout):
        return False
    row = await _row(connection, layout)
    table = layout.ours("feed_fence")
    if row is None:
        # Who else makes the row just now is not waited for.
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
        # Somebody else was quicker.
        return False
    return bool(moved)


async def _rights(connection: asyncpg.Connection, layout: Layout) -> _Rights:
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
    return _Rights._make(row)


async def _row(connection: asyncpg.Connection, layout: Layout) -> _Row | None:
    row = await connection.fetchrow(f"SELECT position, history::text FROM {layout.ours('feed_fence')}")
    return None if row is None else _Row._make(row)


async def _holds(connection: asyncpg.Connection, layout: Layout, row: _Row) -> bool:
    """Return whether what was remembered is proven for what this connection leads to."""
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
