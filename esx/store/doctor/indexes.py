"""The indexes: those that readers and the expected version need, and those that only cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esx.store.doctor.finding import About, identifier, quoted, shown, size
from esx.store.family import below
from esx.store.relation import KEEPS_PLACES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import asyncpg

    from esx.store.doctor.finding import Finding
    from esx.store.doctor.target import Target

_STREAM_KEY = ["stream_id", "stream_seq"]
_GLOBAL_KEY = ["global_seq"]
_UNIQUE = "events_stream_id_stream_seq_key"
_CORRELATION = "correlation_id"
_CORRELATION_INDEX = "events_correlation_id_idx"
_NAMED = 3
_REVERSED = 3  # DESC, and NULLS FIRST: what a backward scan turns round


@dataclass(frozen=True, slots=True)
class Index:
    """An index of the table. `keys` has an empty name for an expression; `name` is quoted as SQL needs it.

    `columns` are the keys as SQL writes them, expressions too. `pinned` says that something else needs this very
    index: a foreign key, or logical replication. `storage` are the parameters of a method other than B-tree.
    `definition` is the statement that makes it; `spread` says that it is one of a partitioned table, and so has a part
    in each partition.
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

    def serves(self, other: Index) -> bool:
        """Whether this index finds all that the other one finds, and keeps unique what that one does."""
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
        # What is looked up in a unique key is one row, or one stream: any order of it will do.
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

    `by_expression` says that it is partitioned by an expression of them, and then it can have no unique index itself.

    `unguarded` are the partitions that have no unique index of their own on (stream_id, stream_seq), and `broken`
    names the invalid indexes of partitions. `children` are tables that inherit from it.
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
        """How the statements begin that make an index; one of a partitioned table cannot be made concurrently."""
        return "INDEX CONCURRENTLY" if self.key is None else "INDEX"

    @property
    def by_stream(self) -> bool:
        """Whether a stream is in one partition."""
        return self.key is not None and set(self.key) == {"stream_id"}

    def guard(self) -> Index | None:
        """Return an index that keeps places of streams unique in all partitions, if there is one."""
        return next(
            (index for index in self.found if index.whole and index.unique and sorted(index.keys) == _STREAM_KEY), None
        )


async def read_indexes(connection: asyncpg.Connection, target: Target) -> Indexes:
    """Read the indexes of the table from the catalog, and what its partitions and children have."""
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


def unique_key(indexes: Indexes) -> Iterator[Finding]:
    """Check that the constraint that decides between two writers at one version is there."""
    if indexes.key is not None:
        yield from _unique_in_partitions(indexes)
        return
    found = About("unique-stream-seq")
    if indexes.children:
        yield found.error(
            f"{quoted(indexes.children[:_NAMED])} inherit from {shown(indexes.table)}: no unique index spans both, so "
            "two writers can take one version of a stream (partitions are kept apart, children are not)"
        )
        return
    candidates = [
        index for index in indexes.found if index.unique and index.keys == _STREAM_KEY and index.method == "btree"
    ]
    constraint = next((index for index in candidates if index.constraint_type == "u"), None)
    plain = next((index for index in candidates if index.whole and index.constraint is None), None)
    add = f"ALTER TABLE {indexes.table} ADD CONSTRAINT {_UNIQUE} UNIQUE (stream_id, stream_seq);"
    if constraint is not None and not constraint.valid:
        yield found.error(
            f"the unique index {shown(constraint.name)} is invalid", f"REINDEX INDEX CONCURRENTLY {constraint.name};"
        )
    elif constraint is not None and constraint.deferrable:
        yield found.warning(
            f"the unique constraint {shown(constraint.constraint)} can be deferred: a conflict may show only at commit",
            constraint.drop(indexes.table),
            add,
        )
    elif constraint is not None:
        yield found.ok(f"{shown(constraint.constraint)} decides between two writers at one version")
    elif plain is not None and not any(plain.options) and not plain.included:
        yield found.error(
            f"(stream_id, stream_seq) is unique by the index {shown(plain.name)} only: without a constraint, "
            "a lost race is not told from other errors",
            f"ALTER TABLE {indexes.table} ADD CONSTRAINT {_UNIQUE} UNIQUE USING INDEX {identifier(plain.bare_name)};",
        )
    else:
        yield found.error(
            "there is no unique constraint on (stream_id, stream_seq), which decides between two writers at one "
            "version (adding it fails if both have taken one: `esx doctor --full` finds these)",
            add,
        )


