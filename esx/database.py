"""Which database is meant: the one of ``--dsn``, of the environment, of the config file, or the embedded one."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from esx.config import BadConfig
from esx.store.connection import describe
from esx.store.errors import EsxError
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from esx.config import Config, Connection

_EMBEDDED_VERSION = 18
# libpq's variables that say where a database is. PGUSER, PGPASSWORD, PGPASSFILE and the rest say who connects
# and how, to wherever that is.
_WHERE = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE")
CHOOSING = ("ESX_DSN", "DATABASE_URL", *_WHERE)
"""The environment variables that choose a database."""
_EXPECTED = "postgresql://user@host:port/database, host=... dbname=..., or the name of a local database"
# Parameters of libpq and of other drivers that asyncpg would hand to the server, which does not know them.
_DROPPED = frozenset(
    {
        "connect_timeout",
        "client_encoding",
        "fallback_application_name",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "channel_binding",
        "gssdelegation",
        "sslcompression",
        "sslsni",
        "sslcrldir",
        "load_balance_hosts",
        "min_protocol_version",
        "max_protocol_version",
        "prepared_statement_cache_size",
        "prepared_statement_name_func",
        "async_fallback",
        "pgbouncer",
        "connection_limit",
        "pool_timeout",
    }
)
# These restrict whom to trust: to leave them out would be less safe than what was asked for.
_REFUSED = frozenset({"require_auth", "requirepeer", "replication"})
_RENAMED = {"ssl": "sslmode", "schema": "search_path"}  # as SQLAlchemy and JDBC, and as Prisma write them
_KEYWORDS = (
    _DROPPED
    | _REFUSED
    | frozenset(
        {
            "host",
            "hostaddr",
            "port",
            "dbname",
            "user",
            "password",
            "passfile",
            "service",
            "sslmode",
            "sslcert",
            "sslkey",
            "sslrootcert",
            "sslcrl",
            "sslpassword",
            "sslnegotiation",
            "ssl_min_protocol_version",
            "ssl_max_protocol_version",
            "target_session_attrs",
            "krbsrvname",
            "gsslib",
            "gssencmode",
            "application_name",
            "options",
        }
    )
)


class BadDatabase(EsxError):
    """What names the database is not understood. The message shows it without its password."""


class UnknownConnection(BadDatabase):
    """No connection of the config file has that name. The message lists those that there are."""


@dataclass(frozen=True)
class Database:
    """A database and where it was named."""

    dsn: str | None
    """A URL that asyncpg takes; None if asyncpg is to read libpq's variables, or before the embedded one runs."""
    source: str
    """``--dsn``, ``ESX_DSN``, ``DATABASE_URL``, ``PG* variables``, ``config`` or ``embedded``."""
    label: str
    """What to show for it: never a password, safe for a terminal."""
    embedded: bool
    name: str | None = None
    """What the config file calls it, if it is one of its connections."""
    read_only: bool | None = None
    """Whether sessions may write: True forbids it to all, None only to those that need not."""
    statement_timeout: float | None = None
    """Seconds that a query may take; None for the default, 0 for no limit."""
    store: str | None = None
    """The table or view that was named as the store, as SQL writes it; None for the table events."""
    trust_owner: bool = False
    """Whether code of the table's owner may run when it is read, whatever rights the user has."""


