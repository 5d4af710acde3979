"""Chooses the database: that of ``--dsn``, of the environment, of the config file, or the embedded one."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from esx.config import BadConfig, Config, Connection
from esx.errors import EsxError
from esx.libpq.address import Odd, parse, url, without_password
from esx.libpq.parameters import SECRETS, BadParameter
from esx.libpq.target import Given, gather, resolve
from esx.text import shell_word, visible

_EMBEDDED_VERSION = 18
# libpq's variables that say where a database is. The others, such as PGUSER and PGPASSWORD, say who connects and how.
_WHERE = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE")
CHOOSING = ("ESX_DSN", "DATABASE_URL", *_WHERE)
"""The environment variables that choose a database."""
_EXPECTED = "postgresql://user@host:port/database, host=... dbname=..., or the name of a local database"


class BadDatabase(EsxError):
    """The text that names the database is malformed. The message shows it without its password."""


class UnknownConnection(BadDatabase):
    """The config file has no connection of that name. The message lists those that it has."""


@dataclass(frozen=True)
class Database:
    """A database, and where its name came from."""

    dsn: str | None = field(repr=False)  # it may hold a password
    """A URL, as `normalise` makes it; None if libpq's variables say all, or before the embedded one runs."""
    source: str
    """``--dsn``, ``ESX_DSN``, ``DATABASE_URL``, ``PG* variables``, ``config`` or ``embedded``."""
    label: str
    """Its name for messages, without a password and safe for a terminal."""
    embedded: bool
    name: str | None = None
    """The name of the connection in the config file, if it is one."""
    read_only: bool | None = None
    """True: no session may write; None: only sessions that need to."""
    statement_timeout: float | None = None
    """Seconds that a query may take; None for the default, 0 for no limit."""
    store: str | None = None
    """The table or view that was named as the store, as SQL writes it; None for the table events."""
    trust_owner: bool = False
    """Whether code of the table's owner may run when it is read, also with more rights than the owner has."""
    warnings: tuple[str, ...] = ()
    """Messages for the user about the files that were read."""

    @property
    def options(self) -> list[str]:
        """The options that name it for a command, without its password."""
        return [*self._address, *([] if self.store is None else ["--store", self.store])]

    def command(self, words: str) -> str:
        """Return ``esx`` with these words as it is typed in a shell to reach this database, not only its store."""
        return " ".join(["esx", words, *map(shell_word, self._address)])

    @property
    def _address(self) -> list[str]:
        if self.name is not None or self.embedded:
            return ["-d", self.name or "embedded"]
        return [] if self.dsn is None else ["-d", without_secrets(self.dsn)]


def choose(dsn_option: str | None, environ: Mapping[str, str], config: Config | None = None) -> Database:
    """Return the database that is meant; for the embedded one, `dsn` is still None. Connects to nothing.

    The first of these counts: ``--dsn``, ``ESX_DSN``, ``DATABASE_URL``, libpq's variables that say where a
    database is (PGHOST, PGHOSTADDR, PGPORT, PGDATABASE, PGSERVICE), the embedded database. Empty variables count as
    unset; an empty ``--dsn`` is an error, as it may come from a variable that should have been set. ``--dsn`` and
    ``ESX_DSN`` may also be the name of a connection of `config`, or ``embedded``.

    Raises BadDatabase, and BadConfig for a connection that is not usable as it is configured.
    """
    named = (
        ("--dsn", dsn_option),
        ("ESX_DSN", environ.get("ESX_DSN")),
        ("DATABASE_URL", environ.get("DATABASE_URL")),
    )
    if dsn_option is not None and not dsn_option.strip():
        raise BadDatabase(f"--dsn is empty: name a database ({_EXPECTED}), or leave the option out")
    for source, value in named:
        if value and value.strip():
            return meant(value, source, environ, None if source == "DATABASE_URL" else config)
    if any(environ.get(name) for name in _WHERE):
        return _resolved(None, "PG* variables", environ)
    return EMBEDDED


TYPED = "the address"
"""The source of an address that was typed on a screen."""
_WITH_NAME = re.compile(r"([\w.-]+) \(((?!service ).+)\)")


def meant(text: str, source: str, environ: Mapping[str, str], config: Config | None) -> Database:
    """Return the database that a text means: an address in any spelling that esx takes or prints, or a name.

    Names are those of the connections of `config`, and ``embedded``; without a `config` there are none. Raises
    BadDatabase and BadConfig.
    """
    text = text.strip()
    printed = _WITH_NAME.fullmatch(text)
    if printed is not None:
        known = config is not None and printed[1] in config.connections
        text = printed[1] if known else printed[2]
    if text == EMBEDDED.label:
        text = "embedded"
    return _named(text, source, environ, config) or _resolved(normalise(text, source), source, environ)


