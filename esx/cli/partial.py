"""What a command does that could not give all that was asked for: it says so, and ends with an exit code of its own.

A limit that the user sets is no such case. A bound of ours is, and so is a value that could not be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from esx.store.ordering import Doubt

Command = TypeVar("Command", bound="Callable[..., Any]")
_INCOMPLETE, _ALLOWED = f"{__name__}.incomplete", f"{__name__}.allowed"


def incomplete(missing: str) -> None:
    """Say on stderr what is missing, and what would make it whole. The command goes on, and exits with 4 at its end."""
    from esx.cli.common import narrate

    narrate(missing)
    click.get_current_context().meta[_INCOMPLETE] = True


def say_doubt(doubt: Doubt) -> None:
    """Say what is not certain about where a time is. If events are known to be out of order, that is incomplete."""
    from esx.cli.common import narrate

    (incomplete if doubt.broken else narrate)(doubt.text)


def ended_incomplete(ctx: click.Context) -> bool:
    """Return whether the command could not give all, and was not told that this is fine."""
    return bool(ctx.meta.get(_INCOMPLETE)) and not ctx.meta.get(_ALLOWED)


def partial_option(command: Command) -> Command:
    """Add --allow-partial: what could not be given is said all the same, but does not change the exit code."""

    def allow(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        ctx.meta[_ALLOWED] = value

    return click.option(
        "--allow-partial",
        is_flag=True,
        expose_value=False,
        callback=allow,
        help="Exit with 0, not 4, where not all that was asked for can be given.",
    )(command)