def _unique_in_partitions(indexes: Indexes) -> Iterator[Finding]:
    """Check that of two writers at one version one fails, although each partition has indexes of its own."""
    found = About("unique-stream-seq")
    guard = indexes.guard()
    by = ", ".join(indexes.key or ())
    if guard is not None:
        yield found.ok(f"{shown(guard.name)} decides between two writers at one version, in all partitions")
    elif indexes.unguarded:
        add = (
            [f"ALTER TABLE {indexes.table} ADD CONSTRAINT {_UNIQUE} UNIQUE (stream_id, stream_seq);"]
            if list(indexes.key or ()) == ["stream_id"] and not indexes.by_expression
            else [f"ALTER TABLE {part} ADD UNIQUE (stream_id, stream_seq);" for part in indexes.unguarded]
        )
        yield found.error(
            f"{quoted(indexes.unguarded[:_NAMED])} has no unique constraint on (stream_id, stream_seq), which decides "
            "between two writers at one version",
            *add,
        )
    elif indexes.by_stream:
        yield found.ok("each partition decides between two writers at one version, and a stream is in one partition")
    else:
        yield found.error(
            f"{shown(indexes.table)} is partitioned by {shown(by)}, so two writers can take one version of a stream in "
            "two partitions: what is promised of expected versions holds within a partition only, and for writers that "
            "all lock the stream (partitioned by stream_id it would hold)"
        )


def primary_key(indexes: Indexes) -> Iterator[Finding]:
    """Check that global_seq is the primary key, and so has the index that the feed reads by."""
    found = About("primary-key")
    table = indexes.table
    make = f"CREATE UNIQUE INDEX CONCURRENTLY events_global_seq_key ON {table} (global_seq);"
    primary = next((index for index in indexes.found if index.primary), None)
    if primary is not None and primary.keys == _GLOBAL_KEY and primary.valid:
        yield found.ok("global_seq is the primary key")
        return
    others = [index for index in indexes.found if index.whole and index.keys[:1] == _GLOBAL_KEY]
    if indexes.key is not None and "global_seq" not in indexes.key:
        # No index can keep it unique in all partitions; the sequence has to do.
        if others:
            yield found.ok(f"global_seq has the index {shown(others[0].name)} in all partitions")
        else:
            yield found.error(
                "global_seq has no index in all partitions: the feed scans the table",
                f"CREATE INDEX ON {table} (global_seq);",
            )
        return
    if primary is not None:
        if any(index.unique and index.keys == _GLOBAL_KEY for index in others):
            yield found.ok(f"the primary key is {shown(primary.name)}, and global_seq is unique too")
        elif others:
            yield found.info(f"the primary key is {shown(primary.name)}: nothing keeps global_seq unique", make)
        else:
            yield found.error(
                f"the primary key is {shown(primary.name)}, and global_seq has no index: the feed scans the table", make
            )
        return
    ready = next(
        (
            index
            for index in indexes.found
            if index.whole
            and index.unique
            and index.keys == _GLOBAL_KEY
            and index.constraint is None
            and not any(index.options)
            and not index.included
        ),
        None,
    )
    if ready is not None and indexes.key is None:
        yield found.warning(
            f"there is no primary key; global_seq is unique by the index {shown(ready.name)}",
            f"ALTER TABLE {table} ADD CONSTRAINT events_pkey PRIMARY KEY USING INDEX {identifier(ready.bare_name)};",
        )
    else:
        yield found.error(
            "there is no primary key: nothing keeps global_seq unique, and the feed may scan the table (adding it "
            "fails if two events have one number: `esx doctor --full` finds these)",
            f"ALTER TABLE {table} ADD PRIMARY KEY (global_seq);",
        )


def redundant(indexes: Indexes) -> Iterator[Finding]:
    """Check that no index repeats what another already gives."""
    found = About("redundant-index")
    surplus = _redundant(indexes.found)
    for index, served_by in surplus:
        yield found.warning(
            f"index {shown(index.name)} ({quoted(index.columns)}), {size(index.bytes)}, repeats "
            f"{shown(served_by.name)} and slows every append",
            index.drop(indexes.table),
        )
    if not surplus:
        yield found.ok("no index repeats another")


