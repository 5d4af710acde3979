"""esx tail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.common import Lines, database_option, filter_options, json_option, narrate, with_store
from esx.cli.printing import describe_gap, print_events

if TYPE_CHECKING:
    from esx.store import EventStore
    from esx.store.barrier import Filter, Gap
    from esx.store.feed import Feed


def _start(ctx: click.Context, parameter: click.Parameter, value: str) -> str | int:
    if value in ("start", "end"):
        return value
    if value.isascii() and value.isdigit() and int(value) < 2**63:
        return int(value)
    raise click.BadParameter(f"{value!r} is not a position: use start, end or a global_seq", ctx, parameter)


@click.command(name="tail")
@click.option(
    "--from",
    "start",
    callback=_start,
    metavar="start|end|N",
    default="end",
    show_default=True,
    help="From the first event, from now on, or after global_seq N.",
)
@filter_options
@click.option("--follow/--no-follow", default=True, help="Go on for ever, or end at the safe position.")
@json_option
@database_option
def command(
    dsn: str | None,
    start: str | int,
    stream: str | None,
    event_type: str | None,
    where: str | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print the events of all streams in their global order, each exactly once, and follow as they come.

    An event that commits late is waited for, never skipped: nothing is printed beyond the safe position.
    """

    async def work(store: EventStore) -> None:
        from esx.store.barrier import Filter

        chosen = Filter(stream, event_type, where)
        if as_json and not follow and start != "end":
            await _export(store, 0 if start == "start" else int(start), chosen)
            return
        if start == "end":
            feed = await store.feed_from_end(where=chosen)
        else:
            feed = await store.feed(after=0 if start == "start" else int(start), where=chosen)
        if follow:
            await _follow(feed, as_json=as_json)
        else:
            await _to_safe_position(feed, as_json=as_json)

    with_store(dsn, work, read_only=True)


async def _export(store: EventStore, after: int, chosen: Filter) -> None:
    """Print what the feed would, several times as fast: PostgreSQL makes the lines."""
    lines = Lines()
    export = await store.export(after=after, where=chosen)
    async for piece in export:
        lines.ndjson(piece)
    if export.gap is not None:
        narrate(f"ended at the safe position {export.until}: {describe_gap(export.gap)}")


async def _to_safe_position(feed: Feed, *, as_json: bool) -> None:
    lines = Lines()
    async for batch in feed.to_safe_position():
        print_events(lines, batch.events, as_json=as_json)
        if batch.gap is not None:
            narrate(f"ended at the safe position {batch.position}: {describe_gap(batch.gap)}")


async def _follow(feed: Feed, *, as_json: bool) -> None:
    lines = Lines()
    narrate(f"following after global_seq {feed.position}; Ctrl-C ends it")
    if not await feed.listen():
        narrate(f"polling, as nothing wakes this feed: {feed.problem}")
    held = Held()
    async for batch in feed.follow():
        print_events(lines, batch.events, as_json=as_json)
        lines.flush()
        held.see(batch.gap)


class Held:
    """Says once when the feed is held by a writer for longer than a moment, and once when it goes on."""

    def __init__(self, *, after: float = 1.0) -> None:
        self._after = after
        self._said: int | None = None

    def see(self, gap: Gap | None) -> None:
        """Take note of what holds the feed now."""
        from datetime import UTC, datetime

        if gap is None:
            if self._said is not None:
                narrate("the feed goes on")
            self._said = None
            return
        oldest = min((writer.since for writer in gap.writers if writer.since), default=None)
        waiting = 0.0 if oldest is None else (datetime.now(UTC) - oldest).total_seconds()
        if self._said != gap.first and waiting > self._after:
            narrate(describe_gap(gap))
            self._said = gap.first
