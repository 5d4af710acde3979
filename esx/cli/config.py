"""esx config."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from esx.cli.common import Lines
from esx.cli.common import config as load_config
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from esx.config import Config

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
# Nothing writes here: not the commands either.
read_only = true
statement_timeout = "10s"
# Another table than events, or a view, as SQL writes its name. What the owner of a view has put into it runs when it
# is read, so a view has to be named.
# store = "reporting.events"
"""


@click.command(name="config")
@click.option("--example", is_flag=True, help="Print an example of a config file, with comments.")
@click.option("--keys", is_flag=True, help="Print the names of the explorer's actions and their keys.")
def command(example: bool, keys: bool) -> None:
    """Print the path of the config file and the settings in effect, as TOML; passwords are masked."""
    lines = Lines()
    if example:
        text: Iterable[str] = EXAMPLE.splitlines()
    elif keys:
        text = _keys(load_config())
    else:
        text = _settings(load_config())
    for line in text:
        lines.text(line)


def _settings(config: Config) -> Iterator[str]:
    from esx.libpq.address import without_password

    yield f"# {config.path}{'' if config.exists else ' (there is none: these are the defaults)'}"
    yield f"# database: {_database(config)}"
    if config.theme is not None:
        yield f"theme = {_quoted(config.theme)}"
    yield f"time_zone = {_quoted(config.time_zone)}"
    yield f"statement_timeout = {config.statement_timeout:g}"
    if config.reducer is not None:
        yield f"reducer = {_quoted(config.reducer)}"
    yield from ("", "[fields]")
    for name in ("correlation", "causation", "identity"):
        yield f"{name} = [{', '.join(map(_quoted, getattr(config.fields, name)))}]"
    if config.keymap:
        yield from ("", "[keymap]")
        yield from (f"{_quoted(name)} = {_quoted(keys)}" for name, keys in config.keymap.items())
    for name, connection in config.connections.items():
        yield from ("", f"[connections.{name if '.' not in name else _quoted(name)}]")
        yield f"dsn = {_quoted(without_password(connection.dsn))}"
        if connection.password_env is not None:
            yield f"password_env = {_quoted(connection.password_env)}"
        if connection.read_only is not None:
            yield f"read_only = {str(connection.read_only).lower()}"
        if connection.statement_timeout is not None:
            yield f"statement_timeout = {connection.statement_timeout:g}"
        if connection.store is not None:
            yield f"store = {_quoted(connection.store)}"


def _database(config: Config) -> str:
    from esx.database import choose
    from esx.store.errors import EsxError

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


def _quoted(text: str) -> str:
    return visible(json.dumps(text, ensure_ascii=False))
