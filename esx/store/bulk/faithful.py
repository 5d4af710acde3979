"""A faithful import: an empty store becomes equal to the exported one, with all numbers, ids and times.

It can be interrupted and run again, so the store may already have the beginning of the import, but nothing else.
"""

import asyncpg

from esx.errors import EsxError
from esx.layouts.layout import Layout
from esx.store.bulk.lines import ParsedLines
from esx.text import visible

_LOWEST = -(2**63)


class StoreNotEmpty(EsxError):
    """A faithful import needs a store that is empty or holds only the beginning of this import."""


class Faithful:
    """Compares an import, chunk by chunk, with what the store holds."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.table
        self._rows = (
            f"SELECT global_seq, stream_id, stream_seq, {layout.event_id}::text FROM {layout.table} "
            "WHERE global_seq > $1 AND global_seq <= $2 ORDER BY global_seq LIMIT $3"
        )
        self._at = _LOWEST

    async def new(self, connection: asyncpg.Connection, lines: ParsedLines, head: int) -> range:
        """Return the indexes of the lines that are not stored yet, given that numbers up to `head` were drawn.

        Raises StoreNotEmpty if something else is stored.
        """
        places = {number: index for index, number in enumerate(lines.global_seqs)}
        rows = await connection.fetch(self._rows, self._at, lines.global_seqs[-1], len(lines.rows) + 1)
        for number, stream, seq, event_id in rows:
            index = places.get(number)
            if index is None or (stream.encode(), seq, event_id.encode()) != (
                lines.streams[index],
                lines.seqs[index],
                lines.event_ids[index],
            ):
                raise _not_empty(f"it holds another event {number}, {seq} of stream {visible(stream, limit=200)}")
        first = len(rows)
        stored = {row[0] for row in rows}
        for number in lines.global_seqs:
            if number <= head and number not in stored:
                if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {self._table})"):
                    raise _not_empty(f"its numbers go up to {head}, and event {number} is not there")
                raise StoreNotEmpty(
                    f"the store is empty, but its sequence has handed out numbers up to {head}, which readers may have "
                    f"passed: `TRUNCATE {self._table} RESTART IDENTITY` lets it begin at 1 again"
                )
        return range(first, len(lines.rows))

    def stored(self, lines: ParsedLines) -> None:
        """Note that the lines are stored now."""
        self._at = lines.global_seqs[-1]


def _not_empty(why: str) -> StoreNotEmpty:
    return StoreNotEmpty(
        f"the store is not empty: {why}; a faithful import needs a database of its own (`esx init` makes its tables)"
    )
