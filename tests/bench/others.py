"""Appends: against message-db's `write_message` and eventsourcing's application recorder, where they are installed.

    pip install 'eventsourcing[postgres]'
    npm pack @eventide/message-db && tar xzf eventide-message-db-*.tgz
    python -m tests.bench.others [--message-db package/database] [--seconds 4] [--rounds 5]

32 writers, each with its own share of 10,000 streams of one category; each of them on a database of the same server,
called as its users would: message-db by its function through asyncpg, eventsourcing by 32 threads. Then message-db's
function and esx's statement once more by pgbench, where no client library comes in.
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
from tests.bench.appends import SAME_SQL, appends
from tests.bench.common import WRITERS, compare, database, pgbench, server, throughput

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.embedded import EmbeddedServer

_STREAMS = 10_000
_MESSAGE_DB = "message_db"
_NAMESPACE = UUID("5a3f6d0e-8f5e-4d43-9d33-0c7c2a1a9b11")


# Each writer keeps to its own share of the streams, as in SAME_SQL.
_WRITE_MESSAGE = """
\\set s random(0, 311) * 32 + :client_id
SELECT write_message(
    gen_random_uuid()::varchar, ('account-' || :s)::varchar, 'Deposited'::varchar, '{"amount":100}'::jsonb);
"""


async def main(message_db: str | None, seconds: float, rounds: int) -> None:
    """Compare with whatever is there."""
    with server() as running:
        async with AsyncExitStack() as stack:
            measures: dict[str, Callable[[], Awaitable[float]]] = {}
            if message_db:
                write = await message_db_writer(running, Path(message_db), stack)
                measures["message-db write_message"] = lambda: throughput(write, seconds)
            else:
                print("message-db is left out: pass --message-db, or set MESSAGE_DB to, the directory of its SQL files")
            try:
                record = await recorder(running, stack)
            except ImportError:
                print("eventsourcing is left out: pip install 'eventsourcing[postgres]'")
            else:
                measures["eventsourcing application recorder"] = lambda: asyncio.to_thread(record, WRITERS, seconds)
            dsn = await database(running, "esx_appends")
            store = await stack.enter_async_context(EventStore.connect(dsn, max_connections=WRITERS))
            few = await stack.enter_async_context(EventStore.connect(dsn))
            measures["esx with its ten connections"] = lambda: appends(few, seconds)
            measures["esx"] = lambda: appends(store, seconds)
            await compare("appends, 32 writers on 10,000 streams", measures, rounds=rounds, unit="appends/s")
        if message_db:
            by_pgbench: dict[str, Callable[[], Awaitable[float]]] = {
                what: (lambda name=name, script=script: asyncio.to_thread(pgbench, running, name, script, seconds))  # type: ignore[misc]
                for what, name, script in (
                    ("message-db write_message", _MESSAGE_DB, _WRITE_MESSAGE),
                    ("esx's statement", "esx_appends", SAME_SQL),
                )
            }
            await compare("the same, all by pgbench", by_pgbench, rounds=rounds, unit="appends/s")


async def message_db_writer(
    running: EmbeddedServer, directory: Path, stack: AsyncExitStack, writers: int = WRITERS
) -> Callable[[int], Awaitable[object]]:
    """Install message-db as its scripts do, and return what writes one message."""
    name = _MESSAGE_DB
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
    connections = [await asyncpg.connect(running.dsn_for(name)) for _ in range(writers)]
    for each in connections:
        stack.push_async_callback(each.close)
    draw = random.Random(1)

    async def write(writer: int) -> object:
        stream = f"account-{draw.randrange(_STREAMS // writers) * writers + writer}"
        return await connections[writer].fetchval(
            "SELECT write_message(gen_random_uuid()::varchar, $1::varchar, 'Deposited'::varchar, $2::jsonb)",
            stream,
            '{"amount":100}',
        )

    return write


async def recorder(running: EmbeddedServer, stack: AsyncExitStack) -> Callable[[int, float], float]:
    """Make its table, and return what runs up to 32 threads for some seconds and tells the appends a second.

    Raises ImportError where eventsourcing is not installed.
    """
    postgres: Any = importlib.import_module("eventsourcing.postgres")
    persistence: Any = importlib.import_module("eventsourcing.persistence")
    admin = await asyncpg.connect(running.dsn_for("postgres"))
    await admin.execute("CREATE DATABASE eventsourcing")
    await admin.close()
    datastore = postgres.PostgresDatastore(
        "eventsourcing", str(running.socket_dir), 5432, "postgres", "", pool_size=WRITERS, max_waiting=WRITERS
    )
    stack.callback(datastore.close)
    recorder = postgres.PostgresApplicationRecorder(datastore, events_table_name="stored_events")
    recorder.create_table()
    own = _STREAMS // WRITERS
    versions = [[0] * own for _ in range(WRITERS)]
    ids = [[uuid5(_NAMESPACE, f"{writer}-{n}") for n in range(own)] for writer in range(WRITERS)]

    def record(count: int, seconds: float) -> float:
        end = time.perf_counter() + seconds
        done = [0] * count

        def loop(writer: int) -> None:
            draw = random.Random(writer)
            while time.perf_counter() < end:
                n = draw.randrange(own)
                versions[writer][n] += 1
                event = persistence.StoredEvent(ids[writer][n], versions[writer][n], "Deposited", b'{"amount":100}')
                recorder.insert_events([event])
                done[writer] += 1

        threads = [threading.Thread(target=loop, args=(writer,)) for writer in range(count)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / (time.perf_counter() - began)

    return record


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--message-db", default=os.environ.get("MESSAGE_DB"))
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    uvloop.run(main(options.message_db, options.seconds, options.rounds))
