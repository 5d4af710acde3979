"""esx read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.common import Lines, ProgressLine, database_option, json_option, narrate, no_such_stream, with_store
from esx.cli.odd import stored_name
from esx.cli.partial import partial_option, say_doubt
from esx.cli.printing import print_events
from esx.cli.times import as_moment, as_position

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from esx.positions import Position
    from esx.store import Event, EventStore
    from esx.store.barrier import Filter


@click.command(name="read")
@click.argument("stream")
@click.option("--stream", "streams", metavar="GLOB", help="With $all: only events of matching streams.")
@click.option("--type", "event_type", metavar="GLOB", help="Only events of matching types.")
@click.option(
    "--where",
    metavar="JSONPATH",
    help="Only events for which the path holds or finds something in data ($metadata is the metadata).",
)
@click.option(
    "--from", "start", type=click.IntRange(min=0), metavar="N", help="From stream_seq N on ($all: global_seq N)."
)
@click.option(
    "--at",
    callback=as_position,
    metavar="POSITION",
    help="From a position on: 1234, #99 (a global_seq), '2026-08-07 14:00' or -2h.",
)
@click.option(
    "--since", callback=as_moment, metavar="TIME", help="Only events created from '2026-08-07 14:00' or -2h on."
)
@click.option("--until", callback=as_moment, metavar="TIME", help="Only events created before that time.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N events.")
@click.option("--backwards", is_flag=True, help="Newest first.")
@click.option("--diff", "with_diff", is_flag=True, help="With what changed in data since the event before it.")
@click.option("--same-type", is_flag=True, help="With --diff: since the one before it of the same type.")
@json_option
@partial_option
@database_option
def command(
    dsn: str | None,
    stream: str,
    streams: str | None,
    event_type: str | None,
    where: str | None,
    start: int | None,
    at: Position | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    backwards: bool,
    with_diff: bool,
    same_type: bool,
    as_json: bool,
) -> None:
    """Print the events of STREAM in order, or those of all streams: esx read '$all'.

    Times are in the time zone of the display unless they name another: 2026-08-07T14:00Z, 14:00, yesterday. An event's
    time is when its transaction began. Where many events have to be looked at, the cost is told first, on stderr. Where
    times are out of order, so that some may be missing, stderr says so, and it exits with 4.

    Fails if the stream has no events.
    """
    if same_type and not with_diff:
        raise click.UsageError("--same-type says what --diff compares with: give both")
    if with_diff and stream == "$all":
        raise click.UsageError("--diff compares the events of one stream: name a stream instead of $all")
    if sum(given is not None for given in (start, at, since)) > 1:
        raise click.UsageError("--from, --at and --since all say where to begin: give one of them")
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until, so that no event can be between them")
    if streams is not None and stream != "$all":
        raise click.UsageError("--stream chooses among all streams: esx read '$all' --stream GLOB")

    async def work(store: EventStore) -> None:
        from esx.store.barrier import Filter

        one = None if stream == "$all" else await stored_name(store, stream)
        lines = Lines()
        chosen = Filter(stream=streams, event_type=event_type, where=where)
        differ = None
        if with_diff:
            from esx.cli.differ import Differ

            differ = Differ(store, same_type=same_type, all_events=not chosen and since is None and until is None)
        begin = start
        if at is not None:
            place = await store.locate(at, stream=one)
            if place.doubt is not None:
                say_doubt(place.doubt)
            begin = place.first
            if begin is None and not backwards and not await _is_missing(store, one):
                narrate("nothing there: the last event is before that position")
                return
        if chosen or since is not None or until is not None:
            events = _search(store, one, chosen, since, until, begin, limit, backwards=backwards)
        else:
            events = _read(store, one, begin, limit, backwards=backwards)
        found = False
        async for event in events:
            found = True
            if differ is None:
                print_events(lines, (event,), as_json=as_json)
            else:
                await differ.print(lines, event, as_json=as_json)
        if not found:
            await _explain_nothing(store, one, chosen=bool(chosen) or since is not None or until is not None)

    with_store(dsn, work, read_only=True)


def _read(
    store: EventStore, stream: str | None, start: int | None, limit: int | None, *, backwards: bool
) -> AsyncIterator[Event]:
    if stream is not None:
        return store.read(stream, start=start, limit=limit, backwards=backwards)
    if backwards:
        return store.read_all(before=None if start is None else start + 1, limit=limit, backwards=True)
    return store.read_all(after=max((start or 0) - 1, 0), limit=limit)


async def _search(
    store: EventStore,
    stream: str | None,
    chosen: Filter,
    since: datetime | None,
    until: datetime | None,
    start: int | None,
    limit: int | None,
    *,
    backwards: bool,
) -> AsyncIterator[Event]:
    """Yield what is found, having said what it costs if that is much, and saying how far it is."""
    plan = await store.plan_search(chosen, stream=stream, since=since, until=until, wanted=limit)
    if plan.doubt is not None:
        say_doubt(plan.doubt)
    if plan.large:
        narrate(f"this {plan.cost}; Ctrl-C ends it")
        for statement in plan.advice:
            narrate(f"an index would make it quick: {statement}")
    looked_at = 0
    of = f" of {plan.most.text}" if plan.most is not None and plan.most.known else ""
    with ProgressLine() as line:
        async for part in store.search(plan, start=start, limit=limit, backwards=backwards):
            if part.events:
                line.clear()
            for event in part.events:
                yield event
            looked_at += part.looked_at
            line(f"looked at {looked_at:,}{of} events")


async def _is_missing(store: EventStore, stream: str | None) -> bool:
    return stream is not None and await store.version(stream) < 0


async def _explain_nothing(store: EventStore, stream: str | None, *, chosen: bool) -> None:
    if stream is None:
        if chosen:
            narrate("no event passes")
        return
    version = await store.version(stream)
    if version < 0:
        raise no_such_stream(stream)
    narrate("no event passes" if chosen else f"nothing there: the stream's version is {version}")
