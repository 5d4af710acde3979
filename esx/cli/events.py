"""Printing events, and saying once of which event a value is printed in another form than it has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from esx.cli.output import narrate
from esx.moment import FarTime
from esx.payload import Undecoded
from esx.text import bytes_from_shown, is_text, visible
from esx.times import clock, iso

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from esx.cli.output import OutputLines
    from esx.eventstore import EventStore
    from esx.model import Event
    from esx.store.feed.batch import Gap, Missed

_TIME = "has a time that few programs can hold, {}: it is printed as PostgreSQL writes it"
_BYTES = "holds bytes that are no text: each is printed as \ufffd\\xNN"
# Only at the end of a line: the same text within an event's data is followed by more.
_FAR = re.compile(rb', "created_at": "(-?infinity|\d{5,}-[^"]*|[^"]* BC)", "event_id": (?:null|"[^"]*")\}$')
_AT = b', "created_at": "'
_TAIL = len(_AT + b'2026-01-01T00:00:00.000000Z", "event_id": "12345678-1234-1234-1234-123456789012"}')
_BYTE = "\ufffd\\\\x".encode()
_NUMBER = re.compile(rb'\{"global_seq": (\d+)')


def print_events(lines: OutputLines, events: Iterable[Event], *, as_json: bool, colour: bool = False) -> None:
    """Print events, as NDJSON or as a line each for people, with the type in `colour`."""
    for event in events:
        tell_odd_event(event)
        if as_json:
            lines.json(event.to_json())
        else:
            metadata = f"  {noted(event.metadata_json)}" if event.metadata_json else ""
            line = f"{event_head(event)}  {noted(event.data_json)}{metadata}"
            if colour:
                from esx.cli.style import hue, paint

                head = visible(event_head(event).removesuffix(event.event_type))
                kind = paint(visible(event.event_type), hue(event.stream_id, event.event_type))
                lines.painted(head + kind + visible(line[len(event_head(event)) :]))
            else:
                lines.text(line)


def event_head(event: Event) -> str:
    """Return the columns before an event's data: global_seq, time, stream and stream_seq, type."""
    from esx.model import place_text

    place = place_text(event.stream_id, event.stream_seq)
    return f"{number_text(event.global_seq):>8}  {iso(event.created_at)}  {place}  {event.event_type}"


def short_head(event: Event) -> str:
    """Return the same without the stream, and the time to the second."""
    from esx.model import place_text

    place = place_text(event.stream_id, event.stream_seq).rpartition("@")[2]
    return f"{number_text(event.global_seq):>8}  {clock(event.created_at)}  @{place}  {event.event_type}"


def number_text(global_seq: int) -> str:
    """Return a global_seq as text, ``-`` in a store without a global order."""
    from esx.model import UNNUMBERED

    return "-" if global_seq == UNNUMBERED else str(global_seq)


def noted(payload: str) -> str:
    """Return a payload for people: what is known of one that is no JSON."""
    return f"({payload.note})" if isinstance(payload, Undecoded) else payload


def describe_gap(gap: Gap) -> str:
    """Return which numbers are missing and which writers may hold them: which writer holds which is not known."""
    numbers = f"{gap.first}" if gap.first == gap.last else f"{gap.first} to {gap.last}"
    writers = ", ".join(
        f"{writer.who} ({writer.application or 'no name'}, {writer.state or 'state unknown'}"
        f"{f', since {writer.since:%H:%M:%S}Z' if writer.since else ''})"
        for writer in gap.writers
    )
    return f"global_seq {numbers} may still appear, and may be held by {writers or 'a transaction that is not seen'}"


def describe_missed(missed: Missed) -> str:
    """Return which event a feed has not delivered."""
    name, kind = visible(missed.stream_id, limit=200), visible(missed.event_type, limit=200)
    return f"event {missed.global_seq:,} of stream {name}, type {kind}, has appeared below the safe position"


def ended_before(position: int, gap: Gap) -> str:
    """Return why output ends at `position`, before a gap, and how to get the rest later."""
    return f"ended at the safe position {position}: {describe_gap(gap)}; once that has ended, --from {position} goes on"


def no_such_stream(stream: str) -> click.ClickException:
    """Return the error for a stream without events, with a command that finds similar names."""
    shown = visible(stream, limit=200)
    if stream == "all":
        return click.ClickException("stream all has no events; all streams are '$all'")
    glob = shown if set(stream) & set("*?[") else f"*{shown}*"
    return click.ClickException(
        f"stream {shown} has no events; `esx streams --match '{glob}'` may find the one you mean"
    )


async def stored_name(store: EventStore, name: str) -> str:
    """Return the id of the stream `name`, in which bytes that are no text may be written as they are shown."""
    meant = bytes_from_shown(name)
    if meant == name or await _is_there(store, name) or not await _is_there(store, meant):
        return name
    return meant


async def _is_there(store: EventStore, name: str) -> bool:
    from esx.errors import InvalidQuery

    try:
        return await store.version(name) >= 0
    except InvalidQuery:  # The encoding of the database has no such name.
        return False


def tell_odd_event(event: Event) -> None:
    """Say so if a value of this event is printed in another form than it has."""
    texts = (event.stream_id, event.event_type, event.data_json, event.metadata_json or "")
    tell_odd_value(event.global_seq, event.created_at, *texts)


def tell_odd_value(global_seq: int, moment: datetime | None, *texts: str) -> None:
    """Say so if one of these values of an event is printed in another form than it has."""
    if isinstance(moment, FarTime) and not _is_told(_TIME):
        _say(global_seq, _TIME, moment.text)
    if not all(map(is_text, texts)) and not _is_told(_BYTES):
        _say(global_seq, _BYTES)


def tell_odd_lines(piece: bytes) -> None:
    """Say so if a value in these whole lines of events is printed in another form than it has."""
    if not _is_told(_TIME):
        for line in piece.split(b"\n"):
            # A time of the usual length is not one of these.
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
    narrate(f"event {global_seq} {what.format(*parts)}; others like it are not reported")
