"""esx project: a group of commands such as ``esx project run MODULE:FUNCTION``."""

from __future__ import annotations

import click

from esx.cli.lazy import LazyGroup


class _Group(LazyGroup):
    package = "esx.cli.project"
    listed = {"run": "Run a projection: your function, once for each event."}  # noqa: RUF012 - of the base class


@click.group(name="project", cls=_Group)
def command() -> None:
    """Run projections: read models that your own function keeps up to date.

    `esx consumers` lists them, and pauses, resets or deletes them.
    """
