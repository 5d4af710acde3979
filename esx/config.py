"""The config file: named connections, layouts, keys, theme, time zone, and the names of fields in metadata.

It is read strictly: an unknown setting is an error that names the file, the key and the remedy, so that a misspelt
setting is noticed.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from esx.errors import EsxError, InvalidQuery
from esx.files import new_file
from esx.layouts.foreign.own import OPTIONAL, OwnLayout, relation_of
from esx.store.conflicts.commuting import Commuting, parse_rule
from esx.store.trail.trail import COMMON_FIELDS, FieldNames
from esx.text import either, visible

VARIABLE = "ESX_CONFIG"
"""The environment variable that names another config file."""
STATEMENT_TIMEOUT = 30.0
"""How many seconds a query of the explorer may take by default."""
FAILURE_WORDS = ("fail", "error", "reject", "declin", "refus", "denied", "abort", "timeout", "timedout", "expired")
"""What the name of a type says of a failure by default: parts of it, whatever their case."""
LONGEST_TIMEOUT = 2_147_483.0  # PostgreSQL keeps milliseconds in 31 bits


class BadConfig(EsxError):
    """The config file cannot be read, or has a wrong setting. The message is one line."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A database with a name.

    With `read_only` True no session may write, with False the explorer's sessions may write too; None: the explorer
    only reads, commands may write. `statement_timeout` is in seconds, 0 for none, None for the default.
    `password_env` names the environment variable that holds the password. `store` is the table or view that is read,
    as SQL writes it, None for events. `trust_owner` says that code of its owner may run when it is read.
    """

    name: str
    dsn: str = field(repr=False)  # it may hold a password
    password_env: str | None = None
    read_only: bool | None = None
    statement_timeout: float | None = None
    store: str | None = None
    trust_owner: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of the config file, or the defaults. `path` is where the file is or would be, None if unknown."""

    path: Path | None = None
    exists: bool = False
    theme: str | None = None
    time_zone: str = "local"
    statement_timeout: float = STATEMENT_TIMEOUT
    reducer: str | None = None
    decoder: str | None = None
    fields: FieldNames = COMMON_FIELDS
    failure_words: tuple[str, ...] = FAILURE_WORDS
    commutes: tuple[str, ...] = ()
    """Pairs of event types that may be stored in either order, as ``esx conflicts --commutes`` takes them."""
    keymap: Mapping[str, str] = field(default_factory=dict)
    connections: Mapping[str, Connection] = field(default_factory=dict)
    layouts: tuple[OwnLayout, ...] = ()

    @property
    def zone(self) -> tzinfo | None:
        """The time zone in which times are shown and read; None for the machine's."""
        return None if self.time_zone == "local" else ZoneInfo(self.time_zone)


