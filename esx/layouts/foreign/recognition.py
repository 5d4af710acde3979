"""Finding the event stores of a database: by the columns of their tables, in all schemas, not by names alone."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import asyncpg

from esx.layouts.candidates import NEEDED
from esx.layouts.foreign.kind import StoreKind
from esx.layouts.foreign.kinds import KINDS
from esx.layouts.foreign.own import OwnKind
from esx.layouts.foreign.tables import StoreTable, StoreTables
from esx.postgres.values import Rows, fetch
from esx.text import is_text, visible

OWN = StoreKind("esx", "esx", has=NEEDED)
"""The table that schema.sql makes."""
_TELLING = 5
"""Columns of a kind from which on it is worth naming a table that looks like one."""
_MOST_NEAR = 10
_NEAR = 0.6
"""The share of a kind's columns that a table has which looks like it, but is not."""
_TABLES = """
    SELECT c.oid, n.nspname::text, c.relname::text, quote_ident(n.nspname) || '.' || quote_ident(c.relname),
           ARRAY(SELECT a.attname::text FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
           ARRAY(SELECT format_type(a.atttypid, NULL) FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
           ARRAY(SELECT a.attname::text FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                   AND has_column_privilege(c.oid, a.attnum, 'SELECT')),
           has_schema_privilege(n.oid, 'USAGE'), ARRAY(SELECT h.inhparent FROM pg_inherits h WHERE h.inhrelid = c.oid),
           CASE WHEN c.relkind <> 'p' THEN c.reltuples ELSE
               (SELECT CASE WHEN bool_or(p.reltuples >= 0) THEN sum(greatest(p.reltuples, 0)) END
                FROM pg_partition_tree(c.oid) t JOIN pg_class p ON p.oid = t.relid WHERE t.isleaf) END::bigint,
           c.relkind::text,
           ARRAY(SELECT a.attname::text FROM pg_index i
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                 WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {which}
    ORDER BY n.nspname, c.relname
"""
_TELLING_COLUMN = """
    c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
    AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ANY ($1::name[])
                  AND NOT a.attisdropped)
"""
# As the planner does it: the density at the last ANALYZE, by the size that the tables have now.
_ROWS = """
    WITH RECURSIVE family (root, oid) AS (
        SELECT root, root FROM unnest($1::oid[]) root
        UNION SELECT f.root, i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid)
    SELECT root, CASE WHEN bool_and(rows IS NOT NULL) THEN sum(rows) END::bigint
    FROM family JOIN pg_class c ON c.oid = family.oid AND c.relkind IN ('r', 'm')
    CROSS JOIN LATERAL (SELECT pg_relation_size(c.oid)::float8 / current_setting('block_size')::int AS pages) size
    CROSS JOIN LATERAL (SELECT CASE WHEN pages = 0 THEN 0 WHEN c.reltuples >= 0 AND c.relpages > 0
                                    THEN c.reltuples / c.relpages * pages END AS rows) known
    GROUP BY root
"""
_NAMED = """
    c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND (n.nspname, c.relname) IN (SELECT s::name, t::name FROM unnest($1::text[], $2::text[]) named (s, t))
"""


@dataclass(frozen=True, slots=True)
class FoundStore:
    """A table of events, and the kind of store that it belongs to."""

    table: StoreTable
    kind: StoreKind
    beside: Mapping[str, StoreTable] = field(default_factory=dict)
    """The tables beside it that it needs, by the names of `StoreKind.beside`."""
    parts: Sequence[StoreTable] = ()
    """The tables of `StoreKind.parts`."""

    @property
    def rows(self) -> int | None:
        """PostgreSQL's estimate of its events, None before it has one."""
        if self.kind.parts is None:
            return (self.table if self.kind.counted is None else self.beside[self.kind.counted]).rows
        known = [part.rows for part in self.parts if part.rows is not None]
        return sum(known) if len(known) == len(self.parts) else None

    @property
    def problem(self) -> str | None:
        """Why esx cannot read it, None if it can."""
        table = self.table
        if not is_text(table.quoted):
            return "its name is no text in the encoding of the database"
        if not table.open:
            return f"this user may not use schema {visible(table.schema, limit=60)}"
        if isinstance(self.kind, OwnKind) and (missing := self.missing):
            return f"layouts.{self.kind.name} in the config file names {missing[0]}, which is not there"
        needed: Collection[str] = table.columns
        if isinstance(self.kind, OwnKind) or self.kind.parts is not None:
            needed = self.kind.has
        elif self.kind.reading is not None:
            needed = self.kind.reading(StoreTables(table, self.beside)).needed
            needed &= table.columns.keys()  # a table beside it in a schema r looks like a column
        closed = table.closed(needed)
        if closed:
            return f"this user may not read {f'its column {closed}' if table.readable else 'it'}"
        for name, other in self.beside.items():
            closed = other.closed(self.kind.beside.get(name, ()))
            if closed:
                return f"this user may not read column {closed} of {visible(other.quoted, limit=200)} beside it"
        return self._problem_of_parts

    @property
    def _problem_of_parts(self) -> str | None:
        of = self.kind.parts
        if of is None:
            return None
        if len(self.parts) > of.most:
            return (
                f"its events are in {len(self.parts):,} tables, and esx reads up to {of.most} as one store: describe "
                "one of them in the config file, as docs/stores.md shows"
            )
        for part in self.parts:
            if refused := part.refused(of.has):
                return refused
            for column, types in of.has.items():
                if part.columns[column] not in types:
                    called, type_ = visible(part.quoted, limit=200), visible(part.columns[column], limit=60)
                    return f"column {column} of {called} is of type {type_}: esx cannot read it"
        return None

    @property
    def missing(self) -> list[str]:
        """The columns and tables that the kind needs and that are not there."""
        missing = [f"column {name}" for name in sorted(set(self.kind.has) - self.table.columns.keys())]
        for name, columns in self.kind.beside.items():
            if name not in self.beside:
                missing.append(f"table {name}")
            else:
                lacks = sorted(set(columns) - self.beside[name].columns.keys())
                missing += [f"column {column} of {name}" for column in lacks]
        return missing


