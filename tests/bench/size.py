"""What an append and a page cost as the store grows.

python -m tests.bench.size [--sizes 10000 1000000 10000000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import TYPE_CHECKING

import uvloop

from esx import EventStore, NewEvent
from esx.store.read.pages import StreamKey
from tests.bench.common import compare, database, fill, server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_TURNS = 200


async def main(sizes: list[int], rounds: int) -> None:
    """Fill a store of each size, and compare the same requests on all of them."""
    with server() as running:
        stores: dict[int, EventStore] = {}
        for size in sizes:
            dsn = await database(running, f"size_{size}")
            await fill(dsn, size, max(size // 10, 1))
            stores[size] = await EventStore.connect(dsn, max_connections=1)
        requests: dict[str, Callable[[EventStore, int, random.Random], Awaitable[object]]] = {
            "page of a stream, as previews": _stream_page,
            "page of $all, as previews": _all_page,
            "page of streams by name": _names,
            "page of streams by recent activity": _recent,
            # Last: what it stores goes into holes all over the table, as far as there are any.
            "append to a stream": _append,
        }
        for name, request in requests.items():
            measures: dict[str, Callable[[], Awaitable[float]]] = {
                f"{size:,} events": (lambda size=size: _median(stores[size], size, request))  # type: ignore[misc]  # noqa: B023
                for size in reversed(sizes)
            }
            await compare(name, measures, rounds=rounds, unit="ms", higher=False)
        for store in stores.values():
            await store.close()


async def _median(
    store: EventStore, size: int, request: Callable[[EventStore, int, random.Random], Awaitable[object]]
) -> float:
    draw = random.Random(2)
    times = []
    for _ in range(_TURNS):
        began = time.perf_counter()
        await request(store, size, draw)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


async def _append(store: EventStore, size: int, draw: random.Random) -> object:
    return await store.append(f"s-{draw.randrange(size // 10)}", [NewEvent("T", {"n": 1})])


async def _stream_page(store: EventStore, size: int, draw: random.Random) -> object:
    return await store.preview_page(f"s-{draw.randrange(size // 10)}", limit=10)


async def _all_page(store: EventStore, size: int, draw: random.Random) -> object:
    return await store.preview_all_page(position=draw.randrange(size), limit=100)


async def _names(store: EventStore, size: int, draw: random.Random) -> object:
    return await store.streams_page(after=StreamKey(f"s-{draw.randrange(size // 10)}", 0), limit=50)


async def _recent(store: EventStore, size: int, draw: random.Random) -> object:
    return await store.streams_page(recent=True, limit=50)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    uvloop.run(main(options.sizes, options.rounds))
