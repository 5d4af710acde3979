"""Exports events as NDJSON, which PostgreSQL makes: the global order, or a snapshot.

Small events of esx's own table are read by pages, all others through COPY.

The safe position is found first, as `esx.store.feed.gap_barrier` does: read the head, then list
the open writers in a later statement. A number up to the head was drawn by one of these, or by a transaction that has
ended. So after the listed ones have ended no event can appear at or below the head, and a later snapshot sees them all.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import asyncpg

from esx.errors import StoreFailed
from esx.filters import Filter
from esx.layouts.foreign.kind import StoreKind
from esx.layouts.layout import Layout
from esx.model import UNNUMBERED, Event
from esx.postgres.settings import limit_within
from esx.postgres.values import CREATED_AT, UNREADABLE, fetch
from esx.store.bulk.export_line import PREFIX, line_sql
from esx.store.bulk.line_pages import PAGE, PIECE, LinePages, is_plain
from esx.store.feed.batch import Gap, Writer
from esx.store.feed.fence import read_fence
from esx.store.feed.settings import FeedSettings
from esx.store.feed.survey import check_start
from esx.store.feed.writers import (
    LockWatch,
    SnapshotWatch,
    keeps_timestamps,
    oldest_commit,
    on_standby,
    outwait,
    that_can_hold,
)
from esx.store.filter_sql import literal_filter_sql, stored_filter
from esx.store.rows import events_of
from esx.store.trail.trail import FieldNames
from esx.text import encodable

_NO_LIMIT = 86400.0 * 365
# One is written while the next is received.
_PIECES_AHEAD = 2
_FEW = 100
"""How many events are read without COPY when a text cannot be copied."""
# At the end of a line, so that it is not within an event's data.
_NOTED = re.compile(
    rb'"event_id": (?:null|"[^"\n]*")(, "data_note": "[^"\n]*")?(, "metadata_note": "[^"\n]*")?'
    rb'(?:, "(?:correlation|causation)_id": "(?:[^"\\\n]|\\.)*")*\}\n'
)


class Export:
    """An export that has been settled: iterate over it, once, for pieces of NDJSON that end at the end of a line.

    `until` is the safe position at which it ends; `gap` is the gap after it if a writer is open, else None. `events`
    counts the events handed out so far, `undecoded` their payloads that are no JSON, and `position` is the global_seq
    of the last one. A piece has some 256 kB, or one event if that is larger; only a few pieces are in memory at a time.

    `fields` are the names of the ids of trails in the metadata, if the tool has names of its own for them; else None.

    `snapshot` says why it is none of an order that can be followed, None if it is: `until` is then the highest number,
    and without numbers it and `position` are -1.

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
        snapshot: str | None = None,
        decode: Callable[[Event], Event] | None = None,
    ) -> None:
        self._acquire = acquire
        self._layout = layout
        self._conditions = literal_filter_sql(stored_filter(layout, where or Filter()))
        self._after = after
        self.until = until
        self.gap = gap
        self.snapshot = snapshot
        self._decode = decode
        self.fields = None if layout.foreign is None else _own_names(layout.foreign.kind)
        self.events = 0
        self.undecoded = 0
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
                if self._layout.packed:
                    self.undecoded += sum((data != b"") + (metadata != b"") for data, metadata in _NOTED.findall(piece))
                self.position = _last_number(piece)
                yield piece
        finally:
            # If the reader stops, the query ends too.
            copying.cancel()
            # It may have to hand over why it ended.
            while not queue.empty():
                queue.get_nowait()
            await asyncio.gather(copying, return_exceptions=True)

    async def _copy(self, queue: asyncio.Queue[bytes | Exception | None]) -> None:
        try:
            async with self._acquire() as connection:
                if self._decode is None:
                    after: int | None = self._after
                    while after is not None:
                        after = await self._copy_from(connection, after, queue)
                else:
                    done = self._after
                    while lines := await self._few(connection, done):
                        await queue.put(lines)
                        done = _last_number(lines)
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    async def _copy_from(
        self, connection: asyncpg.Connection, after: int, queue: asyncio.Queue[bytes | Exception | None]
    ) -> int | None:
        """Copy the events after `after`, and return None; or the number to go on after, if one could not be copied."""
        held = bytearray()

        async def hand_over(piece: bytes) -> None:
            nonlocal after
            after = _last_number(piece)
            await queue.put(piece)

        async def take(data: bytes) -> None:
            held.extend(data)
            while len(held) >= PIECE and b"\n" in data:
                end = held.rfind(b"\n", 0, PIECE) + 1 or held.find(b"\n", PIECE) + 1
                if not end:
                    break
                await hand_over(_unescaped(held[:end]))
                del held[:end]

        async def copy(until: int) -> None:
            # With literals: asyncpg's own way to put arguments into a COPY breaks names that contain a $1.
            query = f"SELECT {line_sql(self._layout)} {self._chosen(after, until)}"
            # asyncpg reads no further from its socket until `take` returns, which holds PostgreSQL back.
            await connection.copy_from_query(query, output=take, timeout=_NO_LIMIT)
            if held:
                await hand_over(_unescaped(held))
                held.clear()

        try:
            async with connection.transaction(readonly=True):
                # The reader decides how long an export takes, unless the user has set a limit. Times without a zone
                # are in UTC.
                limit = limit_within(connection, "statement_timeout", 0)
                await connection.execute(
                    f"SELECT set_config('statement_timeout', {limit}, true), set_config('TimeZone', 'UTC', true)"
                )
                stretch = PAGE
                # With conditions each page might have to look through the table.
                by_pages = not self._conditions and await is_plain(connection, self._layout)
                while by_pages:
                    pages = LinePages(connection, self._layout, after, self.until)
                    async with contextlib.aclosing(pages.pieces()) as pieces:
                        async for piece in pieces:
                            await hand_over(piece)
                            stretch = PAGE
                    if pages.large is None:
                        return None
                    # Where large events follow each other, pages are not tried for long.
                    await copy(min(max(pages.large, after + stretch), self.until))
                    stretch *= 2
                await copy(self.until)
        except UNREADABLE as error:
            if not self._layout.numbered:
                raise StoreFailed(
                    "a text of this store is not valid in UTF-8, and without a global order nothing tells where to go "
                    "on behind it: --stream chooses other streams"
                ) from error
            # PostgreSQL holds a text that is not valid in UTF-8. The lines before it are complete.
            if end := held.rfind(b"\n") + 1:
                await hand_over(_unescaped(held[:end]))
            lines = await self._few(connection, after)
            if not lines:
                raise
            await hand_over(lines)
            return after
        return None

    async def _few(self, connection: asyncpg.Connection, after: int) -> bytes:
        """Return the lines of the next few events, made without COPY; none after the last one."""
        links = self._layout.link_columns
        listed = "".join(f"e.{column}, " for column in links.values())
        few = f"SELECT {listed}{self._layout.columns()} {self._chosen(after, self.until)} LIMIT {_FEW}"
        rows = await fetch(connection, few, moment=CREATED_AT)
        events = list(events_of(self._layout)([row[len(links) :] for row in rows]))
        if self._decode is not None:
            events = await asyncio.to_thread(list, map(self._decode, events))
        pairs = zip(events, rows, strict=True)
        return "".join(f"{self._to_json(event, zip(links, row, strict=False))}\n" for event, row in pairs).encode()

    def _to_json(self, event: Event, links: Iterable[tuple[str, str | None]]) -> str:
        """Return the line of an event, as PostgreSQL makes it."""
        line = event.to_json(first=self._layout.first)
        ids = (f', "{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in links if value is not None)
        return f"{line[:-1]}{encodable(''.join(ids))}}}"

    def _chosen(self, after: int, until: int) -> str:
        layout = self._layout
        conditions, order = list(self._conditions), "e.global_seq"
        if layout.numbered:
            conditions += [f"e.global_seq > {after}", f"e.global_seq <= {until}"]
        else:
            # An index on the columns of the keys serves, if there is one.
            keys = () if layout.keys is None or layout.stream_table is not None else layout.keys.named("e")
            order = ", ".join((*(keys or ("e.stream_id",)), "e.stream_seq"))
        table = layout.linked if layout.link_columns else layout.table
        return f"FROM {table} e WHERE {' AND '.join(conditions) or 'true'} ORDER BY {order}"


async def settle(
    connection: asyncpg.Connection, layout: Layout, after: int, patience: float, settings: FeedSettings
) -> tuple[int, Gap | None]:
    """Return the safe position, `after` or above, and the gap after it, None if the position is the head.

    Waits up to `patience` seconds for open writers; on a hot standby `settings.standby_moment` longer.
    """
    head: int = await connection.fetchval(f"SELECT coalesce(max(global_seq), 0) FROM {layout.numbers}")
    if head <= after:
        await check_start(connection, layout, after)
        return after, None
    if on_standby(connection, layout):
        left = await outwait(connection, SnapshotWatch(settings.standby_moment), patience + settings.standby_moment)
    else:
        left = await outwait(connection, LockWatch(layout), patience)
    if not left:
        return head, None
    # Open writers cannot fill gaps below the fence.
    settled = min(await read_fence(connection, layout), head)
    return await _before_first_gap(connection, layout, max(after, settled), head, left, settings.clock_step)


async def _before_first_gap(
    connection: asyncpg.Connection,
    layout: Layout,
    after: int,
    head: int,
    writers: tuple[Writer, ...],
    clock_step: timedelta,
) -> tuple[int, Gap | None]:
    """Return the position before the first gap that one of the writers may fill, and that gap."""
    oldest = oldest_commit(writers, clock_step) if await keeps_timestamps(connection, layout) else None
    row = await connection.fetchrow(
        f"""
        SELECT before, next, committed FROM (
            SELECT lag(global_seq, 1, $1) OVER (ORDER BY global_seq) AS before, global_seq AS next,
                   {"NULL::timestamptz" if oldest is None else "pg_xact_commit_timestamp(xmin)"} AS committed
            FROM {layout.table} WHERE global_seq > $1::bigint AND global_seq <= $2::bigint
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
    return row[0], Gap(row[0] + 1, row[1] - 1, that_can_hold(writers, row[2], clock_step))


def _last_number(piece: bytes) -> int:
    start = piece.rfind(b"\n", 0, -1) + 1 + len(PREFIX)
    number = piece[start : piece.index(b",", start)]
    return UNNUMBERED if number == b"null" else int(number)


def _unescaped(copied: bytes | bytearray) -> bytes:
    # JSON contains no control characters, so the backslash is all that COPY escapes in it.
    return bytes(copied.replace(b"\\\\", b"\\"))


def _own_names(kind: StoreKind) -> FieldNames | None:
    if not kind.correlation or not kind.causation:
        return None
    return FieldNames(kind.correlation, kind.causation)
