"""The facts about the indexes of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from esx.doctor.target import Examined
from esx.layouts.detection import KEEPS_PLACES
from esx.layouts.table_tree import below
from esx.postgres.literals import identifier

STREAM_KEY = ["stream_id", "stream_seq"]
_REVERSED = 3  # DESC and NULLS FIRST, which a backward scan reverses


@dataclass(frozen=True, slots=True)
class Index:
    """An index of the table. `keys` has an empty name for an expression; `name` is quoted as SQL needs it.

    `columns` are the keys in SQL, with expressions. `pinned` says that a foreign key or logical replication needs this
    index. `storage` are the parameters of a method other than B-tree. `definition` is the statement that makes it;
    `spread` says that it belongs to a partitioned table, and has a part in each partition.
    """

    oid: int
    name: str
    bare_name: str
    method: str
    unique: bool
    primary: bool
    valid: bool
    predicate: str | None
    pinned: bool
    building: bool
    keys: list[str]
    columns: list[str]
    included: list[str]
    classes: list[int]
    collations: list[int]
    options: list[int]
    expressions: str | None
    constraint: str | None
    constraint_type: str | None
    deferrable: bool
    nulls_alike: bool
    storage: list[str] | None
    bytes: int
    definition: str
    spread: bool

    @property
    def whole(self) -> bool:
        """Whether it is a valid B-tree over all rows, usable for any search by its first columns."""
        return self.valid and self.method == "btree" and self.predicate is None

    @property
    def adoptable(self) -> bool:
        """Whether ALTER TABLE can make a constraint of it."""
        return self.whole and self.unique and self.constraint is None and not any(self.options) and not self.included

    def serves(self, other: Index) -> bool:
        """Whether this index can replace the other one, for searches and for uniqueness."""
        width = len(other.keys)
        if (
            not self.valid
            or self.method != other.method
            or self.predicate != other.predicate
            or self.storage != other.storage
            or not set(other.included) <= {*self.included, *self.columns}
            or self.columns[:width] != other.columns
            or self.classes[:width] != other.classes
            or self.collations[:width] != other.collations
        ):
            return False
        if width < len(self.keys) and (self.method != "btree" or other.unique):
            return False
        if other.unique and (not self.unique or self.deferrable or (other.nulls_alike and not self.nulls_alike)):
            return False
        # A search in a unique key is for one row or one stream, so the order does not matter.
        options = self.options[:width]
        return self.unique or other.options in (options, [option ^ _REVERSED for option in options])

    def drop(self, table: str) -> str:
        """Return the statement that removes it from the table."""
        if self.constraint is not None:
            return f"ALTER TABLE {table} DROP CONSTRAINT {identifier(self.constraint)};"
        return f"DROP INDEX {'' if self.spread else 'CONCURRENTLY '}{self.name};"


@dataclass(frozen=True, slots=True)
class Indexes:
    """The indexes of a table. `key` are the columns by which it is partitioned, None if it is not.

    `by_expression` says that it is partitioned by an expression; then the table itself can have no unique index.
    `unguarded` are the partitions without a unique index of their own on (stream_id, stream_seq), `broken` the invalid
    indexes of partitions, and `children` the tables that inherit from it.
    """

    found: Sequence[Index]
    table: str = "events"
    key: Sequence[str] | None = None
    by_expression: bool = False
    unguarded: Sequence[str] = ()
    broken: Sequence[str] = ()
    children: Sequence[str] = ()

    @property
    def make(self) -> str:
        """What follows CREATE in the statement for an index; a partitioned table does not allow CONCURRENTLY."""
        return "INDEX CONCURRENTLY" if self.key is None else "INDEX"

    @property
    def by_stream(self) -> bool:
        """Whether a stream is in one partition."""
        return self.key is not None and set(self.key) == {"stream_id"}

    def keeps_unique(self, *columns: str) -> bool:
        """Whether an index keeps these columns unique."""
        return not self.children and any(
            index.whole and index.unique and index.keys == list(columns) for index in self.found
        )

    @property
    def in_stream_order(self) -> bool:
        """Whether a unique index gives the events in the order of streams, without sorting the table."""
        return not self.children and any(
            index.whole and index.unique and index.keys == STREAM_KEY and not any(index.options) for index in self.found
        )

    def guard(self) -> Index | None:
        """Return an index that keeps places of streams unique in all partitions, if there is one."""
        return next(
            (index for index in self.found if index.whole and index.unique and sorted(index.keys) == STREAM_KEY), None
        )


async def read_indexes(connection: asyncpg.Connection, target: Examined) -> Indexes:
    """Read the indexes of the table, its partitions and its children from the catalog."""
    rows = await connection.fetch(
        f"""
        SELECT i.indexrelid AS oid, {target.spelled("i.indexrelid")} AS name, c.relname::text AS bare_name,
               am.amname::text AS method, i.indisunique AS unique, i.indisprimary AS primary,
               i.indisvalid AND i.indisready AS valid,
               pg_get_expr(i.indpred, i.indrelid) AS predicate,
               i.indisreplident OR EXISTS (SELECT 1 FROM pg_constraint f WHERE f.conindid = i.indexrelid
                                           AND f.contype = 'f') AS pinned,
               EXISTS (SELECT 1 FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) AS building,
               ARRAY(SELECT coalesce(a.attname::text, '') FROM generate_series(0, i.indnkeyatts - 1) n
                     LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n] AND a.attnum > 0
                     ORDER BY n) AS keys,
               ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, false) FROM generate_series(1, i.indnkeyatts) n
                     ORDER BY n) AS columns,
               ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, false)
                     FROM generate_series(i.indnkeyatts + 1, i.indnatts) n ORDER BY n) AS included,
               ARRAY(SELECT unnest(i.indclass)) AS classes, ARRAY(SELECT unnest(i.indcollation)) AS collations,
               ARRAY(SELECT unnest(i.indoption)) AS options, pg_get_expr(i.indexprs, i.indrelid) AS expressions,
               con.conname::text AS constraint, con.contype::text AS constraint_type,
               coalesce(con.condeferrable, false) AS deferrable,
               coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_alike,
               CASE WHEN am.amname <> 'btree' THEN c.reloptions END AS storage,
               CASE WHEN c.relkind = 'I'
                    THEN (SELECT sum(pg_relation_size(part.relid)) FROM pg_partition_tree(c.oid) part)::bigint
                    ELSE coalesce(pg_relation_size(i.indexrelid), 0) END AS bytes,
               pg_get_indexdef(i.indexrelid) AS definition, c.relkind = 'I' AS spread
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am am ON am.oid = c.relam
        LEFT JOIN pg_constraint con
               ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid AND con.contype IN ('p', 'u', 'x')
        WHERE i.indrelid = {target.oid}
        ORDER BY c.relname
        """
    )
    row = await connection.fetchrow(
        f"""
        WITH RECURSIVE {below(f"SELECT {target.oid}::oid")}
        SELECT ARRAY(SELECT {target.spelled("leaf.oid")} FROM below JOIN pg_class leaf ON leaf.oid = below.oid
                     WHERE leaf.relkind = 'r' AND NOT EXISTS (
                         SELECT FROM pg_index i WHERE i.indrelid = leaf.oid AND i.indisvalid AND {KEEPS_PLACES}
                           AND i.indnkeyatts = 2) ORDER BY 1) AS unguarded,
               ARRAY(SELECT {target.spelled("i.indexrelid")} FROM below JOIN pg_index i ON i.indrelid = below.oid
                     WHERE NOT i.indisvalid AND i.indrelid <> {target.oid}
                       AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
                     ORDER BY 1) AS broken,
               ARRAY(SELECT {target.spelled("child.oid")} FROM below JOIN pg_class child ON child.oid = below.oid
                     WHERE child.oid <> {target.oid} AND NOT child.relispartition ORDER BY 1) AS children,
               (SELECT bool_or(p.partexprs IS NOT NULL)
                FROM below JOIN pg_partitioned_table p ON p.partrelid = below.oid) IS TRUE AS by_expression,
               -- Of all levels: a partition may have partitions by another column.
               (SELECT array_agg(DISTINCT a.attname::text)
                FROM below JOIN pg_partitioned_table p ON p.partrelid = below.oid
                JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum IN (
                    SELECT unnest(p.partattrs::int2[])
                    UNION SELECT (regexp_matches(p.partexprs::text, ':varattno (\\d+)', 'g'))[1]::int2)) AS key
        """
    )
    assert row is not None
    return Indexes([Index(**index) for index in rows], table=target.table, **row)