def configured(connection: Connection, environ: Mapping[str, str]) -> Database:
    """Return the database of a connection in the config file, with its password if a variable holds that.

    Raises BadDatabase, and BadConfig if that variable is not set.
    """
    source = f"connections.{connection.name} in the config file"
    given = parse(normalise(connection.dsn, source))
    if connection.password_env is not None:
        password = environ.get(connection.password_env)
        if not password:
            raise BadConfig(
                f"connection {connection.name} takes its password from {visible(connection.password_env, limit=100)}, "
                "which is not set: set it, or take password_env out of the config file"
            )
        given["password"] = password
    found = _resolved(url(given), source, environ)
    return replace(
        found,
        source="config",
        label=f"{connection.name} ({found.label})",
        name=connection.name,
        read_only=connection.read_only,
        statement_timeout=connection.statement_timeout,
        store=connection.store,
        trust_owner=connection.trust_owner,
    )


def may_be_name(text: str) -> bool:
    """Return whether `text` may be the name of a connection; else the config file need not be read."""
    return re.fullmatch(r"[\w.-]+", text.strip()) is not None


def _named(text: str, source: str, environ: Mapping[str, str], config: Config | None) -> Database | None:
    """Return the database that has this name; None if `text` is not a name.

    Where the config file has no connections a name is that of a local database, as for ``psql -d``.
    """
    if config is None or not may_be_name(text):
        return None
    if text in config.connections:
        return configured(config.connections[text], environ)
    if text == "embedded":
        return replace(EMBEDDED, source=source)
    if not config.connections:
        return None
    known = ", ".join([*sorted(config.connections), "embedded"])
    raise UnknownConnection(
        f"{source} {visible(text, limit=100)} is no connection of {visible(str(config.path))}: "
        f"use one of {known}, or dbname={visible(text, limit=100)} for a local database of that name"
    )


EMBEDDED = Database(None, "embedded", f"embedded PostgreSQL {_EMBEDDED_VERSION}", embedded=True)
"""The PostgreSQL that comes with esx, before it runs."""


@contextmanager
def open_database(
    dsn_option: str | None,
    environ: Mapping[str, str],
    config: Config | None = None,
    *,
    on_progress: Callable[[str], None] | None = None,
) -> Iterator[Database]:
    """Yield the database that is meant, with its `dsn`; the embedded one runs for as long as the block does.

    The embedded server's data are in ESX_DATA_DIR of `environ`, else in the platform's directory for user data.
    `on_progress` gets short texts while the server is made, started or stopped. This blocks, some 50 ms for a database
    that exists already; with an event loop, call it from another thread.

    Raises BadDatabase, BadConfig, and EmbeddedFailed if the embedded server does not start.
    """
    with opened(choose(dsn_option, environ, config), environ, on_progress=on_progress) as database:
        yield database


@contextmanager
def opened(
    database: Database, environ: Mapping[str, str], *, on_progress: Callable[[str], None] | None = None
) -> Iterator[Database]:
    """Do as `open_database` does for a database that has been chosen."""
    if not database.embedded:
        yield database
        return
    from esx.embedded import DATA_DIR_VARIABLE, EmbeddedServer

    named = environ.get(DATA_DIR_VARIABLE)
    data_dir = Path(named) if named else None
    with EmbeddedServer.start(data_dir, version=_EMBEDDED_VERSION, on_progress=on_progress) as server:
        # No variable of the environment changes where this address leads.
        yield replace(database, dsn=f"{server.dsn}&hostaddr=&service=")


def normalise(text: str, source: str = "--dsn") -> str:
    """Return a text that names a database as a URL, with all that it says.

    See `esx.libpq.address.parse`. `source` is where the text came from. Raises BadDatabase.
    """
    try:
        return url(parse(text))
    except Odd as odd:
        shown = visible(without_password(text.strip()), limit=200)
        remedy = f"expected {_EXPECTED}"
        if source not in ("--dsn", TYPED):
            remedy += f": change {source}, or pass --dsn"
        raise BadDatabase(f"{source} {shown} {odd}: {remedy}") from None


def beside(database: Database, name: str) -> Database:
    """Return another database of the same server, reached in the same way."""
    dsn = url({**({} if database.dsn is None else parse(database.dsn)), "dbname": name})
    label = place(dsn)
    return replace(
        database, dsn=dsn, label=label, embedded=False, name=None, store=None, trust_owner=False, warnings=()
    )


def without_secrets(dsn: str) -> str:
    """Return a URL, as `normalise` makes it, without secrets."""
    return url({key: value for key, value in parse(dsn).items() if key not in SECRETS})


def place(text: str) -> str:
    """Return where the database that `text` names is, for messages: without a password, also for a malformed text."""
    try:
        return _label(gather(parse(text), os.environ))
    except (Odd, BadParameter):
        return visible(without_password(text), limit=200)


def _resolved(dsn: str | None, source: str, environ: Mapping[str, str]) -> Database:
    """Return the database at `dsn`, after a check that esx can honour all its parameters. Raises BadDatabase."""
    try:
        explicit = {} if dsn is None else parse(dsn)
        target = resolve(explicit, environ)
        label = _label(gather(explicit, environ))
    except (BadParameter, Odd) as error:
        text = str(error) if isinstance(error, BadParameter) else f"the address {error}"
        by = "" if dsn is None or text.startswith("PG") else f"{source}: "
        raise BadDatabase(f"{by}{text}") from None
    return Database(dsn, source, label, embedded=False, warnings=target.warnings)


def _label(given: Given) -> str:
    return visible(given.label(), limit=200)
