"""Creating the tables of schema.sql."""

from importlib import resources
from pathlib import Path

import asyncpg

from esx.errors import StoreFailed
from esx.layouts.candidates import NEEDED
from esx.layouts.layout import OTHER_TABLES

_INIT_LOCK = 0x65737869  # "esxi": one init at a time in a database

_TABLES = " ".join(("events", *OTHER_TABLES))

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
_THERE = """
    SELECT c.relkind IN ('r', 'p'),
           ARRAY(SELECT name FROM unnest($1::text[]) WITH ORDINALITY needed (name, place) WHERE NOT EXISTS (
               SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = name AND NOT a.attisdropped)
                 ORDER BY place)
    FROM pg_class c WHERE c.oid = to_regclass('events')
"""


def schema_sql() -> str:
    """Return the text of schema.sql: from the installed package, or from the source tree beside it."""
    packaged = resources.files("esx.layouts") / "schema.sql"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "schema.sql").read_text(encoding="utf-8")


async def apply_schema(connection: asyncpg.Connection, lock_timeout: float = 5.0) -> list[str]:
    """Apply schema.sql in one transaction and return what it changed, e.g. ``created table events``.

    An empty list means that everything was there already. Several processes can run it at the same time. It waits up to
    `lock_timeout` seconds for the lock of a table. A schema that a newer esx made is not changed, and the error of
    PostgreSQL says so. Raises StoreFailed if events is not a table, or not one of esx.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _INIT_LOCK)
        # While this waits for the table, all other sessions wait behind it.
        await connection.execute(f"SET LOCAL lock_timeout = {round(lock_timeout * 1000)}")
        there = await connection.fetchrow(_THERE, NEEDED)
        if there is not None and not there[0]:
            raise StoreFailed(
                "events is something else than a table there: rename it, or init another schema first in search_path"
            )
        if there is not None and there[1]:
            raise StoreFailed(
                f"table events there is not esx's, as it has no column {', '.join(there[1])}: it is left as it is; "
                "init another schema first in search_path"
            )
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
