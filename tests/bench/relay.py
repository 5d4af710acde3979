"""Relays to Kafka: a backlog against confluent-kafka alone with the same bytes, and latency to a consumer.

ESX_KAFKA=FOLDER python -m tests.bench.relay [--events 200000] [--rounds 5] [--only backlog]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from confluent_kafka import Consumer, Producer

from esx import EventStore, NewEvent, RelayIdentity, UnknownConsumer
from esx.relay.cloudevents import MessageFormat, Messages
from esx.relay.kafka import KafkaTarget
from esx.relay.kafka_settings import OWN
from tests.bench.common import compare, database, fill, server
from tests.support.kafka import Kafka
from tests.support.kafka_broker import Broker, new_nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

_LATENCIES = 60


async def main(events: int, rounds: int, *, only: str | None) -> None:
    """Run all comparisons."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, server() as running:
        Path(folder).chmod(0o755)
        [node] = nodes = new_nodes(1)
        broker = Broker(Path(folder) / "broker", node, nodes)
        broker.prepare()
        broker.start()
        try:
            broker.wait()
            kafka = Kafka(f"127.0.0.1:{node.plain}", None, None)
            if only in (None, "backlog"):
                dsn = await database(running, "backlog")
                await fill(dsn, events, 10_000)
                async with EventStore.connect(dsn) as store:
                    await _backlog(store, kafka, rounds)
            if only in (None, "latency"):
                dsn = await database(running, "latency")
                async with EventStore.connect(dsn) as store:
                    await _latency(store, kafka, rounds)
        finally:
            broker.kill()


async def _backlog(store: EventStore, kafka: Kafka, rounds: int) -> None:
    make = Messages(MessageFormat.CLOUDEVENTS, RelayIdentity("bench", 1, 1, "backlog", "public.events")).make
    made = [(event.stream_id, *make(event)) async for event in store.read_all()]
    gc.collect()
    gc.freeze()  # nobody who relays has all messages in memory: no collection is to go through them

    async def relay(*, exactly_once: bool) -> float:
        target = KafkaTarget(kafka.settings, kafka.topic(partitions=3), exactly_once=exactly_once)
        began = time.perf_counter()
        await store.relay(uuid4().hex, target, once=True)
        return len(made) / (time.perf_counter() - began)

    async def exactly() -> float:
        return await relay(exactly_once=True)

    async def least() -> float:
        return await relay(exactly_once=False)

    async def alone() -> float:
        settings = {name: value for name, value in OWN.items() if not name.startswith("transaction")}
        topic = kafka.topic(partitions=3)
        return await asyncio.to_thread(_produce, made, {**kafka.settings, **settings}, topic)

    await compare(
        f"a backlog of {len(made):,} events",
        {"relay, exactly once": exactly, "relay, at least once": least, "confluent-kafka alone": alone},
        rounds=rounds,
        unit="events/s",
    )


def _produce(made: Sequence[tuple[str, bytes | str, Any]], settings: dict[str, Any], topic: str) -> float:
    began = time.perf_counter()
    producer = Producer(settings)
    for key, value, headers in made:
        while True:
            try:
                producer.produce(topic, value, key, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return len(made) / (time.perf_counter() - began)


async def _latency(store: EventStore, kafka: Kafka, rounds: int) -> None:
    ninetieth: list[float] = []

    async def delivery(*, exactly_once: bool) -> float:
        topic, name = kafka.topic(partitions=1), uuid4().hex
        arrived: dict[int, float] = {}
        ended = threading.Event()
        reading = asyncio.create_task(asyncio.to_thread(_consume, kafka, topic, arrived, ended))
        target = KafkaTarget(kafka.settings, topic, exactly_once=exactly_once)
        relaying = asyncio.create_task(store.relay(name, target, start="end"))
        while await _runner(store, name) is None:
            await asyncio.sleep(0.01)
        delays = []
        for turn in range(_LATENCIES + 5):
            await asyncio.sleep(0.03)
            done = await store.append("s", [NewEvent("T")])
            committed = time.perf_counter()
            while done.global_seq not in arrived:
                await asyncio.sleep(0.0005)
            if turn >= 5:  # it has begun
                delays.append(max(arrived[done.global_seq] - committed, 0.0))
        ended.set()
        relaying.cancel()
        await asyncio.gather(relaying, reading, return_exceptions=True)
        ninetieth.append(statistics.quantiles(delays, n=10)[-1] * 1000)
        return statistics.median(delays) * 1000

    async def exactly() -> float:
        return await delivery(exactly_once=True)

    async def least() -> float:
        return await delivery(exactly_once=False)

    await compare(
        "idle store: from the append's answer to a consumer of committed messages",
        {"relay, exactly once": exactly, "relay, at least once": least},
        rounds=rounds,
        unit="ms",
        higher=False,
    )
    print(f"  90th percentiles, in turn: {', '.join(f'{each:.1f}' for each in ninetieth)}")


async def _runner(store: EventStore, name: str) -> object:
    try:
        return (await store.consumer(name)).runner
    except UnknownConsumer:
        return None


def _consume(kafka: Kafka, topic: str, arrived: dict[int, float], ended: threading.Event) -> None:
    consumer = Consumer({**kafka.settings, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    while not ended.is_set():
        message = consumer.poll(0.05)
        if message is not None and message.error() is None:
            headers = dict(message.headers() or ())
            arrived[int(headers["ce_globalsequence"])] = time.perf_counter()  # type: ignore[arg-type]
    consumer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["backlog", "latency"])
    options = parser.parse_args()
    asyncio.run(main(options.events, options.rounds, only=options.only))
