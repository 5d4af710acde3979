"""esx streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.events import number_text, tell_odd_value
from esx.cli.filtering import filter_argument, parse_words
from esx.cli.forms import CsvLines, output_options
from esx.cli.opening import with_store
from esx.cli.options import completing, database_option, partial_option
from esx.cli.output import Meter, OutputLines, OutputTable, incomplete, narrate
from esx.cli.pager import paged
from esx.text import bytes_from_shown, visible
from esx.times import iso

if TYPE_CHECKING:
    from esx.cli.forms import Form
    from esx.eventstore import EventStore
    from esx.model import StreamSummary


@click.command(name="streams")
@filter_argument
@click.option(
    "--prefix",
    default="",
    metavar="TEXT",
    shell_complete=completing("stream"),
    help="Only streams whose id starts with TEXT: quick at any size.",
)
@click.option("--match", metavar="GLOB", help="Only streams whose id matches, e.g. 'account-*7'.")
@click.option("--contains", metavar="TEXT", help="Only streams with TEXT anywhere in their id; looks at all ids.")
@click.option(
    "--category",
    metavar="NAME",
    help="Only streams of this category, where a column of the store has it (docs/stores.md).",
)
@click.option(
    "--sort", type=click.Choice(["name", "recent"]), default="name", show_default=True, help="By id or by last event."
)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N streams.")
@click.option(
    "--categories", is_flag=True, help="List categories (ids up to their first -) with their numbers of streams."
)
@output_options
@partial_option
@database_option
def command(
    dsn: str | None,
    words: tuple[str, ...],
    prefix: str,
    match: str | None,
    contains: str | None,
    category: str | None,
    sort: str,
    limit: int | None,
    categories: bool,
    form: Form,
) -> None:
    """List streams with their version, number of events, and last event.

    FILTER is a glob of ids, as --match: esx streams 'orders-*'.

    The number of events (in JSON: "events") counts the places from the first event to the last one. Where events in
    between were deleted there are fewer: `esx doctor --full` finds such holes.

    For a category with many streams, their number is an estimate, marked with ~ (in JSON: "exact": false). Where that
    may be off by more than a factor of two, only how many were counted is shown (in JSON: "at_least"), and it exits
    with 4.
    """
    match = _glob(words, match)
    if match is not None and contains is not None:
        raise click.UsageError("choose streams by --match or by --contains, not by both")
    narrowed = bool(prefix) or not (match is contains is category is None)
    if category is not None and sort != "name":
        raise click.UsageError("streams of a category are listed by name, not by recent activity")
    if categories and (narrowed or sort != "name"):
        raise click.UsageError("--categories lists all categories by name: it cannot be narrowed down or sorted")

    async def list_streams(store: EventStore) -> None:
        found = False
        lines = OutputLines()
        table = OutputTable(
            lines, ("STREAM", "VERSION", "≤ EVENTS", "LAST TYPE", "LAST EVENT AT", "GLOBAL SEQ"), {1, 2, 5}
        )
        compact = None
        if form.compact:
            from esx.cli.compact import stream_cells, streams_table

            compact = streams_table(lines, form)
        csv = CsvLines()
        with Meter(noun="events looked at" if sort == "recent" else "streams looked at") as meter:

            def progress(looked: int) -> None:
                # Print what has been found before the search goes on.
                meter.clear()
                (compact or table).flush()
                lines.flush()
                meter.update(looked)

            async for stream in store.streams(
                prefix=bytes_from_shown(prefix),
                match=match,
                contains=contains,
                category=None if category is None else bytes_from_shown(category),
                recent=sort == "recent",
                limit=limit,
                on_progress=None if match is contains is category is None else progress,
            ):
                found = True
                tell_odd_value(stream.last_global_seq, stream.last_created_at, stream.stream_id, stream.last_event_type)
                await lines.room()
                if form.as_json:
                    lines.json(stream.to_json())
                elif form.as_csv:
                    csv.json(stream.to_json())
                elif compact is not None:
                    compact.add(stream_cells(stream))
                else:
                    table.add(_cells(stream))
        (compact or table).flush()
        if not found:
            narrate(await store.unlisted_streams() or ("no stream passes" if narrowed else "no streams yet"))

    async def list_categories(store: EventStore) -> None:
        lines = OutputLines()
        table = OutputTable(lines, ("CATEGORY", "STREAMS"), {1})
        csv = CsvLines()
        shown = vague = 0
        if (unlisted := await store.unlisted_streams()) is not None:
            narrate(unlisted)
        async for found in store.categories():
            if shown == limit:
                break
            shown += 1
            if form.as_json:
                lines.json(found.to_json())
            elif form.as_csv:
                csv.json(found.to_json())
            else:
                table.add((visible(found.category, limit=200) or "(none)", found.streams.text))
            vague += not found.streams.known
        table.flush()
        in_column = store.has_category_column
        if vague:
            how = "category" if in_column else "prefix"
            incomplete(f"how many streams {vague} of the categories have is not known: esx streams --{how} lists them")
        looked = (await store.categories_page(limit=1)).looked if in_column else None
        if looked is not None:
            incomplete(f"these are the categories of {looked:,} streams that were looked at: others may have others")

    with paged(form.paged):
        with_store(dsn, list_categories if categories else list_streams, read_only=True)


def _glob(words: tuple[str, ...], match: str | None) -> str | None:
    """Return the glob of ids that the filter and --match are."""
    chosen = parse_words(words)
    if chosen and chosen != type(chosen)(stream=chosen.stream, any_case=chosen.any_case):
        raise click.UsageError(
            "streams are chosen by their ids: esx streams 'orders-*'; their events are chosen by esx read '$all' FILTER"
        )
    if chosen.stream is not None and match is not None:
        raise click.UsageError(f"--match and {chosen.stream!r} both choose by the id: give one of them")
    return match if chosen.stream is None else chosen.stream


def _cells(stream: StreamSummary) -> tuple[str, ...]:
    return (
        visible(stream.stream_id, limit=200),
        str(stream.version),
        str(stream.events),
        visible(stream.last_event_type, limit=80),
        iso(stream.last_created_at),
        number_text(stream.last_global_seq),
    )
