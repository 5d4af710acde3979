"""esx summary."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from esx.cli.filtering import filter_argument, parse_words, split_times
from esx.cli.forms import CsvLines, output_options
from esx.cli.opening import with_store
from esx.cli.options import as_moment, database_option, partial_option
from esx.cli.output import OutputLines, OutputTable, incomplete, narrate, say_doubt
from esx.cli.pager import paged
from esx.text import change_text, counted, lapse, visible
from esx.times import clock

if TYPE_CHECKING:
    from esx.cli.forms import Form
    from esx.eventstore import EventStore
    from esx.store.overview.summary import Happened, WindowSummary

_NONE = "(none)"
_TITLES = ("CATEGORY", "TYPE", "EVENTS", "BEFORE", "CHANGE")


@click.command(name="summary")
@filter_argument
@click.option(
    "--since",
    callback=as_moment,
    metavar="TIME",
    help="Where the window begins, '2026-08-07 14:00' or -2h (default: -10m).",
)
@click.option("--until", callback=as_moment, metavar="TIME", help="Where it ends (default: now).")
@output_options
@partial_option
@database_option
def command(
    dsn: str | None,
    words: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    form: Form,
) -> None:
    """Say what happened in a time window, by category and type, against the window before it.

    Without options that is the last ten minutes, and the ten before. FILTER chooses among the events: esx summary
    'orders-* since:-1h', see docs/filters.md.

    The events of a window are counted up to 200,000, and estimated (~) beyond. --json prints the window and its sums
    first, then a line for each category and type. It exits with 4 where a number is not known.
    """
    from esx.positions import parse_moment

    chosen, begin, end = split_times(parse_words(words))
    for option, given, again in (("since", since, begin), ("until", until, end)):
        if given is not None and again is not None:
            raise click.UsageError(f"--{option} and {option}: in the filter are the same: give one of them")
    # One now for both, so that a window of ten minutes is that.
    now = datetime.now(UTC)
    begin = since or begin or parse_moment("-10m", now=now)
    end = until or end or now
    if begin >= end:
        raise click.UsageError("--since is not before --until: there is nothing between them")

    async def work(store: EventStore) -> None:
        found = await store.happened(begin, end, where=chosen)
        if found.doubt is not None:
            say_doubt(found.doubt)
        _print(found, form)
        vague = sum(not (row.events.known and row.before.known) for row in found.rows)
        if vague:
            incomplete(f"{counted(vague, 'number is', 'numbers are')} not known: a shorter window is counted")

    with paged(form.paged):
        with_store(dsn, work, read_only=True)


def _print(found: WindowSummary, form: Form) -> None:
    lines = OutputLines()
    if form.as_json:
        lines.json(found.to_json())
    if form.kind != "table":
        write = lines.json if form.as_json else CsvLines().json
        for row in found.rows:
            write(row.to_json())
        return
    window = lapse((found.until - found.since).total_seconds())
    narrate(
        f"{found.events.text} events in {window}, {clock(found.since)} to {clock(found.until)}; "
        f"{found.before.text} in the {window} before"
    )
    if not found.rows:
        return
    if form.compact:
        _print_compact(lines, form, found)
        return
    table = OutputTable(lines, _TITLES, {2, 3, 4})
    for row in found.rows:
        table.add((visible(row.category, limit=80) or _NONE, visible(row.event_type, limit=120), *_numbers(row)))
    table.flush()


def _print_compact(lines: OutputLines, form: Form, found: WindowSummary) -> None:
    """Print the categories with their sums, the types of each below."""
    from esx.cli.compact import Column, CompactCell, CompactTable
    from esx.cli.style import MUTED, STRONG, hue

    columns = [Column("TYPE", yields=True), *(Column(title, right=True) for title in _TITLES[2:]), Column()]
    table = CompactTable(lines, form, columns)
    for category, now, before in found.categories:
        head = (CompactCell(str(now)), CompactCell(str(before), MUTED), CompactCell(change_text(now, before), MUTED))
        table.add((CompactCell(visible(category, limit=80) or _NONE, STRONG), *head, CompactCell("")))
        for row in found.rows:
            if row.category == category:
                name = CompactCell("  " + visible(row.event_type, limit=120), hue(category, row.event_type))
                events, then, changed = _numbers(row)
                table.add(
                    (name, CompactCell(events), CompactCell(then, MUTED), CompactCell(changed, MUTED), CompactCell(""))
                )
    table.flush()


def _numbers(row: Happened) -> tuple[str, str, str]:
    known = row.events.known and row.before.known
    return row.events.text, row.before.text, change_text(row.events.count, row.before.count) if known else "?"
