"""The scenario's options: how Locust is told of them, and what they come to."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from esx.config import load as load_config
from esx.database import BadDatabase, choose, may_be_name
from esx.libpq.address import without_password
from esx.load.errors import InvalidOptions
from esx.load.model import EXPECTED, NOTIFICATIONS, ON_CONFLICT, STRATEGIES, LoadOptions
from esx.load.options import check_workload

if TYPE_CHECKING:
    from locust.argument_parser import LocustArgumentParser


@dataclass(frozen=True, slots=True)
class Settings:
    """What the scenario is asked to do. `dsn` None means libpq's ``PG*`` variables."""

    dsn: str | None = field(repr=False)  # it may hold a password
    load: LoadOptions


T = TypeVar("T", int, float)

_DEFAULT = LoadOptions()
LONGEST_UNASKED = 3600.0
"""Seconds that a run goes on whose duration nobody said."""


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
        help="PostgreSQL database, e.g. postgresql://user@host/database, or a connection of esx's config file. "
        "Default: ESX_DSN, else DATABASE_URL, else libpq's PG* variables. A worker without one gets the master's",
    )
    add("--streams", type=int, metavar="<int>", default=_DEFAULT.streams, help="Number of streams to append to")
    add("--hot-streams", type=int, metavar="<int>", default=0, help="How many of the streams are hot. 0: none")
    add("--hot-share", type=float, metavar="<0 to 1>", default=0.0, help="The hot streams' share of all appends")
    add(
        "--zipf",
        type=float,
        metavar="<exponent>",
        default=0.0,
        help="Falling heat: stream n is picked in proportion to 1/(n+1)^exponent. 0: all alike",
    )
    add("--events-per-append", type=int, metavar="<int>", default=1, help="Events in each append, stored all or none")
    add("--payload-bytes", type=int, metavar="<int>", default=0, help="Bytes of data in each event. 0: the smallest")
    add(
        "--expected",
        choices=EXPECTED,
        default=_DEFAULT.expected,
        help="exact: read the version, decide, append at it. any: append whatever the version. none: only where "
        "there is no stream yet",
    )
    add(
        "--on-conflict",
        choices=ON_CONFLICT,
        default=_DEFAULT.on_conflict,
        help="After a conflict: give up, retry at once, retry after a jittered and growing pause, queue on the "
        "stream's lock, or take turns with the other writers of the process",
    )
    add(
        "--max-tries",
        type=int,
        metavar="<int>",
        default=_DEFAULT.max_tries,
        help="How often an append is tried at most before it is given up",
    )
    add(
        "--strategy",
        choices=STRATEGIES,
        default=_DEFAULT.strategy,
        help="conditional: an insert that checks the version. row-lock: writers queue on a row that stands for the "
        "stream",
    )
    add(
        "--notification",
        choices=NOTIFICATIONS,
        default=_DEFAULT.notification,
        help="How appends wake subscribers: one of many rings the doorbell, every one notifies, or none does",
    )
    add(
        "--subscribers",
        type=int,
        metavar="<int>",
        default=0,
        help="Subscribers that follow the run's events meanwhile, in a process of their own",
    )
    add(
        "--rate",
        type=float,
        metavar="<per second>",
        help="Open loop: so many appends a second are due, over all users, whatever the store can do. "
        "Default: closed loop, each user as fast as it can",
    )
    add(
        "--think-time",
        type=float,
        metavar="<seconds>",
        default=0.0,
        help="Closed loop: how long a user pauses between appends, jittered by half",
    )
    add("--warm-up", type=float, metavar="<seconds>", default=0.0, help="Seconds at the start that are not counted")
    add(
        "--max-appends",
        type=int,
        metavar="<int>",
        default=_DEFAULT.max_appends,
        help="The run ends once so many appends have been stored",
    )
    add("--seed", type=int, metavar="<int>", help="Makes two runs draw the same. Default: none")
    add(
        "--run-id",
        metavar="<id>",
        help="Part of the ids of the run's streams, load-<id>-<n>, and of its events' metadata. Default: a new one",
    )
    add(
        "--yes-write-to",
        metavar="<host/database>",
        in_web_ui=False,  # whoever opens the page must not widen what the run may write to
        help="Write to this store although it is not local or holds other events than those of load tests",
    )
    # The rest is between `esx load` and its child process.
    add("--progress-ndjson", action="store_true", in_web_ui=False, help=argparse.SUPPRESS)
    add("--stop-after", type=float, in_web_ui=False, help=argparse.SUPPRESS)


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings in Locust's parsed options; raises EsxError if they make no sense."""
    load = LoadOptions(
        users=options.num_users or 1,
        duration=options.stop_after or options.run_time or LONGEST_UNASKED,
        spawn_rate=options.spawn_rate,
        streams=options.streams,
        hot_streams=options.hot_streams,
        hot_share=options.hot_share,
        seed=_number("--seed", options.seed, int, "a whole number"),
        zipf=options.zipf,
        events_per_append=options.events_per_append,
        payload_bytes=options.payload_bytes,
        expected=options.expected,
        on_conflict=options.on_conflict,
        max_tries=options.max_tries,
        strategy=options.strategy,
        notification=options.notification,
        subscribers=options.subscribers,
        rate=_number("--rate", options.rate, float, "a number of appends a second"),
        think_time=options.think_time,
        warm_up=options.warm_up,
        max_appends=options.max_appends,
        processes=max(options.processes or 1, 1),
        run_id=options.run_id or None,
        yes_write_to=options.yes_write_to or None,
    )
    return Settings(own_dsn(options), check_workload(load))


def _number(option: str, value: Any, kind: type[T], what: str) -> T | None:
    """Return a number that may be missing; the web UI sets options too, and leaves those without a default as text."""
    if value is None or value == "":
        return None
    try:
        return kind(value)
    except ValueError:
        raise InvalidOptions(f"{option} is {value!r}: use {what}, or nothing") from None


def own_dsn(options: argparse.Namespace) -> str | None:
    """Return the database that this process has been told of, None if none. Raises BadDatabase and BadConfig.

    It may be the name of a connection of the config file, as everywhere in esx.
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
