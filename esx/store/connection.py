"""Connections: how they are opened, and what they are called."""

from __future__ import annotations

import os
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from esx.store.driver import first_line
from esx.store.errors import StoreUnavailable
from esx.store.model import Notification
from esx.store.pool import Pool


def describe(dsn: str | None) -> str:
    """Return ``user@host:port/database`` for messages: never a password. None stands for libpq's variables."""
    parts = urlsplit(dsn or "")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    try:
        port = str(parts.port or "")
    except ValueError:
        port = "?"
    host = parts.hostname or query.get("host") or os.environ.get("PGHOST") or "localhost"
    port = port or query.get("port") or os.environ.get("PGPORT") or ""
    user = unquote(parts.username or "") or query.get("user") or os.environ.get("PGUSER") or ""
    database = unquote(parts.path.lstrip("/")) or query.get("dbname") or os.environ.get("PGDATABASE") or user
    return f"{user + '@' if user else ''}{host}{':' + port if port else ''}{'/' + database if database else ''}"


async def open_pool(
    dsn: str | None,
    *,
    size: int,
    application_name: str,
    read_only: bool,
    notification: Notification,
    timeout: float,
) -> Pool:
    """Open a pool of at most `size` connections, one of them now.

    Raises StoreUnavailable if the database cannot be reached within `timeout` seconds.
    """
    settings = server_settings(application_name, read_only=read_only)
    if notification is not Notification.DOORBELL:
        settings["esx.notification"] = notification.value

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(dsn, timeout=timeout, server_settings=settings)

    pool = Pool(connect, size, describe(dsn))
    try:
        async with pool.lend():
            return pool
    except ValueError as error:
        raise StoreUnavailable(
            f"{describe(dsn)} is not a usable address: {first_line(error)} "
            "(expected postgresql://user@host:port/database)"
        ) from error


def server_settings(application_name: str, *, read_only: bool = False) -> dict[str, str]:
    """Return what each session sets: its name, and whether it may write."""
    settings = {"application_name": application_name}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    return settings
