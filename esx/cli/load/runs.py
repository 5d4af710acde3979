"""esx load runs."""

import os

import click

from esx.cli.options import json_option, partial_option
from esx.cli.output import OutputLines, incomplete, narrate


@click.command(name="runs")
@json_option
@partial_option
def command(as_json: bool) -> None:
    """List the runs that were saved, the newest first.

    A file that cannot be read is named on stderr, and makes it exit with 4.
    """
    from esx.load.archive import Archive
    from esx.load.report.listing import listing, listing_json

    problems: list[str] = []
    archive = Archive.of(os.environ)
    entries = archive.entries(problems)
    lines = OutputLines()
    if as_json:
        for entry in entries:
            lines.value(listing_json(entry))
    elif entries:
        lines.text(*listing(entries))
    else:
        narrate(f"no run is saved in {archive.directory}: `esx load` makes one")
    for problem in problems:
        incomplete(problem)
