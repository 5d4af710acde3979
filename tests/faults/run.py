"""One run: clients and readers at work, faults for a while, then what is to be judged."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from esx import EventStore
from tests.faults.check import Verdict, check
from tests.faults.clients import RawClient, StoreClient
from tests.faults.cluster import cluster, connected, end_sessions, stored
from tests.faults.history import History
from tests.faults.readers import Projector, Reader, await_projected, make_table, projected
from tests.faults.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.faults.clients import Client
    from tests.faults.cluster import Cluster

CLIENTS = "faults-client"
_SHARED, _RAW = 22, 4
_OWN = (1, 1, 2, 2, 3, 10)
"""Clients on the store that they share, with its default pool; with SQL of their own; with pools of their own, of so
many connections."""
_TIMEOUT = 3.0
_SETTLER = 90


class Run(NamedTuple):
    """What a run did, and what is to be said of it."""

    seed: int
    version: int
    unique_ids: bool
    events: int
    faults: dict[str, int]
    errors: dict[str, int]
    verdict: Verdict
    history: History

    def __str__(self) -> str:
        words = ", ".join(f"{count:,} {kind}" for kind, count in self.faults.items())
        ids = "unique event ids" if self.unique_ids else "event ids as they come"
        outcomes = [call.outcome for call in self.history.calls]
        return (
            f"seed {self.seed}, PostgreSQL {self.version}, {ids}: {self.events:,} events; {len(outcomes):,} calls, of "
            f"which {outcomes.count('acknowledged'):,} were acknowledged, {outcomes.count('refused'):,} refused, "
            f"{outcomes.count('unknown'):,} left unknown; {words}; {self.verdict.lost_in_failover:,} acknowledged "
            f"events lost by failovers; errors told: {self.errors}; {len(self.verdict.findings)} findings"
        )


async def run_faults(version: int, seed: int, seconds: float, *, unique_ids: bool) -> Run:
    """Run 32 clients against faults for `seconds`, or at least once each kind, and check what came of it."""
    print(f"seed {seed}, PostgreSQL {version}, {seconds:g} s", flush=True)
    history = History()
    async with cluster(version) as servers:
        async with EventStore.connect(servers.dsn) as store:
            await store.init()
        async with connected(servers.primary.dsn) as connection:
            await make_table(connection)
            if unique_ids:
                await connection.execute("CREATE UNIQUE INDEX ON events (event_id)")
        await servers.standby_has_all()
        faults, cancelled = await _work(servers, history, seed, seconds)
    assert servers.left() == [], "processes are left"
    faults["cancelled calls"] = cancelled
    return Run(
        seed,
        version,
        unique_ids,
        len({row.event_id for table in history.tables for row in table}),
        faults,
        dict(history.errors),
        check(history),
        history,
    )


@contextlib.asynccontextmanager
async def _clients(dsn: str, seed: int, history: History) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stores:

        async def open_store(size: int = 10, *, grouping: bool = True) -> EventStore:
            return await stores.enter_async_context(
                EventStore.connect(
                    dsn, application_name=CLIENTS, timeout=_TIMEOUT, max_connections=size, grouping=grouping
                )
            )

        shared = await open_store()
        one_by_one = await open_store(grouping=False)
        clients: list[Client] = [
            StoreClient(number, seed, history, dsn, one_by_one if number % 3 == 0 else shared)
            for number in range(_SHARED)
        ]
        for size in _OWN:
            clients.append(StoreClient(len(clients), seed, history, dsn, await open_store(size)))
        for _ in range(_RAW):
            clients.append(RawClient(len(clients), seed, history, f"{dsn}&application_name={CLIENTS}"))
        yield clients


async def _work(servers: Cluster, history: History, seed: int, seconds: float) -> tuple[dict[str, int], int]:
    """Let all work until the faults are over and all readers have come to the end; return what was done."""
    stop = asyncio.Event()
    async with _following(servers, history) as (store, readers):
        settler = StoreClient(_SETTLER, seed, history, servers.dsn, store)
        async with _clients(servers.dsn, seed, history) as clients, asyncio.TaskGroup() as working:
            for client in clients:
                working.create_task(client.run(stop))
            schedule = Schedule(seed, servers, history, readers, clients, settler)
            await schedule.run(seconds)
            await schedule.everybody_gets_on()
            stop.set()
        # Nothing that was cut short may happen later than this.
        await end_sessions(servers.primary.dsn, CLIENTS)
        for reader in readers:
            reader.hurry()
        last = await schedule.mark()
        await schedule.seen_by(readers, last)
        async with connected(servers.primary.dsn) as connection:
            await await_projected(connection, last)
            history.projected = await projected(connection)
        history.tables.append(await stored(servers.primary))
        history.close()
    return schedule.counts, sum(client.cancelled for client in clients if isinstance(client, StoreClient))


@contextlib.asynccontextmanager
async def _following(servers: Cluster, history: History) -> AsyncIterator[tuple[EventStore, list[Reader]]]:
    """Yield readers at work, with their store; beside them works a projection."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_store(name: str) -> EventStore:
            return await stack.enter_async_context(
                EventStore.connect(servers.dsn, application_name=name, timeout=_TIMEOUT)
            )

        store = await open_store("faults-reader")
        readers = [
            Reader("restarted", store, history),
            Reader("one of two", store, history, batches=True),
            Reader("other of two", store, history, batches=True),
            Reader("filtered", store, history, prefix="hot-"),
            Reader("slow", store, history, pause=0.05),
        ]
        # Two instances, on stores of their own: one is active, and the other takes over.
        projectors = [Projector(await open_store("faults-projection"), history) for _ in range(2)]
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(each.run()) for each in readers]
            background += [tasks.create_task(each.run()) for each in projectors]
            yield store, readers
            for task in background:
                task.cancel()