@dataclass(frozen=True, slots=True)
class Lookalike:
    """A table that has most columns of a kind of store, and lacks some."""

    table: StoreTable
    kind: StoreKind
    missing: tuple[str, ...]
    """The columns that it lacks, and the tables that are not beside it, as ``table NAME``."""


async def read_tables(connection: asyncpg.Connection, oids: Collection[int] = ()) -> list[StoreTable]:
    """Return the tables that have a column by which some kind of store is recognised, with `oids` only these."""
    # Which columns a table has beside is asked of the table itself: this only leaves out most of a large database.
    telling = {
        column for kind in (OWN, *KINDS) for column in (*kind.has, *(c for b in kind.beside.values() for c in b))
    }
    return await _read(connection, telling, f"AND c.oid IN ({', '.join(map(str, oids))})" if oids else "")


async def read_near(connection: asyncpg.Connection, oid: int, telling: Collection[str]) -> list[StoreTable]:
    """Return the tables in the schema of the table `oid` that have one of these columns."""
    return await _read(
        connection, telling, f"AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = {oid})"
    )


async def _read(connection: asyncpg.Connection, telling: Collection[str], which: str) -> list[StoreTable]:
    rows = await fetch(connection, _TABLES.format(which=f"{_TELLING_COLUMN} {which}"), sorted(telling))
    return _tables(rows)


async def estimated(connection: asyncpg.Connection, found: Sequence[FoundStore]) -> list[FoundStore]:
    """Return the stores with the estimates of their rows by the size that their tables have now."""
    tables = {table.oid for each in found for table in (each.table, *each.beside.values(), *each.parts)}
    rows: dict[int, int | None] = dict(await connection.fetch(_ROWS, tables))  # type: ignore[arg-type]

    def now(table: StoreTable) -> StoreTable:
        return replace(table, rows=rows.get(table.oid))

    return [
        replace(
            each,
            table=now(each.table),
            beside={name: now(table) for name, table in each.beside.items()},
            parts=[now(part) for part in each.parts],
        )
        for each in found
    ]


async def read_own(connection: asyncpg.Connection, kinds: Sequence[OwnKind]) -> list[FoundStore]:
    """Return the stores that the config file describes, as far as their relations are there."""
    names = [name for kind in kinds for name in (kind.relation, kind.streams, *kind.others) if name is not None]
    if not names:
        return []
    rows = await fetch(connection, _TABLES.format(which=_NAMED), *map(list, zip(*names, strict=True)))
    tables = {(table.schema, table.name): table for table in _tables(rows)}
    found = []
    for kind in kinds:
        if kind.relation in tables:
            beside = {f"{schema}.{name}": tables[schema, name] for schema, name in kind.others & tables.keys()}
            if kind.streams in tables:
                beside["streams"] = tables[kind.streams]
            found.append(FoundStore(tables[kind.relation], kind, beside))
    return found


async def read_stores(
    connection: asyncpg.Connection, kinds: Sequence[OwnKind] = (), *, children: bool = False
) -> list[FoundStore]:
    """Return all stores of the database: those that the config file describes, then those that are recognised.

    A table that the config file describes is no other kind of store. Tables that inherit from a store are parts of it,
    unless `children` are asked for as well.
    """
    own = await read_own(connection, kinds)
    described = {found.table.oid for found in own}
    others = recognise(await read_tables(connection))
    if not children:
        others = heads(others)
    return [*own, *(found for found in others if found.table.oid not in described)]


