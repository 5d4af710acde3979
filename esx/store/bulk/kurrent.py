"""Lines with events of KurrentDB (EventStoreDB) into the members of lines as an import takes them.

A line is an event as its Python client gives it (a `RecordedEvent` of kurrentdbclient, its members by their names), or
an entry of the Atom feed of a stream, read with ``embed=body``. Payloads are texts in both.
"""

import json
import re
from uuid import UUID

from esx.store.bulk.changes import Changes
from esx.store.bulk.jsontext import check_json, split_members
from esx.store.bulk.members import optional_number, optional_text, shown

_CLIENT = {
    "type",
    "data",
    "metadata",
    "content_type",
    "id",
    "stream_name",
    "stream_position",
    "commit_position",
    "prepare_position",
    "recorded_at",
    "link",
    "retry_count",
}
_ATOM = {
    "eventId",
    "eventType",
    "eventNumber",
    "data",
    "metaData",
    "streamId",
    "isJson",
    "isMetaData",
    "isRedacted",
    "linkMetaData",
    "isLinkMetaData",
    "positionEventNumber",
    "positionStreamId",
    "title",
    "id",
    "updated",
    "author",
    "summary",
    "links",
    "content",
    "retryCount",
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?(Z|[+-]\d\d:\d\d)")
# What str() makes of Python's bytes.
_BYTES = re.compile(r"""b(['"]).*\1""", re.DOTALL)
_NOWHERE = UUID(int=0)
# A record of KurrentDB has at most 16 MiB. What is longer is not taken apart in memory: PostgreSQL judges it.
_LONGEST = 2**24


class KurrentLines:
    """Translates the lines of one import, in order."""

    def __init__(self, *, keep_system: bool) -> None:
        self._keep_system = keep_system
        self._position = -1

    def members(self, line: bytes, changes: Changes) -> dict[str, bytes] | None:
        """Return the members that esx would write, None for what is no event of an application. Raises ValueError.

        With `keep_system` the events of streams that begin with $ are kept, if their types do not.
        """
        members = split_members(line)
        if "stream_name" in members:
            return self._client(members, changes)
        if "eventNumber" in members:
            return self._atom(members, changes)
        if "entries" in members:
            raise ValueError("it is a whole page of a feed: jq -c '.entries | reverse[]' makes a line of each entry")
        if "stream_id" in members:
            raise ValueError("it is a line as esx export writes it: leave out --from-kurrent")
        raise ValueError(
            "it is no event of KurrentDB: it needs the members of a RecordedEvent of kurrentdbclient, "
            "or those of an entry of a feed with embed=body"
        )

    def _client(self, members: dict[str, bytes], changes: Changes) -> dict[str, bytes] | None:
        event_id = _known(members, _CLIENT, ("type", "data", "id", "stream_name", "stream_position"), "id")
        kind, stream = _text(members, "type"), _text(members, "stream_name")
        if (event_id == _NOWHERE and not stream) or self._is_system(kind, stream):
            # A checkpoint of a subscription is no event either.
            changes.system += 1
            return None
        position = optional_number(members, "commit_position")
        if position is not None:
            changes.positions += 1
            changes.disordered += position < self._position
            self._position = max(position, self._position)
        changes.resolved += members.get("link", b"null") != b"null"
        is_json = (optional_text(members, "content_type") or "application/json") == "application/json"
        out = _event(members["stream_name"], members["type"], event_id, _number(members, "stream_position"))
        _add_payload(out, "data", members, "data", is_json=is_json)
        _add_payload(out, "metadata", members, "metadata")
        _add_time(out, members, "recorded_at")
        return out

    def _atom(self, members: dict[str, bytes], changes: Changes) -> dict[str, bytes] | None:
        event_id = _known(members, _ATOM, ("eventId", "eventType", "eventNumber", "streamId"), "eventId")
        kind, stream = _text(members, "eventType"), _text(members, "streamId")
        if self._is_system(kind, stream):
            changes.system += 1
            return None
        is_json = members.get("isJson", b"true") == b"true"
        is_redacted = members.get("isRedacted") == b"true"
        if is_json and "data" not in members and not is_redacted:
            raise ValueError("it has no data: read the feed with embed=body")
        place = optional_text(members, "positionStreamId")
        changes.resolved += place is not None and place != stream
        out = _event(members["streamId"], members["eventType"], event_id, _number(members, "eventNumber"))
        _add_payload(out, "data", members, "data", is_json=is_json)
        if is_redacted or (not is_json and "data" not in members):
            out["data_note"] = b'"binary or redacted"'
        _add_payload(out, "metadata", members, "metaData")
        _add_time(out, members, "updated")
        return out

    def _is_system(self, kind: str, stream: str) -> bool:
        return kind.startswith("$") or (stream.startswith("$") and not self._keep_system)


def _known(members: dict[str, bytes], known: set[str], needed: tuple[str, ...], id_name: str) -> UUID:
    """Check the names of the members, and return the event's id."""
    for name in members:
        if name not in known:
            raise ValueError(f"{shown(name)} is unknown: use {', '.join(sorted(known))}")
    for name in needed:
        if members.get(name, b"null") == b"null" and name != "data":
            raise ValueError(f"{name} is missing")
    if "data" in needed and "data" not in members:
        raise ValueError("data is missing")
    given = optional_text(members, id_name) or ""
    try:
        return UUID(given)
    except ValueError:
        raise ValueError(f"{id_name} {shown(given)} is not a UUID") from None


def _text(members: dict[str, bytes], name: str) -> str:
    return optional_text(members, name) or ""


def _number(members: dict[str, bytes], name: str) -> bytes:
    return b"%d" % (optional_number(members, name) or 0)


def _event(stream: bytes, event_type: bytes, event_id: UUID, seq: bytes) -> dict[str, bytes]:
    return {
        "stream_id": stream,
        "stream_seq": seq,
        "event_type": event_type,
        "event_id": b'"%b"' % str(event_id).encode(),
    }


def _add_payload(out: dict[str, bytes], to: str, members: dict[str, bytes], name: str, *, is_json: bool = True) -> None:
    """Add a payload as JSON, and a note if it is none."""
    raw = members.get(name, b"null")
    out[to] = raw
    if not raw.startswith(b'"'):
        # The line has the value itself, in place of its text.
        return
    out[to] = b"null"
    text = json.loads(raw.decode())
    if not text:
        return
    if _BYTES.fullmatch(text):
        raise ValueError(f"{name} is what Python shows of bytes: write them as text, with decode()")
    try:
        if not is_json and text.lstrip()[:1] not in ("{", "["):
            raise ValueError("binary")
        out[to] = (check_json(text) if len(text) <= _LONGEST else text).encode()
    except ValueError:
        out[f"{to}_note"] = b'"no JSON"'


def _add_time(out: dict[str, bytes], members: dict[str, bytes], name: str) -> None:
    text = optional_text(members, name)
    if text is None:
        return
    parts = _TIME.fullmatch(text)
    if parts is None:
        raise ValueError(f"{name} {shown(text)} is not ISO 8601 with an offset, such as 2026-08-07T14:00:00.123456Z")
    day, time, fraction, offset = parts.groups()
    out["created_at"] = f'"{day}T{time}{"." + fraction if fraction else ""}{offset}"'.encode()
