"""The indexes: those that readers and the expected version need, and those that only cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esx.store.doctor.finding import About, identifier, quoted, shown, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import asyncpg

    from esx.store.doctor.finding import Finding

_STREAM_KEY = ["stream_id", "stream_seq"]
_GLOBAL_KEY = ["global_seq"]
_UNIQUE = "events_stream_id_stream_seq_key"
_CORRELATION = "correlation_id"
_CORRELATION_INDEX = "events_correlation_id_idx"
_REVERSED = 3  # DESC, and NULLS FIRST: what a backward scan turns round


@dataclass(frozen=True, slots=True)
class Index:
    """An index of the table. `keys` has an empty name for an expression; `name` is quoted as SQL needs it.

    `columns` are the keys as SQL writes them, expressions too. `pinned` says that something else needs this very
    index: a foreign key, or logical replication. `storage` are the parameters of a method other than B-tree.
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

    def drop(self) -> str:
        """Return the statement that removes it."""
        if self.constraint is not None:
            return f"ALTER TABLE events DROP CONSTRAINT {identifier(self.constraint)};"
        return f"DROP INDEX CONCURRENTLY {self.name};"


async def read_indexes(connection: asyncpg.Connection) -> list[Index]:
    """Read the indexes of the table from the catalog."""
    rows = await connection.fetch(
        """
        SELECT i.indexrelid AS oid, i.indexrelid::regclass::text AS name, c.relname::text AS bare_name,
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
               coalesce(pg_relation_size(i.indexrelid), 0) AS bytes
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am am ON am.oid = c.relam
        LEFT JOIN pg_constraint con
               ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid AND con.contype IN ('p', 'u', 'x')
        WHERE i.indrelid = to_regclass('events')
        ORDER BY c.relname
        """
    )
    return [Index(**row) for row in rows]


def unique_key(indexes: Sequence[Index]) -> Iterator[Finding]:
    """Check that the constraint that decides between two writers at one version is there."""
    found = About("unique-stream-seq")
    candidates = [index for index in indexes if index.unique and index.keys == _STREAM_KEY and index.method == "btree"]
    constraint = next((index for index in candidates if index.constraint_type == "u"), None)
    plain = next((index for index in candidates if index.whole and index.constraint is None), None)
    add = f"ALTER TABLE events ADD CONSTRAINT {_UNIQUE} UNIQUE (stream_id, stream_seq);"
    if constraint is not None and not constraint.valid:
        yield found.error(
            f"the unique index {shown(constraint.name)} is invalid", f"REINDEX INDEX CONCURRENTLY {constraint.name};"
        )
    elif constraint is not None and constraint.deferrable:
        yield found.warning(
            f"the unique constraint {shown(constraint.constraint)} can be deferred: a conflict may show only at commit",
            constraint.drop(),
            add,
        )
    elif constraint is not None:
        yield found.ok(f"{shown(constraint.constraint)} decides between two writers at one version")
    elif plain is not None and not any(plain.options) and not plain.included:
        yield found.error(
            f"(stream_id, stream_seq) is unique by the index {shown(plain.name)} only: without a constraint, "
            "a lost race is not told from other errors",
            f"ALTER TABLE events ADD CONSTRAINT {_UNIQUE} UNIQUE USING INDEX {identifier(plain.bare_name)};",
        )
    else:
        yield found.error(
            "there is no unique constraint on (stream_id, stream_seq), which decides between two writers at one "
            "version (adding it fails if both have taken one: `esx doctor --full` finds these)",
            add,
        )