def choose(dsn_option: str | None, environ: Mapping[str, str], config: Config | None = None) -> Database:
    """Return the database that is meant; for the embedded one, `dsn` is still None. Connects to nothing.

    The first of these counts: ``--dsn``, ``ESX_DSN``, ``DATABASE_URL``, libpq's variables that say where a
    database is (PGHOST, PGHOSTADDR, PGPORT, PGDATABASE, PGSERVICE), the embedded database. Variables that are empty
    count as unset; an empty ``--dsn`` is an error, as it may come of one that should have been set. ``--dsn`` and
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
            if source != "DATABASE_URL" and (database := _named(value.strip(), source, environ, config)):
                return database
            dsn = normalise(value, source)
            return Database(dsn, source, _label(dsn), embedded=False)
    if any(environ.get(name) for name in _WHERE):
        return _from_variables(environ)
    return EMBEDDED


def configured(connection: Connection, environ: Mapping[str, str]) -> Database:
    """Return the database of a connection in the config file, with its password if a variable holds that.

    Raises BadDatabase, and BadConfig if that variable is not set.
    """
    dsn = normalise(connection.dsn, f"connections.{connection.name} in the config file")
    if connection.password_env is not None:
        password = environ.get(connection.password_env)
        if not password:
            raise BadConfig(
                f"connection {connection.name} takes its password from {visible(connection.password_env, limit=100)}, "
                "which is not set: set it, or take password_env out of the config file"
            )
        dsn += f"{'&' if '?' in dsn else '?'}password={quote(password, safe='')}"
    return Database(
        dsn,
        "config",
        f"{connection.name} ({_label(dsn)})",
        embedded=False,
        name=connection.name,
        read_only=connection.read_only,
        statement_timeout=connection.statement_timeout,
        store=connection.store,
        trust_owner=connection.trust_owner,
    )


def may_be_name(text: str) -> bool:
    """Return whether `text` may be the name of a connection of the config file: only then need that be read."""
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

    The embedded server's data are in ESX_DATA_DIR of `environ`, or else in the platform's directory for user
    data. `on_progress` gets short texts while it is made, started or stopped. This blocks, about 50 ms for a
    database that exists already; call it from a thread where an event loop runs.

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
        yield replace(database, dsn=server.dsn)


def normalise(text: str, source: str = "--dsn") -> str:
    """Return as a URL that asyncpg takes what people write to name a database.

    That is a URL (also with a driver, ``postgresql+psycopg://``, as SQLAlchemy writes it), libpq's keywords
    (``host=localhost dbname=x``), or the name of a database, as ``psql -d`` takes it. Parameters that asyncpg
    does not know and the server would refuse are left out. `source` is where the text came from.

    Raises BadDatabase.
    """
    text = text.strip()
    try:
        if match := re.match(r"([A-Za-z][A-Za-z0-9.-]*)(?:\+[A-Za-z0-9_.-]+)?://", text):
            if match[1].lower() not in ("postgresql", "postgres"):
                raise _Odd("is not PostgreSQL")
            return _from_url(text[match.end() :])
        if "=" in text and "://" not in text.partition("=")[0]:
            return _from_keywords(text)
        if re.search(r"[\s:/@?#]", text) or not text.isprintable():
            raise _Odd("is not understood")
        return _url(database=text)
    except _Odd as odd:
        shown = visible(without_password(text), limit=200)
        remedy = f"expected {_EXPECTED}"
        if source != "--dsn":
            remedy += f": change {source}, or pass --dsn"
        raise BadDatabase(f"{source} {shown} {odd}: {remedy}") from None


def without_password(text: str) -> str:
    """Return what names a database with its passwords replaced by ``***``, however broken it is."""
    key = r"(?i)(\w*(?:pass|pasw|pwd|secret)\w*\s*=)"
    if "//" not in text:
        # Where quotes are missing nobody knows where a password ends.
        return re.sub(f"{key}.*", r"\1***", text, flags=re.DOTALL)
    # Up to the last @: an unescaped @ in a password must not end what is hidden.
    text = re.sub(r"(//[^:/@\s]*:).*@", r"\1***@", text, flags=re.DOTALL)
    return re.sub(f"{key}[^&]*", r"\1***", text)


class _Odd(Exception):
    """What is wrong with a text, to follow the text itself. Never holds a part of it that may be a password."""


def _from_url(rest: str) -> str:
    """Convert what follows ``postgresql://``."""
    if "#" in rest:
        raise _Odd("has a # that must be written %23")
    try:
        parts = urlsplit(f"postgresql://{rest}")
    except ValueError:
        raise _Odd("has a malformed host") from None
    account, _, hosts = parts.netloc.rpartition("@")
    if not account and ":" in hosts and "@" in parts.path + parts.query:
        raise _Odd("has a / or ? in its password that must be written %2F or %3F")
    user, _, password = account.partition(":")
    names: list[str] = []
    ports: list[str] = []
    for each in hosts.split(",") if hosts else ():
        match = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(\d*))?", each)
        if match is None:
            raise _Odd("has a malformed host or port")
        names.append(unquote(match[1].strip("[]")))
        ports.append(match[2] or "")
    try:
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _Odd("has a malformed parameter after the ?") from None
    given = {
        "user": unquote(user),
        "password": unquote(password),
        "host": ",".join(names),
        "port": ",".join(ports) if any(ports) else "",
        "dbname": unquote(parts.path.removeprefix("/")),
    }
    return _from_parameters({key: value for key, value in given.items() if value} | query)


def _from_keywords(text: str) -> str:
    """Convert libpq's ``keyword=value`` pairs, where values may be quoted and have escapes."""
    pattern = re.compile(
        r"\s*(\w+)\s*=\s*(?:'((?:\\.|[^'\\])*)'(?=\s|$)|((?:\\.|[^\s'\\])(?:\\.|[^\s\\])*|))", re.DOTALL
    )
    given: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = pattern.match(text, at)
        if match is None or match.end() == at:
            raise _Odd("is not a list of keyword=value")
        key = match[1].lower()
        if key not in _KEYWORDS:
            # Where a password is not quoted, what looks like a keyword may be a part of it.
            name = "a parameter" if "password" in given else f"the parameter {visible(key, limit=40)}"
            raise _Odd(f"has {name} that PostgreSQL does not know")
        value = match[2] if match[2] is not None else match[3]
        given[key] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        at = match.end()
    return _from_parameters(given)


