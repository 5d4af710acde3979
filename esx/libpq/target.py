"""Finds where and how to connect, as libpq does, from an address, a service, variables and files."""

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from esx.libpq.address import Odd, checked, label, parse
from esx.libpq.options import split_options
from esx.libpq.parameters import BY_KEYWORD, FOREIGN, PARAMETERS, SETTINGS, SSLMODES, BadParameter
from esx.libpq.passfile import DEFAULT_HOST, SOCKET_DIRECTORIES, PasswordFile
from esx.libpq.service import home, read_service
from esx.libpq.tls import Files
from esx.text import visible

_PORT = 5432
_PASSWORD_FILE = ".pgpass"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True)
class Host:
    """A server to try: by name, at an `address` with a certificate for `name`, or in a socket directory."""

    name: str
    port: int
    address: str = ""
    password: str | None = field(default=None, repr=False)

    @property
    def goes_to(self) -> str:
        """Where to connect: a directory, an address, or a name to look up."""
        return self.address or self.name

    @property
    def is_socket(self) -> bool:
        """Whether it is a Unix socket."""
        return self.goes_to.startswith("/")


@dataclass(frozen=True, slots=True)
class Target:
    """The values of libpq's parameters; one that was not given is None, or libpq's default."""

    hosts: tuple[Host, ...]
    user: str
    database: str
    sslmode: str
    tls: Files
    settings: Mapping[str, str]
    """Settings of the session, as sent to the server, with ``options`` as text."""
    asked: Mapping[str, str]
    """All settings of the session by name, also those in ``options``."""
    application_name: str | None
    connect_timeout: float | None
    """Seconds for each host, 0 for no limit."""
    keepalive: Mapping[str, int]
    target_session_attrs: str
    shuffle: bool
    krbsrvname: str | None
    gsslib: str | None
    warnings: tuple[str, ...] = ()
    """Messages for the user."""


@dataclass(frozen=True, slots=True)
class Given:
    """The given parameters, and the origin of each that does not come from the address."""

    values: Mapping[str, str] = field(repr=False)
    origins: Mapping[str, str]
    service: str | None

    def where(self, key: str) -> str:
        """Return the name of a parameter and its origin, for messages."""
        return self.origins.get(key, f"the parameter {key}")

    def label(self) -> str:
        """Return ``user@host:port/database`` for messages, without a password."""
        return label(self.values, self.service, DEFAULT_HOST)


def gather(explicit: Mapping[str, str], environ: Mapping[str, str]) -> Given:
    """Return the parameters of the address, else of the service, else of the variables. Raises BadParameter."""
    values = dict(explicit)
    origins: dict[str, str] = {}
    service = values.get("service", environ.get("PGSERVICE", "")) or None
    if service:
        file, found = read_service(service, values.get("servicefile") or environ.get("PGSERVICEFILE"), environ)
        for key, value in found.items():
            if key not in values:
                values[key] = value
                origins[key] = f"{key} in service {visible(service, limit=100)} of {visible(str(file), limit=300)}"
    for each in PARAMETERS:
        if each.variable and each.keyword not in values and environ.get(each.variable):
            values[each.keyword] = environ[each.variable]
            origins[each.keyword] = each.variable
    if environ.get("PGREQUIRESSL", "").startswith("1") and "sslmode" not in values:
        values["sslmode"] = "require"
        origins["sslmode"] = "PGREQUIRESSL"
    try:
        values = checked(values)
    except Odd as odd:
        blamed = [origin for key, origin in origins.items() if key in ("host", "hostaddr", "port", "user", "dbname")]
        raise BadParameter(f"{' or '.join(blamed) or 'the address'} {odd}: change it, or pass --dsn") from None
    return Given(values, origins, service)


