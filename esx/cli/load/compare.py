"""esx load compare."""

import os
from pathlib import Path

import click

from esx.cli.options import json_option
from esx.cli.output import OutputLines
from esx.cli.writing import FILE, force_option, write_text


@click.command(name="compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--html", type=FILE, metavar="FILE", help="Write them as one HTML page with plots instead.")
@force_option
@json_option
def command(runs: tuple[str, ...], html: Path | None, force: bool, as_json: bool) -> None:
    """Put saved runs side by side, with the ratio of each figure to that of the first run.

    Runs are named as `esx load runs` lists them; `last` is the newest.
    """
    from esx.load.archive import Archive
    from esx.load.report.compare import compare, comparison_json, comparison_lines

    if len(runs) < 2:
        raise click.UsageError(f"one run is named, {runs[0]}: name two or more to compare")
    archive = Archive.of(os.environ)
    compared = compare([archive.load(run) for run in runs])
    lines = OutputLines()
    if html is not None:
        from esx.load.report.pages.compare import compare_page

        write_text(html, compare_page(compared), force=force)
        lines.text(str(html))
    elif as_json:
        for each in comparison_json(compared):
            lines.value(each)
    else:
        lines.text(*comparison_lines(compared))
