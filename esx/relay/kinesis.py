"""Amazon Kinesis as the target of a relay, with boto3 in a thread: at least once, in order for each stream.

PutRecords promises no order within a request, and may store a part of it. So a request has at most one record of a
stream, and a record that failed is sent again before the next one of its stream.
"""

import hashlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esx.errors import EventRefused, TargetFailed, TargetUnavailable
from esx.model import Event
from esx.relay.cloudevents import MessageFormat, Messages
from esx.relay.thread import WorkThread
from esx.store.relay.target import RelayIdentity, TargetPosition
from esx.text import visible


@dataclass(frozen=True, slots=True)
class KinesisLimits:
    """What Kinesis takes: records in a request, bytes of a request and of a record, each with its partition key.

    A stream may be set to take larger records than 1 MiB.
    """

    records: int = 500
    request_bytes: int = 5 * 2**20
    record_bytes: int = 2**20
    key_characters: int = 256


LIMITS = KinesisLimits()
_RETRY_FIRST = 0.05
_RETRY_LAST = 5.0
_PATIENCE = 60.0
"""Seconds without any record that is taken, after which the target counts as away."""
_THROTTLED = {
    *(
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
    ),
    *("InternalFailure", "InternalFailureException", "ServiceUnavailable", "KMSThrottlingException"),
}


class KinesisTarget:
    """Sends events to a stream of Kinesis: a target for `EventStore.relay`.

    The partition key is the id of the event's stream; a hash of it if it is longer than 256 characters. A record is a
    CloudEvent as JSON, or esx's own JSON. `region` and `endpoint_url` are boto3's, which also finds the credentials.

    Raises TargetFailed without boto3.
    """

    keeps_position = False

    def __init__(
        self,
        stream_name: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        message_format: MessageFormat = MessageFormat.STRUCTURED,
        source: str | None = None,
        limits: KinesisLimits = LIMITS,
    ) -> None:
        try:
            import boto3  # noqa: F401
        except ImportError:
            raise TargetFailed("relays to Kinesis need boto3: pip install 'esx-eventstore[kinesis]'") from None
        if message_format is MessageFormat.CLOUDEVENTS:
            raise TargetFailed("records of Kinesis have no headers: use the format cloudevents-structured, or json")
        self._stream_name = stream_name
        self._region = region
        self._endpoint_url = endpoint_url
        self._format = message_format
        self._source = source
        self._limits = limits
        self._thread = WorkThread("esx-kinesis")
        self._client: Any = None
        self._messages: Messages | None = None

    async def open(self, relay: RelayIdentity) -> TargetPosition | None:
        """Connect, and look whether the stream is there."""
        self._messages = Messages(self._format, relay, self._source)
        await self._thread.run(self._open)
        return None

    async def send(self, events: Sequence[Event]) -> None:
        """Return when Kinesis has taken all events."""
        await self._thread.run(self._send, events)

    async def commit(self, position: TargetPosition) -> None:
        """Return at once: all that was sent has been taken."""

    async def abort(self) -> None:
        """Do nothing: what was taken has arrived."""

    async def close(self) -> None:
        """End the thread."""
        self._client = None
        self._thread.close()

    # -- in the thread -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client = boto3.session.Session().client(
                "kinesis",
                region_name=self._region,
                endpoint_url=self._endpoint_url,
                config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=15),
            )
            self._client.describe_stream_summary(StreamName=self._stream_name)
        except ClientError as error:
            if _code(error) not in ("AccessDeniedException", "AccessDenied"):  # to ask takes a right of its own
                raise self._meaning(error) from None
        except (BotoCoreError, ValueError) as error:
            raise self._meaning(error) from None

    def _send(self, events: Sequence[Event]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        waiting = self._records(events)
        pause, deadline = _RETRY_FIRST, time.monotonic() + _PATIENCE
        while waiting:
            self._thread.check()
            keys = self._fitting(waiting)
            problem: Exception | str
            try:
                answer = self._client.put_records(
                    StreamName=self._stream_name, Records=[waiting[key][0] for key in keys]
                )
            except (ClientError, BotoCoreError) as error:
                if not isinstance(error, ClientError) or _code(error) not in _THROTTLED:
                    raise self._meaning(error) from None
                problem, taken = error, 0
            else:
                taken = len(keys) - answer["FailedRecordCount"]
                problem = self._settle(waiting, keys, answer["Records"])
            if taken:
                deadline = time.monotonic() + _PATIENCE
            if taken == len(keys):
                pause = _RETRY_FIRST
                continue
            if time.monotonic() > deadline:
                raise TargetUnavailable(f"Kinesis stream {self._stream_name} takes nothing: {_text(problem)}")
            self._thread.pause(pause)
            pause = min(2 * pause, _RETRY_LAST)

    def _records(self, events: Sequence[Event]) -> dict[str, deque[Mapping[str, Any]]]:
        """Return the records of each partition key, in order."""
        assert self._messages is not None
        waiting: dict[str, deque[Mapping[str, Any]]] = {}
        for event in events:
            data = self._messages.body(event)
            key = self._key(event.stream_id)
            if len(data) + len(key.encode()) > self._limits.record_bytes:
                raise EventRefused(
                    event.global_seq,
                    f"its record has {len(data):,} bytes, and Kinesis takes {self._limits.record_bytes:,}",
                )
            waiting.setdefault(key, deque()).append({"Data": data, "PartitionKey": key})
        return waiting

    def _key(self, stream_id: str) -> str:
        key = stream_id.encode("utf-8", "backslashreplace").decode()
        if 0 < len(key) <= self._limits.key_characters:
            return key
        return hashlib.sha256(key.encode()).hexdigest()

    def _fitting(self, waiting: Mapping[str, deque[Mapping[str, Any]]]) -> list[str]:
        """Return the keys whose first records fit into a request."""
        keys: list[str] = []
        size = 0
        for key, records in waiting.items():
            more = len(records[0]["Data"]) + len(key.encode())
            if keys and (len(keys) >= self._limits.records or size + more > self._limits.request_bytes):
                break
            keys.append(key)
            size += more
        return keys

    def _settle(
        self, waiting: dict[str, deque[Mapping[str, Any]]], keys: Sequence[str], answers: Sequence[Mapping[str, Any]]
    ) -> str:
        """Drop the records that were taken, put their keys last, and return what was said of one that was not."""
        said = ""
        for key, answer in zip(keys, answers, strict=True):
            if answer.get("ErrorCode"):
                said = f"{answer['ErrorCode']}: {answer.get('ErrorMessage', '')}"
                continue
            records = waiting.pop(key)
            records.popleft()
            if records:
                waiting[key] = records
        return said

    def _meaning(self, error: Exception) -> TargetFailed:
        from botocore.exceptions import ClientError, HTTPClientError

        text = f"Kinesis stream {self._stream_name}: {_text(error)}"
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return TargetUnavailable(text) if _code(error) in _THROTTLED or status >= 500 else TargetFailed(text)
        # BotoCoreError: no region, no credentials; or the network.
        return TargetUnavailable(text) if isinstance(error, HTTPClientError) else TargetFailed(text)


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _text(problem: Exception | str) -> str:
    return visible(" ".join(str(problem).split()), limit=400)
