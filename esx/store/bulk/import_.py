"""Imports NDJSON through COPY, in chunks of one transaction each.

A line's place is (stream_id, stream_seq). A line whose place has an event with the same event id is skipped, so an
import that was interrupted can be run again, and nothing needs to be stored about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import asyncpg

from esx.errors import EsxError, StoreFailed
from esx.layouts.detection import all_places
from esx.layouts.layout import Layout
from esx.layouts.unique_index import find_arbiter, same_place
from esx.postgres.driver_errors import first_line
from esx.store.append.refusals import no_arbiter, no_number_left, reason_of
from esx.store.bulk.changes import Changes
from esx.store.bulk.chunks import ChunkBounds, chunks
from esx.store.bulk.copy import StreamTaken
from esx.store.bulk.faithful import Faithful
from esx.store.bulk.lines import BadLine, ParsedLines, Parser
from esx.store.bulk.numbers import SequenceNumbers
from esx.text import counted, visible

_COLUMNS = ("stream_id", "stream_seq", "event_type", "data", "metadata", "created_at")
# How many versions of streams are remembered from one chunk to the next.
_KNOWN = 50_000
# How often a chunk is tried when others append to its streams meanwhile.
_ATTEMPTS = 5
# PostgreSQL's "COPY events, line 12, column data: ...", in the language of the server.
_COPY_LINE = re.compile(r"^COPY \w+, \D*(\d+)(?:, \w+ (data|metadata|created_at|event_type|stream_id)\b)?", re.M)
_REFUSED = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, asyncpg.IntegrityConstraintViolationError)


class Imported(NamedTuple):
    """How far an import has come: events stored by it, events that were there already, and bytes read.

    `changes` counts what is not as in the lines, once the import has ended.
    """

    stored: int
    skipped: int
    bytes: int
    changes: Changes = Changes()


class ImportFailed(EsxError):
    """A line cannot be imported. Its chunk was not stored, the chunks before it were.

    `line` counts from 1; `reason` says what is wrong with it; `done` is what was stored and skipped before. The same
    import, run again, goes on from there.
    """

    def __init__(self, line: int, reason: str, done: Imported) -> None:
        self.line = line
        self.reason = reason
        self.done = done
        super().__init__(f"line {line}: {reason}; {stored_before(done)}")


def stored_before(done: Imported) -> str:
    """Return what an import that failed has stored, and the remedy, for messages."""
    if not done.stored and not done.skipped:
        return "nothing was stored"
    skipped = f" and {counted(done.skipped, 'was', 'were')} there already" if done.skipped else ""
    stored = counted(done.stored, "event was", "events were")
    return f"{stored} stored before{skipped}: run the same import again to go on from there"


class _Recut(Exception):
    """Rows of the chunk were parsed again and differ: try the chunk again."""


class Importer:
    """One import: feed it with `run`, once."""

    def __init__(
        self,
        acquire: Callable[[], AbstractAsyncContextManager[asyncpg.Connection]],
        layout: Layout,
        *,
        keep_global_seq: bool,
        renumber: bool,
        faithful: bool,
        no_stream: str | None,
        no_type: str | None,
        dollar_prefix: str | None,
        from_kurrent: bool,
        bounds: ChunkBounds,
        on_progress: Callable[[Imported], None] | None,
    ) -> None:
        if layout.event_id is None:
            raise EsxError("the events table has no event_id: run `esx init` to add it")
        self._acquire = acquire
        self._layout = layout
        self._keeping_places = layout.places
        self._keep = keep_global_seq or faithful
        self._faithful = Faithful(layout) if faithful else None
        self._numbers: SequenceNumbers | None = None
        self._parser = Parser(
            keep_global_seq=self._keep,
            renumber=renumber,
            faithful=faithful,
            no_stream=no_stream,
            no_type=no_type,
            dollar_prefix=dollar_prefix,
            from_kurrent=from_kurrent,
        )
        self._bounds = bounds
        self._on_progress = on_progress
        self._columns = [*(["global_seq"] if self._keep else []), *_COLUMNS, layout.event_id]
        self._versions = (
            f"SELECT (SELECT pg_catalog.max(e.stream_seq) FROM {layout.table} e WHERE e.stream_id = s.id) "
            "FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY s (id, n) ORDER BY s.n"
        )
        # The LIMIT makes it an index probe per row, also with statistics from before the table grew.
        self._places = (
            "SELECT e.event_id::text, e.global_seq "
            "FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bigint[])) "
            "WITH ORDINALITY p (stream_id, stream_seq, n) "
            f"LEFT JOIN LATERAL (SELECT f.{layout.event_id} AS event_id, f.global_seq FROM {layout.table} f "
            "WHERE f.stream_id = p.stream_id AND f.stream_seq = p.stream_seq LIMIT 1) e ON true ORDER BY p.n"
        )
        self._known: dict[bytes, int] = {}
        self.done = Imported(0, 0, 0)

    async def run(self, pieces: Iterable[bytes] | AsyncIterable[bytes]) -> Imported:
        """Import the lines that `pieces` make up. Raises ImportFailed."""
        storing: asyncio.Task[None] | None = None
        number = 1
        if self._keep:
            async with self._acquire() as connection:
                self._numbers = await SequenceNumbers.find(connection, self._layout)
            self._parser.highest = self._numbers.highest
        try:
            async with contextlib.aclosing(chunks(pieces, self._bounds)) as cut:
                async for lines in cut:
                    # One chunk is parsed while the one before it is being stored.
                    bad: BadLine | None = None
                    try:
                        parsed = await asyncio.to_thread(self._parser.parse, lines, number)
                    except BadLine as error:
                        bad = error
                    if storing is not None:
                        await storing
                    if bad is not None:
                        raise bad
                    number += len(lines)
                    storing = asyncio.create_task(self._store(parsed, sum(map(len, lines)) + len(lines)))
            if storing is not None:
                await storing
        except BadLine as error:
            raise ImportFailed(error.number, error.reason, self.done) from None
        finally:
            if storing is not None:
                # After an interruption no task goes on.
                storing.cancel()
                await asyncio.gather(storing, return_exceptions=True)
        self.done = self.done._replace(changes=self._parser.changes)
        return self.done

    async def _store(self, lines: ParsedLines, size: int) -> None:
        races = 0
        while True:
            async with self._acquire() as connection:
                try:
                    stored = await self._try(connection, lines)
                    break
                except _Recut:
                    self._known.clear()
                except asyncpg.UniqueViolationError as error:
                    # Another writer has appended to one of the streams: look again.
                    self._known.clear()
                    races += 1
                    if not self._is_race(error) or races == _ATTEMPTS:
                        raise StreamTaken(f"an event is there already: {error.detail or first_line(error)}") from error
                except asyncpg.DeadlockDetectedError:
                    # Another writer has appended to several of them, in another order.
                    self._known.clear()
                    races += 1
                    if races == _ATTEMPTS:
                        raise
        self.done = Imported(
            self.done.stored + stored, self.done.skipped + len(lines.rows) - stored, self.done.bytes + size
        )
        if self._on_progress is not None:
            self._on_progress(self.done)

    def _is_race(self, error: asyncpg.PostgresError) -> bool:
        # With kept numbers no other session can store events meanwhile.
        return (
            not self._keep
            and isinstance(error, asyncpg.UniqueViolationError)
            and (same_place(error) or (error.schema_name, error.constraint_name) in self._keeping_places)
        )

    async def _try(self, connection: asyncpg.Connection, lines: ParsedLines) -> int:
        if self._layout.partitioned:
            # A partition may be new since the last chunk; after a refusal the transaction cannot ask any more.
            self._keeping_places = await all_places(connection, self._layout)
        async with connection.transaction():
            head = 0 if self._numbers is None else await self._numbers.lock(connection)
            if self._faithful is None:
                new = await self._new(connection, lines)
            else:
                new = await self._faithful.new(connection, lines, head) if lines.rows else range(0)
            if new:
                if self._keep:
                    self._check_above(lines, new[0], head)
                await self._copy(connection, lines, new)
                if await find_arbiter(connection, self._layout) is None:
                    # Without it others could have stored events at the same places meanwhile.
                    raise StoreFailed(no_arbiter(self._layout))
                if self._numbers is not None:
                    await self._numbers.move(connection, lines.global_seqs[new[-1]])
        if self._faithful is not None and lines.rows:
            self._faithful.stored(lines)
        return len(new)

    async def _new(self, connection: asyncpg.Connection, lines: ParsedLines) -> list[int] | range:
        """Return which lines are not stored yet. Raises BadLine for what is at the wrong place or leaves a hole."""
        remembered = bool(self._known)
        versions = await self._look_up(connection, lines)
        if lines.contiguous and all(versions[stream] + 1 == first for stream, first in lines.first.items()):
            versions.update(lines.last)
            return range(len(lines.rows))
        new: list[int] = []
        seen: list[int] = []
        made: dict[tuple[bytes, int], int] = {}
        hole: BadLine | None = None
        for index, (stream, seq) in enumerate(zip(lines.streams, lines.seqs, strict=True)):
            version = versions[stream]
            if seq <= version:
                seen.append(index)
            elif seq == version + 1:
                versions[stream] = seq
                made[stream, seq] = index
                new.append(index)
            else:
                ends = f"ends at {version}" if version >= 0 else "has no events"
                from_0 = ", counted from 0" if self._parser.changes.translated else ""
                hole = BadLine(
                    lines.numbers[index],
                    f"stream {_shown(stream)} {ends}, so its next stream_seq is {version + 1}, not {seq}{from_0}; "
                    "--renumber counts anew, without holes",
                )
                break
        missing = await self._check_seen(connection, lines, seen, made)
        if hole is not None and remembered:
            # The stream may have new events since it was looked up.
            self._known.clear()
            return await self._new(connection, lines)
        if hole is not None:
            raise hole
        return sorted(new + missing) if missing else new

    async def _look_up(self, connection: asyncpg.Connection, lines: ParsedLines) -> dict[bytes, int]:
        """Return the versions of streams, at least of those of `lines`, mostly as known from the chunk before.

        If a stream has new events since, the unique constraint refuses the rows.
        """
        if len(self._known) > _KNOWN:
            self._known.clear()
        unknown = [stream for stream in lines.first if stream not in self._known]
        if unknown:
            rows = await connection.fetch(self._versions, [stream.decode() for stream in unknown])
            for stream, (version,) in zip(unknown, rows, strict=True):
                self._known[stream] = -1 if version is None else version
        return self._known

    async def _check_seen(
        self, connection: asyncpg.Connection, lines: ParsedLines, seen: list[int], made: dict[tuple[bytes, int], int]
    ) -> list[int]:
        """Check that the places of `seen` have the events of the lines; return the lines whose events are gone."""
        missing = []
        rows = await connection.fetch(
            self._places, [lines.streams[index].decode() for index in seen], [lines.seqs[index] for index in seen]
        )
        for index, (event_id, global_seq) in zip(seen, rows, strict=True):
            place = lines.streams[index], lines.seqs[index]
            if event_id is None and place not in made:
                # Below the stream's version but not there: it was deleted, and is stored again.
                made[place] = index
                missing.append(index)
                continue
            there = lines.event_ids[made[place]] if event_id is None else event_id.encode()
            if there != lines.event_ids[index]:
                reason = (
                    f"place {place[1]} of stream {_shown(place[0])} is taken by another event, {there.decode()}; "
                    f"this one is {lines.event_ids[index].decode()}"
                )
                raise BadLine(lines.numbers[index], reason)
            if self._keep and event_id is not None and global_seq != lines.global_seqs[index]:
                reason = f"the event is there already, but as global_seq {global_seq}, not {lines.global_seqs[index]}"
                raise BadLine(lines.numbers[index], reason)
        return missing

    def _check_above(self, lines: ParsedLines, index: int, head: int) -> None:
        if lines.global_seqs[index] <= head:
            raise BadLine(
                lines.numbers[index],
                f"global_seq {lines.global_seqs[index]} cannot be kept: the store's sequence is at {head} already",
            )

    async def _copy(self, connection: asyncpg.Connection, lines: ParsedLines, new: list[int] | range) -> None:
        rows = lines.rows if len(new) == len(lines.rows) else [lines.rows[index] for index in new]
        source = io.BytesIO(b"\n".join(rows) + b"\n")
        try:
            await connection.copy_to_table(
                self._layout.name, schema_name=self._layout.schema, source=source, columns=self._columns
            )
        except _REFUSED as error:
            if self._is_race(error):
                raise
            full = no_number_left(error, self._layout)
            if full is not None:
                raise full from error
            where = _COPY_LINE.search(getattr(error, "context", None) or "")
            if where is None:
                raise
            index = new[int(where[1]) - 1]
            if where[2] in ("data", "metadata"):
                await asyncio.to_thread(self._recut, lines, index)
            column = f"{where[2]}: " if where[2] else ""
            raise BadLine(lines.numbers[index], column + reason_of(error)) from error

    def _recut(self, lines: ParsedLines, index: int) -> None:
        """Parse the lines from `index` on again, exactly; raises _Recut if the first row differs."""
        try:
            row = self._parser.exact_row(lines.texts[index])
        except ValueError as error:
            raise BadLine(lines.numbers[index], str(error)) from None
        if row is None or row == lines.rows[index]:
            return
        # The following lines probably have the same problem, and each would cost an attempt.
        for other in range(index, len(lines.rows)):
            with contextlib.suppress(ValueError):
                lines.rows[other] = self._parser.exact_row(lines.texts[other]) or lines.rows[other]
        raise _Recut


def _shown(stream: bytes) -> str:
    return visible(stream.decode(), limit=200)
