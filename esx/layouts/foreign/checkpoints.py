"""The surroundings of another tool's store: what else it has in its schema, and how far its consumers are."""

import re
from typing import NamedTuple

import asyncpg

from esx.layouts.foreign.kind import CheckpointColumns, StoreKind
from esx.layouts.foreign.recognition import read_near, with_beside
from esx.layouts.foreign.tables import StoreTable, StoreTables

_READ = re.compile(r"\bc\.(\w+)")
_MOST_TABLES = 20
_TEXT = 300
_LISTED = ("name", "position", "at", "state", "owner", "error", "updated_at", "apart")
_INDEXED = """
    SELECT pg_get_indexdef(i.indexrelid, 1, false) FROM pg_index i
    JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am am ON am.oid = x.relam
    WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND am.amname = 'btree'
"""


class CheckpointTable(NamedTuple):
    """A table of checkpoints, and how it is read."""

    table: StoreTable
    columns: CheckpointColumns

    @property
    def problem(self) -> str | None:
        """Why this user may not read it, None if nothing is in the way."""
        columns = self.columns
        texts = [getattr(columns, name) for name in _LISTED]
        needed = {*columns.needed, *(found for text in texts for found in _READ.findall(text))} & {*self.table.columns}
        return self.table.refused(needed)

    def query(self, limit: int) -> str:
        """Return the query for up to `limit` rows: what `_LISTED` has, each as text."""
        columns = self.columns
        listed = ", ".join(f"pg_catalog.left(({getattr(columns, name)})::text, {_TEXT})" for name in _LISTED)
        rows = self.table.quoted if columns.rows is None else f"({columns.rows})"
        return f"SELECT {listed} FROM {rows} c LIMIT {limit}"


async def surroundings(connection: asyncpg.Connection, kind: StoreKind, oid: int) -> StoreTables | None:
    """Return the tables of the store whose events are in the table `oid`, None if it is not there any more."""
    telling = {*kind.has, *(c for b in kind.beside.values() for c in b), *(c for k in kind.checkpoints for c in k.has)}
    tables = await read_near(connection, oid, telling)
    events = next((table for table in tables if table.oid == oid), None)
    found = None if events is None else with_beside(events, kind, tables)
    if found is None:
        return None
    indexed = [row[0] for row in await connection.fetch(_INDEXED, oid)]
    kept = [table for table in tables if any(each.fits(table) for each in kind.checkpoints)]
    return StoreTables(found.table, found.beside, kept, indexed)


def checkpoint_tables(kind: StoreKind, tables: StoreTables) -> tuple[list[CheckpointTable], list[str]]:
    """Return up to twenty tables of checkpoints in these surroundings, and a line for each that is left out."""
    found, left_out = [], []
    for table in tables.checkpoints:
        for each in kind.checkpoints:
            if not each.fits(table):
                continue
            columns = each.columns(tables, table)
            if isinstance(columns, str):
                left_out.append(columns)
            elif columns is not None:
                found.append(CheckpointTable(table, columns))
                break
    if len(found) > _MOST_TABLES:
        left_out.append(f"there are more tables of checkpoints than {_MOST_TABLES}, whose consumers are not listed")
    return found[:_MOST_TABLES], left_out
