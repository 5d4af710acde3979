"""Events as messages: CloudEvents 1.0 in binary or structured mode (https://cloudevents.io), or esx's own JSON.

Data and metadata are PostgreSQL's own text, so that every digit of a number arrives. Beside the attributes of the
standard there are `sequence` (the stream_seq, with zeros in front, so that it sorts as text), `globalsequence`,
`correlationid` and `causationid` (from metadata, if they are there), and `metadata`, as JSON.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import quote

from esx.errors import EventRefused
from esx.model import Event
from esx.moment import FarTime
from esx.store.relay.target import RelayIdentity
from esx.store.trail.trail import COMMON_FIELDS
from esx.text import as_written, encodable, iso_utc

Text = str | bytes
"""A text to send. ASCII is left as it is, as Kafka's client takes it without a copy; anything else is UTF-8 already."""
Headers = Mapping[str, Text]
_IDS = (("correlationid", COMMON_FIELDS.correlation), ("causationid", COMMON_FIELDS.causation))
_HINT, _OTHER_HINT = "orrelation", "ausation"
"""What the names of these ids have in them: most metadata have none, and to decode JSON takes long."""
_STRUCTURED: Headers = {"content-type": "application/cloudevents+json; charset=UTF-8"}
_PLAIN: Headers = {"content-type": "application/json"}
_DIGITS = 20


class MessageFormat(StrEnum):
    """How an event becomes a message."""

    CLOUDEVENTS = "cloudevents"
    STRUCTURED = "cloudevents-structured"
    JSON = "json"


class Messages:
    """Makes the messages of one relay. `source` is what CloudEvents call so; without it, it names the store."""

    def __init__(self, kind: MessageFormat, relay: RelayIdentity, source: str | None = None) -> None:
        self.source = source or f"esx://{quote(relay.database, safe='')}/{quote(relay.table, safe='.')}"
        self._source_json = json.dumps(self.source)
        self._clock = _Clock()
        self.make: Callable[[Event], tuple[Text, Headers]] = {
            MessageFormat.CLOUDEVENTS: self._binary,
            MessageFormat.STRUCTURED: self._structured,
            MessageFormat.JSON: self._json,
        }[kind]
        """Returns the value and the headers of an event's message. Raises EventRefused."""

    def body(self, event: Event) -> bytes:
        """Return the value of an event's message, for targets without headers."""
        value = self.make(event)[0]
        return value.encode() if isinstance(value, str) else value

    def _binary(self, event: Event) -> tuple[Text, Headers]:
        # Each event of a backlog passes here, so it is written out.
        global_seq, stream_id, stream_seq, event_type, data, metadata, created_at, event_id = event
        if not event_type:
            _check_type(event)
        headers: dict[str, Text] = {
            "ce_specversion": "1.0",
            "ce_source": self.source,
            "ce_id": str(global_seq if event_id is None else event_id),
            "ce_type": event_type if event_type.isascii() else _bytes(event_type),
            "ce_sequence": str(stream_seq).zfill(_DIGITS),
            "ce_globalsequence": str(global_seq),
            "content-type": "application/json",
        }
        if stream_id:
            headers["ce_subject"] = stream_id if stream_id.isascii() else _bytes(stream_id)
        if created_at is not None and not isinstance(created_at, FarTime):
            headers["ce_time"] = self._clock.text(created_at)
        if metadata is not None:
            headers["ce_metadata"] = metadata if metadata.isascii() else _json_bytes(metadata)
            if _HINT in metadata or _OTHER_HINT in metadata:
                for name, text in _ids(event):
                    headers[f"ce_{name}"] = _bytes(text)
        return data if data.isascii() else _json_bytes(data), headers

    def _structured(self, event: Event) -> tuple[Text, Headers]:
        attributes = ", ".join(f'"{name}": {_quote(text)}' for name, text in _attributes(event))
        text = (
            f'{{"specversion": "1.0", "source": {self._source_json}, {attributes}, '
            f'"datacontenttype": "application/json", "data": {event.data_json}}}'
        )
        return encodable(text).encode(), _STRUCTURED

    def _json(self, event: Event) -> tuple[Text, Headers]:
        return event.to_json().encode(), _PLAIN


class _Clock:
    """Writes times as ISO 8601 in UTC. Those of one second share their text, which saves most of the work."""

    def __init__(self) -> None:
        self._last = datetime.min.replace(tzinfo=UTC)
        self._microsecond = 0
        self._second = ""

    def text(self, moment: datetime) -> str:
        """Return a time as text."""
        if moment.tzinfo is not UTC:  # as the driver makes them
            return iso_utc(moment)
        since = moment - self._last
        if not since.days and not since.seconds:
            microsecond = self._microsecond + since.microseconds
            if microsecond < 1_000_000 and self._second:
                return f"{self._second}.{microsecond:06}Z"
        text = moment.isoformat(timespec="microseconds")
        self._last, self._microsecond, self._second = moment, moment.microsecond, text[:-13]
        return f"{text[:-6]}Z"


def _attributes(event: Event) -> list[tuple[str, str]]:
    """Return the attributes of an event but for those that all events share."""
    _check_type(event)
    given = [
        ("id", str(event.global_seq if event.event_id is None else event.event_id)),
        ("type", event.event_type),
        ("sequence", str(event.stream_seq).zfill(_DIGITS)),
        ("globalsequence", str(event.global_seq)),
    ]
    if event.stream_id:
        given.append(("subject", event.stream_id))
    if event.created_at is not None and not isinstance(event.created_at, FarTime):
        given.append(("time", iso_utc(event.created_at)))
    if event.metadata_json is not None:
        given += _ids(event)
        given.append(("metadata", event.metadata_json))
    return given


def _check_type(event: Event) -> None:
    if not event.event_type:
        raise EventRefused(event.global_seq, "it has no type, which a CloudEvent must have: use the format json")


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return as_written(text).encode()


def _json_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return encodable(text).encode()


def _ids(event: Event) -> Sequence[tuple[str, str]]:
    metadata = event.metadata
    if not isinstance(metadata, dict):
        return ()
    found = []
    for attribute, names in _IDS:
        value = next((metadata[name] for name in names if metadata.get(name) is not None), None)
        if isinstance(value, str | int) and value != "":
            found.append((attribute, str(value)))
    return found


_quote = json.encoder.encode_basestring
