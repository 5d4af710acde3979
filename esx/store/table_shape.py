"""What the tables of a store look like: their columns, indexes, constraints and triggers, as PostgreSQL writes them."""

from dataclasses import dataclass

import asyncpg

from esx.layouts.layout import Layout
from esx.postgres.values import fetch

_MOST = 1000
"""How many tables, and how many things of one kind of a table, are listed at most."""
_TEXT = 10_000
"""How many characters of a definition are kept."""


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table, in PostgreSQL's words: `kind` is its relkind, and the others are a definition each."""

    name: str
    kind: str
    columns: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()


async def read_shapes(connection: asyncpg.Connection, layout: Layout) -> list[TableShape]:
    """Return the shapes of the tables with the events, by name, at most a thousand."""
    rows = await fetch(
        connection,
        f"""
        SELECT c.oid::regclass::text, c.relkind::text,
               ARRAY(SELECT left(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                                           CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                                           'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)), {_TEXT})
                     FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                     ORDER BY a.attnum LIMIT {_MOST}),
               ARRAY(SELECT left(pg_get_indexdef(i.indexrelid), {_TEXT}) FROM pg_index i WHERE i.indrelid = c.oid
                     ORDER BY i.indexrelid LIMIT {_MOST}),
               ARRAY(SELECT left(quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid), {_TEXT})
                     FROM pg_constraint k WHERE k.conrelid = c.oid ORDER BY k.oid LIMIT {_MOST}),
               ARRAY(SELECT left(pg_get_triggerdef(t.oid), {_TEXT}) FROM pg_trigger t
                     WHERE t.tgrelid = c.oid AND NOT t.tgisinternal ORDER BY t.oid LIMIT {_MOST})
        FROM pg_class c WHERE c.oid IN ({layout.tables}) ORDER BY 1 LIMIT {_MOST}
        """,
    )
    return [TableShape(row[0], row[1], *(tuple(each) for each in row[2:])) for row in rows]
