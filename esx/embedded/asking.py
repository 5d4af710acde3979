"""Asking a server one question over its socket, in PostgreSQL's protocol: no driver is needed for so little."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from esx.embedded.sockets import SOCKET

if TYPE_CHECKING:
    from pathlib import Path

SUPERUSER = "postgres"
"""The user that owns everything in the database."""
_PROTOCOL = 196608  # 3.0
_PATIENCE = 5.0
_FULL = b"53300"  # too_many_connections
# The first may have been dropped; to be in the other would keep a database from being made after it.
_DATABASES = ("postgres", "template1")


class ServerFull(Exception):
    """The server takes no further connection now."""


def ask(socket_dir: Path, query: str) -> list[str | None] | None:
    """Return the row that `query` gives, None if the server refuses to tell.

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
