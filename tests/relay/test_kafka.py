"""Relays to a real Kafka: what a consumer of the topics gets."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from esx import EventStore, JsonText, NewEvent, RelayFailed, RelayIdentity, TargetFailed, TargetPosition
from esx.relay.cloudevents import MessageFormat
from esx.relay.kafka import KafkaTarget
from tests.store.feed.test_feed import moody_writers
from tests.support.kafka import Kafka, needs_kafka

if TYPE_CHECKING:
    from collections.abc import Iterable

    import asyncpg

pytestmark = needs_kafka

_DEADLINE = 120.0

# Kills itself at the commit with the given number: before it, or after it.
SUICIDE = """
import asyncio, os, signal, sys
from esx import EventStore
from esx.relay.kafka import KafkaTarget

dsn, broker, topic, positions, once, last, late = sys.argv[1:]

class Mortal(KafkaTarget):
    commits = 0

    async def commit(self, position):
        self.commits += 1
        if self.commits == int(last) and late == "early":
            os.kill(os.getpid(), signal.SIGKILL)
        await super().commit(position)
        if self.commits == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    target = Mortal({"bootstrap.servers": broker}, topic, exactly_once=once == "exactly", positions=positions)
    async with EventStore.connect(dsn) as store:
        await store.relay("r", target, window=20)

asyncio.run(main())
"""


def sent(messages: Iterable[Any]) -> list[int]:
    """Return the global_seq of each message."""
    return [int(dict(message.headers())["ce_globalsequence"]) for message in messages]


def by_stream(messages: Iterable[Any]) -> dict[str, list[int]]:
    """Return the global_seq that came for each stream, in the order of arrival."""
    found = defaultdict(list)
    for message in messages:
        found[message.key().decode()].append(int(dict(message.headers())["ce_globalsequence"]))
    return dict(found)


def target(kafka: Kafka, topic: str, **options: Any) -> KafkaTarget:
    return KafkaTarget(kafka.settings, topic, **{"positions": f"p-{topic}"} | options)


async def stored(store: EventStore) -> dict[str, list[int]]:
    found = defaultdict(list)
    async for event in store.read_all():
        found[event.stream_id].append(event.global_seq)
    return dict(found)


def murmur2(key: bytes) -> int:
    """Compute the hash of Java's clients, as Utils.murmur2 of Kafka does."""
    m, h = 0x5BD1E995, 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ k
    if rest := key[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return h ^ h >> 15


@pytest.mark.parametrize("exactly_once", [True, False], ids=["exactly", "least"])
async def test_each_event_arrives_in_the_partition_of_its_stream_and_in_its_order(
    store18: EventStore, sql18: asyncpg.Connection, kafka: Kafka, exactly_once: bool
) -> None:
    await asyncio.gather(*(store18.append(f"s-{n % 20}", [NewEvent("T", {"n": n})]) for n in range(100)))
    await store18.append("münchen-1", [NewEvent("T")])
    topic = kafka.topic(partitions=3)
    for _ in range(2):  # the second time it goes on, where there is nothing more
        await store18.relay("r", target(kafka, topic, exactly_once=exactly_once), once=True)
        messages = kafka.read(topic)
        assert by_stream(messages) == await stored(store18)
        for message in messages:
            assert message.partition() == (murmur2(message.key()) & 0x7FFFFFFF) % 3
    assert await sql18.fetchval("SELECT position FROM consumers") >= max(sent(messages))


async def test_a_cloud_event_in_headers_and_as_json_is_read_by_the_public_sdk(
    store18: EventStore, kafka: Kafka
) -> None:
    from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, from_structured_event
    from cloudevents.core.formats.json import JSONFormat

    number = "12345678901234567890.10"
    metadata = {"correlation_id": "c-1", "causation_id": "e-9", "who": "Ж"}
    await store18.append("order-7", [NewEvent("Placed", JsonText(f'{{"total": {number}}}'), metadata)])
    [event] = [event async for event in store18.read_all()]
    for kind in (MessageFormat.CLOUDEVENTS, MessageFormat.STRUCTURED, MessageFormat.JSON):
        topic = kafka.topic()
        await store18.relay(kind, target(kafka, topic, message_format=kind), once=True)
        [message] = kafka.read(topic)
        assert number in message.value().decode()
        assert message.key() == b"order-7"
        if kind is MessageFormat.JSON:
            assert message.value().decode() == event.to_json()
            continue
        read = from_binary_event if kind is MessageFormat.CLOUDEVENTS else from_structured_event
        found = read(KafkaMessage(dict(message.headers()), message.key(), message.value()), JSONFormat())
        assert (found.get_id(), found.get_type(), found.get_subject()) == (str(event.event_id), "Placed", "order-7")
        assert found.get_time() == event.created_at
        assert found.get_source().startswith("esx://test_")
        assert found.get_datacontenttype() == "application/json"
        assert found.get_extension("sequence") == "0" * 20
        assert found.get_extension("globalsequence") == "1"
        assert found.get_extension("correlationid") == "c-1"
        assert found.get_extension("causationid") == "e-9"
        assert found.get_extension("metadata") == event.metadata_json


@pytest.mark.slow
@pytest.mark.parametrize("late", ["early", "late"])
@pytest.mark.parametrize("delivery", ["exactly", "least"])
async def test_killed_in_the_middle_it_keeps_its_promise(
    store18: EventStore, dsn18: str, kafka: Kafka, delivery: str, late: str
) -> None:
    topic = kafka.topic()
    writing = asyncio.create_task(moody_writers(dsn18, writers=4, transactions=40))
    for last in (2, 3):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SUICIDE, dsn18, kafka.address, topic, f"p-{topic}", delivery, str(last), late),
            cwd=os.getcwd(),
        )
        assert await asyncio.wait_for(process.wait(), _DEADLINE) == -signal.SIGKILL
    await writing
    await store18.relay("r", target(kafka, topic, exactly_once=delivery == "exactly"), once=True)
    got, there = by_stream(kafka.read(topic)), await stored(store18)
    if delivery == "exactly":
        assert got == there
        return
    # What was not acknowledged comes again, from the checkpoint on: without repeats it is the same order.
    assert {stream: sorted(set(numbers)) for stream, numbers in got.items()} == there
    assert sum(map(len, got.values())) - sum(map(len, there.values())) <= 2 * 20


