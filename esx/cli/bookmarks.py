"""esx bookmarks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from esx.cli.lazy import LazyGroup
from esx.cli.opening import config
from esx.cli.options import database_option, json_option
from esx.cli.output import OutputLines, OutputTable, narrate
from esx.text import visible
from esx.times import clock

if TYPE_CHECKING:
    from esx.bookmarks import Bookmark


class _Group(LazyGroup):
    package = "esx.cli"
    listed = {  # noqa: RUF012 - declared in the base class
        "add": "Keep an event or a stream, with a note.",
        "remove": "Forget a bookmark.",
    }
    modules = {"add": "bookmarks_add", "remove": "bookmarks_remove"}  # noqa: RUF012 - as above


def kept_for(dsn: str | None) -> str:
    """Return what bookmarks are kept for: the name of the connection that is meant, else its address."""
    from esx.bookmarks import kept_for as of_database
    from esx.database_choice import choose

    return of_database(choose(dsn, os.environ, config()))


def numbered(dsn: str | None) -> list[Bookmark]:
    """Return the bookmarks of the database that is meant, in the order of their numbers from 1."""
    from esx.bookmarks import Bookmarks

    return Bookmarks.of(os.environ).of_database(kept_for(dsn))


@click.group(name="bookmarks", cls=_Group, invoke_without_command=True)
@click.option("--all", "everywhere", is_flag=True, help="Those of all databases.")
@json_option
@database_option
@click.pass_context
def command(ctx: click.Context, /, dsn: str | None, everywhere: bool, as_json: bool) -> None:
    """List bookmarks: events and streams that were kept with a note, by database.

    Nothing is asked of the database. `esx open LOCATOR` opens one.
    """
    if ctx.invoked_subcommand is not None:
        if as_json or everywhere:
            raise click.UsageError("--json and --all are for the list of bookmarks")
        return
    from esx.bookmarks import Bookmarks

    found = Bookmarks.of(os.environ).all() if everywhere else numbered(dsn)
    lines = OutputLines()
    table = OutputTable(lines, ("", "LOCATOR", "NOTE", "MADE AT", *(["DATABASE"] if everywhere else [])), {0})
    for number, one in enumerate(found, 1):
        if as_json:
            given: dict[str, Any] = one.to_json() if everywhere else {"number": number, **one.to_json()}
            lines.value(given)
            continue
        place = visible(one.locator.text, limit=200)
        row = ("" if everywhere else str(number), place, visible(one.note, limit=200), clock(one.made_at))
        table.add((*row, visible(one.database, limit=80)) if everywhere else row)
    table.flush()
    if not found:
        narrate("no bookmarks yet: esx bookmarks add 'orders-42@7' 'what is there'")
