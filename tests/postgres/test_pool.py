"""Lending connections: never more than agreed, never a broken one, in turn, and no caller waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import EventStore, NewEvent, StoreUnavailable
from esx.postgres.connection import Connector
from esx.postgres.pool import Pool
from tests.support.stores import store_and_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from esx.postgres.session import Session

_DEADLINE = 120.0


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

    async with asyncio.timeout(120):
        for _ in range(10):
            tasks = [asyncio.create_task(slow()) for _ in range(3)]
            async with asyncio.timeout(120):
                while len(pool.lent) < 3:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(pid(pool) for _ in range(6)))


async def test_a_cancelled_waiter_passes_its_turn_on(pool: Pool) -> None:
    async with asyncio.timeout(120), pool.lend(), pool.lend():
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
        assert [tuple(row) for row in await connection.repeat("SELECT * FROM kept")] == [(1,)]
        await connection.execute("ALTER TABLE kept ADD COLUMN m text DEFAULT 'x'")
        assert [tuple(row) for row in await connection.repeat("SELECT * FROM kept")] == [(1, "x")]


async def in_turn(turn: Callable[[int], Awaitable[object]], tasks: int, turns: int) -> list[int]:
    """Let so many tasks take turns, each as often as it can, until all have had `turns` together; return how many each.

    They stop together, so how fast they are changes nothing.
    """
    counts = [0] * tasks
    done = 0

    async def loop(number: int) -> None:
        nonlocal done
        while done < turns:
            await turn(number)
            if done < turns:
                done += 1
                counts[number] += 1

    await asyncio.gather(*(loop(number) for number in range(tasks)))
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("grouping", [False, True], ids=["one by one", "grouped"])
@pytest.mark.parametrize("tasks", [64, 1000])
async def test_every_task_that_appends_through_one_store_has_its_share(dsn18: str, tasks: int, grouping: bool) -> None:
    async with EventStore.connect(dsn18, grouping=grouping) as store:

        async def append(number: int) -> None:
            await store.append(f"s-{number}", [NewEvent("T")])

        # Enough turns that a connection which opens late, on a busy machine, takes no share of them.
        counts = await in_turn(append, tasks, max(6 * tasks, 3000))
    assert min(counts) >= sum(counts) / tasks / 4


async def test_every_task_that_reads_has_its_share(dsn18: str) -> None:
    async with EventStore.connect(dsn18, max_connections=1) as store:
        counts = await in_turn(lambda _: store.read_page("s"), 20, 400)
    assert min(counts) >= 5


async def test_a_connection_goes_to_the_caller_that_has_waited_longest(dsn18: str) -> None:
    pool = Pool(Connector(dsn18, "test").open, 1, "here")
    served = []

    async def once(name: str) -> None:
        with pool.idle(guarded=True) or await pool.taken(guarded=True):
            served.append(name)

    async with asyncio.timeout(_DEADLINE):
        async with pool.lend():
            waiting = [asyncio.create_task(once(name)) for name in "abc"]
            await asyncio.sleep(0)
        # A caller that asks now asks later than they did, though the connection has just come back.
        assert pool.idle(guarded=True) is None
        await once("d")
        await asyncio.gather(*waiting)
    assert served == ["a", "b", "c", "d"]
    pool.terminate()


async def test_a_waiter_that_is_gone_costs_no_connection(dsn18: str) -> None:
    pool = Pool(Connector(dsn18, "test").open, 1, "here")
    async with asyncio.timeout(_DEADLINE):
        async with pool.lend():
            dropped = pool.taken(guarded=True)
            dropped.send(None)
            dropped.close()
            cancelled = [asyncio.create_task(pid(pool)) for _ in range(3)]
            await asyncio.sleep(0)
            for task in cancelled[:2]:
                task.cancel()
            await asyncio.gather(*cancelled[:2], return_exceptions=True)
            assert pool.waiting == 1
        # In the moment of being handed the connection.
        cancelled[2].cancel()
        assert await pid(pool)
    assert not pool.lent
    with pool.idle(guarded=True) or pytest.fail("none is idle"):
        assert len(pool.lent) == 1
    pool.terminate()


async def test_one_whose_connection_is_lost_on_its_way_is_still_the_next(dsn18: str) -> None:
    pool = Pool(Connector(dsn18, "test").open, 1, "here")
    served = []

    async def once(name: str) -> None:
        async with pool.lend() as connection:
            assert await connection.fetchval("SELECT true")
            served.append(name)

    async with asyncio.timeout(_DEADLINE):
        async with pool.lend() as connection:
            waiting = [asyncio.create_task(once(name)) for name in "ab"]
            await asyncio.sleep(0)
        connection.terminate()
        await asyncio.gather(*waiting)
    assert served == ["a", "b"]
    pool.terminate()


async def test_callers_that_give_up_before_a_connection_is_open_get_one_in_the_end(dsn18: str) -> None:
    pool = Pool(Connector(dsn18, "test").open, 1, "here")
    async with asyncio.timeout(_DEADLINE):
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    async with pool.lend():
                        break
    pool.terminate()


class Opener:
    """Opens connections, or fails to once `failing`, each time that it is told to."""

    def __init__(self, dsn: str) -> None:
        self._connector = Connector(dsn, "test")
        self.failing = False
        self.attempts = 0
        self.told = asyncio.Semaphore(0)

    async def open(self) -> Session:
        if not self.failing:
            return await self._connector.open()
        self.attempts += 1
        await self.told.acquire()
        raise OSError("no server there")


async def test_where_nothing_can_be_opened_all_callers_that_wait_are_told_at_once(dsn18: str) -> None:
    opener = Opener(dsn18)
    opener.failing = True
    pool = Pool(opener.open, 3, "here")
    async with asyncio.timeout(_DEADLINE):
        waiting = [asyncio.create_task(pid(pool)) for _ in range(20)]
        while opener.attempts < 3:
            await asyncio.sleep(0)
        opener.told.release()
        while not any(task.done() for task in waiting):
            await asyncio.sleep(0)
        # A caller that comes now fails too, without another attempt.
        waiting.append(asyncio.create_task(pid(pool)))
        await asyncio.sleep(0)
        for _ in range(2):
            opener.told.release()
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, StoreUnavailable)
        # Each attempt may take long: no caller waits for one attempt after the other.
        assert opener.attempts == 3
        opener.failing = False
        assert await pid(pool)
    pool.terminate()


async def test_where_no_more_can_be_opened_those_there_are_go_round(dsn18: str) -> None:
    opener = Opener(dsn18)
    pool = Pool(opener.open, 3, "here")
    async with asyncio.timeout(_DEADLINE), pool.lend():
        opener.failing = True
        for _ in range(5):
            opener.told.release()
        outcomes = await asyncio.gather(*(pid(pool) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
        opener.failing = False
        assert await pid(pool)
    pool.terminate()


async def test_a_connection_that_is_in_a_transaction_still_is_not_used_again(pool: Pool, dsn18: str) -> None:
    other = await asyncpg.connect(dsn18)
    await other.execute("CREATE TABLE held (n int)")
    async with pool.lend() as connection:
        left = connection.get_server_pid()
        await connection.execute("BEGIN")
        await connection.execute("LOCK TABLE public.held")
    async with asyncio.timeout(_DEADLINE):
        assert await pid(pool) != left
        # With the session its lock goes, too.
        await other.execute("INSERT INTO held VALUES (1)")
    await other.close()


async def test_a_connection_whose_transaction_was_cut_short_before_it_began_is_not_used_again(
    pool: Pool, dsn18: str
) -> None:
    other = await asyncpg.connect(dsn18)
    asleep = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep')"
    async with asyncio.timeout(_DEADLINE):
        async with pool.lend() as connection:
            slow = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
            # What has not begun cannot be cancelled.
            while not await other.fetchval(asleep, connection.get_server_pid()):
                await asyncio.sleep(0)
            slow.cancel()
            # It waits for the one before it to be cancelled, and asyncpg takes it for begun.
            beginning = asyncio.create_task(connection.transaction().start())
            await asyncio.sleep(0)
            beginning.cancel()
            await asyncio.gather(slow, beginning, return_exceptions=True)
            await connection.execute("SELECT 1")
        async with pool.lend() as connection, connection.transaction():
            await connection.execute("SELECT 1")
    await other.close()


async def test_a_store_that_cannot_be_opened_leaves_no_connection_behind(dsn18: str) -> None:
    other = await asyncpg.connect(dsn18)
    before = asyncio.all_tasks()
    opening = asyncio.ensure_future(EventStore.connect(dsn18, application_name="given-up").__aenter__())
    async with asyncio.timeout(_DEADLINE):
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        tasks = asyncio.all_tasks() - before
        assert tasks
        await asyncio.wait(tasks)
        while await other.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'given-up'"):
            await asyncio.sleep(0.01)
    await other.close()


async def test_a_task_begun_within_a_lock_keeps_no_right_to_spare_connections(dsn18: str) -> None:
    async with asyncio.timeout(_DEADLINE), store_and_pool(dsn18, max_connections=1) as (store, pool):
        has_read, let_go = asyncio.Event(), asyncio.Event()

        async def read_later() -> None:
            await store.head()
            has_read.set()
            await let_go.wait()
            async with pool.lend():
                # All are lent: a task that holds nothing waits in line.
                waiting = asyncio.create_task(store.head())
                await asyncio.sleep(0.05)
                assert not waiting.done()
            await waiting

        async with store.lock_stream("s"):
            # As long as the lock is held, what was begun within it must not wait for those that wait for it.
            later = asyncio.create_task(read_later())
            await has_read.wait()
        let_go.set()
        await later
