"""The server's socket, and the directory that it is in."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from esx.embedded.account import let_through, own
from esx.embedded.errors import EmbeddedFailed
from esx.embedded.paths import DATA_DIR_VARIABLE
from esx.text import visible

if TYPE_CHECKING:
    from esx.embedded.account import Account

PORT = 5432
"""The number in the socket's name. There is no TCP port."""
SOCKET = f".s.PGSQL.{PORT}"
"""The socket's file name."""

_SOCKET_PATH_LIMIT = 103  # bytes: 107 on Linux, 103 on macOS
_SOCKET_DIR_PREFIX = "esx-pg-"


def make_socket_dir(data_dir: Path, account: Account | None) -> Path:
    """Return the data directory, which is closed to others, or a new closed one if its path is too long."""
    if _takes_socket(data_dir):
        return data_dir
    bases = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - mkdtemp below
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and account is None:
        bases.insert(0, Path(runtime))
    for base in bases:
        if not _takes_socket(base / f"{_SOCKET_DIR_PREFIX}12345678"):
            continue
        try:
            made = Path(tempfile.mkdtemp(prefix=_SOCKET_DIR_PREFIX, dir=base))
        except OSError:
            continue
        own(made, account)
        if account is not None:
            let_through(made)
        return made
    raise EmbeddedFailed(
        f"no directory for the server's socket: {visible(str(data_dir))} is too long a path: "
        f"set TMPDIR or {DATA_DIR_VARIABLE} to a shorter one"
    )


def remove_socket_dir(socket_dir: Path, data_dir: Path) -> None:
    """Remove what `make_socket_dir` returned, unless it is the data directory."""
    if socket_dir != data_dir and socket_dir.name.startswith(_SOCKET_DIR_PREFIX):
        with suppress(OSError):
            socket_dir.rmdir()


def _takes_socket(directory: Path) -> bool:
    """Return whether a socket in `directory` has a path that the system, PostgreSQL and its clients accept."""
    name = str(directory)
    short = len(os.fsencode(directory / SOCKET)) <= _SOCKET_PATH_LIMIT
    # A comma separates hosts; quotes and backslashes mean something to one client or another.
    return short and name.isprintable() and not set(name) & set(",\"'\\")
