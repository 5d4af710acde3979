"""The unique index that decides between two writers of one place, and the check that it still does.

Appends rely on a unique index on (stream_id, stream_seq), and some repetitions on one on event_id. Both may be dropped,
renamed or rebuilt while a store is open. So each append names its table and index, and compares them with those that
are there: PostgreSQL evaluates that when it plans the statement, and again after each change to either, so it costs an
append nothing. If they differ, nothing is stored, and the store looks at the table again.
"""

import re
from typing import NamedTuple

import asyncpg

from esx.layouts.layout import Layout
from esx.postgres.literals import literal

# "Key (stream_id, stream_seq)=(account-42, 7) already exists.", in the language of the server. The columns come before
# the values, which may be any text.
_KEY = re.compile(r"[^(]*\((\w+), (\w+)\)=\(")
_PLACE = {"stream_id", "stream_seq"}
# DROP INDEX CONCURRENTLY marks an index as invalid long before it is gone, and an index that is being built is not yet
# valid. An index of a partition, or a deferrable one, decides too.
_USABLE = "i.indisunique AND i.indisvalid AND i.indisready AND i.indislive AND i.indpred IS NULL"


# The indexes that keep two events from one place of a stream.
_OF_PLACES = f"""
    {_USABLE} AND i.indnkeyatts = 2 AND ARRAY['stream_id', 'stream_seq'] = ARRAY(
        SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = i.indrelid AND a.attnum IN (i.indkey[0], i.indkey[1]) ORDER BY a.attname)
"""


class Arbiter(NamedTuple):
    """The unique index on (stream_id, stream_seq) that decides between two writers: the arbiter index.

    `table` is the oid of its table, `constraint` whether it belongs to a constraint. `oid` and `name` are None where
    each partition has such an index, since the table itself has none then. `infers` says that ON CONFLICT can name it
    by these columns.
    """

    table: int
    oid: int | None
    name: str | None
    constraint: bool
    infers: bool = False


async def find_arbiter(connection: asyncpg.Connection, layout: Layout) -> Arbiter | None:
    """Return the index that decides between two writers at one version, None if there is none."""
    row = await connection.fetchrow(
        f"""
        SELECT c.oid, j.indexrelid, j.indexrelid::regclass::text, coalesce(j.own, false),
               coalesce(j.indimmediate AND NOT c.relhasrules, false),
               j.indexrelid IS NOT NULL OR c.relkind = 'p' AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_partition_tree(c.oid) leaf WHERE leaf.isleaf AND NOT EXISTS (
                       SELECT FROM pg_index i WHERE i.indrelid = leaf.relid AND {_OF_PLACES}))
        FROM pg_class c LEFT JOIN LATERAL (
            SELECT i.indexrelid, i.indimmediate, EXISTS (
                SELECT FROM pg_constraint o WHERE o.conindid = i.indexrelid AND o.contype IN ('p', 'u')) AS own
            FROM pg_index i WHERE i.indrelid = c.oid AND {_OF_PLACES}
            ORDER BY i.indimmediate DESC, own DESC, i.indexrelid LIMIT 1
        ) j ON true
        WHERE c.oid = {layout.oid}
        """
    )
    if row is None:
        return None
    *arbiter, decides = row
    return Arbiter(*arbiter) if decides else None


def is_still_arbiter(layout: Layout, arbiter: Arbiter) -> str:
    """Return the condition that the table and the index are still the same. It costs a statement nothing."""
    same = [f"{layout.oid}::oid = {arbiter.table}::oid"]
    if arbiter.name is not None:
        same.append(f"{_regclass(arbiter.name)}::oid = {arbiter.oid}::oid")
        if not arbiter.constraint:
            # An index without a constraint can be dropped concurrently: it is invalid before its name is gone.
            same.append(f"EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = {arbiter.oid}::oid AND {_USABLE})")
    if layout.event_id is None:
        # If there is such a column by now, events must not be stored without their ids.
        same.append(
            f"NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = {arbiter.table}::oid "
            "AND a.attname = 'event_id' AND NOT a.attisdropped)"
        )
    return " AND ".join(same)


def _regclass(name: str) -> str:
    return f"{literal(name)}::regclass"


def ids_unique(layout: Layout) -> str:
    """Return the condition that a unique index keeps event ids unique, now and until the transaction ends."""
    return (
        "EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
        f"WHERE i.indrelid = {layout.oid} AND a.attname = '{layout.event_id}' "
        f"AND i.indnkeyatts = 1 AND {_USABLE})"
    )


def same_place(error: asyncpg.UniqueViolationError) -> bool:
    """Return whether the key of a violation is a place of a stream, for any index.

    While an index is rebuilt there are two, and each of them may report the violation.
    """
    key = _KEY.match(error.detail or "")
    return key is not None and set(key.groups()) == _PLACE
