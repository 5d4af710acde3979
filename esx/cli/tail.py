"""esx tail."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from esx.cli.events import describe_gap, describe_missed, ended_before, tell_odd_lines
from esx.cli.filtering import filter_argument, filter_of, like_type
from esx.cli.forms import output_options
from esx.cli.opening import with_store
from esx.cli.options import as_start, database_option, filter_options, partial_option
from esx.cli.output import OutputLines, incomplete, narrate, say_doubt
from esx.cli.pager import paged
from esx.cli.payloads import EventPrinter, decode_options
from esx.text import counted, lapse

if TYPE_CHECKING:
    from datetime import datetime

    from esx.cli.forms import Form
    from esx.eventstore import EventStore
    from esx.filters import Filter
    from esx.store.feed.batch import Batch, Gap
    from esx.store.feed.feed import Feed

_LOOK = 0.25
"""Seconds between looks at what holds the feed."""


@click.command(name="tail")
@click.option(
    "--from",
    "start",
    callback=as_start,
    metavar="start|end|N|TIME",
    default="end",
    show_default=True,
    help="From the first event, from now on, after global_seq N, or from '2026-08-07 14:00' or -2h on.",
)
@filter_argument
@filter_options
@click.option("--follow/--no-follow", default=True, help="Go on without end, or end at the safe position.")
@click.option("--stats", is_flag=True, help="Say at the end what came, on stderr: also late events and dead numbers.")
@decode_options
@output_options
@partial_option
@database_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    dsn: str | None,
    start: int | datetime | None,
    words: tuple[str, ...],
    stream: str | None,
    event_type: str | None,
    where: str | None,
    follow: bool,
    stats: bool,
    decode: bool,
    decoder: str | None,
    form: Form,
) -> None:
    """Print the events of all streams in their global order, each exactly once, and follow as they come.

    FILTER chooses among them: esx tail 'orders-* type:Order*Placed $.total > 100 user:ann', see docs/filters.md.
    since: in it says where to begin, as --from does.

    An event that commits late is waited for, never skipped: nothing is printed beyond the safe position. When that
    takes longer than a second, stderr says who may hold it; it also says when the connection is lost and when it is
    back. With --no-follow it exits with 4 where it ends before such an event. An event that still appears below the
    safe position, because its number was drawn by hand, is reported on stderr as missed.
    """
    printer = EventPrinter(form, decode=decode, decoder=decoder)

    chosen = filter_of(words, stream=stream, event_type=event_type, where=where)
    if chosen.since is not None:
        if ctx.get_parameter_source("start") is not ParameterSource.DEFAULT:
            raise click.UsageError("--from and since: both say where to begin: give one of them")
        start = chosen.since
    if chosen.until is not None and follow:
        raise click.UsageError("until: is an end, and a feed that follows has none: add --no-follow")

    async def work(store: EventStore) -> None:
        if form.as_json and not printer.decodes and not follow and not stats and isinstance(start, int):
            await _export(store, start, chosen)
            return
        if start is None:
            feed = await store.feed_from_end(where=chosen)
        elif isinstance(start, int):
            feed = await store.feed(after=start, where=chosen)
        else:
            from esx.positions import Position

            place = await store.locate(Position(moment=start))
            if place.doubt is not None:
                say_doubt(place.doubt)
            feed = await store.feed_from_time(start, where=chosen)
        totals = Totals()
        try:
            if follow:
                await _follow(feed, totals, printer)
            else:
                await _to_safe_position(feed, totals, printer)
                if not totals.printed and (hint := await like_type(store, chosen)):
                    narrate(f"no event passes{hint}")
        finally:
            if stats:
                narrate(totals.line(feed))

    with paged(form.paged and not follow):
        with_store(dsn, work, read_only=True)


async def _export(store: EventStore, after: int, chosen: Filter) -> None:
    """Print the same as the feed, several times as fast: PostgreSQL makes the lines."""
    lines = OutputLines()
    export = await store.export(after=after, where=chosen)
    async for piece in export:
        tell_odd_lines(piece)
        lines.ndjson(piece)
    if export.gap is not None:
        incomplete(ended_before(export.until, export.gap))


async def _to_safe_position(feed: Feed, totals: Totals, printer: EventPrinter) -> None:
    async for batch in feed.to_safe_position():
        await printer.print(batch.events)
        totals.add(batch)
        _say_missed(batch)
    printer.flush()
    # The gap at the end: those of the batches may have been filled meanwhile.
    if feed.gap is not None:
        incomplete(ended_before(feed.position, feed.gap))


async def _follow(feed: Feed, totals: Totals, printer: EventPrinter) -> None:
    narrate(f"following after global_seq {feed.position}; Ctrl-C ends it")
    if not await feed.listen():
        narrate(f"polling, as nothing wakes this feed: {feed.problem}")
    held = Held()
    lost = Lost()
    feed.on_change = lambda: lost.see(feed.lost)
    watch = asyncio.create_task(_watch(feed, held))
    try:
        async for batch in feed.follow():
            await printer.print(batch.events)
            printer.flush()
            totals.add(batch)
            held.see(batch.gap)
            _say_missed(batch)
    finally:
        watch.cancel()


def _say_missed(batch: Batch) -> None:
    """Say which events have appeared below the safe position and so are not printed."""
    for missed in batch.missed:
        narrate(f"missed: {describe_missed(missed)}; `esx doctor` says where such numbers come from")


async def _watch(feed: Feed, held: Held) -> None:
    # A gap that stays the same makes no batch.
    while True:
        await asyncio.sleep(_LOOK)
        held.see(feed.gap)


class Totals:
    """Counts printed events and late ones."""

    def __init__(self) -> None:
        self.printed = 0
        self._longest = 0.0

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        self.printed += len(batch.events)
        self._longest = max(self._longest, max(batch.late.values(), default=0.0))

    def line(self, feed: Feed) -> str:
        """Return the counts in a line."""
        missed = f", {counted(feed.missed, 'was', 'were')} missed" if feed.missed else ""
        erased = f", {counted(feed.erased, 'has', 'have')} been deleted since" if feed.erased else ""
        longest = f" (the longest by {lapse(self._longest)})" if feed.late else ""
        return (
            f"{counted(self.printed, 'event')} "
            f"printed of {feed.looked:,} looked at, up to global_seq {feed.position}; "
            f"{feed.late:,} came late{longest}, {counted(feed.dead, 'number is', 'numbers are')} dead{missed}{erased}"
        )


class Lost:
    """Says when the connection is lost, and when it is back."""

    def __init__(self) -> None:
        self._said = False

    def see(self, problem: str | None) -> None:
        """Note why there is no connection, None if there is one."""
        if problem is not None and not self._said:
            narrate(f"{problem}; trying again, nothing will be lost")
        elif problem is None and self._said:
            narrate("connected again")
        self._said = problem is not None


class Held:
    """Says once when a writer holds the feed for more than `after` seconds, and once when the feed goes on."""

    def __init__(self, *, after: float = 1.0) -> None:
        self._after = after
        self._first: int | None = None
        self._since = 0.0
        self._said = self._told = False

    def see(self, gap: Gap | None) -> None:
        """Note what holds the feed now."""
        if gap is None or gap.first != self._first:
            if self._said and gap is None:
                narrate("the feed goes on")
                self._said = False
            self._first, self._since = (None if gap is None else gap.first), time.monotonic()
            self._told = False
        elif not self._told and time.monotonic() - self._since > self._after:
            narrate(describe_gap(gap))
            self._said = self._told = True
