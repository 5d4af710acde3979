"""The consumers of docs/relays.md, in Python and in Java, get what a relay sends."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from esx import EventStore, NewEvent
from tests.relay.test_kafka import target
from tests.support.kafka import Kafka, needs_kafka
from tests.support.kafka_broker import jars

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [needs_kafka, pytest.mark.slow]

_DEADLINE = 120.0
PAGE = (Path(__file__).parents[2] / "docs" / "relays.md").read_text(encoding="utf-8")


def example(language: str, beginning: str, kafka: Kafka, topic: str) -> str:
    """Return the code of the page in a language that begins so, for a broker and a topic."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    code: str
    [code] = [block for block in blocks if block.startswith(beginning)]
    assert '"read_committed"' in code
    return code.replace("localhost:9092", kafka.address).replace("events.order", topic).replace("billing", topic)


async def first_line(command: Sequence[str], cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        return (await asyncio.wait_for(process.stdout.readline(), _DEADLINE)).decode()
    finally:
        process.kill()
        await process.wait()


async def test_the_consumer_in_python(store18: EventStore, kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic()
    await store18.append("order-1", [NewEvent("Placed", {"n": 7})])
    await store18.relay("r", target(kafka, topic), once=True)
    code = example("python", "from confluent_kafka", kafka, topic)
    line = await first_line([sys.executable, "-u", "-c", code], tmp_path)
    assert line == "Placed order-1 1 b'{\"n\": 7}'\n"


@pytest.mark.skipif(jars() is None or shutil.which("javac") is None, reason="needs a JDK and ESX_KAFKA")
async def test_the_consumer_in_java(store18: EventStore, kafka: Kafka, tmp_path: Path) -> None:
    topic, path = kafka.topic(), jars()
    assert path is not None
    await store18.append("order-1", [NewEvent("Placed", {"n": 7})])
    await store18.relay("r", target(kafka, topic), once=True)
    (tmp_path / "Billing.java").write_text(example("java", "import java", kafka, topic))
    line = await first_line(["java", "-Xmx64m", "-cp", path, "Billing.java"], tmp_path)
    assert line == 'Placed order-1 {"n": 7}\n'
