"""Tasks that want the same stream go one after the other, and none waits for one that waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from esx import EventStore, NewEvent, Strategy
from esx.store.append.stream_queues import StreamQueues
from tests.postgres.test_pool import in_turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from esx import Event

_DEADLINE = 120.0
_OPEN = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'esx'"


async def test_turns_go_in_the_order_of_asking_and_leave_nothing_behind() -> None:
    turns = StreamQueues()
    served = []

    async def take(name: str) -> None:
        async with turns.turn("s"):
            served.append(name)
            await asyncio.sleep(0)

    waiting = [asyncio.create_task(take(name)) for name in "abcd"]
    await asyncio.sleep(0)
    assert "s" in turns
    assert "t" not in turns
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert served == ["a", "c", "d"]
    assert "s" not in turns


async def test_a_turn_that_waits_for_the_next_one_is_over_after_a_while() -> None:
    turns = StreamQueues(longest=0.01)
    async with asyncio.timeout(_DEADLINE):
        async with turns.turn("s"), turns.turn("s"), turns.turn("s"):
            pass
        async with turns.turn("s"):
            pass


@pytest.mark.slow
async def test_all_tasks_that_decide_about_one_stream_have_their_share(dsn18: str) -> None:
    def decide(_: list[Event]) -> Sequence[NewEvent]:
        return [NewEvent("T")]

    async with EventStore.connect(dsn18) as store:
        counts = await in_turn(lambda _: store.decide("s", decide, attempts=1000), 40, 400)
    assert min(counts) >= 10 / 4


@pytest.mark.one_older
@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("streams", [1, 12])
async def test_the_holder_of_a_lock_can_read_although_all_connections_wait_for_it(
    dsn: str, sql: asyncpg.Connection, connections: int, streams: int
) -> None:
    async with asyncio.timeout(_DEADLINE), EventStore.connect(dsn, max_connections=connections) as store:

        async def count(number: int) -> None:
            name = f"s-{number % streams}"
            async with store.lock_stream(name) as stream:
                seen = [event async for event in store.read(name)]
                await stream.append([NewEvent("T", {"seen": len(seen)})])
            # One that waits for the lock as well, and holds a connection.
            await store.append(name, [NewEvent("T", {"seen": None})], strategy=Strategy.ROW_LOCK)

        await asyncio.gather(*(count(number) for number in range(12)))
        for number in range(streams):
            events = [event async for event in store.read(f"s-{number}")]
            assert len(events) == 24 // streams
            assert all(event.data["seen"] in (None, event.stream_seq) for event in events)
        # Of the others that were opened meanwhile one at most is kept.
        while await sql.fetchval(_OPEN) > connections + 1:
            await asyncio.sleep(0.01)
