"""The options --store and --trust-owner, for esx and its commands. It imports little: `esx --help` answers at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

Command = TypeVar("Command", bound="Callable[..., Any]")

_STORE = "esx.store"
_TRUST = "esx.trust_owner"


def store_option(command: Command) -> Command:
    """Add --store and --trust-owner, which go with the database; before the command's name they hold as well."""

    def remember(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            if not value.strip():
                raise click.BadParameter("it is empty: name a table or a view, or leave the option out")
            ctx.find_root().meta[_STORE] = value

    def trust(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().meta[_TRUST] = True

    trusting = click.option(
        "--trust-owner",
        is_flag=True,
        expose_value=False,
        callback=trust,
        help="Read although code of the table's owner runs then, with your rights.",
    )(command)
    return click.option(
        "--store",
        metavar="TABLE",
        expose_value=False,
        callback=remember,
        help="The table or view to use instead of events, as SQL writes it: schema.name.",
    )(trusting)


def named_store() -> str | None:
    """Return what --store says."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.find_root().meta.get(_STORE)


def trusts_owner() -> bool:
    """Return whether --trust-owner is given."""
    context = click.get_current_context(silent=True)
    return context is not None and context.find_root().meta.get(_TRUST, False)
