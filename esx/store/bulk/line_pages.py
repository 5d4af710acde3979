"""Reads the lines of an export by pages, with many lines to a row: COPY sends a message for each, which costs more."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Iterator

import asyncpg

from esx.layouts.layout import Layout
from esx.store.bulk.export_line import plain_line_sql
from esx.store.read.ahead import begun

PAGE = 2000
"""How many events are in a page."""
_TOGETHER = 64
"""How many numbers a row spans: PostgreSQL takes longer to make longer texts."""
_SMALL = 2000
"""An event with more bytes of payload is large, and one that is compressed, as its text may be very long."""
PIECE = 2**18
_COLUMNS = {
    "global_seq": "bigint",
    "stream_id": "text",
    "stream_seq": "bigint",
    "event_type": "text",
    "data": "jsonb",
    "metadata": "jsonb",
    "created_at": "timestamptz",
    "event_id": "uuid",
}


async def is_plain(connection: asyncpg.Connection, layout: Layout) -> bool:
    """Return whether the columns of a table are as in schema.sql, which `LinePages` needs."""
    if not layout.own or layout.kind != "r":
        return False
    wanted = ", ".join(f"('{name}', '{kind}'::regtype, {name != 'metadata'})" for name, kind in _COLUMNS.items())
    found: int = await connection.fetchval(f"""
        SELECT count(*) FROM pg_attribute a JOIN (VALUES {wanted}) wanted (name, kind, given)
        ON a.attname = wanted.name AND a.atttypid = wanted.kind AND (a.attnotnull OR NOT given)
        WHERE a.attrelid = {layout.oid} AND NOT EXISTS (
            SELECT FROM pg_constraint c WHERE c.conrelid = a.attrelid AND c.contype = 'n' AND NOT c.convalidated)
    """)
    return found == len(_COLUMNS)


class LinePages:
    """The lines of the events with numbers above `after`, up to `until`, in their order, for as long as none is large.

    Its table `is_plain`. `large` is the number at the end of the page that was not read because of a large event, None
    if all were read.
    """

    def __init__(self, connection: asyncpg.Connection, layout: Layout, after: int, until: int) -> None:
        self._connection = connection
        small = f"""pg_column_size(e.data) + coalesce(pg_column_size(e.metadata), 0) <= {_SMALL}
            AND pg_column_compression(e.data) IS NULL AND pg_column_compression(e.metadata) IS NULL"""
        self._query = f"""
            SELECT string_agg(CASE WHEN {small} THEN {plain_line_sql()} END, E'\\n' ORDER BY e.global_seq),
                   count(*), max(e.global_seq)
            FROM (SELECT * FROM {layout.table} WHERE global_seq > $1::bigint AND global_seq <= $2::bigint
                  ORDER BY global_seq LIMIT {PAGE}) e
            GROUP BY e.global_seq / {_TOGETHER} ORDER BY 3
        """
        self._after = after
        self._until = until
        self.large: int | None = None

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield pieces of whole lines, of some 256 kB."""
        reading = await begun(self._rows(self._after))
        try:
            while rows := await reading:
                last: int = rows[-1][2]
                # PostgreSQL makes the next page while this one is written.
                reading = await begun(self._rows(last))
                if any(text is None or text.count("\n") + 1 != count for text, count, _ in rows):
                    self.large = last
                    # One that is cancelled would end the transaction, and one that failed has.
                    await reading
                    return
                for piece in _joined(text.encode() for text, _, _ in rows):
                    yield piece
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reading

    async def _rows(self, after: int) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await self._connection.fetch(self._query, after, self._until)
        return rows


def _joined(texts: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for text in texts:
        held += text, b"\n"
        size += len(text)
        if size >= PIECE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
