"""All parameters of libpq and their variables: esx honours each of them, or refuses it with a remedy."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from esx.libpq.options import Malformed, names_utf8, split_options
from esx.text import either


class BadParameter(Exception):
    """A parameter is wrong, or esx cannot honour it. The message is one line with the remedy, without secrets."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter, by libpq's name, and its environment variable."""

    keyword: str
    variable: str | None
    does: str
    """What esx does with it, for the documentation."""
    check: Callable[[str], str | None] = lambda _: None
    """Returns what is wrong with a value, to follow the parameter's name in a message; None for nothing."""
    secret: bool = False
    """Whether its value is a secret."""


def _one_of(*allowed: str, refused: str = "") -> Callable[[str], str | None]:
    """Allow these values; `refused` says why others that libpq knows are not honoured."""

    def check(value: str) -> str | None:
        if value in allowed:
            return None
        return f"must be {either(allowed)}" + (f": {refused}" if refused else "")

    return check


def _unless(value: str, why: str, *allowed: str) -> Callable[[str], str | None]:
    """Refuse one value because of `why`, and all that libpq does not know."""

    def check(given: str) -> str | None:
        if given == value:
            return f"is {value}, which esx cannot honour: {why}"
        return None if given in allowed else f"must be {either((*allowed, value))}"

    return check


def _never(why: str) -> Callable[[str], str | None]:
    return lambda value: f"cannot be honoured: {why}" if value else None


def _number(value: str) -> str | None:
    return None if re.fullmatch(r"\s*[+-]?\d{1,9}\s*", value) else "must be a whole number"


def _encoding(value: str) -> str | None:
    if value.lower() == "auto" or names_utf8(value):
        return None
    return "must be UTF8 or auto: esx reads and prints UTF-8, and PostgreSQL converts what it keeps"


def _options(value: str) -> str | None:
    try:
        settings = split_options(value)
    except Malformed as error:
        return str(error)
    for name, setting in settings:
        if name == "client_encoding" and (wrong := _encoding(setting)):
            return f"sets client_encoding, which {wrong}"
    return None


def _tls(value: str) -> str | None:
    known = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
    return None if value.lower() in map(str.lower, known) else f"must be {either(known)}"


def _replication(value: str) -> str | None:
    if value.lower() in ("false", "off", "no", "0"):
        return None
    return "asks for a replication connection, over which no store can be read: leave it out"


