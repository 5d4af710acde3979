"""A real broker for the tests that need one: one for all processes of pytest, started by the first that asks for it.

ESX_KAFKA names the folder with Kafka's jars, as `.ci/kafka FOLDER` makes it; or ESX_TEST_KAFKA a broker that is there.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.support.kafka_broker import PASSWORD, USER, jars

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOME = "ESX_TEST_KAFKA_HOME"
_PATIENCE = 200.0
_MISSING = None
if jars() is None and "ESX_TEST_KAFKA" not in os.environ:
    _MISSING = "needs Kafka: run .ci/kafka FOLDER and set ESX_KAFKA=FOLDER, or ESX_TEST_KAFKA=HOST:PORT"
else:
    try:
        import confluent_kafka  # noqa: F401
    except ImportError:
        _MISSING = "needs confluent-kafka: pip install '.[kafka]'"

needs_kafka = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


def pytest_configure(config: pytest.Config) -> None:
    """Choose where the broker is to be, in the process that starts the others."""
    if not hasattr(config, "workerinput"):
        os.environ[_HOME] = str(Path(tempfile.gettempdir()) / f"esx-kafka-{uuid4().hex[:8]}-{os.getpid()}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the broker."""
    if not hasattr(config, "workerinput"):
        (Path(os.environ[_HOME]) / "ready").unlink(missing_ok=True)


@dataclass(frozen=True)
class Kafka:
    """A broker. If it is one of ours: `secure` is its address with TLS and a login, and `ca` its certificate.

    At the port `front` nothing listens before a test leads from there to the port `behind`.
    """

    address: str
    secure: str | None = None
    ca: Path | None = None
    front: int | None = None
    behind: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.address}

    @property
    def secure_settings(self) -> dict[str, str]:
        if self.secure is None:
            pytest.skip("only a broker that the tests start has TLS and a login")
        return {
            "bootstrap.servers": self.secure,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
            "ssl.ca.location": str(self.ca),
        }

    def topic(self, name: str = "t", partitions: int = 3, **config: str) -> str:
        """Make a topic with a name of its own, and return the name."""
        from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

        topic = f"{name}-{uuid4().hex[:8]}"
        admin = AdminClient(self.settings)
        made = admin.create_topics(
            [NewTopic(topic, partitions, -1, config={key.replace("_", "."): value for key, value in config.items()})]
        )
        made[topic].result(30)
        return topic

    def change(self, topic: str, **config: str) -> None:
        """Change how a topic is kept."""
        from confluent_kafka.admin import (  # type: ignore[attr-defined]
            AdminClient,
            AlterConfigOpType,
            ConfigEntry,
            ConfigResource,
            ResourceType,
        )

        entries = [
            ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        admin = AdminClient(self.settings)
        admin.incremental_alter_configs([resource])[resource].result(30)

    def read(self, *topics: str, committed: bool = True) -> list[Any]:
        """Return the messages that topics have now, in order for each partition; waits for open transactions."""
        return read_all(self.settings, topics, committed=committed)


def read_all(settings: dict[str, Any], topics: tuple[str, ...], *, committed: bool = True) -> list[Any]:
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    consumer = Consumer(
        {
            **settings,
            "group.id": uuid4().hex,
            "enable.auto.commit": False,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        known = consumer.list_topics(timeout=30).topics
        parts = [TopicPartition(topic, each, 0) for topic in topics for each in known[topic].partitions]
        ends = {}
        for part in parts:
            bare = Consumer({**settings, "group.id": uuid4().hex, "isolation.level": "read_uncommitted"})
            ends[part.topic, part.partition] = bare.get_watermark_offsets(part, timeout=30)[1]
            bare.close()
        consumer.assign(parts)
        found: list[Any] = []
        at = dict.fromkeys(ends, 0)
        deadline = time.monotonic() + 60
        while any(at[part] < end for part, end in ends.items()):
            assert time.monotonic() < deadline, f"read up to {at} of {ends}"
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            where, offset = (str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)
            if error is None:
                found.append(message)
                at[where] = offset + 1
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                at[where] = max(at[where], offset)
        return found
    finally:
        consumer.close()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A broker, shared by all tests: each makes topics and relays of its own."""
    if (given := os.environ.get("ESX_TEST_KAFKA")) is not None:
        yield Kafka(given)
        return
    home = Path(os.environ[_HOME])
    home.mkdir(exist_ok=True)
    home.chmod(0o755)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "begun").exists():
            (home / "begun").touch()
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.kafka_broker", str(home), home.name.rpartition("-")[2]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
    deadline = time.monotonic() + _PATIENCE
    while not (home / "ready").exists():
        if (home / "failed").exists():
            pytest.fail(f"Kafka did not start: {(home / 'failed').read_text()}")
        assert time.monotonic() < deadline, "Kafka did not start"
        time.sleep(0.1)
    plain, secure, front, behind = (home / "ready").read_text().split()
    yield Kafka(plain, secure, home / "broker" / "ca.pem", int(front), int(behind))
