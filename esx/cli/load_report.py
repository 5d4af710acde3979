"""esx load report."""

from __future__ import annotations

import os
from pathlib import Path

import click

from esx.cli.common import Lines
from esx.cli.writing import force_option, write_text


@click.command(name="report")
@click.argument("run_id", metavar="RUN")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to write it (default: load-RUN.html here).",
)
@force_option
def command(run_id: str, output: Path | None, force: bool) -> None:
    """Write a saved run as one HTML page with plots, which needs nothing else to be looked at.

    RUN is as `esx load runs` lists it, or `last`.
    """
    from esx.load.archive import Archive
    from esx.load.pages.run import run_page

    run = Archive.of(os.environ).load(run_id)
    path = output or Path(f"load-{run.id}.html")
    write_text(path, run_page(run), force=force)
    Lines().text(str(path))
