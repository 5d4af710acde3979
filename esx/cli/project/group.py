"""esx project: a group of commands such as ``esx project run MODULE:FUNCTION``."""

from __future__ import annotations

import click

from esx.cli.lazy import LazyGroup


class _Group(LazyGroup):
    package = "esx.cli.project"
    listed = {  # noqa: RUF012 - declared in the base class
        "run": "Run a projection: your function, once for each event.",
        "audit": "Make a read model again beside it, and compare row by row.",
        "step": "Step through the events, and see which rows each changes.",
        "rebuild": "Make a read model anew while the old one serves, and swap.",
    }


@click.group(name="project", cls=_Group)
def command() -> None:
    """Run projections: read models that your own function keeps up to date.

    `esx consumers` lists them, and pauses, resets or deletes them.
    """
