"""The scenario's options: how Locust is told of them, and what they come to."""

from __future__ import annotations

import argparse
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esx.database import normalise
from esx.load.options import check_run_id, check_streams
from esx.store.errors import EsxError

if TYPE_CHECKING:
    from locust.argument_parser import LocustArgumentParser


@dataclass(frozen=True, slots=True)
class Settings:
    """What the scenario is asked to do. `dsn` None means libpq's ``PG*`` variables; `run` None: a new id."""

    dsn: str | None
    streams: int
    hot_streams: int
    hot_share: float
    seed: int | None
    run: str | None


def add_options(parser: LocustArgumentParser) -> None:
    """Add the scenario's options to Locust's."""
    group = parser.add_argument_group("esx", "The event store, and the streams that users append to.")

    def add(name: str, *, in_web_ui: bool = True, **how: Any) -> None:
        # Locust puts into its form what carries this mark, which it sets itself only outside of groups.
        action: Any = group.add_argument(name, **how)
        action.include_in_web_ui = in_web_ui
        action.is_secret = action.is_required = action.is_multiple = False

    add(
        "--dsn",
        metavar="<dsn>",
        in_web_ui=False,  # a form would show the password to whoever opens the page
        help="PostgreSQL database, e.g. postgresql://user@host/database. Default: ESX_DSN, else DATABASE_URL, "
        "else libpq's PG* variables. A worker without one gets the master's",
    )
    add("--streams", type=int, metavar="<int>", default=100, help="Number of streams to append to. Default 100")
    add("--hot-streams", type=int, metavar="<int>", default=0, help="How many of the streams are hot. Default 0")
    add(
        "--hot-share",
        type=float,
        metavar="<0 to 1>",
        default=0.0,
        help="The share of all appends that go to the hot streams, e.g. 0.8. Default 0",
    )
    add("--seed", type=int, metavar="<int>", help="Makes two runs draw the same streams. Default: none")
    add(
        "--run-id",
        metavar="<id>",
        help="Part of the ids of the run's streams, load-<id>-<n>, and of its events' metadata. Default: a new one",
    )
    # The rest is between `esx load` and its child process.
    add("--progress-ndjson", action="store_true", in_web_ui=False, help=argparse.SUPPRESS)
    add("--stop-after", type=float, in_web_ui=False, help=argparse.SUPPRESS)


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings in Locust's parsed options; raises EsxError if they make no sense.

    The web UI sets options too, and leaves those without a default as text.
    """
    check_streams(options.streams, options.hot_streams, options.hot_share)
    try:
        seed = None if options.seed in (None, "") else int(options.seed)
    except ValueError:
        raise EsxError(f"--seed is {options.seed!r}: use a whole number, or nothing") from None
    return Settings(
        dsn=own_dsn(options),
        streams=options.streams,
        hot_streams=options.hot_streams,
        hot_share=options.hot_share,
        seed=seed,
        run=check_run_id(options.run_id) if options.run_id else None,
    )


def own_dsn(options: argparse.Namespace) -> str | None:
    """Return the database that this process has been told of, None if none. Raises BadDatabase."""
    if options.dsn:
        return normalise(options.dsn, "--dsn")
    for variable in ("ESX_DSN", "DATABASE_URL"):
        if os.environ.get(variable):
            return normalise(os.environ[variable], variable)
    return None


def new_run_id() -> str:
    """Return an id that no other run has, and that sorts by time."""
    return time.strftime("%y%m%d%H%M%S", time.gmtime()) + secrets.token_hex(2)
