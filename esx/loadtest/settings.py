"""The scenario's options: adding them to Locust's, and the settings made of them."""

import argparse
import os
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from esx.capsule.appends import as_recorded
from esx.config import load as load_config
from esx.database_choice import BadDatabase, choose, may_be_name
from esx.libpq.address import without_password
from esx.load.errors import InvalidOptions
from esx.load.knobs import KNOBS, Knob
from esx.load.learn.rate import as_learned
from esx.load.model import LoadOptions
from esx.load.options import check_workload


@dataclass(frozen=True, slots=True)
class Settings:
    """The database and the options of the scenario. `dsn` None means libpq's ``PG*`` variables."""

    dsn: str | None = field(repr=False)  # it may hold a password
    load: LoadOptions
    trust_owner: bool = False


LONGEST_UNASKED = 3600.0
"""Seconds of a run without a given duration."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the scenario's options to Locust's."""
    group = parser.add_argument_group("esx", "The event store, and the streams that users append to.")

    def add(name: str, *, in_web_ui: bool = True, **how: Any) -> None:
        # Locust shows options with this mark in its form. It sets the mark itself only outside of groups.
        action: Any = group.add_argument(name, **how)
        action.include_in_web_ui = in_web_ui
        action.is_secret = action.is_required = action.is_multiple = False

    add(
        "--dsn",
        metavar="<dsn>",
        in_web_ui=False,  # a form would show the password
        help="PostgreSQL database, e.g. postgresql://user@host/database, or a connection of esx's config file. "
        "Default: ESX_DSN, else DATABASE_URL, else libpq's PG* variables. A worker without one gets the master's",
    )
    for knob in KNOBS:
        if not knob.locusts:
            how = {"type": knob.kind, "default": knob.default, "choices": knob.choices or None, "help": knob.help}
            metavar = "SECONDS" if knob.metavar == "T" else knob.metavar or None
            add(knob.option, in_web_ui=knob.in_form, metavar=metavar, **how)
    add(
        "--trust-owner",
        action="store_true",
        in_web_ui=False,
        help="Read although this runs code of the table's owner with your rights",
    )
    # The others are for `esx load`, which starts Locust as a child process.
    add("--progress-ndjson", action="store_true", in_web_ui=False, help=argparse.SUPPRESS)
    add("--stop-after", type=float, in_web_ui=False, help=argparse.SUPPRESS)


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings in Locust's parsed options; raises EsxError if they are not valid."""
    values = {knob.name: _value(knob, getattr(options, knob.name)) for knob in KNOBS if not knob.locusts}
    load = LoadOptions(
        users=options.num_users or 1,
        duration=options.stop_after or options.run_time or LONGEST_UNASKED,
        spawn_rate=options.spawn_rate,
        processes=max(options.processes or 1, 1),
        **values,
    )
    return Settings(own_dsn(options), as_recorded(as_learned(check_workload(load))), options.trust_owner)


def _value(knob: Knob, value: Any) -> Any:
    """Return an option's value; the web UI leaves values of options without a default as text."""
    if knob.default is None and value in (None, ""):
        return None
    try:
        return knob.kind(value)
    except ValueError:
        raise InvalidOptions(f"{knob.option} is {value!r}: use {knob.noun}, or nothing") from None


def own_dsn(options: argparse.Namespace) -> str | None:
    """Return the database that is named for this process, None if none is. Raises BadDatabase and BadConfig.

    The name may be that of a connection of the config file.
    """
    told = [os.environ.get(variable, "").strip() for variable in ("ESX_DSN", "DATABASE_URL")]
    if options.dsn is None and not any(told):
        return None
    text = options.dsn if options.dsn is not None else told[0]
    if without_password(text) != text and any(text in argument for argument in sys.argv[1:]):
        raise BadDatabase(
            "the password in --dsn would stay in the list of processes, for others to read: put the address into "
            "ESX_DSN, or the password into PGPASSWORD or ~/.pgpass"
        )
    database = choose(options.dsn, os.environ, load_config(os.environ) if may_be_name(text) else None)
    if database.embedded:
        raise BadDatabase(
            "locust does not start the PostgreSQL that comes with esx: use `esx load -d embedded`, or name a database"
        )
    if database.read_only:
        raise BadDatabase(f"connection {database.name} is read_only: name another for a load test")
    return database.dsn


def new_run_id() -> str:
    """Return an id that no other run has, and that sorts by time."""
    return time.strftime("%y%m%d%H%M%S", time.gmtime()) + secrets.token_hex(2)
