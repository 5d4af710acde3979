"""Capsules: recording against the feed, masking, opening, scrubbing, and what a recording costs the server.

python -m tests.bench.capsule [--events 100000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import statistics
import tempfile
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import asyncpg
import psutil
import uvloop

from esx import EventStore, NewEvent
from esx.capsule.masking import Masker
from esx.capsule.opening import opened_recording
from esx.capsule.paths import parse_path
from esx.capsule.reading import Capsule
from esx.capsule.recorder import CapsuleRecorder, RecordOptions
from esx.database_choice import Database
from esx.store.feed.feed import Feed
from esx.tui.app import Explorer
from tests.bench.common import compare, database, fill, server
from tests.tui.helpers import browse, until

if TYPE_CHECKING:
    from esx.capsule.opening import Recording
    from esx.embedded import EmbeddedServer

_JUMPS = 200
_LOAD = 10.0
_RATE = 500


async def main(events: int, rounds: int) -> None:
    """Run all of it."""
    with server() as running, tempfile.TemporaryDirectory(prefix="esx-bench-capsule-") as directory:
        path = Path(directory) / "x.esx"
        dsn = await database(running, "capsule")
        await fill(dsn, events, max(events // 50, 1))
        await _spread(dsn, events)
        async with EventStore.connect(dsn, read_only=True) as store:
            await _recording(store, path, rounds)
        await _opening(running, path, rounds)
        await _costs(dsn, Path(directory), rounds)


async def _spread(dsn: str, events: int) -> None:
    """Spread the events over an hour."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "UPDATE events SET created_at = now() - (($1::int8 - global_seq) * 3600.0 / $1) * interval '1 second'", events
    )
    await connection.execute("VACUUM FULL ANALYZE events")
    await connection.close()


async def _recording(store: EventStore, path: Path, rounds: int) -> None:
    async def feed() -> float:
        began, count = time.perf_counter(), 0
        async for batch in (await store.feed()).to_safe_position():
            count += len(list(batch.events))  # an event is made when it is asked for
        return count / (time.perf_counter() - began)

    async def record(masker: Masker | None = None) -> float:
        began = time.perf_counter()
        with path.open("wb") as file:
            done = await CapsuleRecorder(store, RecordOptions(), masker=masker).run(file)
        return done.info.events / (time.perf_counter() - began)

    async def masked() -> float:
        return await record(Masker([parse_path("$.n")]))

    await compare(
        "recording what is there",
        {"the feed to the safe position": feed, "a capsule, masked": masked, "a capsule": record},
        rounds=rounds,
        unit="events/s",
    )
    print(f"  the capsule has {path.stat().st_size / 1e6:.1f} MB", flush=True)


async def _opening(running: EmbeddedServer, path: Path, rounds: int) -> None:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        with Capsule(path) as capsule:
            async with opened_recording(capsule, running) as recording:
                database_of = Database(recording.dsn, "capsule", "x.esx", embedded=False, read_only=True)
                gc.disable()  # as the command does: the explorer decides on it
                app = Explorer(database_of, recording=recording)
                app.animation_level = "none"
                async with app.run_test(size=(120, 40)) as pilot:
                    await until(pilot, lambda app=app: browse(app).streams.rows)  # type: ignore[misc]
                    times.append(time.perf_counter() - began)
    print(f"opening, up to the first rows of the explorer: {_told(times, 's')}", flush=True)
    with Capsule(path) as capsule:
        async with opened_recording(capsule, running) as recording:
            await _scrubbing(recording)


async def _scrubbing(recording: Recording) -> None:
    """Jump anywhere, and read what the first screen shows: streams, by name and by activity, and the newest events."""
    player = recording.player
    chance, timeline = Random(7), player.timeline
    length = timeline.end - timeline.begin
    times = []
    async with await recording.connect() as store:
        for _ in range(_JUMPS):
            at = timeline.begin + length * chance.random()
            began = time.perf_counter()
            await player.jump(at)
            await store.streams_page(limit=60)
            await store.preview_all_page(limit=60, backwards=True)
            times.append((time.perf_counter() - began) * 1000)
    print(f"scrubbing, a jump with the lists of the first screen: {_told(times, 'ms')}", flush=True)
    database_of = Database(recording.dsn, "capsule", "x.esx", embedded=False, read_only=True)
    gc.disable()
    app = Explorer(database_of, recording=recording)
    app.animation_level = "none"
    shown = []
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: browse(app).streams.rows and app.follower.started)
        for _ in range(_JUMPS // 2):
            at = timeline.begin + length * chance.random()
            head = timeline.head(at)
            began = time.perf_counter()
            await player.jump(at)
            while not (rows := browse(app).events.rows) or rows[0].global_seq != head:
                await asyncio.sleep(0.001)
            shown.append((time.perf_counter() - began) * 1000)
    print(f"scrubbing, until the explorer shows the newest event of then: {_told(shown, 'ms')}", flush=True)


async def _costs(dsn: str, directory: Path, rounds: int) -> None:
    """Tell how much of a processor the sessions of a subscriber and of a recording use while events are appended."""
    async with EventStore.connect(dsn) as writing:

        async def write() -> None:
            due, number = time.perf_counter(), 0
            while True:
                number += 1
                await writing.append(f"w-{number % 20}", [NewEvent("T")])
                due += 1 / _RATE
                await asyncio.sleep(max(0.0, due - time.perf_counter()))

        async def subscriber() -> float:
            async with EventStore.connect(dsn, read_only=True, application_name="bench reader") as store:

                async def follow(feed: Feed) -> None:
                    async for _ in feed.follow():
                        pass

                return await _used(dsn, follow(await store.feed_from_end()))

        async def recording() -> float:
            async with EventStore.connect(dsn, read_only=True, application_name="bench reader") as store:
                with (directory / "followed.esx").open("wb") as file:
                    recorder = CapsuleRecorder(store, RecordOptions(start=None, follow=3600.0))
                    return await _used(dsn, recorder.run(file))

        writer = asyncio.create_task(write())
        await compare(
            f"the server's processor time for a reader, at {_RATE} appends/s",
            {"one more subscriber": subscriber, "a recording": recording},
            rounds=rounds,
            unit="ms a second",
            higher=False,
        )
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


async def _used(dsn: str, reading: object) -> float:
    """Return how many milliseconds of processor time the reader's sessions use in a second."""
    task = asyncio.ensure_future(reading)  # type: ignore[call-overload]
    connection = await asyncpg.connect(dsn)
    try:
        await asyncio.sleep(2)
        before, began = await _cpu(connection), time.perf_counter()
        await asyncio.sleep(_LOAD)
        after, took = await _cpu(connection), time.perf_counter() - began
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await connection.close()
    return sum(after[pid] - before.get(pid, 0.0) for pid in after) * 1000 / took


async def _cpu(connection: asyncpg.Connection) -> dict[int, float]:
    query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'bench reader%'"
    found = {}
    for (pid,) in await connection.fetch(query):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            found[pid] = times.user + times.system
    return found


def _told(values: list[float], unit: str) -> str:
    ordered = sorted(values)
    p95 = ordered[min(int(len(ordered) * 0.95), len(ordered) - 1)]
    return f"median {statistics.median(ordered):.2f}, p95 {p95:.2f}, max {ordered[-1]:.2f} {unit}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    uvloop.run(main(options.events, options.rounds))
