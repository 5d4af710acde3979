"""Relays to Kafka that are killed at any moment, and such that were taken for dead and wake up again.

ESX_RELAY_KILLS is how many are killed; a third as many become zombies. `.ci/full` runs it with 25.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from esx import EventStore
from esx.relay.kafka import KafkaTarget
from tests.relay.test_kafka import by_stream, sent, stored
from tests.store.feed.test_feed import INSERT
from tests.support.connections import connected
from tests.support.kafka import Kafka, needs_kafka

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [needs_kafka, pytest.mark.slow, pytest.mark.limit(1800)]

KILLS = int(os.environ.get("ESX_RELAY_KILLS", "1"))
ZOMBIES = max(KILLS // 3, 1)
WINDOW = 500
_PATIENCE = 120.0

RELAY = """
import asyncio, sys
from esx import EventStore
from esx.relay.kafka import KafkaTarget

dsn, brokers, topic, positions, delivery, window = sys.argv[1:]

async def main():
    target = KafkaTarget({"bootstrap.servers": brokers}, topic, exactly_once=delivery == "exactly", positions=positions)
    async with EventStore.connect(dsn) as store:
        await store.relay("r", target, window=int(window), on_progress=lambda done: print(done.sent, flush=True))

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def writing(dsn: str, writers: int = 4) -> AsyncIterator[None]:
    """Write without end, from transactions that pause and roll back: numbers come late, and stay missing."""

    async def write(name: int) -> None:
        mood = random.Random(name)
        turn = 0
        async with connected(dsn) as connection:
            while True:
                turn += 1
                with contextlib.suppress(ZeroDivisionError):
                    async with connection.transaction():
                        for seq in range(mood.randint(1, 20)):
                            await connection.fetchval(INSERT, f"s-{name}-{turn // 5}", (turn % 5) * 20 + seq)
                        if mood.random() < 0.4:
                            await asyncio.sleep(mood.uniform(0, 0.05))
                        if mood.random() < 0.3:
                            raise ZeroDivisionError

    tasks = [asyncio.create_task(write(name)) for name in range(writers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)


async def begin(*arguments: str) -> asyncio.subprocess.Process:
    """Start a relay, and return when it has committed for the first time."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RELAY, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=os.getcwd(),
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), _PATIENCE)
    return process


async def end(process: asyncio.subprocess.Process, how: int) -> str:
    process.send_signal(how)
    _, said = await asyncio.wait_for(process.communicate(), _PATIENCE)
    return said.decode()


@pytest.mark.parametrize("delivery", ["exactly", "least"])
async def test_killed_at_any_moment_and_woken_as_zombies_they_keep_their_promise(
    store18: EventStore, dsn18: str, kafka: Kafka, delivery: str
) -> None:
    topic = kafka.topic(partitions=3)
    arguments = (dsn18, kafka.address, topic, f"p-{topic}", delivery, str(WINDOW))
    chance = random.Random(KILLS)
    async with writing(dsn18), connected(dsn18) as sql:
        for _ in range(KILLS):
            process = await begin(*arguments)
            await asyncio.sleep(chance.uniform(0, 0.5))
            await end(process, signal.SIGKILL)
        for _ in range(ZOMBIES):
            zombie = await begin(*arguments)
            await asyncio.sleep(chance.uniform(0, 0.3))
            zombie.send_signal(signal.SIGSTOP)
            # The database gives it up, as after a failover: the lease is free.
            await sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'esx relay'"
            )
            successor = await begin(*arguments)
            zombie.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.5)
            await end(successor, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                await end(zombie, signal.SIGKILL)
    target = KafkaTarget(kafka.settings, topic, exactly_once=delivery == "exactly", positions=f"p-{topic}")
    await asyncio.wait_for(store18.relay("r", target, once=True), _PATIENCE)
    there = await stored(store18)
    count = sum(map(len, there.values()))
    assert count > 1000
    messages = kafka.read(topic)
    got = by_stream(messages)
    repeats = len(messages) - len(set(sent(messages)))
    uncommitted = kafka.read(topic, committed=False)
    dirty = len(uncommitted) - len(set(sent(uncommitted)))
    print(f"{delivery}: {count} events, {KILLS} kills, {ZOMBIES} zombies: {repeats} repeated, {dirty} uncommitted")
    if delivery == "exactly":
        assert got == there
        # The check can fail: what was not committed is there for who reads it.
        assert KILLS < 10 or dirty > 0
        return
    assert first_of_each(got) == there
    assert repeats <= (KILLS + 2 * ZOMBIES) * WINDOW


def first_of_each(got: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return each stream's numbers without repeats."""
    found: dict[str, list[int]] = defaultdict(list)
    for stream, numbers in got.items():
        found[stream] = list(dict.fromkeys(numbers))
    return found
