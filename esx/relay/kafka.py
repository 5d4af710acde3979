"""Kafka as the target of a relay, with confluent-kafka's plain producer in one thread.

Exactly once: each commit of the relay is a transaction, which also has the relay's position, in the topic esx.relays.
Readers that read what is committed get each event once. At least once: the relay's checkpoint moves after Kafka has
acknowledged all messages.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from esx.errors import EventRefused, TargetFailed
from esx.model import Event
from esx.relay.cloudevents import MessageFormat, Messages
from esx.relay.kafka_settings import check
from esx.relay.thread import WorkThread
from esx.relay.topics import Topics
from esx.store.relay.target import RelayIdentity, TargetPosition

if TYPE_CHECKING:
    from esx.relay.kafka_client import Client, OutMessage

POSITIONS = "esx.relays"
"""The topic with the positions of relays, unless another one is chosen."""


class KafkaTarget:
    """Sends events to topics of Kafka: a target for `EventStore.relay`.

    `settings` are those of the client (librdkafka's names), without what the relay's promises need, which esx sets.
    `topic` is a template such as ``events.{category}``. With `exactly_once` the position is kept in Kafka, in the topic
    `positions`. `create_partitions` makes missing topics, with so many partitions; by default an event for a missing
    topic is refused. `source` is what CloudEvents call so, by default the database and the table. `on_mapped` is called
    with each category that is no legal name of a topic, and its topic. If an answer of Kafka takes more
    than `patience` seconds, the relay begins again.

    Raises TargetFailed for settings that cannot be used, and without confluent-kafka; InvalidQuery for a wrong
    template.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        topic: str,
        *,
        exactly_once: bool = True,
        message_format: MessageFormat = MessageFormat.CLOUDEVENTS,
        create_partitions: int | None = None,
        source: str | None = None,
        positions: str = POSITIONS,
        on_mapped: Callable[[str, str], object] | None = None,
        patience: float = 20.0,
    ) -> None:
        check(settings)
        _check_installed()
        self.keeps_position = exactly_once
        self._settings = dict(settings)
        self._topics = Topics(topic, on_mapped)
        self._format = message_format
        self._create_partitions = create_partitions
        self._source = source
        self._positions = positions
        self._patience = patience
        self._thread = WorkThread("esx-kafka")
        self._client: Client | None = None
        self._carefully = False
        self._relay: RelayIdentity | None = None
        self._key = ""
        self._messages: Messages | None = None

    # -- the protocol --------------------------------------------------------------------------------------------

    async def open(self, relay: RelayIdentity) -> TargetPosition | None:
        """Connect, fence off earlier instances, and return the position that Kafka has."""
        await self._end()
        self._relay = relay
        self._messages = Messages(self._format, relay, self._source)
        return await self._thread.run(self._open, relay)

    async def send(self, events: Sequence[Event]) -> None:
        """Hand events to the producer."""
        await self._thread.run(self._send, events)

    async def commit(self, position: TargetPosition) -> None:
        """Return when all events have arrived, in one transaction with the position."""
        await self._thread.run(self._commit, position)

    async def abort(self) -> None:
        """Abort the transaction, or drop what has not left yet."""
        await self._end()

    async def close(self) -> None:
        """End the producer and its thread."""
        await self._end()
        self._thread.close()

    # -- in the thread -------------------------------------------------------------------------------------------

    def _open(self, relay: RelayIdentity) -> TargetPosition | None:
        from esx.relay.kafka_client import Client
        from esx.relay.kafka_positions import key_of, read_position

        self._key = key_of(relay) if self.keeps_position else ""
        self._client = Client(
            self._settings,
            self._thread.stopping,
            transactional_id=self._key or None,
            patience=self._patience,
            carefully=self._carefully,
        )
        self._carefully = False
        self._client.init()
        return read_position(self._client, self._settings, self._positions, self._key) if self.keeps_position else None

    def _send(self, events: Sequence[Event]) -> None:
        assert self._client is not None
        with self._looking_closer():
            self._client.send(self._made(events), self._create_partitions)

    @contextlib.contextmanager
    def _looking_closer(self) -> Iterator[None]:
        """Send in the careful way after the next `open`, if it is not known which message was refused."""
        from esx.relay.kafka_client import Unidentified

        try:
            yield
        except Unidentified:
            self._carefully = True
            raise

    def _made(self, events: Sequence[Event]) -> "Iterator[OutMessage]":
        assert self._messages is not None
        make, topic_of = self._messages.make, self._topics.of
        for event in events:
            stream = event.stream_id
            try:
                topic = topic_of(stream)
            except ValueError as error:
                raise EventRefused(event.global_seq, str(error)) from None
            value, headers = make(event)
            key = stream if stream.isascii() else stream.encode("utf-8", "surrogateescape")
            yield event.global_seq, topic, key, value, headers

    def _commit(self, position: TargetPosition) -> None:
        from esx.relay.kafka_positions import encode

        assert self._client is not None
        assert self._relay is not None
        with self._looking_closer():
            if self.keeps_position:
                self._client.commit(self._positions, self._key.encode(), encode(self._relay, position))
            else:
                self._client.commit(None, b"", b"")

    async def _end(self) -> None:
        if self._client is None:
            return
        client, self._client = self._client, None
        await self._thread.run(client.close)


def _check_installed() -> None:
    try:
        import confluent_kafka  # noqa: F401
    except ImportError:
        raise TargetFailed("relays to Kafka need confluent-kafka: pip install 'esx-eventstore[kafka]'") from None
