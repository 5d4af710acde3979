"""Stores and pools over connections that a test has prepared."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from esx.eventstore import EventStore
from esx.model import Notification
from esx.postgres.connection import Connector, open_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.postgres.pool import Pool


async def open_store(
    connector: Connector, *, read_only: bool = False, max_connections: int = 10, retry_for: float | None = None
) -> EventStore:
    """Return a store over a connector, with its timings; `retry_for` is the connector's timeout if it is not given."""
    pool = await _open_pool(connector, read_only=read_only, max_connections=max_connections)
    retry_for = connector.timeout if retry_for is None else retry_for
    return EventStore(pool, connector, retry_for=retry_for, read_only=read_only)


@contextlib.asynccontextmanager
async def store_and_pool(
    where: str | Connector,
    *,
    read_only: bool = False,
    max_connections: int = 10,
    statement_timeout: float | None = None,
) -> AsyncIterator[tuple[EventStore, Pool]]:
    """Yield a store at an address, or over what opens connections, with the pool that lends its connections."""
    connector = Connector(where, "esx") if isinstance(where, str) else where
    pool = await _open_pool(
        connector, read_only=read_only, max_connections=max_connections, statement_timeout=statement_timeout
    )
    async with EventStore(pool, connector, retry_for=connector.timeout, read_only=read_only) as store:
        yield store, pool


@contextlib.asynccontextmanager
async def opened_pool(dsn: str, *, statement_timeout: float | None = None) -> AsyncIterator[Pool]:
    """Yield a pool as a store has it."""
    pool = await _open_pool(Connector(dsn, "esx"), statement_timeout=statement_timeout)
    try:
        yield pool
    finally:
        await pool.settled()
        pool.terminate()


async def _open_pool(
    connector: Connector, *, read_only: bool = False, max_connections: int = 10, statement_timeout: float | None = None
) -> Pool:
    return await open_pool(
        connector,
        size=max_connections,
        read_only=read_only,
        statement_timeout=statement_timeout,
        notification=Notification.DOORBELL,
    )