def resolve(explicit: Mapping[str, str], environ: Mapping[str, str]) -> Target:
    """Return the target. It reads files, and looks no name up. Raises BadParameter."""
    given = gather(explicit, environ)
    at = {key: value for key, value in given.values.items() if value}
    for key, value in at.items():
        if key in BY_KEYWORD and (wrong := BY_KEYWORD[key].check(value)):
            raise BadParameter(f"{given.where(key)} {wrong}")
    user = at.get("user") or _system_user()
    database = at.get("dbname") or user
    hosts, warnings = _hosts(at, database, user, environ)
    if "requirepeer" in at and any(host.is_socket for host in hosts):
        raise BadParameter(
            f"{given.where('requirepeer')} cannot be honoured: its driver does not look whose server it is; leave it "
            "out, or connect by TCP with sslmode=verify-full"
        )
    network = not all(host.is_socket for host in hosts)
    sslmode = _sslmode(at, given) if network else "disable"
    settings = {key: value for key, value in at.items() if key not in BY_KEYWORD and key not in FOREIGN}
    for variable, name in SETTINGS.items():
        value = environ.get(variable, "")
        if value and value.lower() != "default":
            settings.setdefault(name, value)
    asked = dict(split_options(at["options"])) if "options" in at else {}
    if "client_encoding" in {name.lower() for name in settings}:
        raise BadParameter("the setting client_encoding is not the address's to make: leave it out")
    asked |= {name.lower(): value for name, value in settings.items()}
    if "options" in at:
        settings["options"] = at["options"]
    return Target(
        hosts=hosts,
        user=user,
        database=database,
        sslmode=sslmode,
        tls=Files.find(sslmode, at, given.where, home(environ)),
        settings=settings,
        asked=asked,
        application_name=at.get("application_name") or at.get("fallback_application_name"),
        connect_timeout=max(0.0, float(at["connect_timeout"])) if "connect_timeout" in at else None,
        keepalive={key: int(at[key]) for key in at if key.startswith("keepalives") or key == "tcp_user_timeout"},
        target_session_attrs=at.get("target_session_attrs", "any"),
        shuffle=at.get("load_balance_hosts") == "random",
        krbsrvname=at.get("krbsrvname"),
        gsslib=at.get("gsslib"),
        warnings=warnings,
    )


def resolve_dsn(dsn: str | None, environ: Mapping[str, str]) -> Target:
    """Do as `resolve` for a text that names a database, None for the variables only. Raises BadParameter."""
    try:
        explicit = parse(dsn) if dsn is not None else {}
    except Odd as odd:
        raise BadParameter(f"the address {odd}: expected postgresql://user@host:port/database") from None
    return resolve(explicit, environ)


def _hosts(
    at: Mapping[str, str], database: str, user: str, environ: Mapping[str, str]
) -> tuple[tuple[Host, ...], tuple[str, ...]]:
    names = at["host"].split(",") if "host" in at else []
    addresses = at["hostaddr"].split(",") if "hostaddr" in at else [""] * len(names)
    names = names or [""] * len(addresses) or [""]
    addresses = addresses or [""]
    ports = at.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    found: list[Host] = []
    for name, address, port in zip(names, addresses, ports, strict=True):
        number = int(port) if port else _PORT
        if name or address:
            found.append(Host(name.strip(), number, address.strip()))
        else:
            sockets = (each for each in SOCKET_DIRECTORIES if Path(each, f".s.PGSQL.{number}").exists())
            found += [Host(each, number) for each in (*sockets, DEFAULT_HOST)]
    if "password" in at:
        return tuple(replace(each, password=at["password"]) for each in found), ()
    path = _password_file(at, environ)
    if path is None:
        return tuple(found), ()
    file = PasswordFile(path)
    known = (
        replace(each, password=file.password(each.name or each.address, each.port, database, user)) for each in found
    )
    return tuple(known), (file.warning,) if file.warning else ()


def _password_file(at: Mapping[str, str], environ: Mapping[str, str]) -> Path | None:
    if named := at.get("passfile"):
        return Path(named)
    if os.name == "nt":
        folder = environ.get("APPDATA")
        return Path(folder, "postgresql", "pgpass.conf") if folder else None
    directory = home(environ)
    return None if directory is None else directory / _PASSWORD_FILE


def _sslmode(at: Mapping[str, str], given: Given) -> str:
    system = at.get("sslrootcert") == "system"
    mode = at.get("sslmode", "verify-full" if system else "prefer")
    if system and mode != "verify-full":
        raise BadParameter(
            f"{given.where('sslmode')} is {mode}, which is too weak for sslrootcert=system: use sslmode=verify-full"
        )
    if at.get("sslnegotiation") == "direct" and SSLMODES.index(mode) < SSLMODES.index("require"):
        raise BadParameter(
            f"{given.where('sslnegotiation')} is direct, for which sslmode={mode} is too weak: use sslmode=require or "
            "stricter"
        )
    return mode


def _system_user() -> str:
    try:
        if hasattr(os, "geteuid"):
            import pwd

            return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        pass
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise BadParameter("the system does not know your user's name: name one with PGUSER or user=...") from None
