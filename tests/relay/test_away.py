"""A broker that is away, or hangs: the relay says since when, and goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from esx import EventStore, NewEvent
from esx.relay.kafka import KafkaTarget
from tests.relay.test_kafka import sent
from tests.store.relay.test_relay import running, until
from tests.support.kafka import Kafka, needs_kafka

if TYPE_CHECKING:
    import asyncpg

pytestmark = [needs_kafka, pytest.mark.slow]


class Way:
    """The way to the broker from the address that its clients are given, which can be blocked."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._free = asyncio.Event()
        self._free.set()

    def block(self) -> None:
        """Keep what comes until it is free again: the broker hangs."""
        self._free.clear()

    def free(self) -> None:
        self._free.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        ways = [self._lead(reader, there_writer), self._lead(there_reader, writer)]
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for side in (writer, there_writer):
                side.transport.abort()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._free.wait()
                writer.write(data)
                await writer.drain()


async def test_it_waits_for_the_broker_at_the_start_and_in_between(
    store18: EventStore, sql18: asyncpg.Connection, kafka: Kafka
) -> None:
    if kafka.front is None or kafka.behind is None:
        pytest.skip("only a broker that the tests start can be away")

    async def position(wanted: int) -> bool:
        return bool(await sql18.fetchval("SELECT position = $1 AND last_error IS NULL FROM consumers", wanted))

    async def away() -> bool:
        error = await sql18.fetchval("SELECT last_error FROM consumers")
        return error is not None and error.startswith("since 2")

    topic = f"away-{uuid4().hex[:8]}"
    await store18.append("s-1", [NewEvent("T")])
    target = KafkaTarget(
        {"bootstrap.servers": f"127.0.0.1:{kafka.front}"},
        topic,
        positions=f"p-{topic}",
        create_partitions=1,
        patience=1,
    )
    async with running(store18.relay("r", target)):
        await until(away)
        way = Way(kafka.behind)
        server = await asyncio.start_server(way.serve, "127.0.0.1", kafka.front, reuse_port=True)
        await until(lambda: position(1))
        # That it ends and is started again would take longer than all else; `.ci/full` kills one of three.
        way.block()
        await store18.append("s-1", [NewEvent("T")])
        await until(away)
        way.free()
        await until(lambda: position(2))
    server.close()
    assert sent(await asyncio.to_thread(kafka.read, topic)) == [1, 2]
