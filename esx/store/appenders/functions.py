"""Finding the function of another tool in the database."""

from __future__ import annotations

from typing import NamedTuple

from esx.postgres.session import Session

_FIND = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(p.proname), coalesce(p.proargnames, '{}')::text[],
           n.oid = ANY (SELECT to_regnamespace(quote_ident(s))::oid FROM unnest(current_schemas(false)) s),
           quote_ident(n.nspname)
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = $1 AND p.proname = $2
    ORDER BY p.oid DESC LIMIT 1
"""


class Function(NamedTuple):
    """A function: its name as SQL writes it, the names of its arguments, and whether the user's search_path finds it.

    `schema` is quoted.
    """

    name: str
    arguments: list[str]
    on_path: bool
    schema: str


async def find_function(session: Session, schema: str | None, name: str) -> Function | None:
    """Return the newest function of that name in the schema, None if there is none."""
    row = await session.fetchrow(_FIND, schema, name)
    return None if row is None else Function(*row)