def _from_parameters(given: Mapping[str, str]) -> str:
    """Make the URL from parameters as libpq calls them, which may be others too: settings of the session."""
    left = {_RENAMED.get(key, key): value for key, value in given.items() if value}
    for key in _REFUSED & left.keys():
        raise _Odd(f"has the parameter {key}, which esx cannot honour")
    if left.pop("gssencmode", "") == "require":
        raise _Odd("has gssencmode=require, which esx cannot honour")
    if left.get("sslmode") in ("true", "True", "1", "on"):
        left["sslmode"] = "require"
    elif left.get("sslmode") in ("false", "False", "0", "off"):
        left["sslmode"] = "disable"
    database = left.pop("dbname", "") or left.pop("database", "")
    left.pop("database", None)
    address = left.pop("hostaddr", "")
    return _url(
        user=left.pop("user", ""),
        password=left.pop("password", ""),
        host=left.pop("host", "") or address,
        port=left.pop("port", ""),
        database=database,
        query={key: value for key, value in left.items() if key not in _DROPPED},
    )


def _url(
    *,
    user: str = "",
    password: str = "",
    host: str = "",
    port: str = "",
    database: str = "",
    query: Mapping[str, str] | None = None,
) -> str:
    if not all(0 < int(each) < 65536 if each.isascii() and each.isdigit() else not each for each in port.split(",")):
        raise _Odd("has a port that is not a number from 1 to 65535")
    if any(re.search(r"[;=]", each) for each in (user, host, database)):
        raise _Odd("has a ; or = where none belongs")  # Password=... of other databases' syntax ends up there
    more = dict(query or {})
    hosts = [f"[{each}]" if ":" in each and not each.startswith(("/", "[")) else each for each in host.split(",")]
    ports = port.split(",")
    if len(ports) not in (1, len(hosts)):
        raise _Odd("has not as many ports as hosts")
    if len(ports) > 1:
        ports = [each or "5432" for each in ports]
    where = ""
    if len(hosts) == 1 and not hosts[0].startswith(("/", "@")):
        where = hosts[0] if hosts[0].startswith("[") else quote(hosts[0], safe="")
        if where and ports[0]:
            where += f":{ports[0]}"
            ports = [""]
    else:
        more["host"] = ",".join(hosts)  # sockets and several hosts do not fit where hosts are in a URL
    if any(ports):
        more["port"] = ",".join(ports)
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    tail = f"?{urlencode(more, quote_via=quote, safe='/,')}" if more else ""
    # Without a database there is no slash: after one, asyncpg would not look at PGDATABASE.
    path = f"/{quote(database, safe='')}" if database else ""
    return f"postgresql://{who}{'@' if who else ''}{where}{path}{tail}"


def _from_variables(environ: Mapping[str, str]) -> Database:
    host, address = environ.get("PGHOST", ""), environ.get("PGHOSTADDR", "")
    port, service = environ.get("PGPORT", ""), environ.get("PGSERVICE")
    try:
        shown = _url(
            user=environ.get("PGUSER", ""),
            host=host or address,
            database=environ.get("PGDATABASE", ""),
            query={"port": port} if port else None,
        )
        dsn = _url(host=address) if address and not host else None  # asyncpg does not read PGHOSTADDR
    except _Odd as odd:
        raise BadDatabase(f"PGHOST, PGHOSTADDR, PGUSER or PGDATABASE {odd}: change it, or pass --dsn") from None
    label = f"service {service}" if service and not host else describe(shown)
    return Database(dsn, "PG* variables", visible(label, limit=200), embedded=False)


def without_secrets(dsn: str) -> str:
    """Return a URL, as `normalise` makes it, without what only its owner should know."""
    parts = urlsplit(dsn)
    account, at, hosts = parts.netloc.rpartition("@")
    given = parse_qsl(parts.query, keep_blank_values=True)
    query = [(key, value) for key, value in given if key not in ("password", "sslpassword")]
    # By hand: where there is no host urlunsplit would leave the slashes out.
    user = account.partition(":")[0]
    tail = f"?{urlencode(query, quote_via=quote, safe='/,')}" if query else ""
    return f"postgresql://{user}{at if user else ''}{hosts}{parts.path}{tail}"


def place(text: str) -> str:
    """Return where the database is that `text` names, for people: never a password, however broken it is."""
    try:
        return _label(normalise(text))
    except BadDatabase:
        return visible(without_password(text), limit=200)


def _label(dsn: str) -> str:
    parts = urlsplit(dsn)
    service = "" if parts.netloc else dict(parse_qsl(parts.query)).get("service")
    return visible(f"service {service}" if service else describe(dsn), limit=200)
