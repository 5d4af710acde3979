"""NATS JetStream as the target of a relay: at least once, in order for each stream.

Messages are acknowledged one by one, and one that is refused must not be passed by a later one of its stream. So at
most one message of a stream is under way. JetStream recognises a repeat by Nats-Msg-Id, the event's id.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from esx.errors import EventRefused, TargetFailed, TargetUnavailable
from esx.model import Event
from esx.relay.cloudevents import MessageFormat, Messages
from esx.relay.topics import Subjects
from esx.store.relay.target import RelayIdentity, TargetPosition
from esx.text import visible

if TYPE_CHECKING:
    from nats.aio.client import Client

_UNDER_WAY = 500
"""How many messages wait for their acknowledgement at most."""
_PATIENCE = 15.0
_TOO_LARGE = 10054
"""JetStream's number of an error: the message is larger than its stream takes."""
_SECRETS = ("user", "password", "token")


class NatsTarget:
    """Sends events to subjects of NATS that streams of JetStream take: a target for `EventStore.relay`.

    `servers` is the address of a server, or several with commas between: ``nats://HOST:4222``, or ``tls://HOST:4222``.
    `subject` is a template such as ``events.{category}``. `login` has user and password, or a token. A message is a
    CloudEvent as JSON, or esx's own JSON; its Nats-Msg-Id is the event's id. An event whose subject no stream takes is
    refused. `on_mapped` is called with each category that is no legal part of a subject, and its subject.

    Raises TargetFailed without nats-py, InvalidQuery for a wrong template.
    """

    keeps_position = False

    def __init__(
        self,
        servers: str,
        subject: str,
        *,
        login: Mapping[str, str] | None = None,
        message_format: MessageFormat = MessageFormat.STRUCTURED,
        source: str | None = None,
        on_mapped: Callable[[str, str], object] | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        try:
            import nats  # noqa: F401
        except ImportError:
            raise TargetFailed("relays to NATS need nats-py: pip install 'esx-eventstore[nats]'") from None
        if message_format is MessageFormat.CLOUDEVENTS:
            raise TargetFailed("use the format cloudevents-structured, or json, for NATS")
        self._servers = [server.strip() for server in servers.split(",")]
        if any("@" in server for server in self._servers):
            raise TargetFailed("an address with a login in it is shown to others: give the login apart from it")
        self._subjects = Subjects(subject, on_mapped)
        self._login: dict[str, Any] = dict(login or {})
        self._format = message_format
        self._source = source
        self._patience = patience
        self._client: Client | None = None
        self._said = ""
        """What the server said last by itself, such as that a right is missing."""
        self._messages: Messages | None = None

    async def open(self, relay: RelayIdentity) -> TargetPosition | None:
        """Connect, and look whether the server has JetStream."""
        import nats
        from nats.aio.client import Client
        from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError

        await self.close()
        self._messages = Messages(self._format, relay, self._source)
        self._said = ""
        self._client = Client()
        try:
            # It tries again and again by itself.
            async with asyncio.timeout(self._patience):
                await self._client.connect(
                    self._servers,
                    name="esx",
                    error_cb=self._say,
                    # After a lost connection the relay begins again at its checkpoint: so the order holds.
                    allow_reconnect=False,
                    connect_timeout=max(int(self._patience), 1),
                    **self._login,
                )
                await self._client.jetstream(timeout=self._patience).account_info()
        except (ServiceUnavailableError, NoStreamResponseError):
            raise TargetFailed(f"{self._where}: JetStream is not enabled there") from None
        except APIError as error:
            raise self._meaning(error) from None
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise self._meaning(error) from None
        return None

    async def send(self, events: Sequence[Event]) -> None:
        """Return when JetStream has taken all events."""
        waiting: dict[str, deque[Event]] = {}
        for event in events:
            waiting.setdefault(event.stream_id, deque()).append(event)
        while waiting:
            streams = list(waiting)[:_UNDER_WAY]
            first = [waiting[stream][0] for stream in streams]
            done = await asyncio.gather(*map(self._publish, first), return_exceptions=True)
            failed = [error for error in done if isinstance(error, BaseException)]
            if failed:
                raise min(failed, key=_by_weight)
            for stream in streams:
                queue = waiting.pop(stream)  # to the end, so that all streams have their turn
                queue.popleft()
                if queue:
                    waiting[stream] = queue

    async def commit(self, position: TargetPosition) -> None:
        """Return at once: all that was sent has been taken."""

    async def abort(self) -> None:
        """Do nothing: what was taken has arrived."""

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None and not client.is_closed:
            await client.close()

    async def _publish(self, event: Event) -> None:
        import nats
        from nats.js.errors import APIError, NoStreamResponseError

        assert self._client is not None
        assert self._messages is not None
        try:
            subject = self._subjects.of(event.stream_id)
        except ValueError as error:
            raise EventRefused(event.global_seq, str(error)) from None
        number = str(event.global_seq if event.event_id is None else event.event_id)
        body = self._messages.body(event)
        try:
            await self._client.jetstream(timeout=self._patience).publish(subject, body, headers={"Nats-Msg-Id": number})
        except nats.errors.MaxPayloadError:
            raise EventRefused(
                event.global_seq,
                f"its message has {len(body):,} bytes, and the server takes {self._client.max_payload:,}",
            ) from None
        except NoStreamResponseError:
            if await self._taken(subject):
                raise TargetUnavailable(f"{self._where}: nobody answers for subject {subject} now") from None
            raise EventRefused(event.global_seq, f"no stream of JetStream takes subject {subject}") from None
        except APIError as error:
            if error.err_code == _TOO_LARGE:
                raise EventRefused(event.global_seq, f"subject {subject}: {_text(error)}") from None
            raise self._meaning(error) from None
        except (nats.errors.Error, OSError, TimeoutError) as error:
            if "permissions violation" in self._said.lower():
                raise EventRefused(event.global_seq, f"subject {subject}: {self._said}") from None
            raise self._meaning(error) from None

    async def _taken(self, subject: str) -> bool:
        """Return whether a stream takes a subject, as far as this user may know."""
        import nats
        from nats.js.errors import NotFoundError

        assert self._client is not None
        try:
            await self._client.jetstream(timeout=self._patience).find_stream_name_by_subject(subject)
        except NotFoundError:
            return False
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise self._meaning(error) from None
        return True

    async def _say(self, error: Exception) -> None:
        self._said = _text(error)

    @property
    def _where(self) -> str:
        return f"NATS at {', '.join(self._servers)}"

    def _meaning(self, error: Exception) -> TargetFailed:
        from nats.errors import AuthorizationError
        from nats.js.errors import APIError

        said = self._said if self._said and isinstance(error, TimeoutError) else _text(error)
        text = f"{self._where}: {said}"
        for name in _SECRETS:
            if self._login.get(name):
                text = text.replace(self._login[name], "***")
        if isinstance(error, AuthorizationError) or "authorization violation" in f"{error} {self._said}".lower():
            return TargetFailed(text)
        # A stream that is full may be emptied, and a server of a cluster may come back.
        passing = not isinstance(error, APIError) or error.code is None or error.code >= 500
        return TargetUnavailable(text) if passing else TargetFailed(text)


def _by_weight(error: BaseException) -> tuple[int, int]:
    """Order errors: first what is about no event, then the refused event with the lowest number."""
    return (1, error.global_seq) if isinstance(error, EventRefused) else (0, 0)


def _text(error: Any) -> str:
    said = getattr(error, "description", None) or str(error) or type(error).__name__
    return visible(" ".join(str(said).split()), limit=300)
