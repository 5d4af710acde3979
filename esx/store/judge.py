"""The index that decides between two writers of one place, and whether it still does.

Appends rely on a unique index on (stream_id, stream_seq), and repeats of some on one on event_id. Both may be dropped,
renamed or built anew while a store is open. So each append names what it was made for, the table and the index, and
compares what they are now: PostgreSQL works that out when it plans a statement, and again after every change to
either, so an append pays nothing for it. If they are others by now, nothing is stored, and the store looks again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from esx.store.family import below
from esx.store.relation import KEEPS_PLACES

if TYPE_CHECKING:
    import asyncpg

    from esx.store.layout import Layout

# "Key (stream_id, stream_seq)=(account-42, 7) already exists.", in the language of the server.
_KEY = re.compile(r"\((\w+), (\w+)\)=\(")
_PLACE = {"stream_id", "stream_seq"}
# DROP INDEX CONCURRENTLY marks an index as invalid long before it is gone, and one that is being built is not valid
# yet. One that is a partition's, or can be deferred, judges as well.
_USABLE = "i.indisunique AND i.indisvalid AND i.indisready AND i.indislive AND i.indpred IS NULL"


class Judge(NamedTuple):
    """The table's oid; the unique index on (stream_id, stream_seq), and whether it is one of a constraint.

    Without an index of the whole, each partition has one of its own.
    """

    table: int
    oid: int | None
    name: str
    constraint: bool


async def find_judge(connection: asyncpg.Connection, layout: Layout) -> Judge | None:
    """Return the index that decides between two writers at one version, None if there is none."""
    row = await connection.fetchrow(
        f"""
        SELECT i.indrelid, i.indexrelid, i.indexrelid::regclass::text,
               EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u')) AS own
        FROM pg_index i WHERE i.indrelid = {layout.oid} AND {_USABLE} AND i.indnkeyatts = 2
          AND ARRAY['stream_id', 'stream_seq'] = ARRAY(
              SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = i.indrelid AND a.attnum IN (i.indkey[0], i.indkey[1]) ORDER BY a.attname)
        ORDER BY own DESC, i.indexrelid LIMIT 1
        """
    )
    if row is not None:
        return Judge._make(row)
    if layout.kind != "p":
        return None
    table, each = await connection.fetchrow(  # type: ignore[misc]
        f"""
        WITH RECURSIVE {below(f"SELECT {layout.oid}::oid")}
        SELECT {layout.oid}::oid, NOT EXISTS (
            SELECT FROM below JOIN pg_class p ON p.oid = below.oid WHERE p.relkind <> 'p'
            AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = p.oid AND {KEEPS_PLACES}))
        """
    )
    return Judge(table, None, "", True) if each else None


def still_judges(layout: Layout, judge: Judge) -> str:
    """Return the condition on which table and index are those that were found. It costs a statement nothing."""
    same = f"{layout.oid}::oid = {judge.table}::oid"
    if judge.oid is not None:
        name = judge.name.replace("'", "''")
        same += f" AND '{name}'::regclass::oid = {judge.oid}::oid"
    if layout.event_id is None:
        # Once there is such a column, events are not to be stored without the ids that their writers gave them.
        same += (
            f" AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = {judge.table}::oid "
            "AND a.attname = 'event_id' AND NOT a.attisdropped)"
        )
    if judge.constraint:
        return same
    # What is no constraint can be dropped concurrently: it stops judging a while before its name is gone.
    return f"{same} AND EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = {judge.oid}::oid AND {_USABLE})"


def ids_unique(layout: Layout) -> str:
    """Return the condition on which a unique index keeps event ids unique, and will until the transaction ends."""
    return (
        "EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
        f"WHERE i.indrelid = {layout.oid} AND a.attname = '{layout.event_id}' "
        f"AND i.indnkeyatts = 1 AND {_USABLE})"
    )


def same_place(error: asyncpg.UniqueViolationError) -> bool:
    """Return whether the key that was there already is a place of a stream, by whatever index that showed.

    While an index is built anew there are two of them, and either may be the first to see it.
    """
    key = _KEY.search(error.detail or "")
    return key is not None and set(key.groups()) == _PLACE
