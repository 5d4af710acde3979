"""esx demo."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from esx.cli.opening import config, reducer_of, store_on
from esx.cli.options import database_option, named_store, reducer_option
from esx.cli.output import OutputLines, narrate, progress
from esx.cli.running import run
from esx.text import counted

if TYPE_CHECKING:
    from esx.database_choice import Database


@click.command(name="demo")
@click.option("--no-tui", is_flag=True, help="Fill the store, print what it made, and end.")
@reducer_option
@database_option
def command(dsn: str | None, no_tui: bool, reducer: str | None) -> None:
    """Open the explorer on the embedded store, filled with a sample history and with live traffic.

    The history (accounts, orders, payments, carts) is made once; running it again adds nothing. It goes to the
    embedded PostgreSQL even where $ESX_DSN is set; to put it elsewhere, name that database with --dsn.
    """
    from esx.cli.explore import need_terminal, open_explorer
    from esx.database_choice import CHOOSING, open_database

    if named_store() is not None:
        raise click.UsageError("the demo fills the table events: leave --store out")
    fold = reducer_of(reducer)
    if not no_tui:
        need_terminal("use `esx demo --no-tui` to fill the store only")
    environ = {name: value for name, value in os.environ.items() if name not in CHOOSING}
    with open_database(dsn, environ, config(), on_progress=progress()) as opened:
        made = run(_fill(opened))
        if no_tui:
            OutputLines().text(f"{made} in {opened.label}")
        else:
            narrate(made)

            async def traffic() -> None:
                from esx.demo import run_traffic

                async with store_on(opened, application_name="esx demo traffic") as store:
                    await run_traffic(store)

            open_explorer(opened, fold, background=traffic)


async def _fill(opened: Database) -> str:
    from esx.demo import fill

    async with store_on(opened, application_name="esx demo") as store:
        if not await store.has_schema():
            await store.init()
        made = await fill(store)
    what = f"{counted(made.events, 'event')} in {counted(made.streams, 'stream')}"
    return f"made {what}" if made.created else f"the sample shop is there already: {what}"
