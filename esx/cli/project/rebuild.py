"""esx project rebuild."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.consumers.asking import agreed, yes_option
from esx.cli.opening import with_store
from esx.cli.options import database_option
from esx.cli.output import OutputLines, ProgressLine
from esx.cli.project.handlers import handler_of
from esx.text import counted, lapse, visible

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.store.operate.rebuild import RebuildProgress, Rebuilt


@click.command(name="rebuild")
@click.argument("handler", metavar="MODULE:FUNCTION")
@click.option("--name", required=True, help="The projection's name.")
@click.option(
    "--tables",
    required=True,
    metavar="T,...",
    help="All tables that the function writes to, as SQL writes their names.",
)
@click.option("--batch", is_flag=True, help="The function takes a list of events, not one.")
@yes_option
@database_option
def command(dsn: str | None, handler: str, name: str, tables: str, batch: bool, yes: bool) -> None:
    """Make the read model of a projection anew while the old one serves, and swap the two in one transaction.

    FUNCTION handles all events again, with the filter of the projection, in a schema of its own. It has to write the
    names of its tables without a schema; what it writes to any other table ends the rebuild, and nothing has changed
    then. The swap replaces the rows: readers see the old ones until it is done. Views, grants, foreign keys and
    sequences stay. A program that runs the projection goes on by itself.
    """
    function = handler_of(handler, batch=batch)
    named = [table.strip() for table in tables.split(",") if table.strip()]

    async def work(store: EventStore) -> Rebuilt:
        from esx.store.operate.effects import rebuild_effects

        agreed(rebuild_effects(await store.consumer(name), named), yes=yes)
        with ProgressLine() as line:

            def tell(progress: RebuildProgress) -> None:
                left = "" if progress.left is None else f", about {lapse(progress.left)} left"
                share = min(progress.position / max(progress.target, 1), 1)
                line(f"{progress.phase}  {progress.handled:,} events  {progress.rate:,.0f}/s  {share:.0%}{left}")

            return await store.rebuild_projection(name, function, named, batches=batch, on_progress=tell)

    done = with_store(dsn, work)
    lines = OutputLines()
    lines.text(f"rebuilt from {counted(done.handled, 'event')}, up to {done.position}")
    for table, rows in done.rows.items():
        lines.text(f"{visible(table, limit=200)}  {counted(rows, 'row')}")
