"""Doing what a user has agreed to: with a connection of its own, as those of the explorer only read."""

import contextlib
from collections.abc import AsyncIterator

from esx.database_choice import Database
from esx.eventstore import EventStore


@contextlib.asynccontextmanager
async def writable_store(database: Database) -> AsyncIterator[EventStore]:
    """Open the database to write, for one thing that a user has agreed to. Raises EsxError."""
    async with EventStore.connect(
        database.dsn,
        max_connections=1,
        application_name="esx explorer",
        statement_timeout=database.statement_timeout,
        store=database.store,
        trust_owner=database.trust_owner,
    ) as store:
        yield store
