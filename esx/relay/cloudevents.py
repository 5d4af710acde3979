"""Events as messages: CloudEvents 1.0 in binary or structured mode (https://cloudevents.io), or esx's own JSON.

Data and metadata are PostgreSQL's own text, so that every digit of a number arrives. Beside the attributes of the
standard there are `sequence` (the stream_seq, with zeros in front, so that it sorts as text), `globalsequence`,
`correlationid` and `causationid` (from metadata, if they are there), and `metadata`, as JSON.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import quote

from esx.errors import EventRefused
from esx.model import Event
from esx.moment import FarTime
from esx.store.relay.target import RelayIdentity
from esx.store.trail.trail import COMMON_FIELDS
from esx.text import as_written, encodable, iso_utc

Headers = list[tuple[str, bytes]]
_IDS = (("correlationid", COMMON_FIELDS.correlation), ("causationid", COMMON_FIELDS.causation))
_HINTS = ("orrelation", "ausation")
"""What the names of these ids have in them."""
_VERSION = ("ce_specversion", b"1.0")
_STRUCTURED: Headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
_PLAIN: Headers = [("content-type", b"application/json")]
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
        self._source = ("ce_source", self.source.encode())
        self._source_json = json.dumps(self.source)
        self.make = {
            MessageFormat.CLOUDEVENTS: self._binary,
            MessageFormat.STRUCTURED: self._structured,
            MessageFormat.JSON: self._json,
        }[kind]
        """Returns the value and the headers of an event's message. Raises EventRefused."""

    def _binary(self, event: Event) -> tuple[bytes, Headers]:
        # Each event of a backlog passes here, so it is written out.
        _check_type(event)
        headers: Headers = [
            _VERSION,
            self._source,
            ("ce_id", str(event.global_seq if event.event_id is None else event.event_id).encode()),
            ("ce_type", _bytes(event.event_type)),
            ("ce_sequence", b"%020d" % event.stream_seq),
            ("ce_globalsequence", b"%d" % event.global_seq),
            _PLAIN[0],
        ]
        if event.stream_id:
            headers.append(("ce_subject", _bytes(event.stream_id)))
        created_at = event.created_at
        if created_at is not None and not isinstance(created_at, FarTime):
            headers.append(("ce_time", _time(created_at).encode()))
        if event.metadata_json is not None:
            headers.append(("ce_metadata", _json_bytes(event.metadata_json)))
            headers += [(f"ce_{name}", _bytes(text)) for name, text in _ids(event, event.metadata_json)]
        return _json_bytes(event.data_json), headers

    def _structured(self, event: Event) -> tuple[bytes, Headers]:
        attributes = ", ".join(f'"{name}": {_quote(text)}' for name, text in _attributes(event))
        text = (
            f'{{"specversion": "1.0", "source": {self._source_json}, {attributes}, '
            f'"datacontenttype": "application/json", "data": {event.data_json}}}'
        )
        return encodable(text).encode(), _STRUCTURED

    def _json(self, event: Event) -> tuple[bytes, Headers]:
        return event.to_json().encode(), _PLAIN


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
        given.append(("time", _time(event.created_at)))
    if event.metadata_json is not None:
        given += _ids(event, event.metadata_json)
        given.append(("metadata", event.metadata_json))
    return given


def _check_type(event: Event) -> None:
    if not event.event_type:
        raise EventRefused(event.global_seq, "it has no type, which a CloudEvent must have: use the format json")


def _time(moment: datetime) -> str:
    if moment.tzinfo is UTC:  # as the driver makes them; the long way takes three times as long
        return f"{moment.isoformat(timespec='microseconds')[:-6]}Z"
    return iso_utc(moment)


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


def _ids(event: Event, metadata_json: str) -> Sequence[tuple[str, str]]:
    if not any(hint in metadata_json for hint in _HINTS):  # most have none, and to decode JSON takes long
        return ()
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
