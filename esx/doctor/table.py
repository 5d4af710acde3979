"""The table itself: whether it exists, was made by schema.sql, and has what readers rely on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import NamedTuple

from esx.doctor.finding import About, Finding, quoted, shown
from esx.doctor.target import EVENTS, VIEWS, Examined
from esx.doctor.topic import Topic
from esx.layouts.candidates import find_candidates, instead
from esx.layouts.layout import BYTE_ORDERED
from esx.layouts.table_tree import below
from esx.postgres.session import Session
from esx.store.health import ESTIMATED_ROWS
from esx.text import size_of

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
_ADDABLE = {"metadata": "metadata jsonb", "created_at": "created_at timestamptz NOT NULL DEFAULT now()"}
_TIMES = ("timestamp with time zone", "timestamp without time zone", "date")
_CONVERTED = {
    "timestamp without time zone": "created_at AT TIME ZONE 'UTC'",
    "json": "{column}::jsonb",
    "text": "{column}::{type}",
}


class CatalogColumn(NamedTuple):
    """A column as the catalog has it."""

    name: str
    type: str
    not_null: bool
    generated: bool
    default: str | None
    collation: str


@dataclass(frozen=True, slots=True)
class Table:
    """The facts; `oid` is None if there is no table, and `elsewhere` then names other stores there.

    `estimated` is the number of rows, -1 if it was never analysed. `analysed` is None if this user may not read the
    events. `row_security` says that policies apply to this user, `policies` that row-level security is on.
    """

    database: str
    oid: int | None = None
    unlogged: Sequence[str] = ()
    temporary: bool = False
    estimated: int = -1
    bytes: int = 0
    analysed: bool | None = None
    row_security: bool = False
    policies: bool = False
    columns: Mapping[str, CatalogColumn] | None = None
    target: Examined = EVENTS
    elsewhere: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Its name as SQL writes it."""
        return self.target.table

    @property
    def timed(self) -> bool:
        """Whether created_at holds times."""
        column = (self.columns or {}).get("created_at")
        return column is not None and column.type in _TIMES

    @property
    def usable(self) -> bool:
        """Whether it is a table with all necessary columns, so that other checks apply."""
        return (
            self.columns is not None
            and self.target.is_table
            and all(name in self.columns for name in _WANTED if name != "event_id")
        )


async def read_table(connection: Session, target: Examined) -> Table:
    """Read the facts about the table from the catalog; for a partitioned one, sums of its partitions."""
    row = await connection.fetchrow(
        f"""
        WITH RECURSIVE {below(f"SELECT {target.oid}::oid")}, rows AS (
            SELECT p.oid, p.relpersistence::text AS persistence, p.reltuples, pg_relation_size(p.oid) AS bytes
            FROM below JOIN pg_class p ON p.oid = below.oid AND p.relkind = 'r'
        )
        SELECT current_database()::text AS database, c.oid,
               ARRAY(SELECT {target.spelled("rows.oid")} FROM rows WHERE persistence = 'u' ORDER BY 1) AS unlogged,
               c.relpersistence = 't' AS temporary,
               coalesce({ESTIMATED_ROWS}, (SELECT CASE WHEN bool_and(reltuples >= 0) THEN sum(reltuples) END FROM rows),
                        -1)::bigint AS estimated,
               coalesce((SELECT sum(bytes) FROM rows), 0)::bigint AS bytes,
               CASE WHEN has_table_privilege(c.oid, 'SELECT')
                    THEN EXISTS (SELECT 1 FROM pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname)
               END AS analysed,
               row_security_active(c.oid) AS row_security, c.relrowsecurity AS policies
        FROM (SELECT 1) one
        LEFT JOIN pg_class c ON c.oid = {target.oid}
        LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
        """
    )
    assert row is not None
    if row["oid"] is None or target.kind is None:
        return Table(row["database"], target=target, elsewhere=tuple(await find_candidates(connection)))
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
    return Table(**row, target=target, columns={column[0]: CatalogColumn._make(column) for column in columns})


def presence(table: Table) -> Iterator[Finding]:
    """Check that there is a table, or a view that the user has named."""
    found = About("table")
    target = table.target
    name, kind, base = shown(target.table), target.kind, target.base
    if table.columns is None:
        missing = f"database {shown(table.database)} has no table {'' if not target.named else 'or view '}{name}"
        if table.elsewhere:
            there = f"esx doctor --store {quote(table.elsewhere[0])}"
            yield found.error(f"{missing}, but {instead(table.elsewhere)}", there)
        else:
            yield found.error(missing, *(() if target.named else ("esx init",)))
    elif kind in VIEWS and not target.named:
        yield found.error(
            f"{name} is {VIEWS[kind]} of user {shown(target.owner)}: it is read only where it is named, as what its "
            "owner has put into it runs then",
            f"esx doctor --store {quote(target.quoted)}",
        )
    elif kind in VIEWS:
        reads = f", reads table {shown(base.table)}," if isinstance(base, Examined) else ""
        yield found.info(
            f"{name} is {VIEWS[kind]} of user {shown(target.owner)}{reads} and takes no appends: what its owner has "
            "put into it runs when it is read"
        )
    else:
        yield found.ok(f"table {name}: {size_of(table.bytes)}")


