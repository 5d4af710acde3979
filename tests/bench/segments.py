"""The distance to storage that is made for events: esx's table against an append-only segment file, the same events.

    python -m tests.bench.segments [--events 1000000] [--seconds 5] [--rounds 3] [--docs] [--directory DIRECTORY]

The segment file (tests/bench/segmentfile.py) is an experiment in Python, not KurrentDB: sizes and bytes written are
what compares, its rates say where time goes. Both are on the same disk, PostgreSQL as users get it (fsync on). Chunks
and the part of the index in memory are as much smaller than KurrentDB's as the log is smaller than the published one.
With --docs it writes the table and the picture of docs/eventstoredb.md: for these use the defaults, on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import uvloop

from esx import NO_STREAM, EventStore, NewEvent
from esx.model import JsonText
from tests.bench.common import WRITERS, database, server
from tests.bench.segmentevents import batches, copy_lines, records, streams_of
from tests.bench.segmentfile import Record, SegmentFile
from tests.bench.segmentreport import Figures, picture, table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.embedded import EmbeddedServer

_DOCS = Path(__file__).parents[2] / "docs"
_BEGIN, _END = "<!-- measured: python -m tests.bench.segments --docs -->\n", "<!-- end of what was measured -->"
# As in the published figures: 130 million events, a memtable of a million entries, and chunks of 256 MiB.
_MEMTABLES = 130
_CHUNKS = 180
_COLUMNS = ["stream_id", "stream_seq", "event_type", "data", "metadata", "created_at", "event_id"]
# Every tenth stream is deleted.
_TENTH = 10
# Of each writer that appends singly.
_STREAMS = 300
# Of those that are appended to streams all over the table.
_SPREAD = 20_000


async def taken(what: Awaitable[object]) -> float:
    """Return how many seconds it takes."""
    began = time.perf_counter()
    await what
    return time.perf_counter() - began


class Table:
    """The table's side: what was written for it, and its size."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def wal(self) -> int:
        """Return the position in the write-ahead log, in bytes."""
        return int(await self.connection.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))

    async def files(self) -> int:
        """Return the bytes that have been written to tables and indexes since the server started."""
        await self.connection.execute("CHECKPOINT", timeout=3600)
        await asyncio.sleep(1)  # the other processes report what they wrote only now and then
        query = "SELECT coalesce(sum(write_bytes), 0) FROM pg_stat_io WHERE object = 'relation'"
        return int(await self.connection.fetchval(query))

    async def sizes(self) -> dict[str, int]:
        """Return the bytes of the heap (with its maps) and of each index."""
        query = (
            "SELECT 'heap', pg_table_size('events') UNION ALL SELECT indexrelid::regclass::text, "
            "pg_relation_size(indexrelid) FROM pg_index WHERE indrelid = 'events'::regclass"
        )
        return {name: int(size) for name, size in await self.connection.fetch(query)}

    async def cost(self, *statements: str) -> tuple[float, int]:
        """Run statements after a checkpoint, and return the seconds and the bytes of WAL that they took."""
        await self.connection.execute("CHECKPOINT", timeout=3600)
        before = await self.wal()
        began = time.perf_counter()
        for statement in statements:
            await self.connection.execute(statement, timeout=3600)
        return time.perf_counter() - began, await self.wal() - before


async def fill_both(segments: SegmentFile, side: Table, count: int, found: Figures) -> None:
    """Store the events in both, and note sizes and what was written."""
    payload = 0
    for batch in batches(count):
        payload += sum(len(each.data) + len(each.metadata) for each in batch)
        segments.append(batch)
    segments.sync()
    found["payload"] = payload / count
    found["file log"], found["file index"] = (size / count for size in segments.sizes())
    found["file written"] = segments.written / payload

    await side.connection.execute("ALTER TABLE events DISABLE TRIGGER USER")
    files = await side.files()
    wal = await side.wal()
    await side.connection.copy_to_table("events", source=copy_lines(count), columns=_COLUMNS, timeout=3600)
    found["copy wal"] = (await side.wal() - wal) / payload
    found["copy files"] = (await side.files() - files) / payload
    await side.connection.execute("ALTER TABLE events ENABLE TRIGGER USER")
    # As autovacuum would do some minutes later, in the midst of something else.
    found["copy vacuum"] = (await side.cost("VACUUM (ANALYZE) events"))[1] / payload
    for name, size in (await side.sizes()).items():
        found[f"table {name}"] = size / count


