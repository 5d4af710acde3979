"""The password file, as libpq reads it."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SOCKET_DIRECTORIES = ("/run/postgresql", "/var/run/postgresql", "/tmp", "/private/tmp")  # noqa: S108 - where others listen
"""Where a server listens by default; which of them, differs between builds."""
DEFAULT_HOST = "localhost"
_FIELD = r"((?:\\.|[^:\\])*)"
_LAST_FIELD = r"((?:\\.|[^:\\]|\\\Z)*)"
_LINE = re.compile(rf"{_FIELD}:{_FIELD}:{_FIELD}:{_FIELD}:{_LAST_FIELD}", re.DOTALL)


class PasswordFile:
    """The lines of a password file; `warning` says why it is not read, as libpq does."""

    def __init__(self, path: Path) -> None:
        self.warning: str | None = None
        self._lines: list[list[str]] = []
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                self.warning = _unfit(path, found.st_mode)
                if self.warning is None:
                    self._read(file.read())
        except OSError:
            return  # as if there were none

    def _read(self, data: bytes) -> None:
        for line in data.decode("utf-8", "surrogateescape").split("\n"):
            match = _LINE.match(line.rstrip("\r"))
            if match is not None and not line.startswith("#"):
                self._lines.append(list(match.groups()))

    def password(self, host: str, port: int, database: str, user: str) -> str | None:
        """Return the password of the first line that matches."""
        hosts = (DEFAULT_HOST, host) if host in SOCKET_DIRECTORIES else (host or DEFAULT_HOST,)
        wanted: list[Sequence[str]] = [hosts, (str(port),), (database,), (user,)]
        for *fields, password in self._lines:
            if all(field == "*" or _plain(field) in allowed for field, allowed in zip(fields, wanted, strict=True)):
                return _plain(password)
        return None


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


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
