"""The sequence behind global_seq, for imports that keep the numbers of their events.

Readers go by the numbers in ascending order, so none may be kept that they may have passed: all must be above what the
sequence has handed out. And afterwards it must go on behind them, with numbers left for a long time.
"""

from __future__ import annotations

import asyncpg

from esx.errors import EsxError
from esx.layouts.layout import Layout

# Which part of a sequence's numbers stays free behind those that are kept.
_FREE = 16


class SequenceNumbers:
    """The sequence of one table; `highest` is the highest number that may be kept."""

    def __init__(self, layout: Layout, name: str, oid: int, *, cache: int | None, highest: int) -> None:
        self.highest = highest
        self._layout = layout
        self._name = name
        self._oid = oid
        # None where another user owns the sequence, who alone may alter it.
        self._cache = cache

    @classmethod
    async def find(cls, connection: asyncpg.Connection, layout: Layout) -> SequenceNumbers:
        """Return the sequence that the column draws from; raises EsxError if there is none."""
        row = await connection.fetchrow(
            f"""
            SELECT c.oid::regclass::text, c.oid, pg_catalog.pg_has_role(c.relowner, 'USAGE'), q.seqmax, q.seqcache
            FROM pg_class c JOIN pg_sequence q ON q.seqrelid = c.oid
            WHERE c.oid = coalesce(
                (SELECT p.refobjid FROM pg_attribute a
                 JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                 JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid
                      AND p.refclassid = 'pg_class'::regclass
                 JOIN pg_sequence s ON s.seqrelid = p.refobjid
                 WHERE a.attrelid = {layout.oid} AND a.attname = 'global_seq' LIMIT 1),
                {layout.sequence})
            """
        )
        if row is None:
            raise EsxError(
                f"global_seq of table {layout.called} comes from no sequence that could go on behind the numbers to be "
                "kept: import without keeping them"
            )
        name, oid, owned, most, cache = row
        return cls(layout, name, oid, cache=cache if owned else None, highest=most - most // _FREE)

    async def lock(self, connection: asyncpg.Connection) -> int:
        """Keep other sessions from drawing a number until the transaction ends, and return the highest one drawn.

        It is 0 before the first. Readers may be as far as that, also where nothing is stored at that number.
        """
        await connection.execute(f"LOCK TABLE {self._layout.table} IN SHARE ROW EXCLUSIVE MODE")
        if self._cache is not None:
            # To alter it, if only to what it is, keeps out those too who draw numbers without writing to the table.
            await connection.execute(f"ALTER SEQUENCE {self._name} CACHE {self._cache}")
        return int(
            await connection.fetchval(
                "SELECT coalesce(greatest(pg_catalog.max(global_seq), "
                "CASE WHEN pg_catalog.has_sequence_privilege($1::oid, 'SELECT, USAGE') "
                f"THEN pg_catalog.pg_sequence_last_value($1::oid::regclass) END), 0) FROM {self._layout.table}",
                self._oid,
            )
        )

    async def move(self, connection: asyncpg.Connection, number: int) -> None:
        """Let the sequence go on after `number`, as a part of the transaction."""
        if self._cache is not None:
            # What setval does is not undone with the transaction, unless the sequence was restarted in it: numbers of
            # an import whose commit was lost would count as handed out, and the import could not be run again.
            await connection.execute(f"ALTER SEQUENCE {self._name} RESTART")
        await connection.execute("SELECT pg_catalog.setval($1::oid::regclass, $2)", self._oid, number)
