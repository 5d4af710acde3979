"""The table itself: whether it is there, is ours, and holds what readers rely on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from esx.store.doctor.finding import About, quoted, shown, size
from esx.store.health import ESTIMATED_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import asyncpg

    from esx.store.doctor.finding import Finding

_LARGE_BYTES = 64_000_000
_MANY_EVENTS = 100_000
_BYTE_ORDERED = ("C", "POSIX", "ucs_basic", "C.UTF-8")
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_ELSEWHERE = ("CREATE DATABASE esx;", "esx init -d esx")


class _Wanted(NamedTuple):
    types: tuple[str, ...]
    default: str | None = None
    nullable: bool = False


# The first type is that of schema.sql; the others do as well.
_WANTED = {
    "global_seq": _Wanted(("bigint",)),
    "stream_id": _Wanted(("text", "character varying")),
    "stream_seq": _Wanted(("bigint",)),
    "event_type": _Wanted(("text", "character varying")),
    "data": _Wanted(("jsonb",)),
    "metadata": _Wanted(("jsonb",), nullable=True),
    "created_at": _Wanted(("timestamp with time zone",), default="now()"),
    "event_id": _Wanted(("uuid",), default="gen_random_uuid()"),
}
_ADDABLE = {
    "metadata": "ALTER TABLE events ADD COLUMN metadata jsonb;",
    "created_at": "ALTER TABLE events ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();",
}
_CONVERTED = {
    "timestamp without time zone": "created_at AT TIME ZONE 'UTC'",
    "json": "{column}::jsonb",
    "text": "{column}::{type}",
}


class Column(NamedTuple):
    """A column as the catalog has it."""

    name: str
    type: str
    not_null: bool
    generated: bool
    default: str | None
    collation: str


@dataclass(frozen=True, slots=True)
class Table:
    """The facts; `oid` is None if there is no table. `estimated` is -1 if it was never analysed.

    `analysed` is None where this user may not read the events.
    """

    database: str
    oid: int | None = None
    kind: str = "r"
    persistence: str = "p"
    estimated: int = -1
    bytes: int = 0
    analysed: bool | None = None
    row_security: bool = False
    columns: Mapping[str, Column] | None = None

    @property
    def usable(self) -> bool:
        """Whether events can be read from it, so that it makes sense to look further."""
        return (
            self.columns is not None
            and self.kind not in _KINDS
            and all(name in self.columns for name in _WANTED if name != "event_id")
        )


async def read_table(connection: asyncpg.Connection) -> Table:
    """Read the facts about the table from the catalog."""
    row = await connection.fetchrow(
        f"""
        SELECT current_database()::text AS database, c.oid, c.relkind::text AS kind,
               c.relpersistence::text AS persistence,
               coalesce({ESTIMATED_ROWS}, c.reltuples)::bigint AS estimated,
               coalesce(pg_relation_size(c.oid), 0) AS bytes,
               CASE WHEN has_table_privilege(c.oid, 'SELECT')
                    THEN EXISTS (SELECT 1 FROM pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname)
               END AS analysed,
               row_security_active(c.oid) AS row_security
        FROM (SELECT 1) one
        LEFT JOIN pg_class c ON c.oid = to_regclass('events')
        LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
        """
    )
    assert row is not None
    if row["oid"] is None:
        return Table(row["database"])
    columns = await connection.fetch(
        """
        SELECT a.attname::text, format_type(a.atttypid, NULL), a.attnotnull, a.attidentity::text <> '',
               pg_get_expr(d.adbin, d.adrelid), coalesce(co.collname::text, '')
        FROM pg_attribute a
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_collation co ON co.oid = a.attcollation
        WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
        """,
        row["oid"],
    )
    return Table(**row, columns={column[0]: Column._make(column) for column in columns})


def presence(table: Table) -> Iterator[Finding]:
    """Check that there is a table named events."""
    found = About("table")
    if table.columns is None:
        yield found.error(f"database {shown(table.database)} has no table events", "esx init")
    elif table.kind in _KINDS:
        yield found.error(f"events is {_KINDS[table.kind]}, not a table that events can be appended to", *_ELSEWHERE)
    else:
        yield found.ok(f"table events: {size(table.bytes)}")


def columns(table: Table) -> Iterator[Finding]:
    """Check that it has the columns that no event can be read without, of the right types."""
    if table.columns is None:
        return
    found = About("columns")
    missing = [name for name in _WANTED if name not in table.columns and name != "event_id"]
    if missing:
        addable = [_ADDABLE[name] for name in missing if name in _ADDABLE]
        yield found.error(
            f"table events has no column {quoted(missing)}"
            + ("" if len(addable) == len(missing) else ": it was not made by schema.sql"),
            *(addable if len(addable) == len(missing) else _ELSEWHERE),
        )
    wrong = False
    for name, wanted in _WANTED.items():
        column = table.columns.get(name)
        if column is None or column.type in wanted.types:
            continue
        wrong = True
        using = _CONVERTED.get(column.type, "").format(column=name, type=wanted.types[0])
        statement = (
            f"ALTER TABLE events ALTER COLUMN {name} TYPE {wanted.types[0]}{f' USING {using}' if using else ''};"
        )
        make = found.warning if column.type in ("integer", "smallint") else found.error
        yield make(f"column {name} is of type {shown(column.type)}, not {wanted.types[0]}", statement)
    if not missing and not wrong:
        yield found.ok("the columns have the names and types of schema.sql")


def nulls(table: Table) -> Iterator[Finding]:
    """Check that what every event has cannot be NULL, and what the database fills in has its default."""
    if not table.usable:
        return
    found = About("not-null")
    complete = True
    for name, wanted in _WANTED.items():
        column = (table.columns or {}).get(name)
        if column is None:
            continue
        changes = []
        facts = []
        if not column.not_null and not wanted.nullable:
            facts.append("can be NULL, but readers take it for set")
            changes.append(f"ALTER COLUMN {name} SET NOT NULL")
        if wanted.default is not None and column.default is None:
            facts.append("has no default")
            changes.append(f"ALTER COLUMN {name} SET DEFAULT {wanted.default}")
        if changes:
            complete = False
            yield found.warning(f"column {name} {' and '.join(facts)}", f"ALTER TABLE events {', '.join(changes)};")
    if complete:
        yield found.ok("no column that every event has can be NULL")


def event_ids(table: Table) -> Iterator[Finding]:
    """Check that events carry their client's id."""
    if not table.usable:
        return
    found = About("event-id")
    if "event_id" not in (table.columns or {}):
        yield found.warning(
            "table events has no column event_id: an append repeated after a lost connection is not recognised "
            "(adding it rewrites the table once)",
            "esx init",
        )
    else:
        yield found.ok("events carry their client's id")


