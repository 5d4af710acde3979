"""Appends: against message-db's `write_message` and eventsourcing's application recorder, where they are installed.

    pip install 'eventsourcing[postgres]'
    npm pack @eventide/message-db && tar xzf eventide-message-db-*.tgz
    MESSAGE_DB=package/database python -m tests.bench.others [--seconds 4] [--rounds 5]

32 writers, each with its own share of 10,000 streams of one category; each of them on a database of the same server,
called as its users would: message-db by its function through asyncpg, eventsourcing by 32 threads.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import random
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import asyncpg
import uvloop

from esx import EventStore
from tests.bench.appends import appends
from tests.bench.common import WRITERS, compare, database, server, throughput

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.embedded import EmbeddedServer

_STREAMS = 10_000
_NAMESPACE = UUID("5a3f6d0e-8f5e-4d43-9d33-0c7c2a1a9b11")


async def main(seconds: float, rounds: int) -> None:
    """Compare with whatever is there."""
    with server() as running:
        async with AsyncExitStack() as stack:
            measures: dict[str, Callable[[], Awaitable[float]]] = {}
            message_db = os.environ.get("MESSAGE_DB")
            if message_db:
                write = await _message_db(running, Path(message_db), stack)
                measures["message-db write_message"] = lambda: throughput(write, seconds)
            else:
                print("message-db is left out: set MESSAGE_DB to the directory of its SQL files")
            try:
                record = await _eventsourcing(running)
            except ImportError:
                print("eventsourcing is left out: pip install 'eventsourcing[postgres]'")
            else:
                measures["eventsourcing application recorder"] = lambda: asyncio.to_thread(record, seconds)
            dsn = await database(running, "esx_appends")
            store = await stack.enter_async_context(EventStore.connect(dsn, max_connections=WRITERS))
            measures["esx"] = lambda: appends(store, seconds)
            await compare("appends, 32 writers on 10,000 streams", measures, rounds=rounds, unit="appends/s")


async def _message_db(
    running: EmbeddedServer, directory: Path, stack: AsyncExitStack
) -> Callable[[int], Awaitable[object]]:
    """Install message-db as its scripts do, and return what writes one message."""
    name = "message_db"
    admin = await asyncpg.connect(running.dsn_for("postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.execute(f"ALTER DATABASE {name} SET search_path = message_store, public")
    await admin.close()
    connection = await asyncpg.connect(running.dsn_for(name))
    # gen_random_uuid, which it takes from the extension pgcrypto, is built in since PostgreSQL 13.
    scripts = ["schema/message-store", "tables/messages", "types/message"]
    scripts += [f"functions/{path.stem}" for path in sorted((directory / "functions").glob("*.sql"))]
    scripts += [f"indexes/{path.stem}" for path in sorted((directory / "indexes").glob("*.sql"))]
    await connection.execute("SET check_function_bodies = off")
    for script in scripts:
        await connection.execute((directory / f"{script}.sql").read_text(encoding="utf-8"))
    await connection.close()
    connections = [await asyncpg.connect(running.dsn_for(name)) for _ in range(WRITERS)]
    for each in connections:
        stack.push_async_callback(each.close)
    draw = random.Random(1)

    async def write(writer: int) -> object:
        stream = f"account-{draw.randrange(_STREAMS // WRITERS) * WRITERS + writer}"
        return await connections[writer].fetchval(
            "SELECT write_message(gen_random_uuid()::varchar, $1::varchar, 'Deposited'::varchar, $2::jsonb)",
            stream,
            '{"amount":100}',
        )

    return write


async def _eventsourcing(running: EmbeddedServer) -> Callable[[float], float]:
    """Make its table, and return what runs 32 threads for some seconds and tells the appends a second."""
    postgres: Any = importlib.import_module("eventsourcing.postgres")
    persistence: Any = importlib.import_module("eventsourcing.persistence")
    admin = await asyncpg.connect(running.dsn_for("postgres"))
    await admin.execute("CREATE DATABASE eventsourcing")
    await admin.close()
    datastore = postgres.PostgresDatastore(
        "eventsourcing", str(running.socket_dir), 5432, "postgres", "", pool_size=WRITERS, max_waiting=WRITERS
    )
    recorder = postgres.PostgresApplicationRecorder(datastore, events_table_name="stored_events")
    recorder.create_table()
    versions = [[0] * (_STREAMS // WRITERS) for _ in range(WRITERS)]
    ids = [[uuid5(_NAMESPACE, f"{writer}-{n}") for n in range(_STREAMS // WRITERS)] for writer in range(WRITERS)]

    def record(seconds: float) -> float:
        end = time.perf_counter() + seconds
        done = [0] * WRITERS

        def loop(writer: int) -> None:
            draw = random.Random(writer)
            while time.perf_counter() < end:
                n = draw.randrange(_STREAMS // WRITERS)
                versions[writer][n] += 1
                event = persistence.StoredEvent(ids[writer][n], versions[writer][n], "Deposited", b'{"amount":100}')
                recorder.insert_events([event])
                done[writer] += 1

        threads = [threading.Thread(target=loop, args=(writer,)) for writer in range(WRITERS)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / (time.perf_counter() - began)

    return record


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    uvloop.run(main(options.seconds, options.rounds))
