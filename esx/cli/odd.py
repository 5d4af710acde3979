"""Saying, once, that a value is printed in another form than it has, and of which event."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from esx.cli.common import narrate
from esx.moment import FarTime
from esx.text import bytes_from_shown, is_text

if TYPE_CHECKING:
    from datetime import datetime

    from esx.store import Event, EventStore

_TIME = "has a time that few programs can hold, {}: it is printed as PostgreSQL writes it"
_BYTES = "holds bytes that are no text: each is printed as \ufffd\\xNN"
# At the end of a line: what an event's data hold has more behind it.
_FAR = re.compile(rb', "created_at": "(-?infinity|\d{5,}-[^"]*|[^"]* BC)", "event_id": (?:null|"[^"]*")\}$')
_AT = b', "created_at": "'
_TAIL = len(_AT + b'2026-01-01T00:00:00.000000Z", "event_id": "12345678-1234-1234-1234-123456789012"}')
_BYTE = "\ufffd\\\\x".encode()
_NUMBER = re.compile(rb'\{"global_seq": (\d+)')


async def stored_name(store: EventStore, name: str) -> str:
    """Return the id of the stream that is called `name`, which may hold bytes that are no text, as they are shown."""
    meant = bytes_from_shown(name)
    if meant == name or await _is_there(store, name) or not await _is_there(store, meant):
        return name
    return meant


async def _is_there(store: EventStore, name: str) -> bool:
    from esx.store.errors import InvalidQuery

    try:
        return await store.version(name) >= 0
    except InvalidQuery:  # The encoding of the database has no such name.
        return False


def tell_odd_event(event: Event) -> None:
    """Say so if a value of this event, which is printed, has another form than it is printed in."""
    texts = (event.stream_id, event.event_type, event.data_json, event.metadata_json or "")
    tell_odd_value(event.global_seq, event.created_at, *texts)


def tell_odd_value(global_seq: int, moment: datetime | None, *texts: str) -> None:
    """Say so if one of these values of an event has another form than it is printed in."""
    if isinstance(moment, FarTime) and not _is_told(_TIME):
        _say(global_seq, _TIME, moment.text)
    if not all(map(is_text, texts)) and not _is_told(_BYTES):
        _say(global_seq, _BYTES)


def tell_odd_lines(piece: bytes) -> None:
    """Say so if a value in these whole lines of events has another form than it is printed in."""
    if not _is_told(_TIME):
        for line in piece.split(b"\n"):
            # A time of the usual length is none of these.
            if line[-_TAIL : -_TAIL + len(_AT)] != _AT and (far := _FAR.search(line)):
                _say(_number_of(line, 0), _TIME, far[1].decode())
                break
    if not _is_told(_BYTES) and (at := piece.find(_BYTE)) >= 0:
        _say(_number_of(piece, at), _BYTES)


def _number_of(piece: bytes, at: int) -> int:
    number = _NUMBER.match(piece, piece.rfind(b"\n", 0, at) + 1)
    assert number is not None
    return int(number[1])


def _is_told(what: str) -> bool:
    return what in click.get_current_context().meta


def _say(global_seq: int, what: str, *parts: str) -> None:
    click.get_current_context().meta[what] = True
    narrate(f"event {global_seq} {what.format(*parts)}; no others like it are told of")
