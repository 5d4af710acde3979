"""esx capsule verify."""

from __future__ import annotations

import click

from esx.cli.capsule.opening import capsule_argument, opened
from esx.cli.output import OutputLines, narrate
from esx.text import counted


@click.command(name="verify")
@capsule_argument
def command(path: str) -> None:
    """Read all of a capsule, and compare it with its own sums and counts; exits with 1 if it is damaged.

    This finds damage. It does not say who made the capsule: whoever changes one can write new sums.
    """
    with opened(path) as capsule:
        wrong = capsule.verify()
        info = capsule.info
    for each in wrong[:-1]:
        narrate(each)
    if wrong:
        raise click.ClickException(f"{path}: {wrong[-1]}")
    OutputLines().text(f"{path} is whole: {counted(info.events, 'event')}, all sums are right")
