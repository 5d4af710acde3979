"""Relays to NATS: a real server, which is killed, lacks a stream, and takes messages of some size only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from esx import EventStore, NewEvent, RelayFailed
from tests.cli.support import esx, one_line_error
from tests.store.relay.test_relay import fill, running, until
from tests.support.kafka_broker import free_ports

nats = pytest.importorskip("nats")

from esx.relay.nats import NatsTarget  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import asyncpg
    from nats.js import JetStreamContext

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nats-server") is None, reason="needs nats-server, a package of Debian"),
]


class Server:
    """A server of NATS in a directory, which can be killed and started again."""

    def __init__(self, directory: Path, *options: str) -> None:
        [self.port] = free_ports(1)
        self.url = f"nats://127.0.0.1:{self.port}"
        self._command = ["nats-server", "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(directory), *options]
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        async def listens() -> bool:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            return False

        await until(listens)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that is not started yet."""
    server = Server(tmp_path / "nats")
    try:
        yield server
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def stream(server: Server, subject: str = "events.*", **config: int) -> AsyncIterator[JetStreamContext]:
    """Make a stream of JetStream, called s."""
    client = await nats.connect(server.url)
    try:
        js = client.jetstream()
        await js.add_stream(name="s", subjects=[subject], **config)
        yield js
    finally:
        await client.close()


async def taken(js: JetStreamContext) -> list[tuple[str, int]]:
    """Return the subject and the global_seq of each message."""
    last = (await js.stream_info("s")).state.last_seq
    messages = [await js.get_msg("s", number + 1) for number in range(last)]
    for message in messages:
        assert json.loads(message.data or b"")["id"] == str(UUID((message.headers or {})["Nats-Msg-Id"]))
    return [(message.subject or "", int(json.loads(message.data or b"")["globalsequence"])) for message in messages]


async def test_each_event_arrives_once_and_in_order(store18: EventStore, server: Server) -> None:
    await server.start()
    await fill(store18, 7, 6)
    await store18.append("a.b-1", [NewEvent("T")])
    async with stream(server) as js:
        told: list[tuple[str, str]] = []
        target = NatsTarget(server.url, "events.{category}", on_mapped=lambda *each: told.append(each))
        await store18.relay("r", target, once=True)
        assert told == [("a.b", "events.a_2Eb")]
        got = await taken(js)
        assert sorted(number for _, number in got) == list(range(1, 44))
        assert [number for subject, number in got if subject == "events.a_2Eb"] == [43]
        for each in range(7):
            mine = [number for _, number in got if number % 7 == (each + 1) % 7 and number < 43]
            assert mine == sorted(mine)
        # Sent again, as after a crash: JetStream recognises each by its id.
        await store18.reset_consumer("r")
        await store18.relay("r", target, once=True)
        assert await taken(js) == got


async def test_what_no_stream_takes_is_refused_before_later_events_of_its_stream(
    store18: EventStore, server: Server
) -> None:
    await server.start()
    for data in ({}, {"text": "x" * 4000}, {}):
        await store18.append("good-1", [NewEvent("T", data)])
    await store18.append("bad-1", [NewEvent("T")])
    await store18.append("good-2", [NewEvent("T")])
    async with stream(server, "events.good", max_msg_size=2000) as js:
        target = NatsTarget(server.url, "events.{category}")
        with pytest.raises(RelayFailed, match=r"at event 2: subject events\.good: .*exceeds maximum"):
            await store18.relay("stops", target, once=True)
        assert ("events.good", 3) not in await taken(js)
        await store18.relay("parks", target, once=True, on_error="park")
        assert [number for _, number in await taken(js)] == [1, 5]
        assert [(each.global_seq, each.stream_id) for each in await store18.put_aside("parks")] == [
            (2, "good-1"),
            (3, "good-1"),
            (4, "bad-1"),
        ]
        assert "no stream of JetStream takes subject events.bad" in (await store18.put_aside("parks"))[2].error


async def test_it_waits_for_the_server_and_goes_on(
    store18: EventStore, sql18: asyncpg.Connection, server: Server
) -> None:
    async def position(wanted: int) -> bool:
        return bool(await sql18.fetchval("SELECT position = $1 AND last_error IS NULL FROM consumers", wanted))

    async def away() -> bool:
        error = await sql18.fetchval("SELECT last_error FROM consumers")
        return error is not None and error.startswith("since 2")

    await server.start()
    async with stream(server):
        server.kill()
    await store18.append("s-1", [NewEvent("T")])
    async with running(store18.relay("r", NatsTarget(server.url, "events.{category}", patience=2))):
        await until(away)
        await server.start()
        await until(lambda: position(1))
        server.kill()
        await store18.append("s-1", [NewEvent("T")])
        await until(away)
        await server.start()
        await until(lambda: position(2))


async def test_a_wrong_login_ends_it_without_the_secret(store18: EventStore, tmp_path: Path) -> None:
    server = Server(tmp_path / "nats", "--user", "esx", "--pass", "right")
    try:
        await server.start()
        target = NatsTarget(server.url, "events.{category}", login={"user": "esx", "password": "wrong-secret"})
        with pytest.raises(RelayFailed, match=r"(?i)authorization violation") as raised:
            await store18.relay("r", target, once=True)
        assert "wrong-secret" not in str(raised.value)
    finally:
        server.kill()


async def test_the_command(store18: EventStore, dsn18: str, server: Server) -> None:
    await server.start()
    await fill(store18, 1, 3)
    async with stream(server) as js:
        common = ("relay", "nats", "-d", dsn18, "--once", "--json", "--subject", "events.{category}", "-s")
        done = await asyncio.to_thread(esx, *common, server.url)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == {"position": 3, "sent": 3}
        assert len(await taken(js)) == 3
    done = await asyncio.to_thread(esx, *common, "nats://a:secret@localhost:1")
    assert "give the login apart from it" in one_line_error(done, 1)
    assert "secret" not in done.stderr