def config_path(environ: Mapping[str, str]) -> Path:
    """Return where the config file is: $ESX_CONFIG, or ``config.toml`` in the platform's directory for settings."""
    named = environ.get(VARIABLE)
    if named:
        return Path(named)
    from platformdirs import user_config_path

    return user_config_path("esx", appauthor=False) / "config.toml"


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Read the config file; without one, return the defaults.

    Raises BadConfig; also if $ESX_CONFIG names a file that is not there.
    """
    path = config_path(environ)
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        if environ.get(VARIABLE):
            raise BadConfig(
                f"{VARIABLE} names {visible(str(path))}, which is not there: `esx config --example > FILE` makes one"
            ) from None
        return Config(path)
    except OSError as error:
        raise BadConfig(f"{visible(str(path))} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadConfig(f"{visible(str(path))} is not UTF-8: save it as UTF-8") from None
    try:
        given = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadConfig(f"{visible(str(path))} is not TOML: {visible(str(error), limit=200)}") from None
    return _Reader(path).config(given)


def add_connection(config: Config, name: str, dsn: str) -> Connection:
    """Write a connection at the end of the config file, and return it.

    Raises BadConfig for a name that there is or cannot be, and for a file that cannot be written.
    """
    path = config.path
    if path is None:
        raise BadConfig("there is no config file to save it in: leave the name out")
    if name in load_connections(path):
        raise BadConfig(f"{visible(str(path))} has a connection {visible(name, limit=60)} already: use another name")
    connections = _Reader(path).connections({name: {"dsn": dsn}})
    quoted = json.dumps(dsn, ensure_ascii=False)
    try:
        text = path.read_bytes().decode() if path.exists() else ""
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path, force=True, private=True) as file:
            file.write(f'{text}{gap}[connections."{name}"]\ndsn = {quoted}\n'.encode())
    except OSError as error:
        raise BadConfig(f"{visible(str(path))} cannot be written: {error.strerror or error}") from None
    return connections[name]


def load_connections(path: Path) -> Mapping[str, Connection]:
    """Return the connections of a config file as it is now; none if it is not there. Raises BadConfig."""
    return load({VARIABLE: str(path)}).connections if path.exists() else {}


class _Reader:
    """Turns tables into values; each error names the file and the key."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def config(self, given: dict[str, Any]) -> Config:
        settings: dict[str, Callable[[str, Any], Any]] = {
            "theme": self._text,
            "time_zone": self._zone,
            "statement_timeout": self._seconds,
            "reducer": self._function,
            "decoder": self._function,
            "fields": self._fields,
            "failure_words": self._words,
            "commutes": self._pairs,
            "keymap": self._keymap,
            "connections": self._connections,
            "layouts": self._layouts,
        }
        return Config(self._path, True, **self._table("", given, settings))

    def _table(self, at: str, given: Any, settings: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in self._dict(at, given).items():
            name = f"{at}.{key}" if at else key
            if key not in settings:
                raise self._error(name, f"is not a setting: use {either(settings)}")
            found[key] = settings[key](name, value)
        return found

    def _dict(self, at: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._error(at, f"must be a table: write [{at}] and its settings below")
        return value

    def _error(self, key: str, what: str) -> BadConfig:
        return BadConfig(f"{visible(str(self._path))}: {visible(key, limit=100)} {what}")

    def _text(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise self._error(key, f'must be text: write {key.rpartition(".")[2]} = "..."')
        return value

    def _bool(self, key: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._error(key, "must be true or false")
        return value

    def _zone(self, key: str, value: Any) -> str:
        name = self._text(key, value)
        if name != "local":
            try:
                ZoneInfo(name)
            except (OSError, ValueError, LookupError):
                raise self._error(
                    key,
                    f'is no time zone: "{visible(name, limit=60)}"; use "local", "UTC", or a name like "Europe/Berlin"',
                ) from None
        return name

    def _seconds(self, key: str, value: Any) -> float:
        seconds: float = -1
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value
        elif isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s|min|m|h)", value)):
            seconds = float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600}[match[2]]
        if not 0 <= seconds <= LONGEST_TIMEOUT:
            raise self._error(key, 'must be seconds, or text like "500ms", "30s" or "2m"; 0 means no limit')
        return float(seconds)

    def _function(self, key: str, value: Any) -> str:
        name = self._text(key, value)
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", name):
            raise self._error(key, 'must name a function: write "module:function"')
        return name

    def _names(self, key: str, value: Any) -> tuple[str, ...]:
        names = [value] if isinstance(value, str) else value
        if (
            not isinstance(names, list)
            or not names
            or not all(isinstance(name, str) and name and "\0" not in name for name in names)
        ):
            raise self._error(key, "must be the name of a field, or a list of names")
        return tuple(names)

    def _words(self, key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
            raise self._error(key, 'must be a list of texts: write ["fail", "error"]')
        return tuple(value)

    def _pairs(self, key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(pair, str) for pair in value):
            raise self._error(key, 'must be a list of pairs of types: write ["Deposited,Deposited"]')
        for pair in value:
            try:
                Commuting([parse_rule(pair)])
            except InvalidQuery as error:
                raise self._error(key, f"is wrong: {error}") from None
        return tuple(value)

    def _fields(self, key: str, value: Any) -> FieldNames:
        names = dict.fromkeys(("correlation", "causation", "identity"), self._names)
        return FieldNames(**self._table(key, value, names))

    def _keymap(self, key: str, value: Any) -> dict[str, str]:
        keymap = {}
        for name, keys in self._dict(key, value).items():
            if isinstance(keys, dict):
                raise self._error(f"{key}.{name}", f'must be in quotes: write "{name}.ACTION" = "KEY"')
            if not isinstance(keys, str) or not all(each.strip() for each in keys.split(",")):
                raise self._error(f"{key}.{name}", 'must be a key or several: write "f" or "f,ctrl+f"')
            keymap[name] = ",".join(each.strip() for each in keys.split(","))
        return keymap

    def connections(self, given: dict[str, Any]) -> dict[str, Connection]:
        """Return connections by name."""
        return self._connections("connections", given)

    def _connections(self, key: str, value: Any) -> dict[str, Connection]:
        connections = {}
        for name, given in self._dict(key, value).items():
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or name == "embedded":
                raise self._error(f"{key}.{name}", "cannot be a connection's name: use other letters, digits, - and _")
            at = f"{key}.{name}"
            settings = self._table(
                at,
                given,
                {
                    "dsn": self._text,
                    "password_env": self._text,
                    "read_only": self._bool,
                    "statement_timeout": self._seconds,
                    "store": self._text,
                    "trust_owner": self._bool,
                },
            )
            if "dsn" not in settings:
                raise self._error(at, 'has no dsn: write dsn = "postgresql://user@host/database"')
            connections[name] = Connection(name, **settings)
        return connections

    def _layouts(self, key: str, value: Any) -> tuple[OwnLayout, ...]:
        return tuple(self._layout(f"{key}.{name}", name, given) for name, given in self._dict(key, value).items())

    def _layout(self, at: str, name: str, given: Any) -> OwnLayout:
        from esx.layouts.foreign.kinds import KINDS

        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise self._error(at, "cannot be a layout's name: use other letters, digits, - and _")
        if name in ("esx", *(kind.name for kind in KINDS)):
            raise self._error(at, "has the name of a kind that esx knows: use another")
        values = self._table(
            at,
            given,
            {
                "relation": self._relation,
                "global_seq": self._number,
                "stream_id": self._columns,
                **dict.fromkeys(("stream_seq", "event_type", "data", *OPTIONAL), self._text),
                "separator": self._character,
                "first": self._first,
                **dict.fromkeys(("joins", "where", "title", "caution"), self._text),
                "streams": self._streams,
                "order": partial(self._one_of, words=("sequence", "serialised", "none")),
                "rule": partial(self._one_of, words=("locks", "none needed", "not promised")),
            },
        )
        for needed in ("relation", "global_seq", "stream_id", "stream_seq", "event_type", "data"):
            if needed not in values:
                what = "or false for none" if needed == "global_seq" else "docs/stores.md has an example"
                raise self._error(at, f'has no {needed}: write {needed} = "...", {what}')
        order = values.setdefault("order", "sequence" if values["global_seq"] is not None else "none")
        rule = values.setdefault("rule", {"none": "not promised", "serialised": "none needed"}.get(order, "locks"))
        if values["global_seq"] is None and order != "none":
            raise self._error(f"{at}.order", 'must be "none" where global_seq is false')
        if order == "none" and rule != "not promised":
            raise self._error(f"{at}.rule", 'must be "not promised" where order is "none"')
        return OwnLayout(name, **values)

    def _relation(self, key: str, value: Any) -> str:
        text = self._text(key, value)
        try:
            relation_of(text)
        except ValueError:
            raise self._error(key, 'must name a table with its schema, as SQL does: write "schema.table"') from None
        return text

    def _character(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or len(value) != 1:
            raise self._error(key, 'must be one character: write "/"')
        return value

    def _number(self, key: str, value: Any) -> str | None:
        return None if value is False else self._text(key, value)

    def _columns(self, key: str, value: Any) -> tuple[str, ...]:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise self._error(key, 'must be a column, or a list: write "stream" or ["tenant", "id"]')
        return tuple(names)

    def _first(self, key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._error(key, "must be the number of a stream's first event: write 0 or 1")
        return value

    def _streams(self, key: str, value: Any) -> tuple[str, str]:
        given = self._table(key, value, {"relation": self._relation, "column": self._text})
        if len(given) != 2:
            raise self._error(key, 'must have both: write { relation = "schema.table", column = "..." }')
        if not re.fullmatch(r"[^\W\d]\w*", given["column"]):
            raise self._error(f"{key}.column", "must be the plain name of a column")
        return given["relation"], given["column"]

    def _one_of(self, key: str, value: Any, words: tuple[str, ...]) -> str:
        if value not in words:
            raise self._error(key, f"must be {either([repr(word) for word in words])}".replace("'", '"'))
        return str(value)