async def test_a_second_instance_fences_off_the_first_which_ends_in_one_line(kafka: Kafka) -> None:
    topic, name = kafka.topic(), uuid4().hex
    zombie, successor, neighbour = (target(kafka, topic) for _ in range(3))
    relay = RelayIdentity(name, 1, 7, "shop", "public.events")
    assert await zombie.open(relay) is None
    await zombie.commit(TargetPosition(5, "{}", 1))
    # The same name, of another database: they do not know each other.
    assert await neighbour.open(relay._replace(database="other")) is None
    assert await successor.open(relay) == TargetPosition(5, "{}", 1)
    with pytest.raises(TargetFailed, match="another instance of this relay has taken over"):
        await zombie.commit(TargetPosition(9, "{}", 1))
    await neighbour.commit(TargetPosition(6, "{}", 1))
    await successor.commit(TargetPosition(7, "{}", 1))
    for each in (zombie, successor, neighbour):
        await each.close()
    assert await successor.open(relay) == TargetPosition(7, "{}", 1)
    await successor.close()


async def test_the_last_position_is_found_behind_another_relays_open_transaction(
    store18: EventStore, kafka: Kafka
) -> None:
    """A reader of what is committed stops there, and would go on from an old position."""
    topic = kafka.topic()
    await store18.append("s-1", [NewEvent("T")])
    [event] = [event async for event in store18.read_all()]
    relay = RelayIdentity(uuid4().hex, 1, 7, "shop", "public.events")
    mine, other = target(kafka, topic), target(kafka, topic)
    await mine.open(relay)
    await mine.commit(TargetPosition(1, "{}", 1))
    await other.open(relay._replace(name="other"))
    await other.send([event])
    other._client.send([(0, f"p-{topic}", b"other", b"{}", {})], None)  # type: ignore[union-attr]
    other._client._producer.flush(10)  # type: ignore[union-attr]
    await mine.commit(TargetPosition(2, "{}", 1))
    opening = asyncio.ensure_future(target(kafka, topic).open(relay))
    done, _ = await asyncio.wait([opening], timeout=1)
    assert not done
    await other.abort()
    assert await asyncio.wait_for(opening, _DEADLINE) == TargetPosition(2, "{}", 1)
    for each in (mine, other):
        await each.close()


@pytest.mark.parametrize(
    ("partitions", "policy", "reason"), [(1, "delete", "cleanup.policy=delete"), (2, "compact", "has 2 partitions")]
)
async def test_a_topic_that_could_lose_positions_is_refused(
    store18: EventStore, kafka: Kafka, partitions: int, policy: str, reason: str
) -> None:
    positions = kafka.topic("positions", partitions, cleanup_policy=policy)
    with pytest.raises(RelayFailed, match=reason):
        await store18.relay("r", target(kafka, kafka.topic(), positions=positions), once=True)


