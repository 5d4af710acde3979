"""esx load report."""

import os
from pathlib import Path

import click

from esx.cli.output import OutputLines
from esx.cli.writing import FILE, force_option, write_text


@click.command(name="report")
@click.argument("run_id", metavar="RUN")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Where to write it (default: load-RUN.html here).")
@force_option
def command(run_id: str, output: Path | None, force: bool) -> None:
    """Write a saved run as one HTML page with plots, which needs no other files.

    RUN is as `esx load runs` lists it, or `last`.
    """
    from esx.load.archive import Archive
    from esx.load.report.pages.run import run_page

    run = Archive.of(os.environ).load(run_id)
    path = output or Path(f"load-{run.id}.html")
    write_text(path, run_page(run), force=force)
    OutputLines().text(str(path))
