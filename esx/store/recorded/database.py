"""Databases for recordings, on a server that is esx's own: made when one is opened, and dropped when it is closed.

A recording that was not closed, because its process was killed, is dropped when the next one is opened: nobody is
connected to its database.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator

import asyncpg

from esx.errors import EsxError
from esx.postgres.connection import Connector
from esx.postgres.driver_errors import DRIVER_ERRORS, as_store_error
from esx.postgres.session import Session

_PREFIX = "esx_capsule_"
READER = "esx_capsule_reader"
"""The user that reads recordings: it has no rights but those."""
_LOCK = 7302178414571
_NAME = "esx capsule"


@contextlib.asynccontextmanager
async def recording_database(dsn_for: Callable[[str], str]) -> AsyncIterator[tuple[str, Session]]:
    """Make a database, and yield its name and a session of its owner; it is dropped at the end of the block.

    `dsn_for` returns the address of a database, for the server's superuser. Raises StoreUnavailable.
    """
    name = f"{_PREFIX}{secrets.token_hex(8)}"
    with _told(dsn_for(name)):
        async with _session(dsn_for("postgres")) as admin:
            # One at a time: a database that has just been made has no session yet either.
            await admin.execute("SELECT pg_advisory_lock($1::bigint)", _LOCK)
            await _drop_left(admin)
            await _make_reader(admin)
            await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
            session = await Connector(dsn_for(name), _NAME).open()
    try:
        yield name, session
    finally:
        session.terminate()
        with contextlib.suppress(*DRIVER_ERRORS, OSError, EsxError):
            async with _session(dsn_for("postgres")) as admin:
                await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextlib.asynccontextmanager
async def _session(dsn: str) -> AsyncIterator[Session]:
    session = await Connector(dsn, _NAME).open()
    try:
        yield session
    finally:
        await session.close()


async def _drop_left(admin: Session) -> None:
    rows = await admin.fetch(
        "SELECT datname::text FROM pg_database d WHERE starts_with(datname::text, $1) "
        "AND datname ~ '^[a-z0-9_]+$' AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)",
        _PREFIX,
    )
    for (left,) in rows:
        with contextlib.suppress(asyncpg.ObjectInUseError, asyncpg.InvalidCatalogNameError):
            await admin.execute(f"DROP DATABASE IF EXISTS {left}")


async def _make_reader(admin: Session) -> None:
    if await admin.fetchval("SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", READER):
        await admin.execute(f"CREATE ROLE {READER} LOGIN")


@contextlib.contextmanager
def _told(dsn: str) -> Iterator[None]:
    try:
        yield
    except (*DRIVER_ERRORS, OSError) as error:
        translated = as_store_error(error, Connector(dsn, _NAME).where)
        if translated is None:
            raise
        raise translated from error
