"""esx init."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from esx.cli.opening import with_store
from esx.cli.options import database_option
from esx.cli.output import OutputLines
from esx.text import visible

if TYPE_CHECKING:
    from esx.eventstore import EventStore


@click.command(name="init")
@click.option("--yes", is_flag=True, help="Also in a database with the store of another tool, without asking.")
@database_option
def command(dsn: str | None, yes: bool) -> None:
    """Create the events table, its indexes and its trigger (apply schema.sql).

    Prints what it changed. Safe to repeat: existing rows and objects stay. The tables of other tools are never changed.
    """

    async def work(store: EventStore) -> list[str]:
        if not yes and (others := await store.beside()) is not None:
            if not sys.stdin.isatty():
                raise click.UsageError(f"{others}: say so with --yes")
            click.confirm(f"{visible(others)}. Go on?", abort=True, err=True)
        return await store.init(beside_others=True)

    changes = with_store(dsn, work)
    OutputLines().text(*changes or ["nothing to change: the schema is up to date"])
