"""Tables of a read model made anew in a schema of their own, while those that serve stay as they are.

A handler finds the tables of the shadow by their names, as its schema is the first in search_path. What it writes
elsewhere shows in the locks that its transaction holds: any write takes a lock on its table that a read does not take,
also one that changes no row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from esx.errors import InvalidQuery, StoreFailed
from esx.postgres.session import Session
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
    """The shadow of some tables, in `schema`. Parents of foreign keys come first."""

    schema: str
    tables: tuple[ShadowTable, ...]


async def plan_shadow(connection: asyncpg.Connection, schema: str, names: Sequence[str], *, swapped: bool) -> Shadow:
    """Find the tables. Raises InvalidQuery for one that cannot have a shadow, or cannot be `swapped` with it, by name.

    The session finds names as the user does.
    """
    if not names:
        raise InvalidQuery("name the tables of the read model")
    live = [await find_table(connection, name) for name in names]
    if len(set(live)) < len(live):
        raise InvalidQuery("a table is named twice")
    rows = await connection.fetch(
        """
        SELECT c.oid, c.relkind::text AS kind, pg_catalog.quote_ident(c.relname) AS name, n.nspname AS schema,
               EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhrelid = c.oid
                          OR inhparent = c.oid AND c.relkind = 'r') AS inherits,
               c.relhasrules AS rules, pg_catalog.row_security_active(c.oid) AS secured, c.relpersistence::text AS kept,
               ARRAY(SELECT tgname::text FROM pg_catalog.pg_trigger
                     WHERE tgrelid = c.oid AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY 1) AS triggers,
               ARRAY(SELECT f.conname || ' of ' || f.conrelid::regclass FROM pg_catalog.pg_constraint f
                     WHERE f.contype = 'f' AND f.confrelid = c.oid AND f.conrelid <> ALL ($2::oid[])
                       AND f.conparentid = 0 ORDER BY 1) AS pointed_at,
               ARRAY(SELECT pg_catalog.quote_ident(attname) FROM pg_catalog.pg_attribute
                     WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
                     ORDER BY attnum) AS columns,
               ARRAY(SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_index i
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
                     WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY a.attnum) AS key
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY ($2::oid[]) ORDER BY pg_catalog.array_position($1::text[],
            pg_catalog.format('%I.%I', n.nspname, c.relname))
        """,
        *(live, [await connection.fetchval("SELECT pg_catalog.to_regclass($1)::oid", table) for table in live]),
    )
    if len({row["schema"] for row in rows}) > 1:
        raise InvalidQuery("the tables are in several schemas: esx makes a shadow of one")
    for table, row in zip(live, rows, strict=True):
        problem = _problem(row, swapped=swapped)
        if problem is not None:
            raise InvalidQuery(f"table {visible(table, limit=200)} {visible(problem, limit=300)}")
    found = {
        row["oid"]: ShadowTable(
            table,
            f"{schema}.{row['name']}",
            row["oid"],
            tuple(row["columns"]),
            tuple(row["key"] or row["columns"]),
            bool(row["key"]),
        )
        for table, row in zip(live, rows, strict=True)
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


async def _parents_first(connection: asyncpg.Connection, oids: list[int]) -> list[int]:
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


async def make_shadow(connection: asyncpg.Connection, shadow: Shadow, path: str, *, only_inside: bool = False) -> None:
    """Make the schema with its empty tables, in a transaction. `path` is its search_path, which it has again then.

    With `only_inside`, foreign keys to tables that have no shadow are left out: they would lock these tables.
    """
    await connection.execute(f"CREATE SCHEMA {shadow.schema}")
    for table in shadow.tables:
        await connection.execute(f"CREATE TABLE {table.shadow} (LIKE {table.live} INCLUDING ALL)")
        # LIKE gives a serial column the sequence of the table that serves.
        serials = await connection.fetch(
            """
            SELECT pg_catalog.quote_ident(a.attname) AS name, pg_catalog.format('%s', s.seqtypid::regtype) AS type
            FROM pg_catalog.pg_depend d
            JOIN pg_catalog.pg_sequence s ON s.seqrelid = d.objid
            JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
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
    await connection.execute("SELECT pg_catalog.set_config('search_path', $1, true)", path)


async def _copy_foreign_keys(
    connection: asyncpg.Connection, table: ShadowTable, shadow: Shadow, *, only_inside: bool
) -> None:
    """Give the shadow the foreign keys of the table; those to other tables of the shadow lead there."""
    schema = await connection.fetchval(
        "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_class c "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        table.oid,
    )
    # PostgreSQL writes names in search_path without their schema, and they are then found in the shadow first.
    await connection.execute("SELECT pg_catalog.set_config('search_path', $1, true)", schema)
    keys = await connection.fetch(
        "SELECT pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint "
        "WHERE contype = 'f' AND conrelid = $1 AND conparentid = 0 AND (NOT $2 OR confrelid = ANY ($3::oid[]))",
        *(table.oid, only_inside, [each.oid for each in shadow.tables]),
    )
    await connection.execute("SELECT pg_catalog.set_config('search_path', $1, true)", f"{shadow.schema}, {schema}")
    for key in keys:
        await connection.execute(f"ALTER TABLE {table.shadow} ADD {key[0]}")


async def drop_shadow(connection: asyncpg.Connection, schema: str) -> None:
    """Drop the schema, if it is there."""
    await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def enter_shadow(connection: Session, schema: str) -> None:
    """Let names be found in the shadow first, and then as the user finds them, until the transaction ends."""
    await connection.fetchval(f"SELECT {', '.join(('true', *connection.as_user()))}")
    await connection.fetchval(
        "SELECT pg_catalog.set_config('search_path', pg_catalog.concat($1::text, ', ', "
        "pg_catalog.current_setting('search_path')), true)",
        schema,
    )


async def check_written(connection: asyncpg.Connection, schema: str) -> None:
    """Raise StoreFailed if the transaction has written, or is about to write, outside of the shadow."""
    rows = await connection.fetch(
        """
        SELECT DISTINCT n.nspname || '.' || c.relname AS name FROM pg_catalog.pg_locks l
        JOIN pg_catalog.pg_class c ON c.oid = l.relation
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.mode = ANY ($1::text[])
          AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
          AND c.relkind IN ('r', 'p', 'S', 'v', 'f', 'm') AND n.nspname <> $2
          AND n.nspname NOT LIKE 'pg\\_temp%' AND n.nspname NOT IN ('pg_toast', 'pg_catalog')
        ORDER BY 1
        """,
        *(_WRITING, schema),
    )
    if rows:
        names = ", ".join(visible(row["name"], limit=100) for row in rows[:5])
        more = f" and {counted(len(rows) - 5, 'other')}" if len(rows) > 5 else ""
        raise StoreFailed(
            f"the handler writes to {names}{more}, which is none of the named tables: name all tables that it writes "
            "to, and let it write their names without a schema"
        )


async def check_read(connection: asyncpg.Connection, shadow: Shadow) -> None:
    """Raise StoreFailed if the transaction has read the tables that serve, by their schema."""
    rows = await connection.fetch(
        "SELECT relid::regclass::text FROM pg_catalog.pg_stat_xact_user_tables "
        "WHERE relid = ANY ($1::oid[]) AND seq_scan + coalesce(idx_scan, 0) > 0",
        [table.oid for table in shadow.tables],
    )
    if rows:
        names = ", ".join(visible(row[0], limit=100) for row in rows)
        raise StoreFailed(f"the handler reads {names} by its schema: let it write the names without a schema")