def collation(table: Table) -> Iterator[Finding]:
    """Check that stream ids sort by bytes, so that a prefix is a range of the unique index."""
    if not table.usable:
        return
    found = About("collation")
    name = (table.columns or {})["stream_id"].collation
    if name in _BYTE_ORDERED:
        yield found.ok(f"stream_id has the collation {shown(name)}: a prefix is a range of the index")
        return
    make = found.warning if table.estimated >= _MANY_EVENTS else found.info
    yield make(
        f'stream_id has the collation {shown(name)}, not "C": looking for a prefix scans all streams '
        "(the change locks the table while it rebuilds the index)",
        'ALTER TABLE events ALTER COLUMN stream_id TYPE text COLLATE "C";',
    )


def durability(table: Table) -> Iterator[Finding]:
    """Check that a crash leaves the events where they are."""
    if not table.usable:
        return
    found = About("unlogged")
    if table.persistence != "p":
        kind = "unlogged: a crash empties it" if table.persistence == "u" else "temporary: it ends with this session"
        yield found.error(f"table events is {kind}", "ALTER TABLE events SET LOGGED;")
    else:
        yield found.ok("table events survives a crash")


def row_security(table: Table) -> Iterator[Finding]:
    """Check that no policy hides events, which a feed would take for gaps."""
    if not table.usable:
        return
    found = About("row-security")
    if table.row_security:
        yield found.warning(
            "row-level security applies to this user: events that a policy hides are passed as gaps for good",
            "ALTER TABLE events DISABLE ROW LEVEL SECURITY;",
        )
    else:
        yield found.ok("no policy hides events from this user")


def statistics(table: Table) -> Iterator[Finding]:
    """Check that the planner and the list of streams have statistics to go by."""
    if not table.usable:
        return
    found = About("statistics")
    analysed = table.estimated >= 0 if table.analysed is None else table.analysed
    if analysed:
        yield found.ok("table events has been analysed")
    elif table.bytes >= _LARGE_BYTES:
        yield found.warning(f"table events has {size(table.bytes)} and was never analysed", "ANALYZE events;")
    else:
        yield found.ok(f"table events was never analysed, but is small: {size(table.bytes)}")


CHECKS = (presence, columns, nulls, event_ids, collation, durability, row_security, statistics)
