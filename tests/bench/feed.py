"""The feed: reading against asyncpg alone, and latency from commit to subscriber against a bare NOTIFY round trip.

python -m tests.bench.feed [--events 500000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable

import asyncpg
import uvloop

from esx import Batch, EventStore, NewEvent
from tests.bench.common import compare, database, fill, server

_LATENCIES = 200


async def main(events: int, rounds: int) -> None:
    """Run all comparisons."""
    with server() as running:
        dsn = await database(running, "feed")
        await fill(dsn, events, 10_000)
        async with EventStore.connect(dsn) as store:
            await _reading(dsn, store, rounds)
        dsn = await database(running, "latency")
        async with EventStore.connect(dsn, max_connections=40) as store:
            await _latency(dsn, store, rounds)


async def _reading(dsn: str, store: EventStore, rounds: int) -> None:
    bare = await asyncpg.connect(dsn)

    async def read_all() -> float:
        began, count = time.perf_counter(), 0
        async for _ in store.read_all():
            count += 1
        return count / (time.perf_counter() - began)

    async def feed(each: Callable[[Batch], int]) -> float:
        began, count = time.perf_counter(), 0
        reading = await store.feed()
        async for batch in reading.to_safe_position():
            count += each(batch)
        return count / (time.perf_counter() - began)

    def one_by_one(batch: Batch) -> int:
        count = 0
        for _ in batch.events:
            count += 1
        return count

    async def asyncpg_alone() -> float:
        began, count, position = time.perf_counter(), 0, 0
        while rows := await bare.fetch(
            "SELECT * FROM events WHERE global_seq > $1 ORDER BY global_seq LIMIT 1000", position
        ):
            count += len(rows)
            position = rows[-1][0]
        return count / (time.perf_counter() - began)

    await compare(
        "reading all events",
        {
            "read_all": read_all,
            "feed to the safe position": lambda: feed(one_by_one),
            "the same, a list of each batch": lambda: feed(lambda batch: len(list(batch.events))),
            "the same, events only counted": lambda: feed(lambda batch: len(batch.events)),
            "asyncpg alone, by keyset": asyncpg_alone,
        },
        rounds=rounds,
        unit="events/s",
    )
    await bare.close()


async def _latency(dsn: str, store: EventStore, rounds: int) -> None:
    arrived: dict[int, float] = {}
    news = asyncio.Event()

    async def follow() -> None:
        feed = await store.feed(after=await store.head())
        async for batch in feed.follow():
            now = time.perf_counter()
            for event in batch.events:
                arrived[event.global_seq] = now
            news.set()

    async def delivery() -> float:
        delays = []
        for _ in range(_LATENCIES):
            await asyncio.sleep(0.02)
            done = await store.append("s", [NewEvent("T")])
            committed = time.perf_counter()
            while done.global_seq not in arrived:
                news.clear()
                await news.wait()
            delays.append(max(arrived[done.global_seq] - committed, 0.0))
        return statistics.median(delays) * 1000

    sender, receiver = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    heard = asyncio.Event()
    await receiver.add_listener("bare", lambda *_: heard.set())

    async def round_trip() -> float:
        delays = []
        for _ in range(_LATENCIES):
            await asyncio.sleep(0.02)
            heard.clear()
            began = time.perf_counter()
            notifying = asyncio.ensure_future(sender.execute("NOTIFY bare"))
            await heard.wait()
            delays.append(time.perf_counter() - began)
            await notifying
        return statistics.median(delays) * 1000

    following = asyncio.create_task(follow())
    await asyncio.sleep(1)
    await compare(
        "idle store: from the append's answer to the subscriber",
        {"commit to delivery": delivery, "bare NOTIFY round trip": round_trip},
        rounds=rounds,
        unit="ms",
        higher=False,
    )
    for _ in range(rounds):
        print(f"  under load: {await _under_load(store, arrived)}", flush=True)
    following.cancel()
    await sender.close()
    await receiver.close()


async def _under_load(store: EventStore, arrived: dict[int, float]) -> str:
    """Append 2,000 events a second for five seconds and tell the delays."""
    committed: dict[int, float] = {}
    end = time.perf_counter() + 5
    writers = 20

    async def write(name: int) -> None:
        due = time.perf_counter() + name / 2000
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            done = await store.append(f"w-{name}", [NewEvent("T")])
            committed[done.global_seq] = time.perf_counter()
            due += writers / 2000

    await asyncio.gather(*(write(name) for name in range(writers)))
    async with asyncio.timeout(30):
        while not committed.keys() <= arrived.keys():
            await asyncio.sleep(0.01)
    delays = sorted(max(arrived[number] - when, 0.0) * 1000 for number, when in committed.items())
    return (
        f"{len(delays) / 5:,.0f} appends/s, median {delays[len(delays) // 2]:.1f} ms, "
        f"p99 {delays[int(len(delays) * 0.99)]:.1f} ms, max {delays[-1]:.1f} ms"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    uvloop.run(main(options.events, options.rounds))