_TRUSTED = "leave it out; sslmode=verify-full keeps a password from other servers"
_NO_OAUTH = _never("esx does not speak OAuth: use a password, a certificate or Kerberos")
_NO_KEYS = _never("esx derives the keys from the password: give that")
SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TARGETS = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "service",
        "PGSERVICE",
        "honoured: what the service file says goes before variables, and after the address; a service that is not "
        "found is an error that names the files",
    ),
    Parameter("servicefile", "PGSERVICEFILE", "honoured; else `~/.pg_service.conf`, then that in `PGSYSCONFDIR`"),
    Parameter("user", "PGUSER", "honoured; else the name of the system's user"),
    Parameter("password", "PGPASSWORD", "honoured; never shown", secret=True),
    Parameter("passfile", "PGPASSFILE", "honoured for each host; else `~/.pgpass`"),
    Parameter(
        "channel_binding",
        "PGCHANNELBINDING",
        "`disable` and `prefer` are honoured (there is none); `require` is refused",
        _unless("require", "its driver has no channel binding; use sslmode=verify-full", "disable", "prefer"),
    ),
    Parameter(
        "connect_timeout",
        "PGCONNECT_TIMEOUT",
        "honoured, for each host; 0 waits for ever; else 10 seconds for all hosts together",
        _number,
    ),
    Parameter("dbname", "PGDATABASE", "honoured; else the name of the user"),
    Parameter("host", "PGHOST", "honoured, also several; else the usual socket directories, then `localhost`"),
    Parameter("hostaddr", "PGHOSTADDR", "honoured: goes there without a look-up, while `host` is who must answer"),
    Parameter("port", "PGPORT", "honoured, also several"),
    Parameter(
        "client_encoding",
        "PGCLIENTENCODING",
        "`UTF8` and `auto` are honoured; others are refused, as esx reads and prints UTF-8",
        _encoding,
    ),
    Parameter(
        "options",
        "PGOPTIONS",
        "honoured: handed to the server; esx keeps to a stricter `statement_timeout` or "
        "`default_transaction_read_only`, and refuses another `default_transaction_isolation`",
        _options,
    ),
    Parameter("application_name", "PGAPPNAME", "honoured; else esx's own"),
    Parameter("fallback_application_name", None, "honoured where there is no `application_name`"),
    Parameter("keepalives", None, "honoured; else on", _number),
    Parameter("keepalives_idle", None, "honoured; else 10 seconds", _number),
    Parameter("keepalives_interval", None, "honoured; else 5 seconds", _number),
    Parameter("keepalives_count", None, "honoured; else 2", _number),
    Parameter("tcp_user_timeout", None, "honoured; else 20000 milliseconds", _number),
    Parameter("sslmode", "PGSSLMODE", "honoured", _one_of(*SSLMODES)),
    Parameter(
        "sslnegotiation",
        "PGSSLNEGOTIATION",
        "honoured; `direct` needs `sslmode=require` or stricter",
        _one_of("postgres", "direct"),
    ),
    Parameter("sslcompression", "PGSSLCOMPRESSION", "honoured as by libpq today: nothing is compressed", _number),
    Parameter(
        "sslcert", "PGSSLCERT", "honoured; else `~/.postgresql/postgresql.crt`; a file that is missing is an error"
    ),
    Parameter("sslkey", "PGSSLKEY", "honoured, with libpq's rules for its permissions; engines are refused"),
    Parameter(
        "sslcertmode",
        "PGSSLCERTMODE",
        "`allow` and `disable` are honoured; `require` is refused",
        _unless("require", "its driver cannot see whether the server asks; use sslcert alone", "allow", "disable"),
    ),
    Parameter("sslpassword", None, "honoured; never shown", secret=True),
    Parameter(
        "sslrootcert",
        "PGSSLROOTCERT",
        "honoured from `sslmode=require` on; else `~/.postgresql/root.crt`; `system` means the system's, with "
        "`sslmode=verify-full`",
    ),
    Parameter("sslcrl", "PGSSLCRL", "honoured where a root certificate is; else `~/.postgresql/root.crl`"),
    Parameter("sslcrldir", "PGSSLCRLDIR", "honoured where a root certificate is"),
    Parameter(
        "sslsni",
        "PGSSLSNI",
        "`1` is honoured, `0` is refused",
        _unless("0", "its driver always tells the server's name; give hostaddr instead of host", "1"),
    ),
    Parameter("requirepeer", "PGREQUIREPEER", "refused where a host is a socket directory, without effect elsewhere"),
    Parameter(
        "require_auth",
        "PGREQUIREAUTH",
        "refused: the driver answers in any way that the server asks for",
        _never(f"its driver answers in any way that the server asks for; {_TRUSTED}"),
    ),
    Parameter(
        "min_protocol_version",
        "PGMINPROTOCOLVERSION",
        "`3.0` is honoured, others are refused",
        _one_of("3.0", refused="esx speaks 3.0"),
    ),
    Parameter(
        "max_protocol_version",
        "PGMAXPROTOCOLVERSION",
        "honoured: esx speaks 3.0",
        _one_of("3.0", "3.2", "latest"),
    ),
    Parameter("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", "honoured; else TLSv1.2", _tls),
    Parameter("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", "honoured", _tls),
    Parameter(
        "gssencmode",
        "PGGSSENCMODE",
        "`disable` and `prefer` are honoured (there is none); `require` is refused",
        _unless("require", "its driver has no GSSAPI encryption; use sslmode=verify-full", "disable", "prefer"),
    ),
    Parameter("krbsrvname", "PGKRBSRVNAME", "honoured, with the package gssapi"),
    Parameter("gsslib", "PGGSSLIB", "honoured", _one_of("gssapi", "sspi")),
    Parameter(
        "gssdelegation",
        "PGGSSDELEGATION",
        "`0` is honoured, `1` is refused",
        _unless("1", "its driver hands no credentials on", "0"),
    ),
    Parameter("replication", None, "refused, but for `false`", _replication),
    Parameter("target_session_attrs", "PGTARGETSESSIONATTRS", "honoured", _one_of(*_TARGETS)),
    Parameter(
        "load_balance_hosts",
        "PGLOADBALANCEHOSTS",
        "honoured: `random` shuffles the hosts, and the addresses of each",
        _one_of("disable", "random"),
    ),
    Parameter("scram_client_key", None, "refused: give the password", _NO_KEYS, secret=True),
    Parameter("scram_server_key", None, "refused: give the password", _NO_KEYS, secret=True),
    Parameter("oauth_issuer", None, "refused: esx does not speak OAuth", _NO_OAUTH),
    Parameter("oauth_client_id", None, "refused: esx does not speak OAuth", _NO_OAUTH),
    Parameter("oauth_client_secret", None, "refused: esx does not speak OAuth", _NO_OAUTH, secret=True),
    Parameter("oauth_scope", None, "refused: esx does not speak OAuth", _NO_OAUTH),
    Parameter("oauth_ca_file", "PGOAUTHCAFILE", "refused: esx does not speak OAuth", _NO_OAUTH),
    Parameter(
        "sslkeylogfile",
        None,
        "refused: esx writes no keys to files",
        _never("esx writes no keys to files; leave it out"),
    ),
)
BY_KEYWORD = {each.keyword: each for each in PARAMETERS}
"""The parameters by their names."""
SECRETS = frozenset(each.keyword for each in PARAMETERS if each.secret)
"""The names of secret parameters."""

