"""Other tools' stores of a million events: first rows, pages, prefixes, and the feed against asyncpg alone.

python -m tests.bench.stores [--events 1000000] [--small 10000] [--pages 100] [--rounds 5]
                             [--keep DIR [--load]] [NAME ...]

Each page is read at random places, of the large store and of a small one in turn, and then once more, as the server has
its blocks in memory then: the ratio of the first says what size costs with the server's default of 128 MB of shared
buffers, that of the second what it costs by itself.
With --keep the stores stay in a directory, and are loaded only where they are not there yet; --load measures nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from esx import EventStore
from tests.bench.common import compare, server
from tests.layouts.foreign.larger import LARGER, load_larger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.embedded import EmbeddedServer

Times = dict[str, list[float]]
"""The milliseconds of each read, of the store and of the other one."""
_PAGE = 50
_FEED = 100_000


async def measure(running: EmbeddedServer, name: str, options: argparse.Namespace) -> None:
    """Measure the store of one tool."""
    print(f"\n{name}")
    large, small = [await _filled(running, name, events) for events in (options.events, options.small)]
    await _first_rows(name, large, options)
    async with (
        EventStore.connect(large, store=LARGER[name].table) as store,
        EventStore.connect(small, store=LARGER[name].table) as other,
    ):
        same = len((await other.streams_page(prefix=LARGER[name].prefix, limit=_PAGE)).streams)
        for what, read in _pages(name, same).items():
            first, again = (Times(store=[], other=[]) for _ in range(2))
            for _ in range(options.pages):
                for which, events in (("store", options.events), ("other", options.small)):
                    place = random.Random(f"{what} {len(first[which])}").randrange(events - _PAGE) + _PAGE
                    for times in (first, again):
                        began = time.perf_counter()
                        await read(store if which == "store" else other, place)
                        times[which].append((time.perf_counter() - began) * 1000)
            every = sorted(first["store"])
            ratio, ratio_again = (
                statistics.median(times["store"]) / statistics.median(times["other"]) for times in (first, again)
            )
            print(
                f"  {what}: median {statistics.median(every):.1f} ms, p95 {every[int(len(every) * 0.95)]:.1f}, "
                f"max {every[-1]:.1f}; {ratio:.2f} of the small store, once more {ratio_again:.2f}"
            )
    await compare(
        "feed",
        {
            "esx": lambda: _feed(large, name),
            "esx, and each event is read": lambda: _feed(large, name, read=True),
            "asyncpg alone": lambda: _alone(large, name),
        },
        rounds=options.rounds,
        unit="events/s",
    )


async def _filled(running: EmbeddedServer, name: str, events: int) -> str:
    admin = await asyncpg.connect(running.dsn_for("postgres"))
    database = f"{name}_{events}"
    # As Message DB's own script makes it, and most servers in containers.
    there = await admin.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database)
    if not there:
        await admin.execute(f"CREATE DATABASE {database} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'")
        connection = await asyncpg.connect(running.dsn_for(database))
        await load_larger(connection, name, events)
        await connection.execute("CHECKPOINT")
        await connection.close()
    await admin.close()
    return running.dsn_for(database)


async def _first_rows(name: str, dsn: str, options: argparse.Namespace) -> None:
    """Connect, and read what the explorer shows first: streams, and the newest events."""
    times = []
    for _ in range(options.rounds):
        began = time.perf_counter()
        async with EventStore.connect(dsn, store=LARGER[name].table, read_only=True) as store:
            await store.streams_page(limit=_PAGE)
            await store.preview_all_page(limit=_PAGE, backwards=True)
            times.append(time.perf_counter() - began)
    print(f"  first rows after connecting: median {statistics.median(times):.3f} s, max {max(times):.3f}")


def _pages(name: str, same: int) -> dict[str, Callable[[EventStore, int], Awaitable[Any]]]:
    """Return what reads each kind of page at a place; `same` streams have the prefix in both stores."""
    one = LARGER[name]

    async def middle(store: EventStore, place: int) -> None:
        assert await store.preview_all_page(position=place - _PAGE, limit=_PAGE)

    async def back(store: EventStore, place: int) -> None:
        assert await store.preview_all_page(position=place, limit=_PAGE, backwards=True)

    async def stream(store: EventStore, _place: int) -> None:
        assert await store.preview_page(one.stream, limit=_PAGE)

    async def names(store: EventStore, _place: int) -> None:
        assert (await store.streams_page(limit=_PAGE)).streams

    async def prefix(store: EventStore, _place: int) -> None:
        assert len((await store.streams_page(prefix=one.prefix, limit=same)).streams) == same

    async def recent(store: EventStore, _place: int) -> None:
        assert (await store.streams_page(recent=True, limit=_PAGE)).streams

    return {
        "a page of all": middle,
        "a page of all, backwards": back,
        "a page of a stream": stream,
        "streams by name": names,
        "streams by prefix": prefix,
        "streams by activity": recent,
    }


async def _feed(dsn: str, name: str, *, read: bool = False) -> float:
    async with EventStore.connect(dsn, store=LARGER[name].table) as store:
        feed = await store.feed(page=1000)
        count = 0
        began = time.perf_counter()
        async for batch in feed.to_safe_position():
            count += sum(1 for event in batch.events if event.data_json) if read else len(batch.events)
            if count >= _FEED:
                break
        return count / (time.perf_counter() - began)


async def _alone(dsn: str, name: str) -> float:
    connection = await asyncpg.connect(dsn)
    statement = await connection.prepare(LARGER[name].alone)
    count, after = 0, 0
    began = time.perf_counter()
    while count < _FEED:
        rows = await statement.fetch(after, 1000)
        if not rows:
            break
        count, after = count + len(rows), rows[-1][0]
    rate = count / (time.perf_counter() - began)
    await connection.close()
    return rate


async def main() -> None:
    """Measure each store that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(LARGER))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--load", action="store_true")
    options = parser.parse_args()
    if options.load and options.keep is None:
        parser.error("--load needs --keep")
    with server(options.keep) as running:
        for name in options.names:
            if options.load:
                for events in (options.events, options.small):
                    await _filled(running, name, events)
            else:
                await measure(running, name, options)


if __name__ == "__main__":
    asyncio.run(main())