async def read_both(segments: SegmentFile, side: Table, store: EventStore, count: int, rounds: int) -> Figures:
    """Return events a second of each way to read all in order, and milliseconds to read a stream: medians."""

    async def plain() -> None:
        for path in segments.chunks():
            descriptor = os.open(path, os.O_RDONLY)
            while os.read(descriptor, 2**20):
                pass
            os.close(descriptor)

    async def parsed() -> None:
        assert sum(1 for _ in segments.read_all()) == count

    async def discard(_: bytes) -> None:
        return

    async def copied() -> None:
        query = "SELECT * FROM events ORDER BY global_seq"
        status = await side.connection.copy_from_query(query, output=discard, timeout=3600)
        assert status == f"COPY {count}"

    async def library() -> None:
        seen = 0
        async for _ in store.read_all():
            seen += 1
        assert seen == count

    names = [b"order-%07d" % at for at in range(0, streams_of(count), 7)][:200]

    async def streams_of_file() -> None:
        for name in names:
            segments.read_stream(name)

    async def streams_of_table() -> None:
        for name in names:
            await side.connection.fetch("SELECT * FROM events WHERE stream_id = $1 ORDER BY stream_seq", name.decode())

    for stream in names[:3]:
        there = [event.event_id.bytes async for event in store.read(stream.decode()) if event.event_id]
        assert [record.id for record in segments.read_stream(stream)] == there

    ways: dict[str, tuple[float, Callable[[], Awaitable[None]]]] = {
        "read plain": (count, plain),
        "read file": (count, parsed),
        "read copy": (count, copied),
        "read library": (count, library),
        "stream file": (len(names), streams_of_file),
        "stream table": (len(names), streams_of_table),
    }
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (_, way) in ways.items():
            seen[name].append(await taken(way()))
    return Figures(
        {
            name: 1000 * statistics.median(took) / ways[name][0]
            if name.startswith("stream")
            else ways[name][0] / statistics.median(took)
            for name, took in seen.items()
        }
    )


