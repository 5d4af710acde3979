"""Finds stores in other schemas or under other names: tables that look like one."""

from collections.abc import Sequence
from shlex import quote

import asyncpg

from esx.text import visible

NEEDED = ("global_seq", "stream_id", "stream_seq", "event_type", "data", "metadata", "created_at")
"""The columns that are necessary to read an event."""
_SHOWN = 3
_NAME_LIMIT = 200
# One pass through all columns, as no index finds the tables with a column of a name.
_LOOKALIKES = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
    FROM (SELECT a.attrelid FROM pg_attribute a
          WHERE a.attname = ANY ($1::name[]) AND a.attnum > 0 AND NOT a.attisdropped
          GROUP BY a.attrelid HAVING count(*) = cardinality($1::name[])) found
    JOIN pg_class c ON c.oid = found.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
      AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
      AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid)
    ORDER BY c.relname <> 'events', n.nspname, c.relname
    LIMIT $2
"""


async def find_candidates(connection: asyncpg.Connection) -> list[str]:
    """Return the names, as SQL writes them, of some tables that look like a store and that this user may read."""
    try:
        rows = await connection.fetch(_LOOKALIKES, NEEDED, _SHOWN + 1)
    except UnicodeDecodeError:
        return []  # a name that is no text, in a database without an encoding
    return [row[0] for row in rows]


def instead(names: Sequence[str]) -> str:
    """Return a message that names these stores, with the remedy for the first; `names` is of `find_candidates`."""
    shown = [visible(name, limit=_NAME_LIMIT) for name in names[:_SHOWN]]
    more = " and more" if len(names) > _SHOWN else ""
    path = ", or set search_path" if names[0].endswith(".events") else ""
    exist = "exists" if len(names) == 1 else "exist"
    return f"{', '.join(shown)}{more} {exist}: use --store {visible(quote(names[0]), limit=_NAME_LIMIT)}{path}"
