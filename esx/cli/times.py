"""Options that are a point in time, or a position in a list of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from esx.cli.common import config

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from esx.positions import Position

T = TypeVar("T")


def as_moment(ctx: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """Read an option as a point in time: its callback."""
    from esx.positions import parse_moment

    return _parsed(ctx, parameter, value, parse_moment)


def as_position(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Position | None:
    """Read an option as a position or a point in time: its callback."""
    from esx.positions import parse_position

    return _parsed(ctx, parameter, value, parse_position)


def _parsed(ctx: click.Context, parameter: click.Parameter, value: str | None, parse: Callable[[str], T]) -> T | None:
    if value is None:
        return None
    config()  # It says in which time zone.
    try:
        return parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None