def primary_key(indexes: Sequence[Index]) -> Iterator[Finding]:
    """Check that global_seq is the primary key, and so has the index that the feed reads by."""
    found = About("primary-key")
    primary = next((index for index in indexes if index.primary), None)
    if primary is not None and primary.keys == _GLOBAL_KEY and primary.valid:
        yield found.ok("global_seq is the primary key")
        return
    if primary is not None:
        others = [index for index in indexes if index.whole and index.keys[:1] == _GLOBAL_KEY]
        if any(index.unique and index.keys == _GLOBAL_KEY for index in others):
            yield found.ok(f"the primary key is {shown(primary.name)}, and global_seq is unique too")
        elif others:
            yield found.info(
                f"the primary key is {shown(primary.name)}: nothing keeps global_seq unique",
                "CREATE UNIQUE INDEX CONCURRENTLY events_global_seq_key ON events (global_seq);",
            )
        else:
            yield found.error(
                f"the primary key is {shown(primary.name)}, and global_seq has no index: the feed scans the table",
                "CREATE UNIQUE INDEX CONCURRENTLY events_global_seq_key ON events (global_seq);",
            )
        return
    ready = next(
        (
            index
            for index in indexes
            if index.whole
            and index.unique
            and index.keys == _GLOBAL_KEY
            and index.constraint is None
            and not any(index.options)
            and not index.included
        ),
        None,
    )
    if ready is not None:
        yield found.warning(
            f"there is no primary key; global_seq is unique by the index {shown(ready.name)}",
            f"ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY USING INDEX {identifier(ready.bare_name)};",
        )
    else:
        yield found.error(
            "there is no primary key: nothing keeps global_seq unique, and the feed may scan the table (adding it "
            "fails if two events have one number: `esx doctor --full` finds these)",
            "ALTER TABLE events ADD PRIMARY KEY (global_seq);",
        )


def redundant(indexes: Sequence[Index]) -> Iterator[Finding]:
    """Check that no index repeats what another already gives."""
    found = About("redundant-index")
    surplus = _redundant(indexes)
    for index, served_by in surplus:
        yield found.warning(
            f"index {shown(index.name)} ({quoted(index.columns)}), {size(index.bytes)}, repeats "
            f"{shown(served_by.name)} and slows every append",
            index.drop(),
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


def invalid(indexes: Sequence[Index]) -> Iterator[Finding]:
    """Check that no index was left half built, to be kept up by every append and used by no query."""
    found = About("invalid-index")
    surplus = {index.name for index, _ in _redundant(indexes)}
    broken = [index for index in indexes if not index.valid and index.name not in surplus]
    for index in broken:
        if index.building:
            yield found.info(f"index {shown(index.name)} is being built")
        elif index.unique and index.keys == _STREAM_KEY and index.constraint is not None:
            continue  # said by unique_key
        else:
            leftover = "_ccnew" in index.bare_name or "_ccold" in index.bare_name
            yield found.warning(
                f"index {shown(index.name)}, {size(index.bytes)}, is invalid: no query uses it",
                index.drop() if leftover else f"REINDEX INDEX CONCURRENTLY {index.name};",
            )
    if not broken:
        yield found.ok("all indexes are valid")


def correlation(indexes: Sequence[Index]) -> Iterator[Finding]:
    """Check that following a correlation id has an index."""
    found = About("correlation-index")
    if any(_CORRELATION in (index.expressions or "") for index in indexes):
        yield found.ok("correlation ids are indexed")
    else:
        yield found.info(
            "there is no index on the correlation id: following one scans the table",
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS events_correlation_id_idx ON events "
            "((metadata ->> 'correlation_id'), global_seq) WHERE (metadata ->> 'correlation_id') IS NOT NULL;",
        )


def in_stream_order(indexes: Sequence[Index]) -> bool:
    """Return whether a unique index gives the events in the order of streams, without sorting the table."""
    return any(
        index.whole and index.unique and index.keys == _STREAM_KEY and not any(index.options) for index in indexes
    )


def keeps_event_ids_unique(indexes: Sequence[Index]) -> bool:
    """Return whether no two events can have one event_id."""
    return any(index.whole and index.unique and index.keys == ["event_id"] for index in indexes)


def keeps_numbers_unique(indexes: Sequence[Index]) -> bool:
    """Return whether no two events can have one global_seq."""
    return any(index.whole and index.unique and index.keys == _GLOBAL_KEY for index in indexes)


CHECKS = (unique_key, primary_key, redundant, invalid, correlation)
