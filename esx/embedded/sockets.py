"""The server's socket: its directory, and one query over it, in PostgreSQL's protocol and without a driver."""

import os
import socket
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

from esx.embedded.account import DATA_DIR_VARIABLE, Account, EmbeddedFailed, let_through, own
from esx.text import visible

PORT = 5432
"""The number in the socket's name. There is no TCP port."""
SOCKET = f".s.PGSQL.{PORT}"
"""The socket's file name."""
SUPERUSER = "postgres"
"""The user that owns everything in the database."""
_PROTOCOL = 196608  # 3.0
_PATIENCE = 5.0
_FULL = b"53300"  # too_many_connections
# The first may have been dropped; a session in the other prevents CREATE DATABASE, so it comes second.
_DATABASES = ("postgres", "template1")
_SOCKET_PATH_LIMIT = 103  # bytes: 107 on Linux, 103 on macOS
_SOCKET_DIR_PREFIX = "esx-pg-"


class ServerFull(Exception):
    """The server accepts no further connection now."""


def make_socket_dir(data_dir: Path, account: Account | None) -> Path:
    """Return the data directory, which other users cannot enter, or a new such one if its path is too long."""
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
    # A comma separates hosts; some clients interpret quotes and backslashes.
    return short and name.isprintable() and not set(name) & set(",\"'\\")


def ask(socket_dir: Path, query: str) -> list[str | None] | None:
    """Return the row of `query`, None if the server refuses.

    Raises ServerFull, and OSError if none answers.
    """
    for database in _DATABASES:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(socket_dir / SOCKET))
            connection.sendall(_startup(database))
            row = _row(connection, query)
            if row is not None:
                return row
    return None


def _startup(database: str) -> bytes:
    names = b"".join(part.encode() + b"\0" for part in ("user", SUPERUSER, "database", database))
    return struct.pack("!ii", 9 + len(names), _PROTOCOL) + names + b"\0"


def _row(connection: socket.socket, query: str) -> list[str | None] | None:
    with connection.makefile("rb") as answers:
        row = None
        asked = False
        while len(head := answers.read(5)) == 5:
            kind, size = head[:1], struct.unpack("!i", head[1:])[0]
            body = answers.read(size - 4)
            if kind == b"E" and b"\0C" + _FULL in b"\0" + body:
                raise ServerFull
            if kind == b"E" or (kind == b"R" and body != bytes(4)):
                return None
            if kind == b"D":
                row = _columns(body)
            elif kind == b"Z" and asked:
                connection.sendall(b"X" + struct.pack("!i", 4))
                return row
            elif kind == b"Z":
                text = query.encode() + b"\0"
                connection.sendall(b"Q" + struct.pack("!i", 4 + len(text)) + text)
                asked = True
    return None


def _columns(body: bytes) -> list[str | None]:
    columns: list[str | None] = []
    at = 2
    for _ in range(struct.unpack_from("!h", body)[0]):
        (size,) = struct.unpack_from("!i", body, at)
        at += 4
        columns.append(None if size < 0 else body[at : at + size].decode("utf-8", "surrogateescape"))
        at += max(size, 0)
    return columns
