"""Exporting: the global order as NDJSON, made by PostgreSQL and streamed through one COPY.

What may be exported is settled first, as the gap barrier does it (see `esx.store.barrier`): read the head, then list
who is writing, in a later statement. A number up to the head was drawn by one of these or by someone who has
finished, so once they are gone nothing can appear at or below that head, and a later snapshot sees all there is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from esx.store.barrier import (
    STANDBY_MOMENT,
    Filter,
    Gap,
    LockWatch,
    SnapshotWatch,
    Writer,
    check_start,
    keeps_timestamps,
    oldest_commit,
    on_standby,
    outwait,
    that_can_hold,
)
from esx.store.careful import CREATED_AT, UNREADABLE, fetch, moment_text
from esx.store.connection import limit_within
from esx.store.fence import read_fence
from esx.store.model import Event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    import asyncpg

    from esx.store.layout import Layout

_PIECE = 2**18
# One being written while the next is received.
_NO_LIMIT = 86400.0 * 365
_PIECES_AHEAD = 2
_FEW = 100
"""Events read one by one from where a text cannot be copied."""
_PREFIX = b'{"global_seq": '


class Export:
    """An export that has been settled: iterate over it, once, for pieces of NDJSON that end at the end of a line.

    `until` is the safe position it goes up to; `gap` is what it ends before if a writer is open, else None. While
    it is read, `events` counts what has been handed out, and `position` is the global_seq of the last of it. A
    piece has some 256 kB, or one event if that is larger; no more than a few of them are held at a time.

    Reading raises StoreUnavailable, and InvalidQuery for a filter that PostgreSQL refuses.
    """

    def __init__(
        self,
        acquire: Callable[[], AbstractAsyncContextManager[asyncpg.Connection]],
        layout: Layout,
        *,
        after: int,
        until: int,
        gap: Gap | None,
        where: Filter | None,
    ) -> None:
        self._acquire = acquire
        self._query, self._careful_query, self._arguments = _queries(layout, where or Filter())
        self._after = after
        self.until = until
        self.gap = gap
        self.events = 0
        self.position = after

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(_PIECES_AHEAD)
        copying = asyncio.create_task(self._copy(queue))
        try:
            while (piece := await queue.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                self.events += piece.count(b"\n")
                self.position = _last_number(piece)
                yield piece
        finally:
            # Whoever stops reading stops the query as well.
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)

    async def _copy(self, queue: asyncio.Queue[bytes | Exception | None]) -> None:
        try:
            async with self._acquire() as connection:
                after: int | None = self._after
                while after is not None:
                    after = await self._copy_from(connection, after, queue)
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    async def _copy_from(
        self, connection: asyncpg.Connection, after: int, queue: asyncio.Queue[bytes | Exception | None]
    ) -> int | None:
        """Copy the events after `after`, and return None; or after which to go on, where one could not be copied."""
        held = bytearray()

        async def hand_over(piece: bytes) -> None:
            nonlocal after
            after = _last_number(piece)
            await queue.put(piece)

        async def take(data: bytes) -> None:
            held.extend(data)
            end = held.rfind(b"\n", len(held) - len(data)) + 1 if len(held) >= _PIECE else 0
            if end:
                await hand_over(_unescaped(held[:end]))
                del held[:end]

        try:
            async with connection.transaction(readonly=True):
                # How long an export takes is up to its reader, unless the user has said so.
                # A time without a zone is one in UTC.
                limit = limit_within(connection, "statement_timeout", 0)
                await connection.execute(
                    f"SELECT set_config('statement_timeout', {limit}, true), set_config('TimeZone', 'UTC', true)"
                )
                # asyncpg reads no further from its socket until `take` returns, which holds PostgreSQL back.
                await connection.copy_from_query(
                    self._query, after, self.until, *self._arguments, output=take, timeout=_NO_LIMIT
                )
        except UNREADABLE:
            # PostgreSQL holds a text that is none in UTF-8. What came before it is whole.
            if end := held.rfind(b"\n") + 1:
                await hand_over(_unescaped(held[:end]))
            rows = await fetch(connection, self._careful_query, after, self.until, *self._arguments, moment=CREATED_AT)
            if not rows:
                raise
            await hand_over("".join(f"{Event._make(row).to_json()}\n" for row in rows).encode())
            return after
        if held:
            await hand_over(_unescaped(held))
        return None


async def settle(connection: asyncpg.Connection, layout: Layout, after: int, patience: float) -> tuple[int, Gap | None]:
    """Return the safe position, from `after` on, and the gap that it is before, if it is not the head.

    Waits up to `patience` seconds for the writers that are open now. On a hot standby the barrier's own moment is
    added, without which nothing is certain there.
    """
    head: int = await connection.fetchval(f"SELECT coalesce(max(global_seq), 0) FROM {layout.table}")
    if head <= after:
        await check_start(connection, layout, after)
        return after, None
    if on_standby(connection, layout):
        left = await outwait(connection, SnapshotWatch(), patience + STANDBY_MOMENT)
    else:
        left = await outwait(connection, LockWatch(layout), patience)
    if not left:
        return head, None
    # That those are open says nothing of gaps that are known to be older.
    settled = min(await read_fence(connection, layout), head)
    return await _before_first_gap(connection, layout, max(after, settled), head, left)


async def _before_first_gap(
    connection: asyncpg.Connection, layout: Layout, after: int, head: int, writers: tuple[Writer, ...]
) -> tuple[int, Gap | None]:
    """Return the end of what is contiguous, but for gaps that none of the writers can hold, and the gap behind it."""
    oldest = oldest_commit(writers) if await keeps_timestamps(connection, layout) else None
    row = await connection.fetchrow(
        f"""
        SELECT before, next, committed FROM (
            SELECT lag(global_seq, 1, $1) OVER (ORDER BY global_seq) AS before, global_seq AS next,
                   {"NULL::timestamptz" if oldest is None else "pg_xact_commit_timestamp(xmin)"} AS committed
            FROM {layout.table} WHERE global_seq > $1 AND global_seq <= $2
        ) pairs
        WHERE next <> before + 1 AND ($3::timestamptz IS NULL OR coalesce(committed >= $3, true))
        ORDER BY next LIMIT 1
        """,
        after,
        head,
        oldest,
    )
    if row is None:
        return head, None
    return row[0], Gap(row[0] + 1, row[1] - 1, that_can_hold(writers, row[2]))


def _last_number(piece: bytes) -> int:
    start = piece.rfind(b"\n", 0, -1) + 1 + len(_PREFIX)
    return int(piece[start : piece.index(b",", start)])


def _unescaped(copied: bytes | bytearray) -> bytes:
    # JSON has its control characters escaped, so of all that COPY escapes only the backslash is in it.
    return bytes(copied.replace(b"\\\\", b"\\"))


def _payload(column: str) -> str:
    # A column of type json holds it as it came: over several lines, perhaps.
    return (
        f"CASE WHEN pg_typeof({column}) = 'json'::regtype THEN translate({column}::text, E'\\t\\n\\r', '   ') "
        f"ELSE {column}::jsonb::text END"
    )


def _moment(column: str) -> str:
    # Elsewhere it may be any text.
    return (
        f"CASE WHEN pg_typeof({column}) = 'text'::regtype THEN to_json({column}::text)::text "
        f"""ELSE '"' || {moment_text(f"{column}::timestamptz")} || '"' END"""
    )


def _queries(layout: Layout, where: Filter) -> tuple[str, str, list[str]]:
    """Return the query for the lines, as `Event.to_json` writes them; that for a few events; and their arguments.

    These come after $1 and $2.
    """
    event_id = "NULL::uuid" if layout.event_id is None else f"e.{layout.event_id}"
    line = f"""
        '{_PREFIX.decode()}' || e.global_seq
        || ', "stream_id": ' || coalesce(to_json(e.stream_id)::text, 'null')
        || ', "stream_seq": ' || coalesce(e.stream_seq::text, 'null')
        || ', "event_type": ' || coalesce(to_json(e.event_type)::text, 'null')
        || ', "data": ' || coalesce({_payload("e.data")}, 'null')
        || ', "metadata": ' || coalesce({_payload("e.metadata")}, 'null')
        || ', "created_at": ' || coalesce({_moment("e.created_at")}, 'null')
        || ', "event_id": ' || coalesce(to_json({event_id})::text, 'null') || '}}'
    """
    conditions, arguments = where.sql(3)
    conditions = ["e.global_seq > $1", "e.global_seq <= $2", *conditions]
    chosen = f"FROM {layout.table} e WHERE {' AND '.join(conditions)} ORDER BY e.global_seq"
    return f"SELECT {line} {chosen}", f"SELECT {layout.columns()} {chosen} LIMIT {_FEW}", arguments