async def spread(segments: SegmentFile, side: Table, store: EventStore, count: int, found: Figures) -> int:
    """Append a few events one by one to streams all over both, after a checkpoint; return how many."""
    query = "SELECT stream_id, max(stream_seq) FROM events GROUP BY stream_id"
    versions = {str(row[0]): int(row[1]) for row in await side.connection.fetch(query)}
    await side.connection.execute("CHECKPOINT", timeout=3600)
    before, written = await side.wal(), segments.written
    payload = done = 0
    for drawn in records(min(max(count // 20, 100), _SPREAD), streams_of(count), seed=2):
        stream = drawn.stream.decode()
        record = drawn._replace(version=versions[stream] + 1)
        await store.append(stream, [new_event(record)], expected=versions[stream])
        segments.append([record])
        versions[stream] += 1
        payload += len(record.data) + len(record.metadata)
        done += 1
    found["spread wal"] = (await side.wal() - before) / payload
    found["spread file"] = (segments.written - written) / payload
    return done


def new_event(record: Record) -> NewEvent:
    """Return a record as the table takes it."""
    data, metadata = (JsonText(text.decode()) for text in (record.data, record.metadata))
    return NewEvent(record.type.decode(), data, metadata, UUID(bytes=record.id))


async def change_both(segments: SegmentFile, side: Table, count: int, there: int, found: Figures) -> None:
    """Rebuild the indexes, and delete every tenth stream; `there` are the events that both hold."""
    began = time.perf_counter()
    await asyncio.to_thread(segments.rebuild_index)
    found["rebuild file"] = time.perf_counter() - began
    found["rebuild table"], found["rebuild wal"] = await side.cost("REINDEX TABLE events")

    gone = [b"order-%07d" % at for at in range(0, streams_of(count), _TENTH)]
    before, written = sum(segments.sizes()), segments.written
    began = time.perf_counter()
    await asyncio.to_thread(segments.scavenge, set(gone))
    found["scavenge"] = time.perf_counter() - began
    found["scavenge written"] = segments.written - written
    found["scavenge freed"] = before - sum(segments.sizes())
    assert segments.read_stream(gone[0]) == []

    size = sum((await side.sizes()).values())
    delete = f"DELETE FROM events WHERE substr(stream_id, 7)::int % {_TENTH} = 0"
    found["delete"], found["delete wal"] = await side.cost(delete)
    left = sum(1 for _ in segments.read_all())
    assert await side.connection.fetchval("SELECT count(*) FROM events") == left
    found["gone"] = (there - left) / there
    # What is left is found where it is now.
    stream = "SELECT array_agg(event_id ORDER BY stream_seq) FROM events WHERE stream_id = $1"
    ids = await side.connection.fetchval(stream, "order-0000001")
    assert [UUID(bytes=record.id) for record in segments.read_stream(b"order-0000001")] == ids
    found["vacuum"], found["vacuum wal"] = await side.cost("VACUUM events")
    found["vacuum freed"] = size - sum((await side.sizes()).values())
    found["full"], found["full wal"] = await side.cost("VACUUM FULL events")
    found["full freed"] = size - sum((await side.sizes()).values())


class Committer:
    """Appends of several tasks to a segment file: what waits is written together, with one fsync."""

    def __init__(self, segments: SegmentFile) -> None:
        self._segments = segments
        self._waiting: list[tuple[Record, asyncio.Future[None]]] = []
        self._busy: asyncio.Task[None] | None = None

    async def append(self, record: Record) -> None:
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((record, done))
        if self._busy is None or self._busy.done():
            self._busy = asyncio.create_task(self._commit())
        await done

    async def _commit(self) -> None:
        while self._waiting:
            together, self._waiting = self._waiting, []
            self._segments.append([record for record, _ in together])
            await asyncio.to_thread(self._segments.sync)
            for _, done in together:
                done.set_result(None)


class Writers:
    """Writers who know the version of their streams, each with streams of its own. `payload` counts bytes."""

    def __init__(self, append: Callable[[Record], Awaitable[object]]) -> None:
        self._append = append
        self._round = 0
        self.payload = 0

    async def rate(self, writers: int, seconds: float) -> float:
        """Return the appends a second of so many writers."""
        self._round += 1
        done = 0

        async def loop(writer: int) -> None:
            nonlocal done
            for record in records(10**9, _STREAMS, seed=1000 * self._round + writer):
                if time.perf_counter() >= end:
                    return
                await self._append(record._replace(stream=b"%d-%d-%b" % (self._round, writer, record.stream)))
                self.payload += len(record.data) + len(record.metadata)
                done += 1

        began = time.perf_counter()
        end = began + seconds
        await asyncio.gather(*(loop(writer) for writer in range(writers)))
        return done / (time.perf_counter() - began)


async def append_both(directory: Path, running: EmbeddedServer, seconds: float, rounds: int) -> Figures:
    """Return appends a second, for one writer and many, and the WAL that they made."""
    directory.mkdir()
    segments = SegmentFile(directory, chunk=2**24, memtable=10**7)
    dsn = await database(running, "appends")
    side = Table(await asyncpg.connect(dsn))
    async with EventStore.connect(dsn) as store:

        async def alone(record: Record) -> None:
            segments.append([record])
            segments.sync()
            await asyncio.sleep(0)

        async def table_append(record: Record) -> object:
            expected = record.version - 1 if record.version else NO_STREAM
            return await store.append(record.stream.decode(), [new_event(record)], expected=expected)

        ways = {
            "append file 1": (Writers(alone), 1),
            "append table 1": (Writers(table_append), 1),
            f"append file {WRITERS}": (Writers(Committer(segments).append), WRITERS),
            f"append table {WRITERS}": (Writers(table_append), WRITERS),
        }
        seen: dict[str, list[float]] = {name: [] for name in ways}
        wal = dict.fromkeys(ways, 0)
        for _ in range(rounds):
            for name, (writers, count) in ways.items():
                before = await side.wal()
                seen[name].append(await writers.rate(count, seconds))
                wal[name] += await side.wal() - before
    await side.connection.close()
    segments.close()
    found = Figures({name: statistics.median(rates) for name, rates in seen.items()})
    for name in ("append table 1", f"append table {WRITERS}"):
        found[f"wal {name}"] = wal[name] / ways[name][0].payload
    return found


async def main(options: argparse.Namespace) -> None:
    """Measure everything, print the table, and with --docs write it and the picture."""
    count = options.events
    found = Figures({"events": count, "streams": streams_of(count), "writers": WRITERS})
    said: set[str] = set()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="esx-bench-", dir=options.directory)))
        scratch.chmod(0o755)
        running = stack.enter_context(server(scratch / "postgresql"))
        dsn = await database(running, "segments")
        side = Table(await asyncpg.connect(dsn))
        (scratch / "log").mkdir()
        chunk = max(count * 400 // _CHUNKS, 2**16)
        segments = SegmentFile(scratch / "log", chunk=chunk, memtable=max(count // _MEMTABLES, 100))
        await fill_both(segments, side, count, found)
        say(found, said)
        async with EventStore.connect(dsn) as store:
            found |= await read_both(segments, side, store, count, options.rounds)
            say(found, said)
            more = await spread(segments, side, store, count, found)
        await change_both(segments, side, count, count + more, found)
        await side.connection.close()
        segments.close()
        say(found, said)
        found |= await append_both(scratch / "appends", running, options.seconds, options.rounds)
    print(table(found))
    if options.docs:
        page = _DOCS / "eventstoredb.md"
        before, found_begin, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
        _, found_end, after = rest.partition(_END)
        if not (found_begin and found_end):
            raise SystemExit(f"{page} lacks the lines between which the table belongs")
        page.write_text(f"{before}{_BEGIN}\n{table(found)}\n{_END}{after}", encoding="utf-8")
        (_DOCS / "segments.svg").write_text(picture(found), encoding="utf-8")
        print("wrote docs/eventstoredb.md and docs/segments.svg")


def say(found: Figures, said: set[str]) -> None:
    """Print the figures that are new: a run takes minutes."""
    print(", ".join(f"{name} {value:,.2f}" for name, value in found.items() if name not in said), flush=True)
    said.update(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where both are kept meanwhile, for another disk")
    parser.add_argument("--docs", action="store_true")
    uvloop.run(main(parser.parse_args()))
