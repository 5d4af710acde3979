"""Lending connections: never more than agreed, never a broken one, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx.store import StoreUnavailable
from esx.store.connection import Connector
from esx.store.pool import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def pool(dsn18: str) -> AsyncIterator[Pool]:
    pool = Pool(Connector(dsn18, "test").open, 3, "here")
    yield pool
    pool.terminate()


async def pid(pool: Pool) -> int:
    async with pool.lend() as connection:
        return int(await connection.fetchval("SELECT pg_backend_pid() FROM pg_sleep(0.001)"))


async def test_many_share_a_few(pool: Pool) -> None:
    assert len({await pid(pool) for _ in range(5)}) == 1
    assert len(set(await asyncio.gather(*(pid(pool) for _ in range(50))))) <= 3


async def test_a_cancelled_query_leaves_a_usable_connection(pool: Pool) -> None:
    async def slow() -> None:
        async with pool.lend() as connection:
            await connection.execute("SELECT pg_sleep(600)")

    async with asyncio.timeout(20):
        for _ in range(10):
            tasks = [asyncio.create_task(slow()) for _ in range(3)]
            async with asyncio.timeout(5):
                while len(pool._lent) < 3:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(pid(pool) for _ in range(6)))


async def test_a_cancelled_waiter_passes_its_turn_on(pool: Pool) -> None:
    async with asyncio.timeout(20), pool.lend(), pool.lend():
        async with pool.lend():
            waiting = [asyncio.create_task(pid(pool)) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
        waiting[1].cancel()
        assert await waiting[2]


async def test_giving_up_in_the_moment_of_being_served_is_a_timeout_and_nothing_else(pool: Pool) -> None:
    async with pool.lend(), pool.lend():
        for _ in range(20):
            async with pool.lend():
                waiting = [asyncio.create_task(pid(pool)) for _ in range(2)]
                await asyncio.sleep(0)
            waiting[0].cancel()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert isinstance(outcomes[0], asyncio.CancelledError)
            assert isinstance(outcomes[1], int)

    async def impatient() -> None:
        async with asyncio.timeout(0.0005):
            await pid(pool)

    for _ in range(20):
        ends = await asyncio.gather(*(impatient() for _ in range(12)), return_exceptions=True)
        assert {type(end) for end in ends} <= {type(None), TimeoutError}
    assert await pid(pool)


async def test_a_killed_connection_is_replaced(pool: Pool, dsn18: str) -> None:
    first = await pid(pool)
    killer = await asyncpg.connect(dsn18)
    await killer.execute("SELECT pg_terminate_backend($1)", first)
    await killer.close()
    pids = set()
    for _ in range(3):
        try:
            pids.add(await pid(pool))
        except StoreUnavailable:  # it had not noticed yet
            continue
    assert pids
    assert first not in pids


async def test_closed_means_closed(pool: Pool) -> None:
    await pid(pool)
    waiting: list[asyncio.Task[int]] = []
    async with pool.lend(), pool.lend(), pool.lend():
        waiting = [asyncio.create_task(pid(pool)) for _ in range(3)]
        await asyncio.sleep(0)
        pool.terminate()
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, StoreUnavailable)


async def test_a_statement_kept_prepared_outlives_a_change_of_its_table(pool: Pool) -> None:
    async with pool.lend() as connection:
        await connection.execute("CREATE TEMPORARY TABLE kept AS SELECT 1 AS n")
        assert tuple(await connection.repeat("SELECT * FROM kept") or ()) == (1,)
        await connection.execute("ALTER TABLE kept ADD COLUMN m text DEFAULT 'x'")
        assert tuple(await connection.repeat("SELECT * FROM kept") or ()) == (1, "x")
