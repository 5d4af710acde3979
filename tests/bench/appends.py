"""Appends: against pgbench with the same SQL, strategies and notification modes against each other, and fairness.

    python -m tests.bench.appends [--seconds 4] [--rounds 5] [--only against|modes|strategies|users]

32 writers on 10,000 streams with a connection each, then as many as there are users on a store with its ten; the
embedded PostgreSQL 18, fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import uvloop

from esx import ANY, EventStore, NewEvent, Notification, Strategy
from tests.bench.common import WRITERS, compare, database, pgbench, server, throughput
from tests.bench.shares import as_users_do
from tests.bench.subscribers import subscribers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.embedded import EmbeddedServer

_STREAMS = 10_000
# What esx.store.append.appender sends for one event with ANY, with pgbench's variables for parameters. In both, each
# writer keeps to its own share of the streams, because pgbench gives up at the first conflict.
SAME_SQL = """
\\set s random(0, 311) * 32 + :client_id
INSERT INTO events (stream_id, stream_seq, event_type, data, metadata, event_id)
SELECT 's-' || :s, stream.version + 1, 'Deposited', '{"amount":100}'::jsonb, NULL::jsonb, gen_random_uuid()
FROM (SELECT coalesce(max(stream_seq), -1) AS version FROM events WHERE stream_id = 's-' || :s) stream
WHERE stream.version BETWEEN -1 AND 9223372036854775806
RETURNING stream_seq - 1, global_seq;
"""


async def main(seconds: float, rounds: int, only: str | None) -> None:
    """Run all comparisons, or one."""
    with server() as running:
        dsn = await database(running, "appends")
        async with AsyncExitStack() as stack:
            stores = {
                mode: await stack.enter_async_context(EventStore.connect(dsn, max_connections=32, notification=mode))
                for mode in Notification
            }
            if only in (None, "against"):
                await _against_pgbench(running, stores[Notification.DOORBELL], seconds, rounds)
            if only in (None, "modes"):
                await _modes(running, dsn, stores, seconds, rounds)
            if only in (None, "strategies"):
                await _strategies(stores[Notification.DOORBELL], seconds, rounds)
            if only in (None, "users"):
                await as_users_do(dsn, [10, 64, 1000], seconds, rounds)


async def _against_pgbench(running: EmbeddedServer, store: EventStore, seconds: float, rounds: int) -> None:
    async def same_sql() -> float:
        return await asyncio.to_thread(pgbench, running, "appends", SAME_SQL, seconds)

    await compare(
        "appends, 32 writers on 10,000 streams",
        {"esx (asyncpg, uvloop)": lambda: appends(store, seconds), "pgbench, the same statement": same_sql},
        rounds=rounds,
        unit="appends/s",
    )


async def _modes(
    running: EmbeddedServer, dsn: str, stores: dict[Notification, EventStore], seconds: float, rounds: int
) -> None:
    measures: dict[str, Callable[[], Awaitable[float]]] = {
        f"notification {mode}": (lambda store=store: appends(store, seconds))  # type: ignore[misc]
        for mode, store in stores.items()
    }
    async with subscribers(dsn, 5):
        await compare("appends with five subscribers in another process", measures, rounds=rounds, unit="appends/s")
    # The modes differ in what PostgreSQL does: seen best where the writers themselves cost the least.
    measures = {
        f"notification {mode}": (lambda mode=mode: _by_pgbench(running, seconds, mode))  # type: ignore[misc]
        for mode in Notification
    }
    async with subscribers(dsn, 5):
        await compare("the same, appended by pgbench", measures, rounds=rounds, unit="appends/s")


async def _by_pgbench(running: EmbeddedServer, seconds: float, mode: Notification) -> float:
    how = {"esx.notification": mode.value}
    return await asyncio.to_thread(lambda: pgbench(running, "appends", SAME_SQL, seconds, settings=how))


async def _strategies(store: EventStore, seconds: float, rounds: int) -> None:
    for streams in (1, 100, _STREAMS):
        measures: dict[str, Callable[[], Awaitable[float]]] = {
            str(strategy): (lambda s=strategy: appends(store, seconds, streams=streams, strategy=s))  # type: ignore[misc]  # noqa: B023
            for strategy in Strategy
        }
        await compare(f"appends with ANY, 32 writers on {streams:,} streams", measures, rounds=rounds, unit="appends/s")


async def appends(
    store: EventStore, seconds: float, *, streams: int = _STREAMS, strategy: Strategy = Strategy.CONDITIONAL
) -> float:
    """Return the appends a second of 32 writers."""
    draw = random.Random(1)
    own = max(streams // WRITERS, 1)

    async def turn(writer: int) -> None:
        event = NewEvent("Deposited", {"amount": 100})
        stream = (draw.randrange(own) * WRITERS + writer) % streams
        await store.append(f"s-{stream}", [event], expected=ANY, strategy=strategy)

    return await throughput(turn, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["against", "modes", "strategies", "users"])
    options = parser.parse_args()
    uvloop.run(main(options.seconds, options.rounds, options.only))
