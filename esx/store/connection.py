"""Connections: how they are opened, and what they are called."""

from __future__ import annotations

import contextlib
import os
import socket
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from esx.store.errors import StoreUnavailable
from esx.store.model import Notification
from esx.store.pool import Pool


def describe(dsn: str | None) -> str:
    """Return ``user@host:port/database`` for messages: never a password. None stands for libpq's variables."""
    try:
        parts = urlsplit(dsn or "postgresql://")
        port = str(parts.port or "")
        if parts.scheme not in ("postgresql", "postgres") or "@" in parts.path:
            return "the address"
    except ValueError:
        return "the address"
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    host = parts.hostname or query.get("host") or os.environ.get("PGHOST") or "localhost"
    port = port or query.get("port") or os.environ.get("PGPORT") or ""
    user = unquote(parts.username or "") or query.get("user") or os.environ.get("PGUSER") or ""
    database = unquote(parts.path.lstrip("/")) or query.get("dbname") or os.environ.get("PGDATABASE") or user
    return f"{user + '@' if user else ''}{host}{':' + port if port else ''}{'/' + database if database else ''}"


async def connect(dsn: str | None, *, timeout: float, settings: dict[str, str]) -> asyncpg.Connection:
    """Open a connection as the store needs it. Raises the driver's errors."""
    connection = await asyncpg.connect(dsn, timeout=timeout, server_settings=settings)
    try:
        _notice_a_dead_peer(connection)
        # Under the stricter levels a lost race would be a serialization failure, and a lock would wait for nothing.
        await connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")
    except BaseException:
        connection.terminate()
        raise
    return connection


def _notice_a_dead_peer(connection: asyncpg.Connection) -> None:
    """Let the kernel end a connection whose other side is gone without a word, after some 20 seconds."""
    transport = getattr(connection, "_transport", None)
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 20_000}
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if hasattr(socket, name):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def open_pool(
    dsn: str | None,
    *,
    size: int,
    application_name: str,
    read_only: bool,
    statement_timeout: float | None,
    notification: Notification,
    timeout: float,
) -> Pool:
    """Open a pool of at most `size` connections, one of them now.

    Raises StoreUnavailable if the database cannot be reached within `timeout` seconds.
    """
    settings = server_settings(application_name, read_only=read_only, statement_timeout=statement_timeout)
    if notification is not Notification.DOORBELL:
        settings["esx.notification"] = notification.value

    async def another() -> asyncpg.Connection:
        return await connect(dsn, timeout=timeout, settings=settings)

    pool = Pool(another, size, describe(dsn))
    try:
        async with pool.lend():
            return pool
    except (ValueError, OverflowError) as error:
        raise StoreUnavailable(
            f"{describe(dsn)} is not usable as it is: {type(error).__name__} "
            "(expected postgresql://user@host:port/database)"
        ) from error


def server_settings(
    application_name: str, *, read_only: bool = False, statement_timeout: float | None = None
) -> dict[str, str]:
    """Return what each session sets: its name, whether it may write, and how many seconds a statement may take."""
    settings = {"application_name": application_name}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    if statement_timeout is not None:
        settings["statement_timeout"] = str(round(statement_timeout * 1000))
    return settings