def columns(table: Table) -> Iterator[Finding]:
    """Check that it has the columns that an event needs, with the right types."""
    if table.columns is None:
        return
    found = About("columns")
    missing = [name for name in _WANTED if name not in table.columns and name != "event_id"]
    # Only the owner of a view can change it.
    mends = table.target.is_table
    if missing:
        addable = [f"ALTER TABLE {table.name} ADD COLUMN {_ADDABLE[name]};" for name in missing if name in _ADDABLE]
        ours = len(addable) == len(missing)
        yield found.error(
            f"{'table' if mends else 'view'} {shown(table.name)} has no column {quoted(missing)}"
            + ("" if ours or not mends else ": it was not made by schema.sql"),
            *(() if not mends else addable if ours else _ELSEWHERE),
        )
    wrong = False
    for name, wanted in _WANTED.items():
        column = table.columns.get(name)
        if column is None or column.type in wanted.types:
            continue
        wrong = True
        using = _CONVERTED.get(column.type, "").format(column=name, type=wanted.types[0])
        statement = (
            f"ALTER TABLE {table.name} ALTER COLUMN {name} TYPE {wanted.types[0]}{f' USING {using}' if using else ''};"
        )
        make = found.warning if column.type in ("integer", "smallint") else found.error
        yield make(
            f"column {name} is of type {shown(column.type)}, not {wanted.types[0]}", *((statement,) if mends else ())
        )
    if not missing and not wrong:
        yield found.ok("the columns have the names and types of schema.sql")


def nulls(table: Table) -> Iterator[Finding]:
    """Check that necessary columns cannot be NULL, and that columns which the database fills in have their defaults."""
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
            yield found.warning(
                f"column {name} {' and '.join(facts)}", f"ALTER TABLE {table.name} {', '.join(changes)};"
            )
    if complete:
        yield found.ok("no column that every event has can be NULL")


def event_ids(table: Table) -> Iterator[Finding]:
    """Check that there is a column for the ids of events."""
    if not table.usable:
        return
    found = About("event-id")
    if "event_id" not in (table.columns or {}):
        yield found.warning(
            f"table {shown(table.name)} has no column event_id: an append repeated after a lost connection is not "
            "recognised (adding it rewrites the table once)",
            *(
                ("esx init",)
                if table.target.own
                else (f"ALTER TABLE {table.name} ADD COLUMN event_id uuid NOT NULL DEFAULT gen_random_uuid();",)
            ),
        )
    else:
        yield found.ok("events carry their client's id")


def collation(table: Table) -> Iterator[Finding]:
    """Check that stream ids sort by bytes, so that a prefix is a range of the unique index."""
    if not table.usable:
        return
    found = About("collation")
    name = (table.columns or {})["stream_id"].collation
    if name in BYTE_ORDERED:
        yield found.ok(f"stream_id has the collation {shown(name)}: a prefix is a range of the index")
        return
    make = found.warning if table.estimated >= table.target.thresholds.many_events else found.info
    yield make(
        f'stream_id has the collation {shown(name)}, not "C": looking for a prefix scans all streams '
        "(the change locks the table while it rebuilds the index)",
        f'ALTER TABLE {table.name} ALTER COLUMN stream_id TYPE text COLLATE "C";',
    )


def durability(table: Table) -> Iterator[Finding]:
    """Check that the events survive a crash."""
    if not table.usable:
        return
    found = About("unlogged")
    for part in table.unlogged:
        yield found.error(f"table {shown(part)} is unlogged: a crash empties it", f"ALTER TABLE {part} SET LOGGED;")
    if table.temporary:
        yield found.error(f"table {shown(table.name)} is temporary: it ends with this session")
    elif not table.unlogged:
        yield found.ok(f"table {shown(table.name)} survives a crash")


def row_security(table: Table) -> Iterator[Finding]:
    """Check that no policy hides events: a feed would take them for gaps."""
    if not table.usable:
        return
    found = About("row-security")
    if table.row_security:
        yield found.warning(
            "row-level security applies to this user: events that a policy hides are passed as gaps for good",
            f"ALTER TABLE {table.name} DISABLE ROW LEVEL SECURITY;",
        )
    elif table.policies:
        yield found.info("row-level security is on: this user bypasses it, others may see fewer events")
    else:
        yield found.ok("no policy hides events from this user")


def statistics(table: Table) -> Iterator[Finding]:
    """Check that the planner and the list of streams have statistics."""
    if not table.usable:
        return
    found = About("statistics")
    analysed = table.estimated >= 0 if table.analysed is None else table.analysed
    if analysed:
        yield found.ok(f"table {shown(table.name)} has been analysed")
    elif table.bytes >= table.target.thresholds.large_bytes:
        yield found.warning(
            f"table {shown(table.name)} has {size_of(table.bytes)} and was never analysed", f"ANALYZE {table.name};"
        )
    else:
        yield found.ok(f"table {shown(table.name)} was never analysed, but is small: {size_of(table.bytes)}")


TOPIC = Topic(
    "table", read_table, (presence, columns, nulls, event_ids, collation, durability, row_security, statistics)
)
