"""Tables of a read model made anew in a schema of their own, while those that serve stay as they are.

A handler finds the tables of the shadow by their names, as its schema is the first in search_path. What it writes
elsewhere shows in the locks that its transaction holds: any write takes a lock on its table that a read does not take,
also one that changes no row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from esx.errors import InvalidQuery, StoreFailed
from esx.postgres.literals import quoted
from esx.postgres.session import Session
from esx.postgres.settings import set_config
from esx.store.operate.tables import find_table
from esx.text import counted, visible

_WRITING = [
    *("RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
]


@dataclass(frozen=True, slots=True)
class ShadowTable:
    """A table that serves, with its schema as SQL writes it, and its shadow; `columns` are those that can be written.

    `key` are the columns of its primary key; without one, where `has_key` is false, all columns.
    """

    live: str
    shadow: str
    oid: int
    columns: tuple[str, ...]
    key: tuple[str, ...]
    has_key: bool = True

    @property
    def listed(self) -> str:
        """The columns as SQL lists them."""
        return ", ".join(self.columns)


@dataclass(frozen=True, slots=True)
class Shadow:
    """The shadow of some tables, in `schema`. Parents of foreign keys come first.

    Nothing else is in that schema: what esx notes is in one of its own, whose name is that with ``_notes``.
    """

    schema: str
    tables: tuple[ShadowTable, ...]

    @property
    def notes(self) -> str:
        """The schema for what esx notes, which no name of the user's leads to."""
        return f"{self.schema}_notes"


async def as_user(connection: Session) -> None:
    """Let names be found as the user finds them, until the transaction ends."""
    await connection.fetchval(f"SELECT {', '.join(('true', *connection.as_user()))}")


async def only_own(connection: Session) -> None:
    """Let only PostgreSQL's own names be found, until the transaction ends.

    A schema of the user's search_path may have a function or an operator that fits better than PostgreSQL's own.
    """
    await connection.fetchval(f"SELECT {', '.join(('true', *connection.as_guarded()))}")


async def plan_shadow(connection: Session, schema: str, names: Sequence[str], *, swapped: bool) -> Shadow:
    """Find the tables, as the user finds their names; from then on only PostgreSQL's own names are found.

    Raises InvalidQuery for one that cannot have a shadow, or cannot be `swapped` with it, by name.
    """
    if not names:
        raise InvalidQuery("name the tables of the read model")
    await as_user(connection)
    live = [await find_table(connection, name) for name in names]
    await only_own(connection)
    if len(set(live)) < len(live):
        raise InvalidQuery("a table is named twice")
    return await examine(
        connection,
        schema,
        [await connection.fetchval("SELECT to_regclass($1)::oid", table) for table in live],
        swapped=swapped,
    )


async def examine(connection: Session, schema: str, oids: Sequence[int], *, swapped: bool) -> Shadow:
    """Return the shadow of tables, by their oids. Raises InvalidQuery as `plan_shadow` does."""
    rows = await connection.fetch(
        """
        SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS live, quote_ident(c.relname) AS name,
               n.nspname AS schema,
               EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid
                          OR inhparent = c.oid AND c.relkind = 'r') AS inherits,
               c.relhasrules AS rules, row_security_active(c.oid) AS secured, c.relpersistence::text AS kept,
               ARRAY(SELECT tgname::text FROM pg_trigger
                     WHERE tgrelid = c.oid AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY 1) AS triggers,
               ARRAY(SELECT f.conname || ' of ' || f.conrelid::regclass FROM pg_constraint f
                     WHERE f.contype = 'f' AND f.confrelid = c.oid AND f.conrelid <> ALL ($1::oid[])
                       AND f.conparentid = 0 ORDER BY 1) AS pointed_at,
               ARRAY(SELECT quote_ident(attname) FROM pg_attribute
                     WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
                     ORDER BY attnum) AS columns,
               ARRAY(SELECT quote_ident(a.attname) FROM pg_index i
                     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
                     WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY a.attnum) AS key
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY ($1::oid[]) ORDER BY array_position($1::oid[], c.oid)
        """,
        list(oids),
    )
    if len(rows) < len(oids):
        raise InvalidQuery("a table of the read model was dropped meanwhile")
    if len({row["schema"] for row in rows}) > 1:
        raise InvalidQuery("the tables are in several schemas: esx makes a shadow of one")
    for row in rows:
        problem = _problem(row, swapped=swapped)
        if problem is not None:
            raise InvalidQuery(f"table {visible(row['live'], limit=200)} {visible(problem, limit=300)}")
    found = {
        row["oid"]: ShadowTable(
            row["live"],
            f"{schema}.{row['name']}",
            row["oid"],
            tuple(row["columns"]),
            tuple(row["key"] or row["columns"]),
            bool(row["key"]),
        )
        for row in rows
    }
    order = await _parents_first(connection, list(found))
    return Shadow(schema, tuple(found[oid] for oid in order))


