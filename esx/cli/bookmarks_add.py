"""esx bookmarks add."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from esx.cli.bookmarks import kept_for
from esx.cli.opening import config
from esx.cli.options import database_option
from esx.cli.output import OutputLines
from esx.text import visible

if TYPE_CHECKING:
    from esx.locators import Locator


@click.command(name="add")
@click.argument("place")
@click.argument("note", required=False, default="")
@database_option
def command(dsn: str | None, place: str, note: str) -> None:
    """Keep PLACE, a locator or STREAM@NUMBER, STREAM or '$all@GLOBAL_SEQ', with a NOTE; print its locator.

    It is not looked up in the database.
    """
    from esx.bookmarks import Bookmarks
    from esx.database_choice import BadDatabase
    from esx.locators import SCHEME, parse_locator

    try:
        locator = parse_locator(place) if place.startswith(SCHEME) else _place(place)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if dsn is None and locator.connection is not None:
        if locator.connection not in (*config().connections, "embedded"):
            raise BadDatabase(
                f"there is no connection {visible(locator.connection, limit=80)} here: name the database with -d"
            )
        dsn = locator.connection
    database = kept_for(dsn)
    known = database in (*config().connections, "embedded")
    locator = replace(locator, connection=database if known else None)
    made = Bookmarks.of(os.environ).add(database, locator, note)
    OutputLines().text(made.locator.text)


def _place(text: str) -> Locator:
    from esx.locators import Locator

    stream, at, number = text.rpartition("@")
    if not at or not (number.isascii() and number.isdigit() and len(number) < 20):
        stream, number = text, ""
    if not stream:
        raise ValueError("PLACE names no stream: write orders-42@7, orders-42 or '$all@4000'")
    return Locator(None, None if stream == "$all" else stream, int(number) if number else None)
