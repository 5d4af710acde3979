"""Three brokers, one of them killed while events are sent: nothing is lost, nothing comes twice. `.ci/full` runs it."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from esx import EventStore
from esx.relay.kafka import KafkaTarget
from tests.relay.test_kafka import by_stream, stored
from tests.relay.test_kills import writing
from tests.support.kafka import Kafka, needs_kafka, read_all
from tests.support.kafka_broker import Broker, jars, new_nodes

if TYPE_CHECKING:
    from esx import RelayProgress

pytestmark = [needs_kafka, pytest.mark.limit(900)]


@pytest.mark.skipif(jars() is None, reason="needs the brokers of ESX_KAFKA")
@pytest.mark.parametrize("exactly_once", [True, False], ids=["exactly", "least"])
async def test_a_broker_that_is_killed_takes_nothing_with_it(
    store18: EventStore, dsn18: str, exactly_once: bool
) -> None:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        home.chmod(0o755)
        nodes = new_nodes(3)
        brokers = [Broker(home / str(node.number), node, nodes) for node in nodes]
        for broker in brokers:
            broker.prepare()
            broker.start()
            stack.callback(broker.kill)
        for broker in brokers:
            broker.wait()
        settings = {"bootstrap.servers": ",".join(f"127.0.0.1:{node.plain}" for node in nodes)}
        topic = Kafka(settings["bootstrap.servers"]).topic(partitions=6)
        moved = asyncio.Event()
        sent = 0

        def note(progress: RelayProgress) -> None:
            nonlocal sent
            sent = progress.sent
            moved.set()

        async def more_than(count: int) -> None:
            while sent <= count:
                moved.clear()
                waiting = asyncio.ensure_future(asyncio.wait_for(moved.wait(), 120))
                await asyncio.wait([waiting, relaying], return_when=asyncio.FIRST_COMPLETED)
                if relaying.done():
                    waiting.cancel()
                    await relaying  # which says why it ended
                await waiting

        target = KafkaTarget(settings, topic, exactly_once=exactly_once)
        relaying = asyncio.ensure_future(store18.relay("r", target, window=500, on_progress=note))
        async with writing(dsn18):
            await more_than(1000)
            brokers[0].kill()
            await more_than(sent + 2000)
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)
        again = KafkaTarget(settings, topic, exactly_once=exactly_once)
        await asyncio.wait_for(store18.relay("r", again, window=500, once=True), 120)
        got, there = by_stream(read_all(settings, (topic,))), await stored(store18)
        if exactly_once:
            assert got == there
        else:
            assert {stream: sorted(set(numbers)) for stream, numbers in got.items()} == there
