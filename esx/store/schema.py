"""Creating the tables, and finding out what an existing table is like."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from esx.store.errors import SchemaMissing
from esx.store.layout import Layout

if TYPE_CHECKING:
    import asyncpg

_INIT_LOCK = 0x65737869  # "esxi": one init at a time in a database

_LOCK_TIMEOUT = "5s"
_TABLES = "events stream_locks consumers projections parked_events feed_fence erased_events esx_schema"

_OBJECTS = f"""
    SELECT 'class ' || c.oid AS key, CASE c.relkind WHEN 'v' THEN 'view ' ELSE 'table ' END || c.relname AS name,
           string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS definition
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(string_to_array('{_TABLES}', ' ')) name)
    GROUP BY c.oid
    UNION ALL
    SELECT 'class ' || indexrelid, 'index ' || indexrelid::regclass::text, pg_get_indexdef(indexrelid)
    FROM pg_index
    WHERE indrelid IN (SELECT to_regclass(name) FROM unnest(string_to_array('{_TABLES}', ' ')) name)
    UNION ALL
    SELECT 'trigger ' || tgname, 'trigger ' || tgname, pg_get_triggerdef(oid)
    FROM pg_trigger WHERE tgrelid = to_regclass('events') AND NOT tgisinternal
    UNION ALL
    SELECT 'function ' || p.oid, 'function ' || p.oid::regprocedure::text, pg_get_functiondef(p.oid)
    FROM pg_proc p WHERE p.oid IN (to_regprocedure('esx_ring_doorbell()'), to_regprocedure('esx_lock_stream(text)'))
    ORDER BY 2
"""


def schema_sql() -> str:
    """Return the text of schema.sql: from the installed package, or from the source tree beside it."""
    packaged = resources.files("esx.store") / "schema.sql"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "schema.sql").read_text(encoding="utf-8")


async def apply_schema(connection: asyncpg.Connection) -> list[str]:
    """Apply schema.sql in one transaction and return what it changed, e.g. ``created table events``.

    An empty list means that everything was there already. Safe to run from several processes at once. A schema that a
    newer esx made is left as it is; the error of PostgreSQL says so.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _INIT_LOCK)
        # What waits for the table makes everybody else wait behind it.
        await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        before = {row["key"]: row for row in await connection.fetch(_OBJECTS)}
        await connection.execute(schema_sql())
        after = await connection.fetch(_OBJECTS)
    changes = []
    for key, name, definition in after:
        known = before.get(key)
        if known is None:
            changes.append(f"created {name}")
        elif known["name"] != name:
            changes.append(f"renamed {known['name']} to {name.split()[-1]}")
        elif known["definition"] != definition and not name.startswith("index "):
            changes.append(f"changed {name}")
    return changes


async def detect_layout(connection: asyncpg.Connection) -> Layout:
    """Return the layout of the events table.

    Raises SchemaMissing if there is none, or if columns are missing that no event can be read without.
    """
    columns = await connection.fetch(
        """
        SELECT a.attname, coalesce(co.collname, '') AS collation
        FROM pg_attribute a LEFT JOIN pg_collation co ON co.oid = a.attcollation
        WHERE a.attrelid = to_regclass('events') AND a.attnum > 0 AND NOT a.attisdropped
        """
    )
    database, encoding = (await connection.fetch("SELECT current_database(), getdatabaseencoding()::text"))[0]
    if not columns:
        raise SchemaMissing(f"database {database} has no table events: run `esx init` to create it")
    collations = {row["attname"]: row["collation"] for row in columns}
    needed = ("global_seq", "stream_id", "stream_seq", "event_type", "data", "metadata", "created_at")
    missing = [name for name in needed if name not in collations]
    if missing:
        raise SchemaMissing(
            f"table events of database {database} has no column {', '.join(missing)}: esx reads tables made by "
            "schema.sql; `esx init` in a database of its own creates one"
        )
    # A unique index that is no constraint judges as well, and is named by its violation in the same way.
    constraint = await connection.fetchval(
        """
        SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = to_regclass('events') AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
          AND i.indnkeyatts = 2
          AND ARRAY['stream_id', 'stream_seq'] = ARRAY(
              SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = i.indrelid AND a.attnum IN (i.indkey[0], i.indkey[1]) ORDER BY a.attname)
        ORDER BY i.indexrelid LIMIT 1
        """
    )
    lockable = await connection.fetchval(
        """
        SELECT to_regprocedure('esx_lock_stream(text)') IS NOT NULL
               AND coalesce(has_table_privilege(locks, 'SELECT') AND has_table_privilege(locks, 'INSERT')
                            AND has_table_privilege(locks, 'UPDATE'), false)
        FROM (SELECT to_regclass('stream_locks')::oid AS locks) found
        """
    )
    unique_event_id = await connection.fetchval(
        """
        SELECT EXISTS (SELECT 1 FROM pg_index i
                       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'event_id'
                       WHERE i.indrelid = to_regclass('events') AND i.indisunique AND i.indisvalid
                         AND i.indpred IS NULL AND i.indnatts = 1 AND i.indkey[0] = a.attnum)
        """
    )
    return Layout(
        event_id="event_id" if "event_id" in collations else None,
        byte_order=collations["stream_id"] in ("C", "POSIX", "ucs_basic", "C.UTF-8"),
        unique_constraint=constraint or Layout().unique_constraint,
        lockable=lockable,
        unique_event_id=unique_event_id,
        encoding=encoding,
        standby=await connection.fetchval("SELECT pg_is_in_recovery()"),
    )
