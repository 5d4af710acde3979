"""The knobs of a load test as options of a command."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import click

from esx.load.model import EXPECTED, NOTIFICATIONS, ON_CONFLICT, STRATEGIES, LoadOptions

if TYPE_CHECKING:
    from collections.abc import Callable

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
_DEFAULT = LoadOptions()
_Command = TypeVar("_Command", bound="Callable[..., Any]")


def parse_seconds(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    """Return the seconds of a duration such as 20s, 5m or 1h30m; a callback for click."""
    match = _DURATION.fullmatch(value.strip())
    if not value.strip() or match is None:
        raise click.BadParameter(f"{value!r} is not a duration: use e.g. 20s, 5m or 1h30m", ctx, parameter)
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _number(name: str, metavar: str, text: str, kind: type = int) -> Callable[[_Command], _Command]:
    default = getattr(_DEFAULT, name)
    return click.option(
        _option(name), type=kind, default=default, show_default=default is not None, metavar=metavar, help=text
    )


def _choice(name: str, choices: tuple[str, ...], text: str) -> Callable[[_Command], _Command]:
    return click.option(
        _option(name), type=click.Choice(choices), default=getattr(_DEFAULT, name), show_default=True, help=text
    )


def _time(name: str, default: str, text: str) -> Callable[[_Command], _Command]:
    return click.option(
        _option(name), callback=parse_seconds, default=default, show_default=True, metavar="T", help=text
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


_KNOBS: tuple[Callable[[Any], Any], ...] = (
    _number("users", "N", "Concurrent writers."),
    _time("duration", "30s", "How long it counts: 20s, 5m, 1h."),
    _time("warm_up", "0s", "How long it runs before it counts."),
    _number("max_appends", "N", "End once so many appends have been stored."),
    _number("spawn_rate", "R", "Writers started a second (default: all at once).", float),
    _number("streams", "K", "Streams to append to."),
    _number("hot_streams", "H", "How many of them are hot."),
    _number("hot_share", "X", "The hot ones' share of appends, 0 to 1.", float),
    _number("zipf", "S", "Or heat that falls from stream to stream: stream n in proportion to 1/(n+1)^S.", float),
    _number("events_per_append", "N", "Events in each append, stored all or none."),
    _number("payload_bytes", "N", "Bytes of data in each event (0: the smallest)."),
    _choice("expected", EXPECTED, "exact: read the version, decide, append at it; none: the stream must be new."),
    _choice(
        "on_conflict",
        ON_CONFLICT,
        "Give up; retry at once or after a growing pause; queue on a lock; or take turns.",
    ),
    _number("max_tries", "N", "How often an append is tried at most."),
    _choice("strategy", STRATEGIES, "Check the version in the insert, or lock the stream first."),
    _choice("notification", NOTIFICATIONS, "How appends wake subscribers: one of many, every one, or none does."),
    _number("subscribers", "N", "Subscribers that follow the run's events meanwhile."),
    _number("rate", "R", "Appends a second that are due over all writers (default: as fast as they can).", float),
    _time("think_time", "0s", "How long a writer pauses between appends, jittered by half."),
    _number("processes", "N", "Processes that share the writers, where one core is not enough."),
    _number("seed", "N", "Make two runs draw the same."),
    click.option("--run-id", metavar="ID", help="The run's name, part of its streams' ids (default: a new one)."),
    click.option(
        "--yes-write-to",
        metavar="HOST/DATABASE",
        help="Write to this store although it is not local or holds other events.",
    ),
)


def workload_options(command: _Command) -> _Command:
    """Add all knobs to a command, which is given them by the names of the fields of `LoadOptions`."""
    for knob in reversed(_KNOBS):
        command = knob(command)
    return command


def load_options(knobs: dict[str, Any]) -> LoadOptions:
    """Return the workload that the knobs ask for; raises click.UsageError if they make no sense together."""
    from esx.load.errors import InvalidOptions
    from esx.load.options import validate

    try:
        return validate(LoadOptions(**knobs))
    except InvalidOptions as error:
        raise click.UsageError(str(error)) from None