def _redundant(indexes: Sequence[Index]) -> list[tuple[Index, Index]]:
    """Return the indexes that others serve as well, each with the one that does."""
    surplus: list[tuple[Index, Index]] = []
    for index in indexes:
        if index.primary or index.pinned or index.building or index.deferrable or index.constraint_type == "x":
            continue
        serving = [
            other
            for other in indexes
            if other is not index
            and other.serves(index)
            and (not index.serves(other) or _worth(other) < _worth(index))  # of two that are equal, one stays
        ]
        if serving:
            surplus.append((index, min(serving, key=_worth)))
    return surplus


def _worth(index: Index) -> tuple[bool, bool, bool, bool, int]:
    """Return what sorts the one to keep first: the primary key, a constraint, the usual name, the older one."""
    usual = index.bare_name in (_UNIQUE, _CORRELATION_INDEX)
    return not index.primary, index.constraint is None, not usual, not index.pinned, index.oid


def invalid(indexes: Indexes) -> Iterator[Finding]:
    """Check that no index was left half built, to be kept up by every append and used by no query."""
    found = About("invalid-index")
    surplus = {index.name for index, _ in _redundant(indexes.found)}
    broken = [index for index in indexes.found if not index.valid and index.name not in surplus]
    for index in broken:
        if index.building:
            yield found.info(f"index {shown(index.name)} is being built")
        elif index.unique and index.keys == _STREAM_KEY and index.constraint is not None and not index.spread:
            continue  # said by unique_key
        elif index.spread:
            # PostgreSQL says ONLY of it, as there are partitions without their part of it.
            made = index.definition.replace(" ON ONLY ", " ON ", 1)
            yield found.warning(
                f"index {shown(index.name)} is not on all partitions: no query of the whole uses it",
                index.drop(indexes.table),
                f"{made};",
            )
        else:
            leftover = "_ccnew" in index.bare_name or "_ccold" in index.bare_name
            yield found.warning(
                f"index {shown(index.name)}, {size(index.bytes)}, is invalid: no query uses it",
                index.drop(indexes.table) if leftover else f"REINDEX INDEX CONCURRENTLY {index.name};",
            )
    for name in indexes.broken:
        yield found.warning(f"index {shown(name)} is invalid: no query uses it", f"REINDEX INDEX CONCURRENTLY {name};")
    if not broken and not indexes.broken:
        yield found.ok("all indexes are valid")


def correlation(indexes: Indexes) -> Iterator[Finding]:
    """Check that following a correlation id has an index."""
    found = About("correlation-index")
    if any(_CORRELATION in (index.expressions or "") for index in indexes.found):
        yield found.ok("correlation ids are indexed")
    else:
        yield found.info(
            "there is no index on the correlation id: following one scans the table",
            f"CREATE {indexes.make} IF NOT EXISTS events_correlation_id_idx ON {indexes.table} "
            "((metadata ->> 'correlation_id'), global_seq) WHERE (metadata ->> 'correlation_id') IS NOT NULL;",
        )


def in_stream_order(indexes: Indexes) -> bool:
    """Return whether a unique index gives the events in the order of streams, without sorting the table."""
    return not indexes.children and any(
        index.whole and index.unique and index.keys == _STREAM_KEY and not any(index.options) for index in indexes.found
    )


def keeps_event_ids_unique(indexes: Indexes) -> bool:
    """Return whether no two events can have one event_id."""
    return not indexes.children and any(
        index.whole and index.unique and index.keys == ["event_id"] for index in indexes.found
    )


def keeps_numbers_unique(indexes: Indexes) -> bool:
    """Return whether no two events can have one global_seq."""
    return not indexes.children and any(
        index.whole and index.unique and index.keys == _GLOBAL_KEY for index in indexes.found
    )


def others(indexes: Indexes) -> Iterator[Finding]:
    """Tell of unique indexes that are not schema.sql's: they decide too what is stored."""
    found = About("other-unique-indexes")
    ours = (_GLOBAL_KEY, _STREAM_KEY, ["event_id"])
    theirs = [
        index
        for index in indexes.found
        if index.unique and index.valid and not index.primary and index.keys not in ours
    ]
    for index in theirs:
        yield found.info(
            f"index {shown(index.name)} keeps {quoted(index.columns)} unique: it refuses appends that esx would take"
        )
    if not theirs:
        yield found.ok("no other unique index refuses appends")


CHECKS = (unique_key, primary_key, redundant, invalid, correlation, others)
