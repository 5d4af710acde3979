"""A faithful import: an empty store becomes what was exported, with every number, id and time as it was.

It can be cut short and run again, so what is there may be the beginning of it, but nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.store.errors import EsxError
from esx.text import visible

if TYPE_CHECKING:
    import asyncpg

    from esx.store.bulk_lines import Lines
    from esx.store.layout import Layout

_LOWEST = -(2**63)


class StoreNotEmpty(EsxError):
    """A faithful import needs a store that holds nothing but the beginning of this very import."""


class Faithful:
    """Compares an import, chunk by chunk, with what the store holds."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.table
        self._rows = (
            f"SELECT global_seq, stream_id, stream_seq, {layout.event_id}::text FROM {layout.table} "
            "WHERE global_seq > $1 AND global_seq <= $2 ORDER BY global_seq LIMIT $3"
        )
        self._at = _LOWEST

    async def new(self, connection: asyncpg.Connection, lines: Lines, head: int) -> range:
        """Return which lines are not stored yet, given that numbers up to `head` have been handed out.

        Those before them are. Raises StoreNotEmpty if something else is stored.
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
                    f"passed: `TRUNCATE {self._table} RESTART IDENTITY` lets it begin anew"
                )
        return range(first, len(lines.rows))

    def stored(self, lines: Lines) -> None:
        """Take note that the lines are stored now."""
        self._at = lines.global_seqs[-1]


def _not_empty(why: str) -> StoreNotEmpty:
    return StoreNotEmpty(
        f"the store is not empty: {why}; a faithful import needs a database of its own (`esx init` makes its tables)"
    )
