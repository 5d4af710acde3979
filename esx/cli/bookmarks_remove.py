"""esx bookmarks remove."""

from __future__ import annotations

import os

import click

from esx.cli.bookmarks import numbered
from esx.cli.options import database_option
from esx.cli.output import narrate
from esx.text import counted, visible


@click.command(name="remove")
@click.argument("number", type=click.IntRange(min=1))
@database_option
def command(dsn: str | None, number: int) -> None:
    """Forget the bookmark with that NUMBER in the list of `esx bookmarks`."""
    from esx.bookmarks import Bookmarks

    found = numbered(dsn)
    if number > len(found):
        there = counted(len(found), "bookmark")
        raise click.UsageError(f"there is no bookmark {number}: `esx bookmarks` lists {there}")
    Bookmarks.of(os.environ).remove(found[number - 1])
    narrate(f"forgot {visible(found[number - 1].locator.text, limit=200)}")
