"""The nouns of an event store. Plain values: nothing here talks to a database."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from esx.errors import InvalidEvent, UnreadableValue
from esx.expected import Expected, ExpectedVersion
from esx.payload import Undecoded
from esx.text import encodable, iso_utc

MOST_WITHOUT_NUMBER = 1000
"""How many events without a number in their stream are counted."""
UNNUMBERED = -1
"""A number that an event in a store of another tool lacks: its global_seq, where there is no global order, or its
stream_seq, where it belongs to no stream. It is null in JSON."""


def place_text(stream_id: str, stream_seq: int) -> str:
    """Return the place of an event for people: ``cart-1@3``; ``cart-1@-`` without a number, ``-`` without a stream."""
    if stream_seq == UNNUMBERED:
        return f"{stream_id}@-" if stream_id else "-"
    return f"{stream_id}@{stream_seq}"


class JsonText(str):
    """JSON as text. It is stored as it is, so that no digit of a number is lost."""

    __slots__ = ()


class Strategy(StrEnum):
    """What concurrent writers of one stream do.

    CONDITIONAL: the first one wins, the others get WrongVersion. ROW_LOCK: they queue on a row that stands for the
    stream, which is better for busy streams if the writers accept any version. Both can be mixed.
    """

    CONDITIONAL = "conditional"
    ROW_LOCK = "row-lock"


class Notification(StrEnum):
    """How a session's appends wake subscribers: see docs/feed.md. EVERY and OFF are for comparisons."""

    DOORBELL = "doorbell"
    EVERY = "every"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be appended.

    `data` and `metadata` are values for `json.dumps`, or `JsonText`. `event_id` is the event's own id: keep it for a
    retry, so that the store can recognise an append that was successful.
    """

    event_type: str
    data: Any = field(default_factory=dict)
    metadata: Any = None
    event_id: UUID = field(default_factory=uuid4)


class Event(NamedTuple):
    """A stored event: one row of the table, in the order of its columns.

    `data_json` and `metadata_json` are PostgreSQL's own text, with all digits. `data` and `metadata` decode them on
    each access (numbers with a fraction become floats), and raise UnreadableValue if they are nested too deep.
    `created_at` is in UTC; a time that Python cannot hold (`infinity`, years before 1 or after 9999) is a `FarTime`:
    the nearest time, with PostgreSQL's text of the true one. `created_at` and `event_id` can be None only in a table
    that esx did not make; there `global_seq` and `stream_seq` can be `UNNUMBERED`, and a payload that is no JSON an
    `Undecoded`. A byte that is no text, as a database in SQL_ASCII may have, is one of the characters U+DC80 to U+DCFF.
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

    def to_json(self, *, first: int = 0) -> str:
        """Return the event as one line of NDJSON, data and metadata verbatim.

        `first` is the number of a stream's first event, which the line says too where it is not 0.
        """
        created_at = "null" if self.created_at is None else _quote(iso_utc(self.created_at))
        # In a column of another type than uuid it may be any text.
        event_id = "null" if self.event_id is None else _quote(str(self.event_id))
        notes = "".join(
            f', "{name}_note": {_quote(value.note)}'
            for name, value in (("data", self.data_json), ("metadata", self.metadata_json))
            if isinstance(value, Undecoded)
        )
        number, in_stream = ("null" if each == UNNUMBERED else each for each in (self.global_seq, self.stream_seq))
        begins = f', "first": {first}' if first else ""
        line = (
            f'{{"global_seq": {number}, "stream_id": {_quote(self.stream_id)}, '
            f'"stream_seq": {in_stream}{begins}, '
            f'"event_type": {_quote(self.event_type)}, '
            f'"data": {self.data_json}, "metadata": {self.metadata_json or "null"}, '
            f'"created_at": {created_at}, "event_id": {event_id}{notes}}}'
        )
        if "\n" in line or "\r" in line or "\t" in line:  # as a column of type json keeps them
            line = line.translate(_ONE_LINE)
        return encodable(line)


class EventPreview(NamedTuple):
    """What a list shows of an event: its columns without metadata and id, and the start of its data.

    `data_start` is the start of PostgreSQL's text of the data; None for large data, whose text would cost too much for
    a list. `data_bytes` is their compressed size in the table, for payloads that are kept as bytes how many they are.
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
    """The result of an append: the stream, its new version, and the global_seq of the last event."""

    stream_id: str
    version: int
    global_seq: int


class StreamSummary(NamedTuple):
    """A stream at a glance.

    `events` is the count of numbers from its first to its last stream_seq; if events between were deleted, there are
    fewer.
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
        number = None if self.last_global_seq == UNNUMBERED else self.last_global_seq
        fields = {**self._asdict(), "last_created_at": at, "last_global_seq": number}
        return encodable(json.dumps(fields, ensure_ascii=False))


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
