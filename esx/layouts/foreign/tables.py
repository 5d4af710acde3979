"""The tables of another tool's store, and how their columns are read."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from esx.text import visible

_JSON = ("json", "jsonb")
UTC = "{} AT TIME ZONE 'UTC'"
"""A time without a zone that is UTC."""
NO_METADATA = "NULL::jsonb"


@dataclass(frozen=True, slots=True)
class StoreTable:
    """A table of the database: its `oid`, `schema` and `name`, and its name as SQL writes it, with its schema.

    `columns` are its columns with the names of their types; `readable` are those that the user may read, if `open` says
    that the user may use the schema. `parents` are the oids of the tables that it inherits from. `rows` is PostgreSQL's
    estimate, None before it has one. `kind` is that of pg_class: only the config file names others than tables.
    `leading` are the columns that an index of all rows begins with.
    """

    oid: int
    schema: str
    name: str
    quoted: str
    columns: Mapping[str, str]
    readable: frozenset[str]
    open: bool
    parents: frozenset[int]
    rows: int | None
    kind: str = "r"
    leading: frozenset[str] = frozenset()

    def moment(self, column: str, alias: str = "r") -> str:
        """Return how a time is read, in UTC where it has no zone."""
        name = f"{alias}.{column}"
        return UTC.format(name) if self.columns[column] == "timestamp without time zone" else name

    def payload(self, column: str, alias: str = "r") -> "str | Packed":
        """Return how a column with JSON is read: as it is, or as bytes."""
        type_ = self.columns[column]
        if type_ == "oid":
            return Packed(f"lo_{column}.bytes", "bytea")
        return f"{alias}.{column}" if type_ in _JSON else Packed(f"{alias}.{column}", type_)

    def metadata(self, column: str) -> "str | Packed":
        """Return how metadata are read from a column that the table may lack."""
        return self.payload(column) if column in self.columns else NO_METADATA

    def closed(self, needed: Collection[str]) -> str:
        """Return the columns among the needed ones that the user may not read."""
        return ", ".join(visible(name, limit=60) for name in sorted(set(needed) - self.readable))

    def refused(self, needed: Collection[str]) -> str | None:
        """Return in a line that the user may not read all of the needed columns, None if the user may."""
        closed = self.closed(needed)
        if not closed:
            return None
        called = visible(self.quoted, limit=200)
        return f"this user may not read {f'column {closed} of ' if self.readable else ''}{called}"

    def large_objects(self, *columns: str) -> str:
        """Return the joins with those of `columns` that are large objects: they are read after the page is cut."""
        return " ".join(
            f"LEFT JOIN LATERAL (SELECT {large_object(f'r.{column}')} AS bytes OFFSET 0) lo_{column} ON true"
            for column in columns
            if self.columns[column] == "oid"
        )


class Packed(NamedTuple):
    """A payload that is no JSON for PostgreSQL: an expression, and the name of its type."""

    expression: str
    type: str

    @property
    def raw(self) -> str:
        """The expression for its bytes."""
        return self.expression if self.type == "bytea" else f"pg_catalog.convert_to({self.expression}::text, 'UTF8')"


class StoreTables(NamedTuple):
    """The table of a store's events, and those beside it by the names of `StoreKind.beside`.

    Where the whole surroundings are known, `checkpoints` are the tables in which its consumers keep how far they are,
    and `indexed` what the indexes of the events begin with, as SQL. `types` are the types of a layout's
    expressions in the config file, by the names of its settings. `parts` are the tables of `StoreKind.parts`, `unique`
    the expressions of their unique indexes, by the names of the tables, and `learned` the rows of `StoreKind.learn`,
    None before they have been read.
    """

    events: StoreTable
    beside: Mapping[str, StoreTable]
    checkpoints: Sequence[StoreTable] = ()
    indexed: Sequence[str] = ()
    types: Mapping[str, str] = MappingProxyType({})
    parts: Sequence[StoreTable] = ()
    unique: Mapping[str, Collection[str]] = MappingProxyType({})
    learned: Sequence[Sequence[str]] | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The tables that have the events of a store among them, where the table that it is recognised by only lists them.

    They are in its schema, their names match `name`, and they have the columns of `has`, each of one of these types.
    At most `most` are read as one store.
    """

    name: re.Pattern[str]
    has: Mapping[str, Collection[str]]
    most: int = 200


def large_object(oid: str) -> str:
    """Return the expression for the bytes of a large object, or for a line that names one that cannot be read.

    lo_get would fail for the latter, and with it the page.
    """
    granted = "pg_catalog.pg_has_role({}, 'USAGE')"
    # OFFSET makes PostgreSQL look the one up, where it would else hash all large objects of the database.
    return (
        f"CASE WHEN {oid} IS NULL THEN NULL WHEN EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata o "
        f"WHERE o.oid = {oid} AND ({granted.format('o.lomowner')} "
        "OR EXISTS (SELECT FROM pg_catalog.aclexplode(o.lomacl) a WHERE a.privilege_type = 'SELECT' "
        f"AND (a.grantee = 0 OR {granted.format('a.grantee')}))) OFFSET 0) "
        f"THEN pg_catalog.lo_get({oid}, 0, {_LARGEST}) "
        f"ELSE pg_catalog.convert_to('large object ' || {oid} || ': it is gone, or this user lacks SELECT on it', "
        "'UTF8') END"
    )


_LARGEST = 2**26
"""How many bytes of a large object are read: it can be larger than any value."""