async def absent(connection: asyncpg.Connection, kinds: Sequence[OwnKind]) -> list[str]:
    """Return, in a line each, the layouts of the config file whose relation is not in this database."""
    there = {id(found.kind) for found in await read_own(connection, kinds)}
    return [
        f"{kind.layout.key} in the config file names {visible(kind.layout.relation, limit=200)}, which is not there"
        for kind in kinds
        if kind.layout is not None and id(kind) not in there
    ]


def _tables(rows: Rows) -> list[StoreTable]:
    # A name may be no text.
    return [
        StoreTable(
            oid,
            schema,
            name,
            quoted,
            dict(zip(columns, types, strict=True)),
            frozenset(readable),
            opened,
            frozenset(map(int, parents)),
            None if count is None or count < 0 else count,
            kind,
            frozenset(leading),
        )
        for oid, schema, name, quoted, columns, types, readable, opened, parents, count, kind, leading in rows
    ]


def recognise(tables: Collection[StoreTable]) -> list[FoundStore]:
    """Return the stores among these tables, in their order. A table belongs to one kind at most."""
    found = []
    beside = _by_schema(tables)
    for table in tables:
        kinds = (kind for kind in (OWN, *KINDS) if fits(kind, table))
        whole = (_whole(table, kind, beside, tables) for kind in kinds)
        store = next((each for each in whole if each is not None), None)
        if store is not None:
            found.append(store)
    return found


def heads(stores: Collection[FoundStore]) -> list[FoundStore]:
    """Return the stores that are no parts of another one: a table that others inherit from shows their events too."""
    tables = {found.table.oid for found in stores}
    # The children of a table that is no store itself are stores of their own.
    return [found for found in stores if not tables & found.table.parents]


def lookalikes(tables: Collection[StoreTable]) -> list[Lookalike]:
    """Return up to ten tables that are nearly the events of some kind, each with the kind that it is nearest to."""
    near: list[Lookalike] = []
    beside = _by_schema(tables)
    # A few common columns tell nothing.
    kinds = [kind for kind in (OWN, *KINDS) if len(kind.has) >= _TELLING]
    for table in tables:
        kind = max(kinds, key=lambda each: _share(each, table))
        if len(near) < _MOST_NEAR and _share(kind, table) >= _NEAR:
            missing = [name for name in kind.has if name not in table.columns]
            others = _beside(kind, table, beside)
            missing += [f"table {name}" for name in kind.beside if name not in others]
            near.append(Lookalike(table, kind, tuple(missing)))
    return near


def with_beside(table: StoreTable, kind: StoreKind, tables: Collection[StoreTable]) -> FoundStore | None:
    """Return the store of that kind with the tables beside it, None if one of these is not there."""
    return _whole(table, kind, _by_schema(tables), tables)


def _whole(
    table: StoreTable, kind: StoreKind, beside: Mapping[str, Mapping[str, StoreTable]], tables: Collection[StoreTable]
) -> FoundStore | None:
    others = _beside(kind, table, beside)
    return FoundStore(table, kind, others, _parts(kind, table, tables)) if len(others) == len(kind.beside) else None


def fits(kind: StoreKind, table: StoreTable) -> bool:
    """Return whether a table has the columns of that kind's events."""
    return table.columns.keys() >= set(kind.has) and table.columns.keys().isdisjoint(kind.lacks)


def _share(kind: StoreKind, table: StoreTable) -> float:
    return len(table.columns.keys() & set(kind.has)) / len(kind.has)


def _parts(kind: StoreKind, table: StoreTable, tables: Collection[StoreTable]) -> list[StoreTable]:
    """Return the tables with the events of a store that is recognised by `table`."""
    of = kind.parts
    if of is None:
        return []
    return [
        each
        for each in tables
        if each.schema == table.schema and each.columns.keys() >= of.has.keys() and of.name.fullmatch(each.name)
    ]


def _by_schema(tables: Collection[StoreTable]) -> dict[str, dict[str, StoreTable]]:
    """Return the tables that a kind may want beside that of its events, by schema and name."""
    names = [name for kind in KINDS for name in kind.beside]
    found: dict[str, dict[str, StoreTable]] = {}
    for table in tables:
        if any(fnmatchcase(table.name, name) for name in names):
            found.setdefault(table.schema, {})[table.name] = table
    return found


def _beside(
    kind: StoreKind, table: StoreTable, beside: Mapping[str, Mapping[str, StoreTable]]
) -> dict[str, StoreTable]:
    """Return the tables that the kind wants beside this one, by its names for them, as far as they are there."""
    others = beside.get(table.schema, {})
    found = {}
    for name, columns in kind.beside.items():
        named = [others[name]] if name in others else [each for each in others.values() if fnmatchcase(each.name, name)]
        fit = [each for each in named if each.columns.keys() >= set(columns) and each.oid != table.oid]
        if fit:
            found[name] = fit[0]
    return found
