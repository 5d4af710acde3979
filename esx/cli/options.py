"""The options that several commands have. This module imports little, so that `esx --help` answers at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from click.shell_completion import CompletionItem

    from esx.positions import Position

T = TypeVar("T")
Command = TypeVar("Command", bound="Callable[..., Any]")
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}(?:s|\Z))?(?:{_NUMBER}ms)?")
_INCOMPLETE = "esx.incomplete"
COMPLETE = "_ESX_COMPLETE"
"""The environment variable by which a shell asks what completes a line."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print NDJSON: one object a line.")
reducer_option = click.option(
    "--reducer",
    metavar="MODULE:FUNCTION",
    help="Fold streams with function(state, event) instead of merging JSON.",
)
decoder_option = click.option(
    "--decoder",
    metavar="MODULE:FUNCTION",
    help="Decode data that are no JSON with function(bytes, event_type, stream_id).",
)
where_option = click.option(
    "--where",
    metavar="JSONPATH",
    help="Only events for which the path holds or finds something in data ($metadata is the metadata). It sees what is "
    "stored as JSON, not what is decoded.",
)


def _remember(ctx: click.Context, parameter: click.Parameter, value: str | bool | None) -> None:
    if isinstance(value, str) and not value.strip():
        raise click.BadParameter("it is empty: name a table or a view, or leave the option out")
    if value:
        ctx.meta[f"esx.{parameter.name}"] = value


def _remembered(name: str) -> Any:
    """Return the value of an option that was given before or after the command's name, None without it."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(f"esx.{name}")


def as_given(ctx: click.Context, name: str) -> Any:
    """Return the value of an option before or after the command's name, also while a shell completes the line."""
    above: click.Context | None = ctx
    while above is not None:
        value = above.params.get(name) or above.meta.get(f"esx.{name}")
        if value:
            return value
        above = above.parent
    return None


def completing(name: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return the function that completes names of one kind: stream, stream_glob, type or database."""

    def complete(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        from esx.cli import completing as module

        found: list[CompletionItem] = getattr(module, f"complete_{name}")(ctx, parameter, begun)
        return found

    return complete


def complete_file(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Let the shell complete the name of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type="file")]


def named_store() -> str | None:
    """Return the table or view that --store names."""
    name: str | None = _remembered("store")
    return name


def trusts_owner() -> bool:
    """Return whether --trust-owner is given."""
    return bool(_remembered("trust_owner"))


def database_option(command: Command) -> Command:
    """Add -d/--dsn, which the command receives as `dsn`, --store and --trust-owner.

    All of them may also stand before the command's name.
    """

    def inherit(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
        above = ctx.parent
        while value is None and above is not None:
            value, above = above.params.get("dsn"), above.parent
        return value

    dsn = click.option(
        "-d",
        "--dsn",
        metavar="URL|NAME",
        callback=inherit,
        shell_complete=completing("database"),
        help="The database: a connection of the config file, a URL, libpq's key=value form, or a database name.",
    )
    store = click.option(
        "--store",
        metavar="TABLE",
        expose_value=False,
        callback=_remember,
        help="The table or view to use instead of events, as SQL writes it, or a kind or a layout.",
    )
    trust = click.option(
        "--trust-owner",
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help="Read although this runs code of the table's owner with your rights.",
    )
    return dsn(store(trust(command)))


type_option = click.option(
    "--type", "event_type", metavar="GLOB", help="Only events of matching types.", shell_complete=completing("type")
)


def filter_options(command: Command) -> Command:
    """Add --stream, --type and --where, which the command receives as `stream`, `event_type` and `where`."""
    stream = click.option(
        "--stream", metavar="GLOB", help="Only events of matching streams.", shell_complete=completing("stream_glob")
    )
    return stream(type_option(where_option(command)))


partial_option = click.option(
    "--allow-partial",
    is_flag=True,
    expose_value=False,
    callback=_remember,
    help="Exit with 0, not 4, where the answer is incomplete.",
)


def mark_incomplete() -> None:
    """Let the command exit with 4 at its end, unless --allow-partial is given."""
    click.get_current_context().meta[_INCOMPLETE] = True


def ended_incomplete(ctx: click.Context) -> bool:
    """Return whether the command's answer is incomplete and --allow-partial is not given."""
    return bool(ctx.meta.get(_INCOMPLETE)) and not ctx.meta.get("esx.allow_partial")


def as_seconds(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    """Read an option as the seconds of a duration such as 500ms, 20s, 5m or 1h30m: its callback."""
    match = _DURATION.fullmatch(value.strip())
    if not value.strip() or match is None:
        raise click.BadParameter(f"{value!r} is not a duration: use e.g. 20s, 5m or 1h30m", ctx, parameter)
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def as_moment(ctx: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """Read an option as a point in time: its callback."""
    from esx.positions import parse_moment

    return _parsed(ctx, parameter, value, parse_moment)


def as_position(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Position | None:
    """Read an option as a position or a point in time: its callback."""
    from esx.positions import parse_position

    return _parsed(ctx, parameter, value, parse_position)


def as_start(ctx: click.Context, parameter: click.Parameter, value: str) -> int | datetime | None:
    """Read an option as start, end, a global_seq or a time: -1 is the start, None the end. Its callback."""
    if value in ("start", "end"):
        return -1 if value == "start" else None
    if value.isascii() and value.isdigit() and len(value) < 20 and int(value) < 2**63:
        return int(value)
    try:
        return as_moment(ctx, parameter, value)
    except click.BadParameter as error:
        reason = f"{error.message}, or start, end, or a global_seq"
        raise click.BadParameter(reason, ctx, parameter) from None


def _parsed(ctx: click.Context, parameter: click.Parameter, value: str | None, parse: Callable[[str], T]) -> T | None:
    if value is None:
        return None
    from esx.cli.opening import config

    config()  # sets the time zone
    try:
        return parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None
