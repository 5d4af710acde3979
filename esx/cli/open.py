"""esx open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.explore import need_terminal, open_explorer, prepare
from esx.cli.opening import config, database, decoder_of, reducer_of, store_on
from esx.cli.options import database_option
from esx.cli.running import run

if TYPE_CHECKING:
    from esx.database_choice import Database
    from esx.locators import Locator


def as_locator(ctx: click.Context, parameter: click.Parameter, value: str) -> Locator:
    """Read an argument as a locator: its callback."""
    from esx.locators import parse_locator

    try:
        return parse_locator(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None


def connection_of(locator: Locator, dsn: str | None) -> str | None:
    """Return what names the database: `dsn` if it is given, else the locator's connection.

    Raises UsageError where that is no connection of the config file: a locator comes from others, and opens nothing
    that the user has not named before.
    """
    if dsn is not None or locator.connection is None:
        return dsn
    known = [*sorted(config().connections), "embedded"]
    if locator.connection not in known:
        from esx.text import either, visible

        raise click.UsageError(
            f"there is no connection {visible(locator.connection, limit=80)} here, which the locator names: use -d "
            f"with {either(known)} or an address, or give one this name in {visible(str(config().path))}"
        )
    return locator.connection


@click.command(name="open")
@click.argument("locator", callback=as_locator)
@database_option
def command(dsn: str | None, locator: Locator) -> None:
    """Open the explorer where a LOCATOR leads: esx open 'esx://shop/orders-42@7'.

    shop is the name of a connection in your own config file, or embedded; where it is empty, or with -d, it is the
    database that is meant. esx://shop/orders-42 is a stream, 'esx://shop/$all@4000' an event by its global_seq. A / in
    a stream's id is written %2F, an @ %40.
    """
    need_terminal("use `esx read STREAM --from NUMBER --limit 1` instead")
    reducer, decoder = reducer_of(None), decoder_of(None)
    with database(connection_of(locator, dsn)) as opened:
        if opened.embedded:
            run(prepare(opened))
        run(_check(opened, locator))
        open_explorer(opened, reducer, decoder, at=(locator.stream, locator.number))


async def _check(opened: Database, locator: Locator) -> None:
    """Raise ClickException where nothing is at that place."""
    from esx.cli.events import no_such_stream
    from esx.text import visible

    if locator.stream is None and locator.number is None:
        return
    async with store_on(opened, application_name="esx", read_only=True, max_connections=1) as store:
        if locator.stream is None:
            found = locator.number is None or await store.event(locator.number) is not None
        elif await store.version(locator.stream) < 0:
            raise no_such_stream(locator.stream)
        else:
            found = locator.number is None or await store.event_in(locator.stream, locator.number) is not None
    if not found:
        where = "$all" if locator.stream is None else visible(locator.stream, limit=200)
        raise click.ClickException(f"there is no event {locator.number} in {where}: it was deleted, or never there")