async def test_topics_follow_the_category_and_are_made_only_if_that_is_wanted(
    store18: EventStore, sql18: asyncpg.Connection, kafka: Kafka
) -> None:
    for stream in ("cart-1", "ö_5F-1", "ö_5F-2"):
        await store18.append(stream, [NewEvent("T")])
    base = uuid4().hex[:8]
    mapped: set[tuple[str, str]] = set()
    options: dict[str, Any] = {"positions": f"p-{base}", "on_mapped": lambda *each: mapped.add(each)}
    with pytest.raises(RelayFailed, match=f"stopped at event 1: topic {base}.cart: .*Unknown topic"):
        await store18.relay("r", target(kafka, base + ".{category}", **options), once=True)
    assert await sql18.fetchval("SELECT position FROM consumers") == 0
    await store18.relay("r", target(kafka, base + ".{category}", create_partitions=2, **options), once=True)
    other = f"{base}._C3_B6_5F5F"
    assert mapped == {("ö_5F", other)}
    assert (len(kafka.read(f"{base}.cart")), len(kafka.read(other))) == (1, 2)


async def test_an_event_that_is_too_large_stops_it_after_those_before(
    store18: EventStore, sql18: asyncpg.Connection, kafka: Kafka
) -> None:
    sizes = [10, 10, 60_000, 10]
    for size in sizes:
        await store18.append("s-1", [NewEvent("T", {"text": os.urandom(size // 2).hex()})])
    topic = kafka.topic(max_message_bytes="20000")
    for _ in range(2):
        with pytest.raises(RelayFailed, match=r"stopped at event 3: .*Message size too large"):
            await store18.relay("r", target(kafka, topic), once=True)
        assert sent(kafka.read(topic)) == [1, 2]
    assert await sql18.fetchval("SELECT position FROM consumers") == 2


async def test_many_small_events_that_are_too_large_together_are_sent_one_by_one(
    store18: EventStore, kafka: Kafka
) -> None:
    await store18.append("s-1", [NewEvent("T", {"text": os.urandom(2_000).hex()}) for _ in range(30)])
    topic = kafka.topic(max_message_bytes="10000")
    await store18.relay("r", target(kafka, topic), once=True)
    assert sent(kafka.read(topic)) == list(range(1, 31))


async def test_tls_and_a_login_work_and_a_wrong_password_is_told_without_it(store18: EventStore, kafka: Kafka) -> None:
    settings = kafka.secure_settings
    await store18.append("s-1", [NewEvent("T")])
    topic = kafka.topic()
    await store18.relay("r", KafkaTarget(settings, topic), once=True)
    assert sent(kafka.read(topic)) == [1]
    with pytest.raises(RelayFailed, match="uthentication") as caught:
        await store18.relay("r", KafkaTarget(settings | {"sasl.password": "wr0ng-pass"}, topic), once=True)
    assert "wr0ng-pass" not in str(caught.value)


async def test_it_ends_at_once_where_nothing_answers(store18: EventStore, sql18: asyncpg.Connection) -> None:
    relaying = asyncio.ensure_future(store18.relay("r", KafkaTarget({"bootstrap.servers": "127.0.0.1:1"}, "t")))
    async with asyncio.timeout(_DEADLINE):
        while not await sql18.fetchval("SELECT EXISTS (SELECT FROM consumers)"):
            await asyncio.sleep(0.01)
    relaying.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await relaying


async def test_a_parked_event_arrives_later_where_its_topic_takes_it(store18: EventStore, kafka: Kafka) -> None:
    for stream, size in (("a", 10), ("a", 60_000), ("b", 10), ("a", 10)):
        await store18.append(stream, [NewEvent("T", {"text": os.urandom(size // 2).hex()})])
    topic = kafka.topic(partitions=1, max_message_bytes="20000")
    await store18.relay("r", target(kafka, topic), on_error="park", once=True)
    assert sent(kafka.read(topic)) == [1, 3]
    assert [each.global_seq for each in await store18.put_aside("r")] == [2, 4]
    kafka.change(topic, max_message_bytes="200000")
    await store18.retry_events("r")
    await store18.relay("r", target(kafka, topic), on_error="park", once=True)
    assert sent(kafka.read(topic)) == [1, 3, 2, 4]
    assert await store18.put_aside("r") == []