VARIABLES: dict[str, str] = {
    "PGSYSCONFDIR": "honoured: where `pg_service.conf` is for all users",
    "PGREQUIRESSL": "`1` is honoured as `sslmode=require`, where there is no `sslmode`",
    "PGDATESTYLE": "honoured for the session; what esx prints stays the same",
    "PGTZ": "honoured for the session; what esx prints stays the same (`time_zone` of the config file sets that)",
    "PGGEQO": "honoured for the session",
    "PGOAUTHDEBUG": "without effect: esx does not speak OAuth",
    "PGLOCALEDIR": "without effect: esx's own messages are English",
}
"""libpq's variables without a parameter."""
SETTINGS = {"PGDATESTYLE": "datestyle", "PGTZ": "timezone", "PGGEQO": "geqo"}
"""The variables that libpq sends as settings of the session."""

RENAMED = {"ssl": "sslmode", "schema": "search_path", "database": "dbname"}
"""Names of parameters in other drivers, with the name in libpq or PostgreSQL."""
FOREIGN = {
    "pgbouncer": "Prisma's: esx notices a pooler by itself",
    "connection_limit": "Prisma's: esx opens connections as needed",
    "pool_timeout": "Prisma's: esx waits for its own connections",
    "prepared_statement_cache_size": "SQLAlchemy's: esx keeps its own statements",
    "prepared_statement_name_func": "SQLAlchemy's: esx names its own statements",
    "async_fallback": "SQLAlchemy's: esx is asynchronous",
}
"""Parameters of other drivers that have no effect here, and why."""
# In an address with a password, other names may be a part of the password.
KNOWN_SETTINGS = frozenset(
    {"search_path", "timezone", "datestyle", "statement_timeout", "lock_timeout", "role", "jit", "work_mem", "geqo"}
    | {"default_transaction_read_only", "default_transaction_isolation", "idle_in_transaction_session_timeout"}
)
"""Settings of a session that may follow the password in an address."""


def table() -> list[str]:
    """Return the rows of the table in docs/configuration.md."""
    rows = [
        f"| `{each.keyword}` | {f'`{each.variable}`' if each.variable else ''} | {each.does} |" for each in PARAMETERS
    ]
    rows += [f"| | `{name}` | {does} |" for name, does in VARIABLES.items()]
    rows += [f"| `{name}` | | the same as `{meant}` |" for name, meant in RENAMED.items()]
    return rows + [f"| `{name}` | | without effect. {why} |" for name, why in FOREIGN.items()]
