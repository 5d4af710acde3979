"""Subscribers in a process of their own, as users have them, for the benchmarks of appends.

python -m tests.bench.subscribers DSN COUNT
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

import uvloop

from esx import EventStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def subscribers(dsn: str, count: int) -> AsyncIterator[None]:
    """Run a process with so many subscribers of one store, which all follow from the head on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.subscribers", dsn, str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"following\n"
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def main(dsn: str, count: int) -> None:
    """Follow until the standard input ends."""
    async with EventStore.connect(dsn) as store:
        feeds = [await store.feed(after=await store.head()) for _ in range(count)]
        for feed in feeds:
            assert await feed.listen()

        async def follow(number: int) -> None:
            async for _ in feeds[number].follow():
                pass

        following = [asyncio.create_task(follow(number)) for number in range(count)]
        print("following", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
