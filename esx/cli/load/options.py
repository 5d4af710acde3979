"""The knobs of a load test as options of a command."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from esx.cli.options import as_seconds, named_store
from esx.load.knobs import KNOBS, Knob
from esx.load.model import LoadOptions

Command = TypeVar("Command", bound="Callable[..., Any]")


def _option(knob: Knob) -> Callable[[Any], Any]:
    how: dict[str, Any] = {"type": knob.kind, "default": knob.default, "metavar": knob.metavar}
    if knob.choices:
        how |= {"type": click.Choice(knob.choices), "metavar": None}
    elif knob.metavar == "T":
        how |= {"type": str, "default": f"{knob.default:g}s", "callback": as_seconds}
    return click.option(knob.option, show_default=knob.default is not None, help=knob.help, **how)


def workload_options(command: Command) -> Command:
    """Add the knobs, which the command receives by the names of the fields of `LoadOptions`."""
    return workload_options_but()(command)


def workload_options_but(*without: str) -> Callable[[Command], Command]:
    """Return what does so, without some of them."""

    def add(command: Command) -> Command:
        for knob in reversed(KNOBS):
            if not knob.everywhere and knob.name not in without:
                command = _option(knob)(command)
        return command

    return add


def placed(knobs: dict[str, Any]) -> dict[str, Any]:
    """Return the knobs with the store that --store names, and the whole paths of the files.

    Files are read once, so that one that cannot be used is refused before anything begins. Raises BadAppendFile and
    BadProfile.
    """
    path = knobs.get("append_sql")
    if path is not None:
        from esx.store.appenders.append_file import read_append_file

        read_append_file(path)
        path = os.path.abspath(path)
    if knobs.get("like") is not None:
        from esx.load.learn.profile import read_profile

        read_profile(knobs["like"])
        knobs = {**knobs, "like": os.path.abspath(knobs["like"])}
    if knobs.get("replay") is not None:
        if knobs.get("rate") is not None:
            raise click.UsageError("--rate and --replay exclude each other: use --times for another speed")
        knobs = {**knobs, "replay": os.path.abspath(knobs["replay"])}
    return {**knobs, "append_sql": path, "store": named_store() or knobs.get("store")}


def load_options(knobs: dict[str, Any]) -> LoadOptions:
    """Return the options made of the knobs; raises click.UsageError if they do not fit together."""
    from esx.load.errors import InvalidOptions
    from esx.load.options import validate

    try:
        return validate(LoadOptions(**placed(knobs)))
    except InvalidOptions as error:
        raise click.UsageError(str(error)) from None
