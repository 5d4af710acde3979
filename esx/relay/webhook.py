"""A web address as the target of a relay: CloudEvents over HTTP in batches, signed, at least once.

A batch is an array of CloudEvents (https://github.com/cloudevents/spec, HTTP protocol binding, batched content mode).
It is signed as Standard Webhooks says (https://www.standardwebhooks.com): HMAC-SHA256 of id, time and body.
"""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import aiohttp

from esx.errors import EventRefused, InvalidQuery, TargetFailed, TargetUnavailable
from esx.model import Event
from esx.relay.cloudevents import MessageFormat, Messages
from esx.store.relay.target import RelayIdentity, TargetPosition
from esx.text import visible

BATCH = 100
"""How many events a request has at most, unless another number is chosen."""
_MOST_BYTES = 1_000_000
_CONTENT = "application/cloudevents-batch+json; charset=UTF-8"
_LONGEST_PAUSE = 60.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_REFUSED = {400, 409, 413, 415, 422}
_PREFIX = "whsec_"


class WebhookTarget:
    """Posts events to a URL: a target for `EventStore.relay`.

    A request has at most `batch` events and some 1 MB; run the relay with the same `window`, so that at most one
    request is repeated after a crash. `secret` signs requests: a text, or ``whsec_`` and base64. `headers` are sent
    with each request, such as Authorization.

    An answer of 2xx takes the events. 408, 425, 429 and 5xx are tried again, after Retry-After if it is given. For 400,
    409, 413, 415 and 422 the events are sent one by one, and the one that gets such an answer again is refused. Any
    other answer ends the relay; redirections are not followed.

    Raises InvalidQuery for a URL or a secret that cannot be used.
    """

    keeps_position = False

    def __init__(
        self,
        url: str,
        *,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        batch: int = BATCH,
        source: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidQuery("a webhook needs a URL such as https://example.org/events")
        if batch < 1:
            raise InvalidQuery(f"a batch of {batch} events makes no sense: use a number from 1")
        self._url = url
        # Without what may be secret: a password, a token in the query.
        self.where = f"{parts.scheme}://{parts.hostname}{'' if parts.port is None else f':{parts.port}'}{parts.path}"
        self._key = None if secret is None else _key_of(secret)
        self._headers = dict(headers or {})
        self._batch = batch
        self._source = source
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None
        self._messages: Messages | None = None

    async def open(self, relay: RelayIdentity) -> TargetPosition | None:
        """Prepare to send."""
        await self.close()
        self._messages = Messages(MessageFormat.STRUCTURED, relay, self._source)
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        return None

    async def send(self, events: Sequence[Event]) -> None:
        """Post events, one request after another; each waits for its answer."""
        assert self._messages is not None
        batch: list[tuple[Event, bytes]] = []
        size = 0
        for event in events:
            body = self._messages.body(event)
            if batch and (len(batch) >= self._batch or size + len(body) > _MOST_BYTES):
                await self._post(batch)
                batch, size = [], 0
            batch.append((event, body))
            size += len(body) + 1
        if batch:
            await self._post(batch)

    async def commit(self, position: TargetPosition) -> None:
        """Return at once: each request was answered."""

    async def abort(self) -> None:
        """Do nothing: what was answered has arrived."""

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, batch: Sequence[tuple[Event, bytes]]) -> None:
        status, said, pause = await self._request(batch)
        if 200 <= status < 300:
            return
        answer = f"{self.where} answers {status}{': ' if said else ''}{said}"
        if status in _PASSING:
            await asyncio.sleep(pause)
            raise TargetUnavailable(answer)
        if status not in _REFUSED:
            raise TargetFailed(answer)
        if len(batch) == 1:
            raise EventRefused(batch[0][0].global_seq, answer)
        for each in batch:
            await self._post([each])

    async def _request(self, batch: Sequence[tuple[Event, bytes]]) -> tuple[int, str, float]:
        """Return the status, the beginning of the answer, and for how long to wait before another attempt."""
        assert self._session is not None
        body = b"[" + b",".join(each for _, each in batch) + b"]"
        # The same for each attempt of these events.
        number = f"{batch[0][0].global_seq}-{batch[-1][0].global_seq}"
        headers = {**self._headers, "Content-Type": _CONTENT, "webhook-id": number, **self._signed(number, body)}
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                said = (await answer.content.read(400)).decode("utf-8", "replace")
                return answer.status, visible(" ".join(said.split()), limit=200), _pause(answer.headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise TargetUnavailable(
                f"{self.where}: {visible(reason, limit=200)}".replace(self._url, self.where)
            ) from None

    def _signed(self, number: str, body: bytes) -> dict[str, str]:
        now = str(int(time.time()))
        if self._key is None:
            return {"webhook-timestamp": now}
        signature = hmac.new(self._key, f"{number}.{now}.".encode() + body, hashlib.sha256).digest()
        return {"webhook-timestamp": now, "webhook-signature": f"v1,{base64.b64encode(signature).decode()}"}


def _key_of(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        raise InvalidQuery(f"the webhook's secret is no base64 after {_PREFIX}") from None


def _pause(headers: Mapping[str, str]) -> float:
    """Return the seconds of Retry-After, within bounds; 0 without it, and for a date."""
    value = headers.get("Retry-After", "")
    return min(float(value), _LONGEST_PAUSE) if value.isascii() and value.isdigit() else 0.0
