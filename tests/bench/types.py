"""What `esx types`, the screen Types and `esx summary` cost in a large store, and what a full count costs.

python -m tests.bench.types [--events 10000000] [--rounds 5] [--keep DIR]

The first reading comes right after the server has started, when it has nothing in its own memory; the operating system
may have. An index on the type is made last, as all types are found by it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from esx import EventStore
from esx.fold.type_shapes import type_shapes
from tests.bench.common import database, fill, server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.embedded import EmbeddedServer


async def main() -> None:
    """Fill a store, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, default=None)
    chosen = parser.parse_args()
    name = f"types_{chosen.events}"
    if chosen.keep is not None:
        with server(chosen.keep) as running:
            await _filled(running, name, chosen.events)
    with server(chosen.keep) as running:
        dsn = await _filled(running, name, chosen.events)
        print(f"{chosen.events:,} events", flush=True)
        async with EventStore.connect(dsn, statement_timeout=600) as store:
            began = time.perf_counter()
            survey = await store.types()
            print(f"{'esx types, right after the start':<44} {time.perf_counter() - began:>8.2f} s", flush=True)
            began = time.perf_counter()
            shapes = type_shapes(survey)
            print(f"{f'the shapes of {len(shapes)} types':<44} {time.perf_counter() - began:>8.2f} s", flush=True)
            print(f"looked at {survey.looked_at:,}, complete: {survey.complete}")
            now = datetime.now(UTC)
            await _measure("esx types", store.types, chosen.rounds)
            await _measure("words for filters", lambda: store.types(samples=10), chosen.rounds)
            await _measure("a window of a day", lambda: store.happened(now - timedelta(days=1)), chosen.rounds)
            await _measure("esx types --full", lambda: store.types(full=True), 2)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "esx", "types", "-d", dsn, "--json"], stdout=subprocess.DEVNULL, check=False
        )
        print(f"{'the command, from start to end':<44} {time.perf_counter() - began:>8.2f} s", flush=True)
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE INDEX IF NOT EXISTS of_type ON events (event_type, global_seq)", timeout=3600)
        await connection.close()
        async with EventStore.connect(dsn) as store:
            await _measure("esx types, with an index on the type", store.types, chosen.rounds)
            print(f"complete: {(await store.types()).complete}")


async def _filled(running: EmbeddedServer, name: str, events: int) -> str:
    """Return the address of a database with so many events, filled if it is not there yet."""
    connection = await asyncpg.connect(running.dsn_for("postgres"))
    there = await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", name)
    await connection.close()
    if not there:
        dsn = await database(running, name)
        await fill(dsn, events, events // 10)
    return running.dsn_for(name)


async def _measure(what: str, read: Callable[[], Awaitable[object]], rounds: int) -> None:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        await read()
        times.append(time.perf_counter() - began)
    print(f"{what:<44} {statistics.median(times):>8.2f} s   {min(times):.2f} to {max(times):.2f}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
