"""Puts a capsule into a database of its own on the embedded server, so that it can be shown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from esx.capsule.format import EVENTS
from esx.capsule.kept import moment_of
from esx.capsule.reading import Capsule
from esx.capsule.timeline import Timeline
from esx.postgres.session import Session
from esx.store.bulk.lines import BadLine, Parser
from esx.store.recorded.database import READER, recording_database
from esx.store.recorded.tables import RowRefused, finish_tables, make_tables, put_in
from esx.text import visible

_CHUNK = 10_000
_WEIGHT = 2**23
# What an event of another tool gets that belongs to no stream or has no type; no other may begin with $.
_NO_STREAM, _NO_TYPE, _PREFIX = "-", "-", "\\"


class Loaded(NamedTuple):
    """A capsule in a database: its name there, the user who reads it, a session that moves its clock, what was when."""

    database: str
    reader: str
    owner: Session
    timeline: Timeline


class _Chunk(NamedTuple):
    number: int
    lines: list[bytes]


@contextlib.asynccontextmanager
async def loaded(
    capsule: Capsule, dsn_for: Callable[[str], str], *, on_progress: Callable[[int], None] | None = None
) -> AsyncIterator[Loaded]:
    """Put a capsule into a new database for as long as the block lasts.

    `dsn_for` returns the address of a database of the embedded server; `on_progress` gets how many events are in.
    Raises BadCapsule, and StoreUnavailable.
    """
    timeline = await asyncio.to_thread(Timeline, capsule)
    async with recording_database(dsn_for) as (database, owner):
        await make_tables(owner)
        loader = _Loader(capsule, timeline, owner)
        done = 0
        try:
            async for count in loader.run():
                done += count
                if on_progress is not None:
                    on_progress(done)
            await finish_tables(owner)
        except RowRefused as error:
            raise capsule.bad(f"{EVENTS}: {visible(str(error), limit=200)}") from None
        await asyncio.to_thread(timeline.settle)
        yield Loaded(database, READER, owner, timeline)


class _Loader:
    def __init__(self, capsule: Capsule, timeline: Timeline, owner: Session) -> None:
        self._capsule = capsule
        self._timeline = timeline
        self._owner = owner
        own = capsule.info.store == "esx"
        # The numbers in streams of other tools may begin at 1, and then they are counted from 0, as an import does.
        self._parser = Parser(
            keep_global_seq=False,
            renumber=False,
            faithful=own,
            no_stream=None if own else _NO_STREAM,
            no_type=None if own else _NO_TYPE,
            dollar_prefix=None if own else _PREFIX,
        )
        self._last = -1

    async def run(self) -> AsyncIterator[int]:
        """Yield how many events were put in, some thousand at a time; the next are parsed meanwhile."""
        chunks = self._chunks()
        parsing = asyncio.ensure_future(asyncio.to_thread(self._parsed, chunks))
        try:
            while (rows := await parsing) is not None:
                parsing = asyncio.ensure_future(asyncio.to_thread(self._parsed, chunks))
                await put_in(self._owner, rows)
                yield len(rows)
        finally:
            # The thread cannot be cancelled, and reads from the file.
            await asyncio.gather(parsing, return_exceptions=True)

    def _chunks(self) -> Iterator[_Chunk]:
        held: list[bytes] = []
        weight, number = 0, 1
        for lines in self._capsule.lines(EVENTS):
            held += lines
            weight += sum(map(len, lines))
            while len(held) >= _CHUNK or (held and weight >= _WEIGHT):
                yield _Chunk(number, held[:_CHUNK])
                number += len(held[:_CHUNK])
                del held[:_CHUNK]
                weight = sum(map(len, held))
        if held:
            yield _Chunk(number, held)

    def _parsed(self, chunks: Iterator[_Chunk]) -> list[bytes] | None:
        chunk = next(chunks, None)
        if chunk is None:
            return None
        try:
            parsed = self._parser.parse(chunk.lines, chunk.number)
        except BadLine as error:
            raise self._capsule.bad(f"{EVENTS}, {visible(str(error), limit=200)}") from None
        rows, appeared = [], []
        for number, row in zip(parsed.global_seqs, parsed.rows, strict=True):
            if number <= self._last:
                raise self._capsule.bad(f"{EVENTS}: global_seq {number} does not ascend")
            self._last = number
            at = self._timeline.appearances.of(number, _created(row))
            appeared.append((at, number))
            rows.append(b"%d\t%s\t%s" % (number, row, _text(at)))
        self._timeline.appeared(appeared)
        return rows


def _created(row: bytes) -> datetime | None:
    """Return the time in a row; None for one that Python does not have."""
    text = row[: row.rindex(b"\t")].rpartition(b"\t")[2].decode()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _text(at: int) -> bytes:
    return moment_of(at).isoformat(timespec="microseconds").encode()
