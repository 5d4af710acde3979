"""Relays to a web address: what a server gets, and what the relay makes of its answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from esx import EventStore, InvalidQuery, NewEvent, RelayFailed
from esx.relay.webhook import WebhookTarget
from tests.cli.support import esx, one_line_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Receiver:
    """A server that keeps the requests that it takes; `answer` decides."""

    def __init__(self) -> None:
        self.taken: list[list[dict[str, Any]]] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[list[dict[str, Any]]], int] = lambda _: 204
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((dict(request.headers), body))
        events = json.loads(body)
        status = self.answer(events)
        if 200 <= status < 300:
            self.taken.append(events)
        return web.Response(status=status, text="" if status == 204 else "no\nthank you")

    @property
    def numbers(self) -> list[int]:
        return [int(event["globalsequence"]) for events in self.taken for event in events]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/events", receiver.handle)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/events?token=s3cret"))
        yield receiver


async def fill(store: EventStore, count: int) -> None:
    for n in range(count):
        await store.append(f"s-{n % 2}", [NewEvent("T", {"n": n})])


async def test_events_come_in_signed_batches_in_their_order(store18: EventStore, receiver: Receiver) -> None:
    await fill(store18, 7)
    key = b"a key of some length"
    target = WebhookTarget(
        receiver.url, secret=f"whsec_{base64.b64encode(key).decode()}", headers={"Authorization": "Bearer x"}, batch=3
    )
    await store18.relay("r", target, window=3, once=True)
    assert receiver.numbers == list(range(1, 8))
    assert max(map(len, receiver.taken)) == 3
    assert receiver.taken[0][0]["data"] == {"n": 0}
    for headers, body in receiver.requests:
        assert headers["Content-Type"] == "application/cloudevents-batch+json; charset=UTF-8"
        assert headers["Authorization"] == "Bearer x"
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"


async def test_it_tries_again_while_the_server_is_busy(store18: EventStore, receiver: Receiver) -> None:
    await fill(store18, 4)
    statuses = iter([503, 429, 500])
    receiver.answer = lambda _: next(statuses, 200)
    await store18.relay("r", WebhookTarget(receiver.url, batch=2), window=2, once=True)
    assert receiver.numbers == [1, 2, 3, 4]
    assert len({headers["webhook-id"] for headers, _ in receiver.requests[:4]}) == 1


async def test_an_event_that_is_refused_stops_it_or_is_parked(store18: EventStore, receiver: Receiver) -> None:
    await fill(store18, 6)
    receiver.answer = lambda events: 422 if any(event["globalsequence"] == "3" for event in events) else 200
    with pytest.raises(
        RelayFailed, match=r"stopped at event 3: http://127.0.0.1:\d+/events answers 422: no thank you$"
    ):
        await store18.relay("r", WebhookTarget(receiver.url), window=100, once=True)
    assert sorted(set(receiver.numbers)) == [1, 2]
    await store18.relay("r", WebhookTarget(receiver.url), window=100, on_error="park", once=True)
    assert sorted(set(receiver.numbers)) == [1, 2, 4, 6]
    assert [each.global_seq for each in await store18.put_aside("r")] == [3, 5]


@pytest.mark.parametrize("status", [301, 401, 404, 410])
async def test_another_answer_stops_it_and_no_token_is_told(
    store18: EventStore, receiver: Receiver, status: int
) -> None:
    await fill(store18, 1)
    receiver.answer = lambda _: status
    with pytest.raises(RelayFailed, match=f"answers {status}") as caught:
        await store18.relay("r", WebhookTarget(receiver.url), once=True)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in (await store18.consumer("r")).last_error  # type: ignore[operator]


def test_a_url_or_a_secret_that_cannot_be_used_is_refused() -> None:
    for url in ("", "ftp://x/y", "https://"):
        with pytest.raises(InvalidQuery):
            WebhookTarget(url)
    with pytest.raises(InvalidQuery, match="no base64"):
        WebhookTarget("https://x/y", secret="whsec_!")


async def test_the_command_posts_what_is_there(store18: EventStore, dsn18: str, receiver: Receiver) -> None:
    await fill(store18, 2)
    done = await asyncio.to_thread(esx, "relay", "webhook", receiver.url, "-d", dsn18, "--once")
    assert done.returncode == 0, done.stderr
    assert "2 events sent, up to global_seq 2" in done.stderr
    assert "s3cret" not in done.stderr
    assert receiver.numbers == [1, 2]
    assert "a webhook needs a URL" in one_line_error(esx("relay", "webhook", "nowhere", "-d", dsn18), 2)