def _problem(row: asyncpg.Record, *, swapped: bool) -> str | None:
    if row["inherits"]:
        return "is part of an inheritance tree, or a partition: name its parent, or make the read model anew by hand"
    if row["kept"] != "p":
        return "is unlogged or temporary: it is lost after a crash, and is not rebuilt here"
    if not swapped:
        return None
    if row["triggers"]:
        return f"has trigger {', '.join(row['triggers'])}, which would fire for each row: disable it, and then rebuild"
    if row["rules"]:
        return "has rules, which would change what is written: drop them, and make them again after the rebuild"
    if row["secured"]:
        return "has row-level security that applies to you: rebuild it as its owner"
    if row["pointed_at"]:
        return f"is referenced by foreign key {', '.join(row['pointed_at'])}: name that table too, or drop the key"
    return None


async def _parents_first(connection: Session, oids: list[int]) -> list[int]:
    rows = await connection.fetch(
        "SELECT conrelid AS child, confrelid AS parent FROM pg_catalog.pg_constraint WHERE contype = 'f' "
        "AND conrelid = ANY ($1::oid[]) AND confrelid = ANY ($1::oid[]) AND conrelid <> confrelid",
        oids,
    )
    left, order = list(oids), list[int]()
    while left:
        free = [oid for oid in left if not any(row["child"] == oid and row["parent"] in left for row in rows)]
        if not free:
            raise InvalidQuery("the foreign keys of the tables lead in a circle: make the read model anew by hand")
        order += free
        left = [oid for oid in left if oid not in free]
    return order


async def make_shadow(connection: Session, shadow: Shadow, *, only_inside: bool = False) -> None:
    """Make the schema with its empty tables, in a transaction.

    With `only_inside`, foreign keys to tables that have no shadow are left out: they would lock these tables.
    """
    await connection.execute(f"CREATE SCHEMA {shadow.schema}")
    for table in shadow.tables:
        await connection.execute(f"CREATE TABLE {table.shadow} (LIKE {table.live} INCLUDING ALL)")
        # LIKE gives a serial column the sequence of the table that serves.
        serials = await connection.fetch(
            """
            SELECT quote_ident(a.attname) AS name, format('%s', s.seqtypid::regtype) AS type
            FROM pg_depend d
            JOIN pg_sequence s ON s.seqrelid = d.objid
            JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
              AND d.refobjid = $1 AND d.deptype = 'a'
            """,
            table.oid,
        )
        for number, serial in enumerate(serials):
            sequence = f"{shadow.schema}.esx_{table.oid}_{number}"
            await connection.execute(f"CREATE SEQUENCE {sequence} AS {serial['type']}")
            await connection.execute(f"ALTER SEQUENCE {sequence} OWNED BY {table.shadow}.{serial['name']}")
            await connection.execute(
                f"ALTER TABLE {table.shadow} ALTER {serial['name']} SET DEFAULT nextval('{sequence}'::regclass)"
            )
    for table in shadow.tables:
        await _copy_foreign_keys(connection, table, shadow, only_inside=only_inside)
    await only_own(connection)


