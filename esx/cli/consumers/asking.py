"""What the commands that change a consumer share: they say what will happen, ask, and do it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from esx.cli.output import OutputLines, narrate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Command = TypeVar("Command", bound="Callable[..., Any]")

yes_option = click.option("--yes", is_flag=True, help="Do it without asking.")


def agreed(effects: Sequence[str], *, yes: bool) -> None:
    """Say what will happen, and ask for it on a terminal.

    Raises Abort if the user does not agree, and UsageError where nobody can be asked and --yes is not given.
    """
    for effect in effects:
        narrate(effect)
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nothing was done: say with --yes that this is to be done")
    click.confirm("Do it?", abort=True, err=True)


def done(what: str) -> None:
    """Print what was done."""
    OutputLines().text(what)
