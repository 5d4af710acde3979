"""esx load runs."""

from __future__ import annotations

import json
import os

import click

from esx.cli.common import Lines, json_option, narrate
from esx.cli.partial import incomplete, partial_option


@click.command(name="runs")
@json_option
@partial_option
def command(as_json: bool) -> None:
    """List the runs that were saved, the newest first.

    A file that cannot be read is named on stderr, and makes it exit with 4.
    """
    from esx.load.archive import Archive
    from esx.load.listing import listing, listing_json

    problems: list[str] = []
    archive = Archive.of(os.environ)
    entries = archive.entries(problems)
    lines = Lines()
    if as_json:
        for entry in entries:
            lines.json(json.dumps(listing_json(entry), ensure_ascii=False))
    elif entries:
        for line in listing(entries):
            lines.text(line)
    else:
        narrate(f"no run is saved in {archive.directory}: `esx load` makes one")
    for problem in problems:
        incomplete(problem)
