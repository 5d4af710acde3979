"""The service file, as libpq reads it."""

import re
from collections.abc import Mapping
from pathlib import Path

from esx.libpq.parameters import BY_KEYWORD, BadParameter
from esx.text import visible

# The directories in which PostgreSQL looks; they differ between builds.
_SYSTEM = ("/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc", "/usr/local/etc/postgresql")


def home(environ: Mapping[str, str]) -> Path | None:
    """Return the user's home directory, None if it is unknown."""
    if named := environ.get("HOME"):
        return Path(named)
    try:
        return Path.home()
    except (RuntimeError, KeyError):
        return None


def read_service(service: str, file: str | None, environ: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    """Return the file that defines the service, and its parameters.

    `file` is the service file that was named, or None. Raises BadParameter.
    """
    if file:
        path = Path(file)
        if not path.exists():
            raise BadParameter(f"service file {visible(file, limit=300)} is not there: change PGSERVICEFILE")
        candidates = [path]
    else:
        directory = home(environ)
        candidates = [] if directory is None else [directory / ".pg_service.conf"]
    system = environ.get("PGSYSCONFDIR")
    candidates += [Path(each, "pg_service.conf") for each in ((system,) if system else _SYSTEM)]
    for path in candidates:
        found = _parameters(path, service) if path.exists() else None
        if found is not None:
            return path, found
    shown = ", ".join(visible(str(each), limit=300) for each in candidates[:3])
    raise BadParameter(
        f"there is no service {visible(service, limit=100)} in {shown}: add [{visible(service, limit=100)}] there, or "
        "name another with PGSERVICE or service=..."
    )


def services(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the services that `read_service` would find; a file that cannot be read has none."""
    named, system, directory = environ.get("PGSERVICEFILE"), environ.get("PGSYSCONFDIR"), home(environ)
    first = [Path(named)] if named else [] if directory is None else [directory / ".pg_service.conf"]
    names: dict[str, None] = {}
    for path in [*first, *(Path(each, "pg_service.conf") for each in ((system,) if system else _SYSTEM))]:
        try:
            lines = path.read_bytes().decode().split("\n")
        except (OSError, UnicodeDecodeError):
            continue
        names |= dict.fromkeys(line.strip()[1:-1] for line in lines if re.fullmatch(r"\s*\[[^\]]+\]\s*", line))
    return list(names)


def _parameters(path: Path, service: str) -> dict[str, str] | None:
    try:
        lines = path.read_bytes().decode().split("\n")
    except OSError as error:
        raise BadParameter(f"service file {visible(str(path), limit=300)} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadParameter(f"service file {visible(str(path), limit=300)} is not UTF-8: save it as UTF-8") from None
    found: dict[str, str] | None = None
    for number, whole in enumerate(lines, 1):
        line = whole.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found is not None:
                break
            if line.startswith(f"[{service}]"):
                found = {}
        elif found is not None:
            key, equals, value = line.partition("=")
            if not equals or key not in BY_KEYWORD or key in ("service", "servicefile"):
                what = _wrong(line, key, equals)
                raise BadParameter(f"service file {visible(str(path), limit=300)}, line {number}: {what}")
            found.setdefault(key, value)
    return found


def _wrong(line: str, key: str, equals: str) -> str:
    """Return what is wrong with a line, without a part of it, as it may have a password."""
    if line.startswith("ldap"):
        return "esx does not ask LDAP for services: write the parameters themselves"
    if key.strip() in ("service", "servicefile"):
        return "a service cannot name another: write the parameters themselves"
    if equals and key != key.strip():
        return "there must be no space before the =: write keyword=value"
    return "that is no parameter of libpq's: write keyword=value"
