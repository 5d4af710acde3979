"""Making a read model of a million events again, with a handler that does nothing, against reading them alone.

python -m tests.bench.rebuild [--events 1000000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING

import asyncpg

from esx import Event, EventStore
from tests.bench.common import compare, database, fill, server

if TYPE_CHECKING:
    from collections.abc import Sequence


async def one(_connection: asyncpg.Connection, _event: Event) -> None:
    """Do nothing with an event."""


async def all_of(_connection: asyncpg.Connection, _events: Sequence[Event]) -> None:
    """Do nothing with events."""


async def main(events: int, rounds: int) -> None:
    """Run the comparison."""
    with server() as running:
        dsn = await database(running, "rebuild")
        await fill(dsn, events, 10_000)
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE model (key text PRIMARY KEY, value int)")
        async with EventStore.connect(dsn) as store:
            projecting = asyncio.ensure_future(store.project_batches("p", all_of))
            while await connection.fetchval("SELECT min(position) FROM consumers") != events:
                await asyncio.sleep(0.1)
            projecting.cancel()
            await asyncio.gather(projecting, return_exceptions=True)
            await connection.close()

            async def rebuilt(*, batches: bool) -> float:
                began = time.perf_counter()
                done = await store.rebuild_projection("p", all_of if batches else one, ["model"], batches=batches)
                assert done.handled == events
                return events / (time.perf_counter() - began)

            async def audited() -> float:
                began = time.perf_counter()
                assert (await store.audit_projection("p", one, ["model"])).handled == events
                return events / (time.perf_counter() - began)

            async def singly() -> float:
                return await rebuilt(batches=False)

            async def in_batches() -> float:
                return await rebuilt(batches=True)

            async def reading() -> float:
                began, count = time.perf_counter(), 0
                async for _ in store.read_all():
                    count += 1
                assert count == events
                return events / (time.perf_counter() - began)

            async def feed() -> float:
                began, count = time.perf_counter(), 0
                async for batch in (await store.feed(after=0, page=2000)).to_safe_position():
                    count += len(batch.events)
                assert count == events
                return events / (time.perf_counter() - began)

            await compare(
                f"{events:,} events, a handler that does nothing",
                {
                    "rebuild, event by event": singly,
                    "rebuild, in batches": in_batches,
                    "audit, event by event": audited,
                    "read_all alone": reading,
                    "the feed alone": feed,
                },
                rounds=rounds,
                unit="events/s",
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(main(options.events, options.rounds))
