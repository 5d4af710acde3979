"""`esx relay`: events go to Kafka, and what cannot be is said in one line, without a secret."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from esx import EventStore, NewEvent
from tests.cli.support import Running, esx, ndjson, one_line_error
from tests.store.relay.test_parking import Picky
from tests.support.kafka import Kafka, needs_kafka

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("confluent_kafka")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--topic", "t"], 2, "no broker is named"),
        (["--topic", "a b", "-b", "x:1"], 2, "'a b' is no name of a topic"),
        (["--topic", "{stream}", "-b", "x:1"], 2, "use letters"),
        (["--topic", "t", "-b", "x:1", "-X", "acks=1"], 2, "acks cannot be set"),
        (["--topic", "t", "-b", "x:1", "-X", "transactional.id=a"], 2, "transactional.id cannot be set"),
        (["--topic", "t", "-b", "x:1", "-X", "sasl.password=s3cret"], 2, "into $ESX_KAFKA_SASL_PASSWORD"),
        (["--topic", "t", "-b", "x:1", "-X", "linger"], 2, "is not key=value"),
        (["--topic", "t", "-b", "x:1", "--partitions", "3"], 2, "--partitions belongs to --create-topics"),
        (["--topic", "t", "-b", "x:1", "-F", "/nowhere"], 1, "/nowhere"),
        (["--topic", "t", "-b", "x:1", "--from", "soon"], 2, "start, end, or a global_seq"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], code: int, told: str) -> None:
    line = one_line_error(esx("relay", "kafka", "-d", "postgresql://nobody@127.0.0.1:1/x", *arguments), code)
    assert told in line
    assert "s3cret" not in line


async def test_a_setting_that_the_client_does_not_know_ends_it(dsn18: str) -> None:
    done = esx("relay", "kafka", "-d", dsn18, "--topic", "t", "-b", "127.0.0.1:1", "-X", "no.such=1", "--once")
    assert done.returncode == 1
    assert 'No such configuration property: "no.such"' in done.stderr.splitlines()[-1]


async def test_secrets_come_from_a_file_which_others_should_not_read_or_from_the_environment(
    dsn18: str, tmp_path: Path
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("# of the client\nsasl.password = hush-hush\nsasl.mechanism=PLAIN\n")
    file.chmod(0o644)
    arguments = ["relay", "kafka", "-d", dsn18, "--topic", "t", "-b", "127.0.0.1:1", "-F", str(file), "-X", "x.y=1"]
    done = esx(*arguments, "--once", ESX_KAFKA_SASL_USERNAME="me")
    assert f"others can read the secrets in {file}: chmod 600 {file}" in done.stderr
    assert "hush-hush" not in done.stderr
    file.chmod(0o600)
    assert "others can read" not in esx(*arguments, "--once").stderr
    file.write_text("what is this")
    assert "line 1 of" in one_line_error(esx(*arguments), 2)


@needs_kafka
async def test_it_sends_what_is_there_and_says_how_much(store18: EventStore, dsn18: str, kafka: Kafka) -> None:
    await store18.append("order-1", [NewEvent("Placed", {"n": n}) for n in range(5)])
    await store18.append("Größe-1", [NewEvent("Other")])
    base = f"c{os.urandom(4).hex()}"
    common = ["-d", dsn18, "-b", kafka.address, "--topic", base + ".{category}", "--create-topics", "--partitions", "2"]
    done = esx("relay", "kafka", *common, "--once", "--json", "--type", "[PO]*")
    assert done.returncode == 0, done.stderr
    assert ndjson(done.stdout)[-1] == {"position": 6, "sent": 6}
    assert f"category Größe is no name of a topic: its events go to {base}.Gr_C3_B6_C3_9Fe" in done.stderr
    assert "6 events sent, up to global_seq 6" in done.stderr
    messages = kafka.read(f"{base}.order")
    assert [json.loads(message.value())["n"] for message in messages] == list(range(5))
    assert len({message.partition() for message in messages}) == 1
    again = esx("relay", "kafka", *common, "--once", "--from", "start")
    assert "relay kafka goes on after 6 (--from is for its first run)" in again.stderr
    [listed] = ndjson(esx("consumers", "-d", dsn18, "--json").stdout)
    assert (listed["name"], listed["kind"], listed["position"]) == ("kafka", "relay", 6)


@needs_kafka
async def test_it_follows_until_it_is_interrupted(store18: EventStore, dsn18: str, kafka: Kafka) -> None:
    topic = kafka.topic()
    await store18.append("s-1", [NewEvent("T")])
    running = await Running.start("relay", "kafka", "-d", dsn18, "-b", kafka.address, "--topic", topic, "--json")
    assert json.loads(await running.line())["sent"] >= 1
    assert await running.end(signal.SIGINT) == 130
    assert len(kafka.read(topic)) == 1


@needs_kafka
async def test_a_missing_topic_is_told_with_the_event(store18: EventStore, dsn18: str, kafka: Kafka) -> None:
    await store18.append("s-1", [NewEvent("T")])
    done = esx("relay", "kafka", "-d", dsn18, "-b", kafka.address, "--topic", "no-such-topic", "--once")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("esx: relay kafka stopped at event 1: topic no-such-topic: ")


async def test_what_was_parked_is_listed_tried_again_and_skipped(
    store18: EventStore, dsn18: str, tmp_path: Path
) -> None:
    for _ in range(2):
        await store18.append("a", [NewEvent("T")])
    await store18.relay("r", Picky(tmp_path / "out", 1), on_error="park", once=True)
    listed = ndjson(esx("relay", "parked", "r", "-d", dsn18, "--json").stdout)
    assert [(each["global_seq"], each["state"]) for each in listed] == [(1, "parked"), (2, "parked")]
    assert esx("relay", "skip", "r", "--event", "1", "--yes", "-d", dsn18).returncode == 0
    assert [each.state for each in await store18.put_aside("r")] == ["skipped", "retry"]
    assert esx("relay", "retry", "r", "--yes", "-d", dsn18).returncode == 0