async def _copy_foreign_keys(connection: Session, table: ShadowTable, shadow: Shadow, *, only_inside: bool) -> None:
    """Give the shadow the foreign keys of the table; those to other tables of the shadow lead there."""
    schema, keys = await connection.fetchrow(  # type: ignore[misc]
        """
        SELECT quote_ident(n.nspname),
               ARRAY(SELECT oid FROM pg_constraint WHERE contype = 'f' AND conrelid = c.oid AND conparentid = 0
                     AND (NOT $2 OR confrelid = ANY ($3::oid[])) ORDER BY oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1
        """,
        *(table.oid, only_inside, [each.oid for each in shadow.tables]),
    )
    for key in keys:
        # PostgreSQL writes names in search_path without their schema, and they are then found in the shadow first.
        await _search(connection, schema)
        written = await connection.fetchval("SELECT pg_catalog.pg_get_constraintdef($1)", key)
        await _search(connection, f"{shadow.schema}, {schema}")
        await connection.execute(f"ALTER TABLE {table.shadow} ADD {written}")
        await only_own(connection)


async def _search(connection: Session, path: str) -> None:
    await connection.fetchval("SELECT pg_catalog.set_config('search_path', $1, true)", path)


async def drop_shadow(connection: asyncpg.Connection, schema: str) -> None:
    """Drop the schema, if it is there. Raises StoreFailed if another user has made one of that name."""
    owner = await connection.fetchval(
        "SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace "
        "WHERE nspname = $1 AND nspowner <> (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER)",
        schema,
    )
    if owner is not None:
        raise StoreFailed(
            f"schema {schema}, which is to be made anew, belongs to {visible(owner, limit=100)}: drop or rename it"
        )
    await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def enter_shadow(connection: Session, schema: str) -> None:
    """Let names be found in the shadow first, and then as the user finds them, until the transaction ends."""
    first = set_config("search_path", f"{schema}, {connection.path}", local=True)
    await connection.fetchval(f"SELECT {', '.join(('true', *connection.as_user()))}")
    await connection.fetchval(f"SELECT {first}")


async def note_changes(connection: Session, shadow: Shadow, table: ShadowTable, statements: str) -> None:
    """Let a trigger run `statements` of PL/pgSQL for each row of the table's shadow that is written.

    They find PostgreSQL's own names only, and the name of the table that serves as TG_ARGV[0].
    """
    function = f"{shadow.notes}.note_{table.oid}"
    body = f"BEGIN {statements} RETURN NULL; END"
    await connection.execute(
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS {quoted(body)}"
    )
    await connection.execute(
        f"CREATE TRIGGER esx_note AFTER INSERT OR UPDATE OR DELETE ON {table.shadow} FOR EACH ROW "
        f"EXECUTE FUNCTION {function}({quoted(table.live)})"
    )


async def check_written(connection: Session, shadow: Shadow) -> None:
    """Raise StoreFailed if the transaction has written, or is about to write, outside of the shadow.

    From then on only PostgreSQL's own names are found.
    """
    await only_own(connection)
    rows = await connection.fetch(
        """
        SELECT DISTINCT n.nspname || '.' || c.relname AS name FROM pg_locks l
        JOIN pg_class c ON c.oid = l.relation
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.mode = ANY ($1::text[])
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND c.relkind IN ('r', 'p', 'S', 'v', 'f', 'm') AND n.nspname <> ALL ($2::text[])
          AND n.nspname NOT LIKE 'pg\\_temp%' AND n.nspname NOT IN ('pg_toast', 'pg_catalog')
        ORDER BY 1
        """,
        *(_WRITING, [shadow.schema, shadow.notes]),
    )
    if rows:
        names = ", ".join(visible(row["name"], limit=100) for row in rows[:5])
        more = f" and {counted(len(rows) - 5, 'other')}" if len(rows) > 5 else ""
        raise StoreFailed(
            f"the handler writes to {names}{more}, which is none of the named tables: name all tables that it writes "
            "to, and let it write their names without a schema"
        )


async def check_read(connection: Session, shadow: Shadow) -> None:
    """Raise StoreFailed if the transaction has read the tables that serve, by their schema."""
    await only_own(connection)
    rows = await connection.fetch(
        "SELECT relid::regclass::text FROM pg_stat_xact_user_tables "
        "WHERE relid = ANY ($1::oid[]) AND seq_scan + coalesce(idx_scan, 0) > 0",
        [table.oid for table in shadow.tables],
    )
    if rows:
        names = ", ".join(visible(row[0], limit=100) for row in rows)
        raise StoreFailed(f"the handler reads {names} by its schema: let it write the names without a schema")
