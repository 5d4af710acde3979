"""esx state."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from esx.cli.events import no_such_stream, stored_name, tell_odd_event
from esx.cli.opening import decoder_of, reducer_of, with_store
from esx.cli.options import (
    as_position,
    completing,
    database_option,
    decoder_option,
    json_option,
    partial_option,
    reducer_option,
)
from esx.cli.output import OutputLines, incomplete, narrate, say_doubt
from esx.text import iso_utc, visible
from esx.times import iso

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.model import Event
    from esx.positions import Position


@click.command(name="state")
@click.argument("stream", shell_complete=completing("stream"))
@click.option(
    "--at",
    callback=as_position,
    metavar="POSITION",
    help="At version 1234, after #99 (a global_seq), or before '2026-08-07 14:00' or -2h, not at its last version.",
)
@click.option("--each", is_flag=True, help="At every version up to there, a line each.")
@reducer_option
@decoder_option
@json_option
@partial_option
@database_option
def command(
    dsn: str | None,
    stream: str,
    at: Position | None,
    each: bool,
    reducer: str | None,
    decoder: str | None,
    as_json: bool,
) -> None:
    """Print the state that the events of STREAM fold to.

    By default the data of its events are merged as JSON (RFC 7386): members replace those of the same name, objects
    are merged, null removes a member. --reducer names a Python function(state, event) that returns the next state; its
    attribute `initial` is the state before the first event (default: None). Data that are no JSON are decoded first.
    """
    from esx.payloads.decoder import decoding

    fold = decoding(reducer_of(reducer), decoder_of(decoder))

    async def work(store: EventStore) -> None:
        nonlocal stream
        stream = await stored_name(store, stream)
        last = await store.version(stream)
        if last < 0:
            raise no_such_stream(stream)
        until = await _version(store, stream, at, last)
        lines = OutputLines()
        if each:
            await _print_each(store, lines, until)
        else:
            await _print_one(store, lines, until, last)

    async def _print_each(store: EventStore, lines: OutputLines, until: int) -> None:
        state, is_first = fold.start(), True
        async for event in store.read(stream):
            if event.stream_seq > until:
                return
            if is_first:
                is_first = False
                await _tell_begin(store, event.stream_seq)
            tell_odd_event(event)
            state = fold.apply(state, event)
            text = fold.to_json(state, event)
            if as_json:
                lines.json(_as_json(event, text))
            else:
                lines.text(f"{event.stream_seq:>6}  {iso(event.created_at)}  {event.event_type}  {text}")

    async def _print_one(store: EventStore, lines: OutputLines, until: int, last: int) -> None:
        from esx.cli.output import Meter
        from esx.fold.states import States

        with Meter() as meter:
            state = await States(store, stream, fold).at(
                until, lambda version: meter.update(version + 1, (version + 1) / (until + 1))
            )
        if state is None:
            raise click.ClickException(f"stream {visible(stream, limit=200)} has no event up to version {until}")
        tell_odd_event(state.event)
        await _tell_begin(store, state.begins)
        if as_json:
            lines.json(_as_json(state.event, state.text))
            return
        from esx.tui.event.jsonlayout import pretty

        narrate(f"{visible(stream, limit=200)} at version {state.version:,} of {last:,}, by {fold.name}")
        lines.text(*pretty(state.text).split("\n"))

    with_store(dsn, work, read_only=True)


async def _tell_begin(store: EventStore, begins: int) -> None:
    first = await store.first_version()
    if begins > first:
        incomplete(f"the stream begins at version {begins:,} here: the state is without what was before")


async def _version(store: EventStore, stream: str, at: Position | None, last: int) -> int:
    if at is None:
        return last
    shown = visible(stream, limit=200)
    if at.number is not None:
        if at.number > last:
            raise click.ClickException(f"stream {shown} has no version {at.number}: its version is {last}")
        return at.number
    # The last event before the first one that comes later.
    later = at if at.global_seq is None else replace(at, global_seq=min(at.global_seq + 1, 2**63 - 1))
    place = await store.locate(later, stream=stream)
    until = last if place.first is None else place.first - 1
    for doubt in dict.fromkeys((place.doubt, place.end_doubt)):
        if doubt is not None:
            say_doubt(doubt)
    mixed = place.first is not None and place.end > place.first
    order = f"the events of stream {shown} are out of order: up to version {place.end - 1} some are before it"
    if until < 0:
        reason = order if mixed else f"stream {shown} had no events yet"
        raise click.ClickException(f"{reason}: --at names a place before its first one")
    if mixed:
        incomplete(f"{order}, and the first one after it is version {place.first}: --at takes a version too")
    return until


def _as_json(event: Event, state: str) -> str:
    from esx.model import UNNUMBERED

    number = "null" if event.global_seq == UNNUMBERED else event.global_seq
    at = None if event.created_at is None else iso_utc(event.created_at)
    stream_id, event_type, created_at = (
        json.dumps(text, ensure_ascii=False) for text in (event.stream_id, event.event_type, at)
    )
    return (
        f'{{"stream_id": {stream_id}, "version": {event.stream_seq}, "global_seq": {number}, '
        f'"event_type": {event_type}, "created_at": {created_at}, "state": {state}}}'
    )
