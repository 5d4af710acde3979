"""The producer of a relay, with blocking calls: all of them come from one thread.

Calls wait in short slices, so that the relay can be ended at any time.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import itemgetter
from threading import Event as Flag
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from esx.errors import EventRefused, TargetFailed, TargetUnavailable
from esx.relay.cloudevents import Headers, Text
from esx.relay.kafka_errors import PURGED, REFUSALS, FencedOff, meaning, wrong_login
from esx.relay.kafka_settings import OWN, hidden
from esx.relay.thread import Stopped

T = TypeVar("T")
OutMessage = tuple[int, str, Text, Text, Headers]
"""The global_seq, topic, key, value and headers of an event's message."""
_FIRST_SLICE = 0.03
_SLICE = 0.25
PATIENCE = 20.0
"""Seconds for one answer of the cluster: longer than a transaction that holds it can last."""
_ABORT_PATIENCE = 3.0
_MEMORY_KB = 16_384
"""What waits to leave: so much has to arrive within the time for a message, 10 s, also where the way is slow."""
LOG = logging.getLogger("esx.relay.kafka")
LOG.addHandler(logging.NullHandler())
LOG.propagate = False  # the client repeats what it says through its calls


class Client:
    """A producer, transactional if it has a `transactional_id`.

    If messages are refused it is not known which, and Unidentified is raised. `carefully` sends each message in a batch
    of its own, and notes which one it is, which takes several times as long.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        stopping: Flag,
        *,
        transactional_id: str | None,
        patience: float = PATIENCE,
        carefully: bool = False,
    ) -> None:
        self._settings = settings
        self._stopping = stopping
        self._transactional = transactional_id is not None
        self._carefully = carefully
        self._begun = False
        self._topics: set[str] = set()
        self._failures: list[tuple[int, KafkaError]] = []
        """What was said of messages that did not arrive, with the numbers of their events, 0 if they are not known."""
        self._said: KafkaError | None = None
        """What the client said last about its connections."""
        self._patience = patience
        config: dict[str, object] = {"client.id": "esx", "queue.buffering.max.kbytes": _MEMORY_KB, **settings, **OWN}
        if transactional_id is not None:
            config["transactional.id"] = transactional_id
        if carefully:
            config["batch.num.messages"] = 1
        self._producer = self._made(lambda: Producer({**config, "error_cb": self._say, "logger": LOG}))

    def admin(self) -> AdminClient:
        """Return a client to ask about topics, and to make them; it has to be kept until it has answered."""
        # At its end it would print a line of level 6 past the logger.
        return self._made(lambda: AdminClient({"log_level": 5, **self._settings}, logger=LOG))

    def _made(self, make: Callable[[], T]) -> T:
        try:
            return make()
        except (KafkaException, ValueError, TypeError) as error:
            first = error.args[0] if error.args else error
            text = first.str() if isinstance(first, KafkaError) else str(first)
            raise TargetFailed(f"the client's settings: {hidden(text, self._settings)}") from None

    def _say(self, error: KafkaError) -> None:
        if not wrong_login(error) and self._said is not None and wrong_login(self._said):
            return
        self._said = error

    # -- transactions --------------------------------------------------------------------------------------------

    def init(self) -> None:
        """Fence off earlier instances, and end what they left open."""
        if self._transactional:
            self.wait(self._producer.init_transactions, "beginning to send")

    def send(self, messages: Iterable[OutMessage], create_partitions: int | None) -> None:
        """Hand messages to the producer; waits only while its memory is full. Raises EventRefused."""
        if self._transactional and not self._begun:
            self._asked(self._producer.begin_transaction, "beginning a transaction")
            self._begun = True
        produce, topics = self._producer.produce, self._topics
        failed: Callable[[KafkaError | None, Message], None] = self._failed
        for number, topic, key, value, headers in messages:
            if topic not in topics:
                self._know(topic, number, create_partitions)
            if self._carefully:
                failed = partial(self._note, number)
            while True:
                try:
                    # The headers as a dict: a list of pairs takes twice as long.
                    produce(topic, value, key, headers=headers, on_delivery=failed)  # type: ignore[arg-type]
                    break
                except BufferError:
                    self.check_stopping()
                    self._poll(_SLICE)
                    self._check()
                except KafkaException as error:
                    reason: KafkaError = error.args[0]
                    if reason.code() in REFUSALS:
                        raise EventRefused(number, self._refusal(reason)) from None
                    # A message before it may have ended the transaction.
                    self._poll(0)
                    self._check()
                    raise self._meaning(reason, "sending") from None
        self._poll(0)
        self._check()

    def commit(self, topic: str | None, key: bytes, value: bytes) -> None:
        """Return when all that was sent has arrived, in a transaction together with the position."""
        if not self._transactional:
            while len(self._producer):
                self.check_stopping()
                self._asked(partial(self._producer.flush, _SLICE), "sending")
                self._check()
            self._check()
            return
        assert topic is not None
        self.send([(0, topic, key, value, {})], None)
        try:
            self.wait(self._producer.commit_transaction, "committing")
        except FencedOff:
            raise
        except TargetFailed:
            self._poll(0)
            self._check()
            raise
        self._begun = False

    def abort(self) -> None:
        """Drop what was sent, as far as it has not left yet."""
        if self._begun:
            self._begun = False
            deadline = time.monotonic() + min(_ABORT_PATIENCE, self._patience)
            while time.monotonic() < deadline:
                try:
                    self._producer.abort_transaction(_SLICE)
                    return
                except KafkaException as error:
                    if not error.args[0].retriable():
                        break
        # After an error that ended the producer, each call of it may raise that again.
        with contextlib.suppress(KafkaException):
            self._producer.purge()
            self._producer.flush(_SLICE)

    def close(self) -> None:
        """End; drops what was not committed."""
        self.abort()
        # Not its own close(), which waits without a limit for what cannot be delivered.
        del self._producer

    # -- topics --------------------------------------------------------------------------------------------------

    def _know(self, topic: str, number: int, create_partitions: int | None) -> None:
        """Raise EventRefused if there is no such topic."""
        error = self._topic_error(topic)
        if error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and create_partitions is not None:
            self.create_topic(NewTopic(topic, create_partitions, -1))
            error = self._topic_error(topic)
        if error is not None:
            if error.code() not in REFUSALS:
                raise self._meaning(error, f"asking for topic {topic}")
            raise EventRefused(number, f"topic {topic}: {self._refusal(error)}")
        self._topics.add(topic)

    def _topic_error(self, topic: str) -> KafkaError | None:
        deadline = time.monotonic() + self._patience
        while True:
            found = self.wait(lambda limit: self._producer.list_topics(topic, limit), "asking for topics").topics[topic]
            error: KafkaError | None = found.error
            if error is None or error.code() != KafkaError.LEADER_NOT_AVAILABLE or time.monotonic() > deadline:
                return error
            self.pause()

    def create_topic(self, topic: NewTopic) -> None:
        """Make a topic, unless it is there. Raises TargetFailed."""
        admin = self.admin()
        self.wait_for(admin.create_topics([topic])[topic.topic], f"making topic {topic.topic}", there_is_fine=True)

    # -- waiting -------------------------------------------------------------------------------------------------

    def wait(self, step: Callable[[float], T], doing: str) -> T:
        """Call `step` with a short limit until it is done. Raises TargetFailed and Stopped."""
        deadline = time.monotonic() + self._patience
        # Each call lets the client look for brokers again, half a second before it does by itself.
        limit = _FIRST_SLICE
        while True:
            self.check_stopping()
            try:
                return step(limit)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                with contextlib.suppress(TargetFailed):
                    self._poll(0)
                if self._said is not None and wrong_login(self._said):
                    raise self._meaning(self._said, doing) from None
                passing = reason.retriable() or reason.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT)
                if not passing or time.monotonic() > deadline:
                    raise self._meaning(self._said if passing and self._said is not None else reason, doing) from None
                if reason.code() == KafkaError._TRANSPORT:
                    time.sleep(limit)  # it does not wait by itself
                limit = min(limit * 2, _SLICE)

    def wait_for(self, future: object, doing: str, *, there_is_fine: bool = False) -> object:
        """Return the result of an administrator's call. Raises TargetFailed and Stopped."""
        deadline = time.monotonic() + self._patience
        while True:
            self.check_stopping()
            try:
                return future.result(_SLICE)  # type: ignore[attr-defined]
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise TargetUnavailable(f"{doing}: no answer from {self._settings['bootstrap.servers']}") from None
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if there_is_fine and reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return None
                found = self._meaning(reason, doing)
                # For example a name that collides with another, or too few brokers: time does not help.
                final = reason.code() in REFUSALS or reason.code() in (
                    KafkaError.INVALID_REPLICATION_FACTOR,
                    KafkaError.INVALID_PARTITIONS,
                    KafkaError.INVALID_CONFIG,
                )
                raise (TargetFailed(str(found)) if final else found) from None

    def _poll(self, seconds: float) -> None:
        """Let the client say what became of messages. Raises TargetFailed for an error that has ended it."""
        self._asked(partial(self._producer.poll, seconds), "sending")

    def _asked(self, call: Callable[[], object], doing: str) -> None:
        try:
            call()
        except KafkaException as error:
            raise self._meaning(error.args[0], doing) from None

    def pause(self) -> None:
        """Wait a moment."""
        self.check_stopping()
        self._poll(_SLICE)

    def check_stopping(self) -> None:
        """Raise Stopped if the relay is being ended."""
        if self._stopping.is_set():
            raise Stopped

    # -- messages that did not arrive ----------------------------------------------------------------------------

    def _failed(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failures.append((0, error))

    def _note(self, number: int, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failures.append((number, error))

    def _check(self) -> None:
        """Raise what the failed messages mean: EventRefused for the first that will never be taken."""
        if not self._failures:
            return
        failures, self._failures = self._failures, []
        refused = [(number, error) for number, error in failures if error.code() in REFUSALS]
        if refused and not self._carefully:
            raise Unidentified(f"{self._refusal(refused[0][1])}: looking for the event")
        refused = [(number, error) for number, error in refused if number]
        if refused:
            number, error = min(refused, key=itemgetter(0))
            raise EventRefused(number, self._refusal(error))
        causes = [error for _, error in failures if error.code() not in PURGED] or [error for _, error in failures]
        raise self._meaning(causes[0], f"{len(failures)} messages did not arrive")

    def _refusal(self, error: KafkaError) -> str:
        return hidden(error.str(), self._settings)

    def _meaning(self, error: KafkaError, doing: str) -> TargetFailed:
        return meaning(error, f"Kafka at {self._settings['bootstrap.servers']}, {doing}", self._settings)


class Unidentified(TargetUnavailable):
    """Messages were refused, and it is not known which: alone, or only as a batch that was too large."""

    at_once = True


def partition(topic: str) -> TopicPartition:
    """Return the only partition of a topic."""
    return TopicPartition(topic, 0)
