"""Projections: a handler for each event against one for each batch, and both against reading the feed alone.

python -m tests.bench.projections [--events 100000] [--rounds 5]

The read model counts the events of each stream and adds up a number of theirs. A handler of events writes each of them
with one statement; a handler of batches adds up in Python first, and writes one row for each stream of the batch.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import asyncpg

from esx import EventStore
from tests.bench.common import compare, database, fill, server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from esx import Event

_STREAMS = 1_000
_ADD = """
    INSERT INTO sums (stream_id, events, total) VALUES ($1, $2, $3)
    ON CONFLICT (stream_id) DO UPDATE SET events = sums.events + excluded.events, total = sums.total + excluded.total
"""
_ADD_MANY = _ADD.replace("VALUES ($1, $2, $3)", "SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])")


async def nothing(connection: asyncpg.Connection, event: Event) -> None:
    """Handle an event by doing nothing."""


async def nothing_at_all(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
    """Handle a batch by doing nothing."""


async def add(connection: asyncpg.Connection, event: Event) -> None:
    """Add one event to the read model."""
    await connection.execute(_ADD, event.stream_id, 1, event.data["n"])


async def add_batch(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
    """Add a batch to the read model."""
    counts: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for event in events:
        counts[event.stream_id] += 1
        totals[event.stream_id] += event.data["n"]
    await connection.execute(_ADD_MANY, list(counts), list(counts.values()), [totals[name] for name in counts])


async def main(events: int, rounds: int) -> None:
    """Compare them."""
    with server() as running:
        dsn = await database(running, "projections")
        await fill(dsn, events, _STREAMS)
        sql = await asyncpg.connect(dsn)
        await sql.execute("CREATE TABLE sums (stream_id text PRIMARY KEY, events bigint, total bigint)")
        sums: set[tuple[int, int]] = set()
        async with EventStore.connect(dsn) as store:

            def measured(run: Callable[[str], Awaitable[None]], *, writes: bool) -> Callable[[], Awaitable[float]]:
                async def measure() -> float:
                    await sql.execute("TRUNCATE sums; TRUNCATE consumers CASCADE")
                    began = time.perf_counter()
                    projecting = asyncio.ensure_future(run("bench"))
                    while not projecting.done() and await _position(store) < events:
                        await asyncio.sleep(0.005)
                    rate = events / (time.perf_counter() - began)
                    projecting.cancel()
                    await asyncio.wait([projecting])
                    [found] = await sql.fetch("SELECT coalesce(sum(events), 0), coalesce(sum(total), 0) FROM sums")
                    if writes:
                        sums.add((int(found[0]), int(found[1])))
                    return rate

                return measure

            async def feed() -> float:
                began, count = time.perf_counter(), 0
                async for batch in (await store.feed()).to_safe_position():
                    count += len(batch.events)
                return count / (time.perf_counter() - began)

            await compare(
                "projections",
                {
                    "adds each event": measured(lambda name: store.project(name, add), writes=True),
                    "adds each batch": measured(lambda name: store.project_batches(name, add_batch), writes=True),
                    "nothing, each event": measured(lambda name: store.project(name, nothing), writes=False),
                    "nothing, each batch": measured(
                        lambda name: store.project_batches(name, nothing_at_all), writes=False
                    ),
                    "the feed alone": feed,
                },
                rounds=rounds,
                unit="events/s",
            )
        await sql.close()
        if sums != {(events, events * (events - 1) // 2)}:
            raise SystemExit(f"the read models differ from the events: {sorted(sums)}")


async def _position(store: EventStore) -> int:
    return max((each.position for each in await store.projections()), default=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(main(options.events, options.rounds))
