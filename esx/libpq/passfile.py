"""The password file, as libpq reads it."""

import os
import re
import stat
from pathlib import Path

from esx.text import visible

SOCKET_DIRECTORIES = ("/run/postgresql", "/var/run/postgresql", "/tmp", "/private/tmp")  # noqa: S108 - where others listen
"""The directories in which a server may listen by default; they differ between builds."""
DEFAULT_HOST = "localhost"
_LAST_FIELD = re.compile(r"(?:\\.|[^:\\]|\\\Z)*", re.DOTALL)


class PasswordFile:
    """The lines of a password file; `warning` says why it is not read, None if it is."""

    def __init__(self, path: Path) -> None:
        self.warning: str | None = None
        self._lines: list[str] = []
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                self.warning = _unfit(path, found.st_mode)
                if self.warning is None:
                    self._read(file.read())
        except OSError:
            return  # as without a file

    def _read(self, data: bytes) -> None:
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        self._lines = [line.rstrip("\r") for line in lines if not line.startswith("#")]

    def password(self, host: str, port: int, database: str, user: str) -> str | None:
        """Return the password of the first line that matches, None without one."""
        hosts = (DEFAULT_HOST, host) if host in SOCKET_DIRECTORIES else (host or DEFAULT_HOST,)
        for line in self._lines:
            for each in hosts:
                rest: str | None = line
                for wanted in (each, str(port), database, user):
                    rest = None if rest is None else _behind(rest, wanted)
                if rest is not None:
                    found = _LAST_FIELD.match(rest)
                    assert found is not None
                    return re.sub(r"\\(.)", r"\1", found[0], flags=re.DOTALL)
        return None


def _behind(line: str, wanted: str) -> str | None:
    """Return the text after the first field of a line if the field matches; as in libpq, escapes are optional."""
    if line.startswith("*:"):
        return line[2:]
    at = 0
    for char in wanted:
        at += line[at : at + 1] == "\\"
        if line[at : at + 1] != char:
            return None
        at += 1
    return line[at + 1 :] if line[at : at + 1] == ":" else None


def _unfit(path: Path, mode: int) -> str | None:
    shown = visible(str(path), limit=300)
    if not stat.S_ISREG(mode):
        return f'WARNING: password file "{shown}" is not a plain file'
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        return (
            f'WARNING: password file "{shown}" has group or world access; '
            f"permissions should be u=rw (0600) or less: chmod 0600 it"
        )
    return None
