"""A broker that is away, or hangs: the relay says since when, and goes on by itself."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from esx import EventStore, NewEvent
from esx.relay.kafka import KafkaTarget
from tests.relay.test_kafka import sent
from tests.store.relay.test_relay import running, until
from tests.support.kafka import Kafka, needs_kafka
from tests.support.kafka_broker import Broker, jars, new_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

pytestmark = [
    needs_kafka,
    pytest.mark.slow,
    pytest.mark.skipif(jars() is None, reason="needs a broker of its own: ESX_KAFKA"),
]


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker that is not started yet."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        [node] = nodes = new_nodes(1)
        broker = Broker(Path(folder) / "broker", node, nodes)
        broker.prepare()
        try:
            yield broker
        finally:
            broker.kill()


async def test_it_waits_for_the_broker_at_the_start_and_in_between(
    store18: EventStore, sql18: asyncpg.Connection, broker: Broker
) -> None:
    async def position(wanted: int) -> bool:
        return bool(await sql18.fetchval("SELECT position = $1 AND last_error IS NULL FROM consumers", wanted))

    async def away() -> bool:
        error = await sql18.fetchval("SELECT last_error FROM consumers")
        return error is not None and error.startswith("since 2")

    kafka = Kafka(f"127.0.0.1:{broker.node.plain}", None, None)
    await store18.append("s-1", [NewEvent("T")])
    target = KafkaTarget(kafka.settings, "events", create_partitions=1, patience=1)
    async with running(store18.relay("r", target)):
        await until(away)
        broker.start()
        await until(lambda: position(1))
        # To start it a second time would take longer than all else; `.ci/full` kills one of three.
        broker.hang()
        await store18.append("s-1", [NewEvent("T")])
        await until(away)
        broker.hang(go_on=True)
        await until(lambda: position(2))
    assert sent(await asyncio.to_thread(kafka.read, "events")) == [1, 2]
