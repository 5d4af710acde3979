"""esx config."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from esx.cli.opening import config as load_config
from esx.cli.output import OutputLines
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from esx.config import Config
    from esx.layouts.foreign.own import OwnLayout

EXAMPLE = """\
# esx reads this file from the path that `esx config` prints, or from $ESX_CONFIG. Every setting can be left out.

# A theme of Textual's; the command palette (ctrl+p, Theme) shows them all.
theme = "nord"

# How times are shown and read: "local" (the machine's), "UTC", or a name like "Europe/Berlin". --json stays in UTC.
time_zone = "local"

# How long a query of the explorer may take: seconds, or "500ms", "30s", "2m"; 0 means no limit.
statement_timeout = "30s"

# A function that folds the events of a stream to its state, in place of merging their data.
# reducer = "shop.reducers:fold"

# A function that decodes payloads that are no JSON, as other stores have.
# decoder = "shop.payloads:decode"

# Which parts of a type's name say that something failed, whatever their case: the explorer shows these types in red.
# failure_words = ["fail", "error", "reject", "declin", "refus", "denied", "abort", "timeout", "timedout", "expired"]

# Pairs of event types that may be stored in either order, for `esx conflicts` (globs).
# commutes = ["Deposited,Deposited", "ItemAdded,NoteAdded"]

# The fields of metadata that hold the ids. Without them the common names are recognised: correlation_id,
# correlationId, $correlationId and the like.
[fields]
# correlation = ["correlation_id"]
# causation = ["causation_id"]
# identity = ["event_id"]

# Other keys. `esx config --keys` lists the names of all actions and their keys.
[keymap]
# "streams.filter" = "f"
# "app.help" = "question_mark,f1"

# Databases by name: `esx -d shop`, and ctrl+o in the explorer.
[connections.shop]
# A URL or libpq's key=value form. Leave the password to ~/.pgpass, or name the variable that holds it.
dsn = "postgresql://me@localhost/shop"
# password_env = "SHOP_PASSWORD"

[connections.production]
dsn = "postgresql://reader@db.example.com/shop?sslmode=verify-full"
# Nothing writes here, not even the commands.
read_only = true
statement_timeout = "10s"
# Another table than events, or a view, as SQL writes its name. Reading a view runs code of its owner, so esx reads one
# only if it is named.
# store = "reporting.events"

# A store of your own, by its columns: `esx --store orders`. docs/stores.md says what each setting means.
[layouts.orders]
relation = "shop.order_log"
global_seq = "no"
stream_id = "order_id"
stream_seq = "version"
event_type = "kind"
data = "body"
"""


@click.command(name="config")
@click.option("--example", is_flag=True, help="Print an example of a config file, with comments.")
@click.option("--keys", is_flag=True, help="Print the names of the explorer's actions and their keys.")
def command(example: bool, keys: bool) -> None:
    """Print the path of the config file and the settings in effect, as TOML; passwords are masked."""
    if example:
        text: Iterable[str] = EXAMPLE.splitlines()
    elif keys:
        text = _keys(load_config())
    else:
        text = _settings(load_config())
    OutputLines().text(*text)


def _settings(config: Config) -> Iterator[str]:
    from esx.libpq.address import without_password

    yield f"# {config.path}{'' if config.exists else ' (there is none: these are the defaults)'}"
    yield f"# database: {_database(config)}"
    yield from _table(config, "theme", "time_zone", "statement_timeout", "reducer", "decoder", "failure_words")
    if config.commutes:
        yield from _table(config, "commutes")
    yield from ("", "[fields]", *_table(config.fields, "correlation", "causation", "identity"))
    if config.keymap:
        yield from ("", "[keymap]")
        yield from (f"{_toml(name)} = {_toml(keys)}" for name, keys in config.keymap.items())
    for layout in config.layouts:
        yield from ("", f"[layouts.{layout.name if '.' not in layout.name else _toml(layout.name)}]")
        yield from _layout(layout)
    for name, connection in config.connections.items():
        yield from ("", f"[connections.{name if '.' not in name else _toml(name)}]")
        yield f"dsn = {_toml(without_password(connection.dsn))}"
        yield from _table(connection, "password_env", "read_only", "statement_timeout", "store")
        if connection.trust_owner:
            yield "trust_owner = true"


def _layout(layout: OwnLayout) -> Iterator[str]:
    for setting, value in asdict(layout).items():
        if setting == "global_seq" and value is None:
            yield "global_seq = false"
        elif setting == "streams" and value is not None:
            yield f"streams = {{ relation = {_toml(value[0])}, column = {_toml(value[1])} }}"
        elif setting != "name" and value not in (None, ""):
            yield f"{setting} = {_toml(value)}"


def _table(settings: object, *names: str) -> Iterator[str]:
    return (f"{name} = {_toml(value)}" for name in names if (value := getattr(settings, name)) is not None)


def _database(config: Config) -> str:
    from esx.database_choice import choose
    from esx.errors import EsxError

    try:
        database = choose(None, os.environ, config)
    except EsxError as error:
        return str(error)
    return database.label if database.source == "embedded" else f"{database.label}, by {database.source}"


def _keys(config: Config) -> Iterator[str]:
    from esx.tui.keymap import actions

    known = actions()
    width = max(map(len, known))
    for name, (keys, what) in known.items():
        yield f"{name:<{width}}  {config.keymap.get(name, keys):<22}  {what}".rstrip()


def _toml(value: str | float | bool | tuple[str, ...]) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return visible(json.dumps(value, ensure_ascii=False))
