"""Deletes the events of a load test: in bounded batches, and only events with the mark of the test.

The conflicts that were recorded on its streams go with them. Nothing else deletes events. The numbers stay as dead gaps
in global_seq, which the feed passes like those of rolled-back transactions. The same statement notes them in the table
erased_events, so that a reader that got these events does not take its history for another one (see history.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from esx.errors import EsxError, StoreFailed
from esx.layouts.layout import Layout
from esx.postgres.values import fetch
from esx.store.conflicts.recording import check_there
from esx.text import counted, visible

BATCH = 5_000
"""How many events are deleted in a transaction."""


_BEGINS = "pg_catalog.starts_with(stream_id, $1) AND $2::text IS NOT NULL"
"""A condition for what has no index on stream_id; it takes the prefix twice, as others do."""


class NotMarked(EsxError):
    """An event in the range has not the mark, so nothing is deleted. The message names the event and the remedy."""


class Mark(NamedTuple):
    """The mark in the metadata of each event to be deleted: `key` with the text `value`."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Marked:
    """How many events, of how many streams, would be deleted, and how many rows of recorded conflicts."""

    events: int
    streams: int
    conflicts: int = 0

    @property
    def text(self) -> str:
        """The same in words."""
        text = f"{counted(self.events, 'event')} in {counted(self.streams, 'stream')}"
        return f"{text} and {counted(self.conflicts, 'row')} of recorded conflicts" if self.conflicts else text


class Eraser:
    """Finds and deletes the events of streams whose id starts with `prefix`, all of which must carry `mark`."""

    def __init__(
        self, connection: asyncpg.Connection, layout: Layout, prefix: str, mark: Mark, batch: int = BATCH
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._prefix = prefix
        self._mark = mark
        self._batch = batch
        within = (
            f"stream_id >= $1 AND stream_id < $2 || {layout.last()}" if layout.byte_order else "$2::text IS NOT NULL"
        )
        self._within = f"{within} AND pg_catalog.starts_with(stream_id, $1)"
        self._page = (
            f"SELECT stream_id, stream_seq, global_seq, (metadata ->> $5) IS NOT DISTINCT FROM $6 AS own "
            f"FROM {layout.table} WHERE {self._within} AND (stream_id, stream_seq) > ($3, $4) "
            f"ORDER BY stream_id, stream_seq LIMIT {batch}"
        )

    async def look(self, on_progress: Callable[[int], None] | None = None) -> Marked:
        """Count what is to be deleted, and look at the metadata of each event; raises NotMarked."""
        events = streams = 0
        at: tuple[str, int] | None = ("", -1)
        last = ""
        while at is not None:
            rows = await fetch(self._connection, self._page, *self._range(at))
            for stream_id, stream_seq, global_seq, own in rows:
                if not own:
                    key, value = self._mark
                    raise NotMarked(
                        f"event {global_seq} of stream {visible(stream_id, limit=100)} does not carry {key} {value} "
                        f"in its metadata: nothing is deleted; look at it with `esx read`, at {stream_seq}"
                    )
                streams += stream_id != last
                last = stream_id
            events += len(rows)
            at = (last, rows[-1][1]) if len(rows) == self._batch else None
            if on_progress is not None:
                on_progress(events)
        return Marked(events, streams, await self._conflicts())

    async def delete(self, on_progress: Callable[[int], None] | None = None) -> int:
        """Delete what carries the mark, a batch a transaction, and return how many events are gone."""
        # Each batch begins where the last one ended: deleted rows stay in the index until vacuum, and to step over them
        # each time would take longer and longer.
        noted = (
            f", noted AS (INSERT INTO {self._layout.ours('erased_events')} (first, last, numbers) "
            "SELECT pg_catalog.min(global_seq), pg_catalog.max(global_seq), "
            "pg_catalog.range_agg(pg_catalog.int8range(global_seq, global_seq, '[]')) FROM gone "
            "HAVING pg_catalog.count(*) > 0)"
        )
        statement = (
            f"WITH page AS ({self._page}), gone AS (DELETE FROM {self._layout.table} e USING page p "
            "WHERE e.stream_id = p.stream_id AND e.stream_seq = p.stream_seq AND p.own RETURNING e.global_seq)"
            f"{noted if await self._may_note() else ''} "
            "SELECT (SELECT pg_catalog.count(*) FROM gone), (SELECT pg_catalog.count(*) FROM page), "
            "last.stream_id, last.stream_seq "
            "FROM (SELECT stream_id, stream_seq FROM page ORDER BY stream_id DESC, stream_seq DESC LIMIT 1) last"
        )
        deleted = 0
        at: tuple[str, int] | None = ("", -1)
        while at is not None:
            row = await self._connection.fetchrow(statement, *self._range(at))
            if row is None:
                break
            deleted += row[0]
            at = (row[2], row[3]) if row[1] == self._batch else None
            if on_progress is not None:
                on_progress(deleted)
        if self._layout.lockable:
            await self._delete_beside("stream_locks", self._within)
        if await self._conflicts():
            await self._delete_beside("conflicts", _BEGINS)
        return deleted

    async def _may_note(self) -> bool:
        """Return whether this user may insert into erased_events, which a store of an older esx does not have."""
        return await self._may("INSERT", "erased_events")

    async def _may(self, right: str, table: str) -> bool:
        asked = "SELECT coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass($1)::oid, $2), false)"
        return self._layout.own and bool(await self._connection.fetchval(asked, self._layout.ours(table), right))

    async def _conflicts(self) -> int:
        """Return how many rows about these streams esx's table of conflicts holds; 0 without the right to read it.

        The table is bounded, and has no index on the streams.
        """
        try:
            await check_there(self._connection, self._layout)
        except StoreFailed:  # there is none, or it is somebody else's
            return 0
        if not await self._may("SELECT", "conflicts"):
            return 0
        rows = f"SELECT pg_catalog.count(*) FROM {self._layout.ours('conflicts')} WHERE {_BEGINS}"
        found: int = await self._connection.fetchval(rows, self._prefix, self._prefix)
        return found

    async def _delete_beside(self, name: str, within: str) -> None:
        """Delete what another table of schema.sql has of these streams."""
        table = self._layout.ours(name)
        statement = (
            f"WITH gone AS (DELETE FROM {table} WHERE ctid IN (SELECT ctid FROM {table} "
            f"WHERE {within} LIMIT {self._batch}) RETURNING 1) SELECT pg_catalog.count(*) FROM gone"
        )
        while await self._connection.fetchval(statement, self._prefix, self._prefix) == self._batch:
            pass

    def _range(self, at: tuple[str, int]) -> tuple[object, ...]:
        return (self._prefix, self._prefix, *at, *self._mark)
