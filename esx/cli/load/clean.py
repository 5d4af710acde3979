"""esx load clean."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from esx.cli.opening import database, store_on
from esx.cli.options import database_option, partial_option
from esx.cli.output import Live, OutputLines, incomplete
from esx.cli.running import run
from esx.text import counted

if TYPE_CHECKING:
    from esx.database_choice import Database


@click.command(name="clean")
@click.argument("run_id", metavar="RUN")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@partial_option
@database_option
def command(dsn: str | None, run_id: str, yes: bool) -> None:
    """Delete the events of a run, or of all runs of a sweep, from the store.

    Only events that carry the run's id in their metadata are deleted; if its streams hold others, nothing is deleted.
    Their numbers stay as gaps in global_seq, which readers pass, and a projection that has handled them keeps its
    results. The conflicts that the run recorded go too. The saved run stays. It needs the right to delete from the
    tables.
    """
    with database(dsn) as opened:
        for run_name in _runs(run_id):
            run(_clean(opened, run_name, yes=yes))


def _runs(name: str) -> list[str]:
    """Return the run of that name, or the saved runs of the sweep of that name."""
    from esx.load.archive import Archive
    from esx.load.sweep.sweep import Sweeps

    archive = Archive.of(os.environ)
    if name == "last":
        return [archive.load(name).id]
    if Sweeps.of(os.environ).path(name).exists():
        problems: list[str] = []
        runs = archive.runs_of(name, problems)
        for problem in problems:
            incomplete(f"{problem}: if that run belongs to sweep {name}, name it to delete its events too")
        return runs
    return [name]


async def _clean(opened: Database, name: str, *, yes: bool) -> None:
    from esx.load.model import run_prefix
    from esx.store.bulk.erase import Mark

    prefix, mark = run_prefix(name), Mark("run_id", name)
    lines = OutputLines()
    with Live() as live:
        async with store_on(opened, application_name="esx load clean") as store:
            found = await store.marked(prefix, mark, lambda events: live.show([f"looking: {events:,} events"]))
            live.wipe()
            if not found.events and not found.conflicts:
                lines.text(f"run {name} has no events in {opened.label}")
                return
            what = f"{found.text} of run {name}"
            if not yes:
                if not sys.stdin.isatty():
                    raise click.UsageError(f"{what} would be deleted from {opened.label}: say so with --yes")
                click.confirm(f"Delete {what} from {opened.label}?", abort=True, err=True)

            def show(deleted: int) -> None:
                live.show([f"deleted {deleted:,} of {found.events:,} events  {deleted / (found.events or 1):.0%}"])

            deleted = await store.delete_marked(prefix, mark, show)
    beside = f" and {counted(found.conflicts, 'row')} of recorded conflicts" if found.conflicts else ""
    lines.text(f"deleted {counted(deleted, 'event')}{beside} of run {name}")
