"""The options that all relays have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from esx.cli.options import as_start, database_option, filter_options, json_option, partial_option

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

Command = TypeVar("Command", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """What is the same for all targets."""

    name: str
    stream: str | None
    event_type: str | None
    where: str | None
    start: int | datetime | str | None
    on_error: str
    once: bool
    as_json: bool


body_format_option = click.option(
    "--format",
    "message_format",
    type=click.Choice(["cloudevents-structured", "json"]),
    default="cloudevents-structured",
    show_default=True,
    help="CloudEvents as JSON, or the JSON of `esx tail --json`.",
)
"""What a message is where the target has no headers for CloudEvents."""


def relay_options(name: str) -> Callable[[Command], Command]:
    """Add the options of `RelayOptions` and the database's; `name` is the default of --name."""

    def add(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    "--name",
                    default=name,
                    show_default=True,
                    help="The relay's name, under which its position is kept.",
                ),
                click.option(
                    "--source", metavar="URI", help="The source of CloudEvents, instead of esx://DATABASE/TABLE."
                ),
                filter_options,
                click.option(
                    "--from",
                    "start",
                    callback=_start,
                    metavar="start|end|N|TIME",
                    help="Where a new relay begins, instead of at the first event; later it goes on where it was.",
                ),
                click.option(
                    "--on-error",
                    type=click.Choice(["stop", "park"]),
                    default="stop",
                    show_default=True,
                    help="At an event that is refused: stop, or put it and the later ones of its stream aside.",
                ),
                click.option("--once", is_flag=True, help="End at the safe position."),
                json_option,
                partial_option,
                database_option,
            )
        ):
            command = option(command)
        return command

    return add


def _start(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | datetime | str | None:
    """Read where a new relay begins, None without the option."""
    if value is None:
        return None
    found = as_start(ctx, parameter, value)
    return "end" if found is None else 0 if found == -1 else found
