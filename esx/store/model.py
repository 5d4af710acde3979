"""The nouns of an event store. Plain values: nothing here talks to a database."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

from esx.store.errors import InvalidEvent, UnreadableValue
from esx.text import encodable, iso_utc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class JsonText(str):
    """JSON that is already text. It is stored as it stands, so that no digit of a number is lost on the way."""

    __slots__ = ()


class Expected(Enum):
    """What a writer expects of a stream, when not an exact version (KurrentDB's terms)."""

    ANY = "any"
    NO_STREAM = "none"
    STREAM_EXISTS = "exists"

    def __str__(self) -> str:
        return self.value


ANY = Expected.ANY
NO_STREAM = Expected.NO_STREAM
STREAM_EXISTS = Expected.STREAM_EXISTS

ExpectedVersion = Expected | int
"""`ANY`, `NO_STREAM`, `STREAM_EXISTS` or the exact version: the stream's highest stream_seq, from 0."""


class Strategy(Enum):
    """How concurrent writers of one stream meet.

    CONDITIONAL: the first wins, the others get WrongVersion. ROW_LOCK: they queue on a row that stands for the
    stream, which pays where streams are hot and any version suits the writer. Both can be mixed.
    """

    CONDITIONAL = "conditional"
    ROW_LOCK = "row-lock"

    def __str__(self) -> str:
        return self.value


class Notification(Enum):
    """How a session's appends wake subscribers: see docs/feed.md. EVERY and OFF are there to be compared with."""

    DOORBELL = "doorbell"
    EVERY = "every"
    OFF = "off"

    def __str__(self) -> str:
        return self.value


def parse_expected(text: str) -> ExpectedVersion:
    """Return the expected version written as ``any``, ``none``, ``exists`` or a number.

    Raises ValueError naming what is allowed.
    """
    for expected in Expected:
        if text == expected.value:
            return expected
    if text.isascii() and text.isdigit():
        return check_expected(int(text))
    raise ValueError(f"{text!r} is not an expected version: use any, none, exists or a number from 0")


def check_expected(expected: ExpectedVersion) -> ExpectedVersion:
    """Return `expected` if it is one; raises ValueError for a negative or too large number."""
    if isinstance(expected, bool) or not isinstance(expected, Expected | int):
        raise TypeError(f"expected must be ANY, NO_STREAM, STREAM_EXISTS or an int, not {expected!r}")
    if isinstance(expected, int) and not 0 <= expected < 2**63 - 1:
        why = (
            "versions start at 0 (for a stream without events use NO_STREAM)"
            if expected < 0
            else f"the highest is {2**63 - 2}"
        )
        raise ValueError(f"{expected} is not a version: {why}")
    return expected


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be appended.

    `data` and `metadata` are anything that `json.dumps` takes, or `JsonText`. `event_id` is the event's own
    id: keep it when you retry, so that the store can recognise an append that had succeeded.
    """

    event_type: str
    data: Any = field(default_factory=dict)
    metadata: Any = None
    event_id: UUID = field(default_factory=uuid4)


class Event(NamedTuple):
    """A stored event: one row of the table, in the order of its columns.

    `data_json` and `metadata_json` are PostgreSQL's own text, with every digit; `data` and `metadata` decode
    them on each access (numbers with a fraction become floats), and raise UnreadableValue for what is nested too deep.
    `created_at` is in UTC; what Python cannot hold (`infinity`, years before 1 or after 9999) is a `FarTime`: the
    nearest time, with PostgreSQL's text of the true one. It and `event_id` can be None only in a table that esx did not
    make. A byte that is no text, as a database in SQL_ASCII may hold, is one of the characters U+DC80 to U+DCFF.
    """

    global_seq: int
    stream_id: str
    stream_seq: int
    event_type: str
    data_json: str
    metadata_json: str | None
    created_at: datetime | None
    event_id: UUID | None

    @property
    def data(self) -> Any:
        """The decoded data."""
        return _decode(self.data_json, self.global_seq, "data")

    @property
    def metadata(self) -> Any:
        """The decoded metadata, or None."""
        return None if self.metadata_json is None else _decode(self.metadata_json, self.global_seq, "metadata")

    @property
    def characters(self) -> int:
        """How many characters of JSON it holds."""
        return len(self.data_json) + len(self.metadata_json or "")

    def to_json(self) -> str:
        """Return the event as one line of NDJSON, data and metadata verbatim."""
        created_at = "null" if self.created_at is None else _quote(iso_utc(self.created_at))
        # In another column than one of type uuid it may be any text.
        event_id = "null" if self.event_id is None else _quote(str(self.event_id))
        line = (
            f'{{"global_seq": {self.global_seq}, "stream_id": {_quote(self.stream_id)}, '
            f'"stream_seq": {self.stream_seq}, "event_type": {_quote(self.event_type)}, '
            f'"data": {self.data_json}, "metadata": {self.metadata_json or "null"}, '
            f'"created_at": {created_at}, "event_id": {event_id}}}'
        )
        if "\n" in line or "\r" in line or "\t" in line:  # as a column of type json keeps them
            line = line.translate(_ONE_LINE)
        return encodable(line)


class EventPreview(NamedTuple):
    """What a list shows of an event: its columns without metadata and id, and the start of its data.

    `data_start` is the beginning of PostgreSQL's text of the data; None where the data are so large that making their
    text would cost more than the list is worth. `data_bytes` is what they take in the table, compressed as they are.
    """

    global_seq: int
    stream_id: str
    stream_seq: int
    event_type: str
    created_at: datetime | None
    data_start: str | None
    data_bytes: int


@dataclass(frozen=True, slots=True)
class StreamAppend:
    """One stream's part of an append to several streams."""

    stream_id: str
    events: Sequence[NewEvent]
    expected: ExpectedVersion = Expected.ANY


class AppendResult(NamedTuple):
    """What an append made: the stream, its new version, and the global sequence of the last event."""

    stream_id: str
    version: int
    global_seq: int


class StreamSummary(NamedTuple):
    """A stream at a glance.

    `events` counts from its first to its last stream_seq: it has no more events, and fewer where some in between were
    deleted.
    """

    stream_id: str
    version: int
    events: int
    last_event_type: str
    last_created_at: datetime | None
    last_global_seq: int

    def to_json(self) -> str:
        """Return the summary as one line of NDJSON."""
        at = None if self.last_created_at is None else iso_utc(self.last_created_at)
        return encodable(json.dumps({**self._asdict(), "last_created_at": at}, ensure_ascii=False))


_quote = json.encoder.encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


_ONE_LINE = str.maketrans("\t\n\r", "   ")


def _decode(text: str, global_seq: int, column: str) -> Any:
    try:
        try:
            return json.loads(text)
        except ValueError:
            # Python refuses integers of more than 4,300 digits; PostgreSQL holds them.
            return json.loads(text, parse_int=Decimal)
    except RecursionError:
        raise UnreadableValue(global_seq, column, f"is nested too deep for Python: use {column}_json") from None


def encode_json(value: Any, *, index: int, name: str) -> str:
    """Return `value` as JSON text.

    Raises InvalidEvent naming the event by `index` and its part by `name` if JSON cannot hold it.
    """
    if isinstance(value, JsonText):
        return value
    try:
        return _encode(value)
    except RecursionError:
        raise InvalidEvent(index, f"{name} is nested too deep for JSON") from None
    except (TypeError, ValueError) as error:
        raise InvalidEvent(index, f"{name} is not JSON: {error}") from None


def category_of(stream_id: str) -> str:
    """Return the category: the part of a stream id before the first ``-``, or all of it."""
    return stream_id.partition("-")[0]
