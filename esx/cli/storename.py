"""The option --store, for esx itself and for its commands. It imports little, so that `esx --help` answers at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

Command = TypeVar("Command", bound="Callable[..., Any]")

_STORE = "esx.store"


def store_option(command: Command) -> Command:
    """Add --store, which goes with the database; one before the command's name holds as well."""

    def remember(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            if not value.strip():
                raise click.BadParameter("it is empty: name a table or a view, or leave the option out")
            ctx.find_root().meta[_STORE] = value

    return click.option(
        "--store",
        metavar="TABLE",
        expose_value=False,
        callback=remember,
        help="The table or view to use instead of events, as SQL writes it: schema.name.",
    )(command)


def named_store() -> str | None:
    """Return what --store says."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.find_root().meta.get(_STORE)
