"""Relays to Kinesis: moto's server, behind a proxy of ours that throttles, fails parts of requests and breaks off.

moto takes records above the limits and never throttles, so the proxy checks the limits.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from esx import EventStore, NewEvent, RelayFailed
from esx.relay.cloudevents import MessageFormat
from tests.cli.support import esx

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto.server")

from esx.relay.kinesis import LIMITS, KinesisLimits, KinesisTarget  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-central-1"}


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in _ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


class Proxy:
    """Passes requests on; `faults` of those that put records go wrong."""

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self._chance = random.Random(7)
        self.faults = 0.0
        self.seen: dict[str, int] = defaultdict(int)
        self.largest = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body, headers = await request.read(), request.headers
        if not headers.get("X-Amz-Target", "").endswith("PutRecords"):
            return await self._pass_on(headers, body)
        asked = json.loads(body)
        records = asked["Records"]
        self._check(records)
        kind = self._chance.choice(["throttled", "partly", "broken"]) if self._chance.random() < self.faults else "fine"
        self.seen[kind] += 1
        if kind == "throttled":
            return self._error("ProvisionedThroughputExceededException")
        if kind != "partly":
            answer = await self._pass_on(headers, body)
            if kind == "broken":  # taken, and the answer is lost
                assert request.transport is not None
                request.transport.abort()
            return answer
        failed = {at for at in range(len(records)) if self._chance.random() < 0.5}
        kept = [record for at, record in enumerate(records) if at not in failed]
        done = iter(())
        if kept:
            answer = await self._pass_on(headers, json.dumps({**asked, "Records": kept}).encode())
            done = iter(json.loads(answer.body)["Records"])  # type: ignore[arg-type]
        refusal = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"}
        answers = [refusal if at in failed else next(done) for at in range(len(records))]
        return web.json_response({"FailedRecordCount": len(failed), "Records": answers})

    def _check(self, records: list[dict[str, Any]]) -> None:
        keys = [record["PartitionKey"] for record in records]
        sizes = [len(base64.b64decode(record["Data"])) + len(record["PartitionKey"].encode()) for record in records]
        assert len(set(keys)) == len(keys), "two records of one stream are in one request"
        assert len(records) <= LIMITS.records
        assert sum(sizes) <= LIMITS.request_bytes
        assert max(sizes) <= LIMITS.record_bytes
        self.largest = max(self.largest, len(records))

    async def _pass_on(self, headers: Any, body: bytes) -> web.Response:
        kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "content-length")}
        async with aiohttp.ClientSession() as session, session.post(self._behind, data=body, headers=kept) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    def _error(self, code: str) -> web.Response:
        return web.json_response({"__type": code, "message": "slow down"}, status=400)


@pytest.fixture
async def proxy(moto_url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(moto_url)
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/{rest:.*}", proxy.handle)
    async with TestServer(app) as server:
        proxy.url = str(server.make_url("/"))
        yield proxy


class Stream:
    """A stream of Kinesis with two shards."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._client = boto3.client("kinesis", endpoint_url=url)
        self._client.create_stream(StreamName=name, ShardCount=2)

    def read(self) -> list[dict[str, Any]]:
        """Return the records, in order for each shard."""
        found = []
        for shard in self._client.list_shards(StreamName=self.name)["Shards"]:
            iterator = self._client.get_shard_iterator(
                StreamName=self.name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while True:
                answer = self._client.get_records(ShardIterator=iterator, Limit=1000)
                found += answer["Records"]
                iterator = answer["NextShardIterator"]
                if not answer["Records"]:
                    break
        return found


@pytest.fixture
def stream(moto_url: str) -> Stream:
    return Stream(moto_url, uuid4().hex)


def by_stream(records: list[dict[str, Any]]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for record in records:
        found[record["PartitionKey"]].append(int(json.loads(record["Data"])["globalsequence"]))
    return dict(found)


async def test_what_is_throttled_and_fails_in_parts_arrives_in_order(
    store18: EventStore, proxy: Proxy, stream: Stream
) -> None:
    for n in range(15):
        await asyncio.gather(*(store18.append(f"s-{each}", [NewEvent("T", {"n": n})]) for each in range(20)))
    there = defaultdict(list)
    async for event in store18.read_all():
        there[event.stream_id].append(event.global_seq)
    proxy.faults = 0.4
    async with asyncio.timeout(120):
        await store18.relay("r", KinesisTarget(stream.name, endpoint_url=proxy.url), window=100, once=True)
    assert proxy.seen.keys() >= {"throttled", "partly", "broken", "fine"}
    assert proxy.largest == 20
    got = by_stream(await asyncio.to_thread(stream.read))
    # A request whose answer was lost comes again, with what followed the checkpoint: never out of order otherwise.
    assert {each: list(dict.fromkeys(numbers)) for each, numbers in got.items()} == there


async def test_without_faults_each_record_comes_once_with_all_its_digits(
    store18: EventStore, proxy: Proxy, stream: Stream
) -> None:
    await store18.append("ä-1", [NewEvent("T", {"n": n}) for n in range(3)])
    await store18.append("x" * 300, [NewEvent("T")])
    target = KinesisTarget(stream.name, endpoint_url=proxy.url, message_format=MessageFormat.JSON)
    await store18.relay("r", target, once=True)
    records = await asyncio.to_thread(stream.read)
    events = [event async for event in store18.read_all()]
    assert sorted(record["Data"].decode() for record in records) == sorted(event.to_json() for event in events)
    assert {len(record["PartitionKey"]) for record in records} == {3, 64}


async def test_a_record_that_is_too_large_is_refused_before_it_is_sent(
    store18: EventStore, proxy: Proxy, stream: Stream
) -> None:
    await store18.append("a-1", [NewEvent("T"), NewEvent("T", {"text": "x" * 3000}), NewEvent("T")])
    target = KinesisTarget(stream.name, endpoint_url=proxy.url, limits=KinesisLimits(record_bytes=2000))
    with pytest.raises(RelayFailed, match=r"stopped at event 2: its record has 3,\d+ bytes, and Kinesis takes 2,000"):
        await store18.relay("r", target, once=True)
    assert by_stream(await asyncio.to_thread(stream.read)) == {"a-1": [1]}


async def test_the_command_sends_and_a_missing_stream_is_one_line(
    store18: EventStore, dsn18: str, proxy: Proxy, stream: Stream
) -> None:
    await store18.append("a-1", [NewEvent("T")])
    common = ("relay", "kinesis", "-d", dsn18, "--endpoint-url", proxy.url, "--once", "--stream-name")
    done = await asyncio.to_thread(esx, *common, stream.name, **_ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert by_stream(await asyncio.to_thread(stream.read)) == {"a-1": [1]}
    done = await asyncio.to_thread(esx, *common, "nowhere", "--name", "other", **_ENVIRONMENT)
    assert done.returncode == 1
    assert "esx: relay other stopped: Kinesis stream nowhere: " in done.stderr.splitlines()[-1]
