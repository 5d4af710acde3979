"""Creating the tables of schema.sql."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from esx.store.errors import StoreFailed

if TYPE_CHECKING:
    import asyncpg

_INIT_LOCK = 0x65737869  # "esxi": one init at a time in a database

_OBJECTS = """
    SELECT 'table ' || c.relname AS name,
           string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS definition
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.oid IN (to_regclass('events'), to_regclass('stream_locks'), to_regclass('projections'))
    GROUP BY c.relname
    UNION ALL
    SELECT 'index ' || indexrelid::regclass::text, pg_get_indexdef(indexrelid)
    FROM pg_index
    WHERE indrelid IN (to_regclass('events'), to_regclass('stream_locks'), to_regclass('projections'))
    UNION ALL
    SELECT 'trigger ' || tgname, pg_get_triggerdef(oid)
    FROM pg_trigger WHERE tgrelid = to_regclass('events') AND NOT tgisinternal
    UNION ALL
    SELECT 'function ' || p.oid::regprocedure::text, pg_get_functiondef(p.oid)
    FROM pg_proc p WHERE p.oid IN (to_regprocedure('esx_ring_doorbell()'), to_regprocedure('esx_lock_stream(text)'))
    ORDER BY 1
"""


_FREE = """
    SELECT NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('events') AND relkind NOT IN ('r', 'p'))
"""


def schema_sql() -> str:
    """Return the text of schema.sql: from the installed package, or from the source tree beside it."""
    packaged = resources.files("esx.store") / "schema.sql"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "schema.sql").read_text(encoding="utf-8")


async def apply_schema(connection: asyncpg.Connection) -> list[str]:
    """Apply schema.sql in one transaction and return what it changed, e.g. ``created table events``.

    An empty list means that everything was there already. Safe to run from several processes at once.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _INIT_LOCK)
        # What waits for the table makes everybody else wait behind it.
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        if not await connection.fetchval(_FREE):
            raise StoreFailed(
                "events is something else than a table there: rename it, or init another schema first in search_path"
            )
        before = {row[0]: row[1] for row in await connection.fetch(_OBJECTS)}
        await connection.execute(schema_sql())
        after = {row[0]: row[1] for row in await connection.fetch(_OBJECTS)}
    return [
        f"{'changed' if name in before else 'created'} {name}"
        for name, definition in after.items()
        if before.get(name) != definition
    ]
