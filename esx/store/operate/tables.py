"""The tables of a read model, by the names that a user gives."""

import asyncpg

from esx.errors import InvalidQuery
from esx.postgres.driver_errors import told
from esx.text import visible


async def find_table(connection: asyncpg.Connection, name: str) -> str:
    """Return the name with its schema, as SQL writes it; names are found as the user finds them.

    Raises InvalidQuery if there is no such table.
    """
    try:
        # In the user's search_path there may be operators that fit better than PostgreSQL's own.
        oid = await connection.fetchval("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", name)
        found = await connection.fetchval(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
            "WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid "
            "AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog.\"char\"[])",
            oid,
        )
    except asyncpg.PostgresError as error:
        raise InvalidQuery(f"{visible(name, limit=200)} is no name of a table: {told(error)}") from error
    if found is None:
        raise InvalidQuery(f"there is no table {visible(name, limit=200)}")
    return str(found)
