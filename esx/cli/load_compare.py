"""esx load compare."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from esx.cli.common import Lines, json_option
from esx.cli.writing import force_option, write_text


@click.command(name="compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write them as one HTML page with plots instead.",
)
@force_option
@json_option
def command(runs: tuple[str, ...], html: Path | None, force: bool, as_json: bool) -> None:
    """Put saved runs side by side, with what each figure is of the first run's.

    Runs are named as `esx load runs` lists them; `last` is the newest.
    """
    from esx.load.archive import Archive
    from esx.load.compare import compare, comparison_json, comparison_lines

    if len(runs) < 2:
        raise click.UsageError(f"one run is named, {runs[0]}: name two or more to compare")
    archive = Archive.of(os.environ)
    compared = compare([archive.load(run) for run in runs])
    lines = Lines()
    if html is not None:
        from esx.load.pages.compare import compare_page

        write_text(html, compare_page(compared), force=force)
        lines.text(str(html))
    elif as_json:
        for each in comparison_json(compared):
            lines.json(json.dumps(each, ensure_ascii=False))
    else:
        for line in comparison_lines(compared):
            lines.text(line)
