"""The index that decides between two writers of one place, and whether it still does.

Appends rely on a unique index on (stream_id, stream_seq), and repeats of some on one on event_id. Both may be dropped,
renamed or built anew while a store is open. So each append names what it was made for, the table and the index, and
compares what they are now: PostgreSQL works that out when it plans a statement, and again after every change to
either, so an append pays nothing for it. If they are others by now, nothing is stored, and the store looks again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncpg

    from esx.store.layout import Layout

# "Key (stream_id, stream_seq)=(account-42, 7) already exists.", in the language of the server. The columns come first:
# what follows are values, which may look like anything.
_KEY = re.compile(r"[^(]*\((\w+), (\w+)\)=\(")
_PLACE = {"stream_id", "stream_seq"}
# DROP INDEX CONCURRENTLY marks an index as invalid long before it is gone, and one that is being built is not valid
# yet. One that is a partition's, or can be deferred, judges as well.
_USABLE = "i.indisunique AND i.indisvalid AND i.indisready AND i.indislive AND i.indpred IS NULL"


# Which of its indexes keeps two events from one place of a stream.
_OF_PLACES = f"""
    {_USABLE} AND i.indnkeyatts = 2 AND ARRAY['stream_id', 'stream_seq'] = ARRAY(
        SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = i.indrelid AND a.attnum IN (i.indkey[0], i.indkey[1]) ORDER BY a.attname)
"""


class Judge(NamedTuple):
    """The table's oid; and its unique index on (stream_id, stream_seq), with whether it is one of a constraint.

    The index is None where the partitions of a table have one each, since the table itself can have none.
    """

    table: int
    oid: int | None
    name: str | None
    constraint: bool


async def find_judge(connection: asyncpg.Connection, layout: Layout) -> Judge | None:
    """Return the index that decides between two writers at one version, None if there is none."""
    row = await connection.fetchrow(
        f"""
        SELECT c.oid, j.indexrelid, j.indexrelid::regclass::text, coalesce(j.own, false),
               j.indexrelid IS NOT NULL OR c.relkind = 'p' AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_partition_tree(c.oid) leaf WHERE leaf.isleaf AND NOT EXISTS (
                       SELECT FROM pg_index i WHERE i.indrelid = leaf.relid AND {_OF_PLACES}))
        FROM pg_class c LEFT JOIN LATERAL (
            SELECT i.indexrelid, EXISTS (SELECT FROM pg_constraint o
                                         WHERE o.conindid = i.indexrelid AND o.contype IN ('p', 'u')) AS own
            FROM pg_index i WHERE i.indrelid = c.oid AND {_OF_PLACES} ORDER BY own DESC, i.indexrelid LIMIT 1
        ) j ON true
        WHERE c.oid = {_regclass(layout.table)}
        """
    )
    if row is None:
        return None
    *judge, judges = row
    return Judge(*judge) if judges else None


def still_judges(layout: Layout, judge: Judge) -> str:
    """Return the condition on which table and index are those that were found. It costs a statement nothing."""
    same = [f"{_regclass(layout.table)}::oid = {judge.table}::oid"]
    if judge.name is not None:
        same.append(f"{_regclass(judge.name)}::oid = {judge.oid}::oid")
        if not judge.constraint:
            # What is no constraint can be dropped concurrently: it stops judging a while before its name is gone.
            same.append(f"EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = {judge.oid}::oid AND {_USABLE})")
    if layout.event_id is None:
        # Once there is such a column, events are not to be stored without the ids that their writers gave them.
        same.append(
            f"NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = {judge.table}::oid "
            "AND a.attname = 'event_id' AND NOT a.attisdropped)"
        )
    return " AND ".join(same)


def _regclass(name: str) -> str:
    return "'" + name.replace("'", "''") + "'::regclass"


def ids_unique(layout: Layout) -> str:
    """Return the condition on which a unique index keeps event ids unique, and will until the transaction ends."""
    return (
        "EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
        f"WHERE i.indrelid = {_regclass(layout.table)} AND a.attname = '{layout.event_id}' "
        f"AND i.indnkeyatts = 1 AND {_USABLE})"
    )


def same_place(error: asyncpg.UniqueViolationError) -> bool:
    """Return whether the key that was there already is a place of a stream, by whatever index that showed.

    While an index is built anew there are two of them, and either may be the first to see it.
    """
    key = _KEY.match(error.detail or "")
    return key is not None and set(key.groups()) == _PLACE
