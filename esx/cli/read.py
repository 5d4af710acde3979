"""esx read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.events import no_such_stream, stored_name
from esx.cli.filtering import filter_argument, filter_of, like_type, split_times
from esx.cli.forms import output_options
from esx.cli.opening import with_store
from esx.cli.options import (
    as_moment,
    as_position,
    completing,
    database_option,
    partial_option,
    type_option,
    where_option,
)
from esx.cli.output import ProgressLine, incomplete, narrate, say_doubt
from esx.cli.pager import paged
from esx.cli.payloads import EventPrinter, decode_options
from esx.text import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from esx.cli.forms import Form
    from esx.eventstore import EventStore
    from esx.filters import Filter
    from esx.model import Event
    from esx.positions import Position
    from esx.store.search.plan import SearchPlan


@click.command(name="read")
@click.argument("stream", shell_complete=completing("stream"))
@filter_argument
@click.option(
    "--stream",
    "streams",
    metavar="GLOB",
    help="With $all: only events of matching streams.",
    shell_complete=completing("stream_glob"),
)
@type_option
@where_option
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
@decode_options
@output_options
@partial_option
@database_option
def command(
    dsn: str | None,
    stream: str,
    words: tuple[str, ...],
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
    decode: bool,
    decoder: str | None,
    form: Form,
) -> None:
    """Print the events of STREAM in order, or those of all streams: esx read '$all'.

    FILTER chooses among them: esx read '$all' 'orders-* type:Order*Placed $.total > 100 since:-2h user:ann'. See
    docs/filters.md; --stream, --type, --where, --since and --until are parts of it.

    Times are in the time zone of the display unless they name another: 2026-08-07T14:00Z, 14:00, yesterday. An event's
    time is when its transaction began. Where many events have to be looked at, stderr first says how many. Where
    times are out of order, so that some events may be missing, stderr says so, and it exits with 4.

    Payloads that are no JSON, as other stores have, are decoded with --decode or --decoder: with --json into
    data_decoded and metadata_decoded. Without --json, a single event (--limit 1) is decoded anyway.

    Fails if the stream has no events.
    """
    if same_type and not with_diff:
        raise click.UsageError("--same-type says what --diff compares with: give both")
    if with_diff and stream == "$all":
        raise click.UsageError("--diff compares the events of one stream: name a stream instead of $all")
    if streams is not None and stream != "$all":
        raise click.UsageError("--stream chooses among all streams: esx read '$all' --stream GLOB")
    chosen, since, until = split_times(
        filter_of(
            words,
            stream=streams,
            event_type=event_type,
            where=where,
            since=since,
            until=until,
            of_one=stream != "$all",
        )
    )
    if chosen.stream is not None and stream != "$all":
        raise click.UsageError(
            f"stream:{chosen.stream} in the filter chooses among all streams: esx read '$all' FILTER"
        )
    if sum(given is not None for given in (start, at, since)) > 1:
        raise click.UsageError("--from, --at and --since all say where to begin: give one of them")
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until: no event can be between them")

    if with_diff and (decode or decoder is not None):
        raise click.UsageError("--diff compares the JSON that is stored: leave --decode and --decoder out")
    if with_diff and form.as_csv:
        raise click.UsageError("--diff has no form in CSV: use --as table or --json")
    printer = EventPrinter(
        form, decode=decode, decoder=decoder, in_full=limit == 1 and not with_diff, alone=stream != "$all"
    )

    async def work(store: EventStore) -> None:
        from esx.model import MOST_WITHOUT_NUMBER

        one = None if stream == "$all" else await stored_name(store, stream)
        searches = bool(chosen) or since is not None or until is not None
        differ = None
        if with_diff:
            from esx.cli.differ import Differ

            differ = Differ(store, same_type=same_type, all_events=not searches, short=form.compact)
        begin = start
        if at is not None:
            place = await store.locate(at, stream=one)
            if place.doubt is not None:
                say_doubt(place.doubt)
            begin = place.first
            if begin is None and not backwards and not await _is_missing(store, one):
                narrate("nothing there: the last event is before that position")
                return
        if searches:
            plan = await store.plan_search(chosen, stream=one, since=since, until=until, wanted=limit)
            events = _search(store, plan, begin, limit, backwards=backwards)
        else:
            events = _read(store, one, begin, limit, backwards=backwards)
        without_number = 0 if one is None else await store.without_number(one)
        found = False
        async for event in events:
            found = True
            if differ is None:
                await printer.print((event,))
            else:
                await printer.lines.room()
                await differ.print(printer.lines, event, as_json=form.as_json)
        printer.flush()
        if without_number:
            more = "at least " if without_number == MOST_WITHOUT_NUMBER else ""
            incomplete(
                f"without a number in this stream, and so left out: {more}{counted(without_number, 'event')}; "
                "esx read '$all' --stream has them"
            )
        elif not found:
            await _explain_nothing(store, one, chosen if searches else None)
        if await store.passes_over(chosen, one):
            incomplete("payloads that are no JSON were passed over, as conditions look only into JSON (docs/stores.md)")

    with paged(form.paged):
        with_store(dsn, work, read_only=True)


def _read(
    store: EventStore, stream: str | None, start: int | None, limit: int | None, *, backwards: bool
) -> AsyncIterator[Event]:
    if stream is not None:
        return store.read(stream, start=start, limit=limit, backwards=backwards)
    if backwards:
        return store.read_all(before=None if start is None else start + 1, limit=limit, backwards=True)
    return store.read_all(after=None if start is None else start - 1, limit=limit)


async def _search(
    store: EventStore, plan: SearchPlan, start: int | None, limit: int | None, *, backwards: bool
) -> AsyncIterator[Event]:
    """Yield what is found; say first what it costs if that is much, and then how far it is."""
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


async def _explain_nothing(store: EventStore, stream: str | None, chosen: Filter | None) -> None:
    if stream is None:
        if chosen is not None:
            narrate(f"no event passes{await like_type(store, chosen)}")
        return
    version = await store.version(stream)
    if version < 0:
        unlisted = await store.unlisted_streams()
        raise no_such_stream(stream) if unlisted is None else click.ClickException(f"nothing has the tag: {unlisted}")
    if chosen is None:
        narrate(f"nothing there: the stream's version is {version}")
    else:
        narrate(f"no event passes{await like_type(store, chosen)}")
