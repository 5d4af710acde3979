"""The topic in which relays to Kafka keep their positions: compacted, with one partition, written in transactions."""

import json
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType  # type: ignore[attr-defined]

from esx.errors import TargetFailed, TargetUnavailable
from esx.relay.kafka_client import LOG, Client, partition
from esx.relay.kafka_errors import meaning
from esx.store.relay.target import RelayIdentity, TargetPosition

_PATIENCE = 60.0
_SLICE = 0.25
_ATTEMPTS = 20
_MADE_WITH = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "segment.bytes": str(16 * 2**20)}


def key_of(relay: RelayIdentity) -> str:
    """Return the key of a relay's positions, which is its transactional.id too.

    It names the server, the database and the table, so that relays of one name do not fence each other off. Raises
    TargetFailed if the server is not known.
    """
    if relay.system is None:
        raise TargetFailed(
            "this user may not ask PostgreSQL which server it is, and relays of several servers must not take each "
            "other's place: GRANT EXECUTE ON FUNCTION pg_control_system() TO it, or deliver at least once"
        )
    return "esx " + json.dumps([relay.name, str(relay.system), relay.database, relay.table], separators=(",", ":"))


def encode(relay: RelayIdentity, position: TargetPosition) -> bytes:
    """Return the value of a position's message."""
    value = position._asdict() | {"history": json.loads(position.history), "relay": relay.name}
    return json.dumps(value, separators=(",", ":")).encode()


def decode(value: bytes, topic: str) -> TargetPosition:
    """Return the position that `encode` wrote. Raises TargetFailed."""
    try:
        found = json.loads(value)
        history = json.dumps(found["history"], separators=(",", ":"))
        return TargetPosition(
            int(found["position"]), history, int(found["consumer"]), tuple(map(int, found.get("resent", ())))
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TargetFailed(f"what topic {topic} has as the position of this relay is not readable: {error}") from None


def read_position(client: Client, settings: Mapping[str, str], topic: str, key: str) -> TargetPosition | None:
    """Return the position of a relay, None if there is none; makes the topic if it is missing.

    Reads up to the end that the topic has now: readers of what is committed stop before another relay's open
    transaction, and would return an old position there. Raises TargetFailed.
    """
    admin = client.admin()
    _check_topic(client, admin, topic)
    end = _end_of(client, admin, topic)
    consumer = Consumer(
        {
            **settings,
            "group.id": "esx-relay",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,  # it waits so long at the end of the topic, once
        },
        logger=LOG,
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return _last_of(client, consumer, settings, topic, key.encode(), end)
    finally:
        consumer.close()


def _end_of(client: Client, admin: AdminClient, topic: str) -> int:
    """Return the offset after the last message, committed or not."""
    for attempt in range(_ATTEMPTS):
        latest = admin.list_offsets(
            {partition(topic): OffsetSpec.latest()},  # type: ignore[no-untyped-call]
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
        )[partition(topic)]
        try:
            return int(client.wait_for(latest, f"asking for the end of {topic}").offset)  # type: ignore[attr-defined]
        except TargetUnavailable:
            # A topic that was just made has no leader for a moment.
            if attempt + 1 == _ATTEMPTS:
                raise
            client.pause()
    raise AssertionError


def _last_of(
    client: Client, consumer: Consumer, settings: Mapping[str, str], topic: str, key: bytes, end: int
) -> TargetPosition | None:
    found: bytes | None = None
    at, deadline = 0, time.monotonic() + _PATIENCE
    while at < end:
        client.check_stopping()
        message = consumer.poll(_SLICE)
        if message is None:
            if time.monotonic() > deadline:
                raise TargetUnavailable(f"topic {topic} could be read up to {at} of {end} only: is a transaction open?")
            continue
        error = message.error()
        offset = message.offset()
        if error is None:
            if message.key() == key:
                found = message.value()
            at = (offset or 0) + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            at = max(at, offset or 0)
        else:
            raise meaning(error, f"reading {topic}", settings)
    return None if found is None else decode(found, topic)


def _check_topic(client: Client, admin: AdminClient, topic: str) -> None:
    """Make the topic if it is missing, and raise TargetFailed if it could lose positions."""
    found = client.wait(lambda limit: admin.list_topics(topic, limit), "asking for topics").topics[topic]
    if found.error is not None:
        if found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise meaning(found.error, f"asking for topic {topic}", {})
        client.create_topic(NewTopic(topic, 1, -1, config=_MADE_WITH))
        return  # it is as it was made, and a busy broker may not be able to say so yet
    if len(found.partitions) != 1:
        raise TargetFailed(f"topic {topic} has {len(found.partitions)} partitions, and must have one: make it anew")
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        answer = admin.describe_configs([resource])[resource]
        settings = client.wait_for(answer, f"asking how {topic} is kept")
    except KafkaException as error:
        raise meaning(error.args[0], f"asking how {topic} is kept", {}) from None
    policy = settings["cleanup.policy"].value  # type: ignore[index]
    if policy != "compact":
        raise TargetFailed(
            f"topic {topic} has cleanup.policy={policy}, so Kafka would delete positions: set it to compact "
            f"(kafka-configs.sh --alter --topic {topic} --add-config cleanup.policy=compact)"
        )
