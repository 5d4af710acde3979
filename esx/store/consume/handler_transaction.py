"""Handling events: the handler writes, and the checkpoint moves, in one transaction."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from esx.errors import StoreFailed, StoreUnavailable
from esx.model import Event
from esx.postgres.driver_errors import DRIVER_ERRORS, first_line, is_cancelled, is_connection_loss
from esx.postgres.session import Session
from esx.store.consume.checkpoints import CheckpointRow
from esx.text import visible

EventHandler = Callable[[asyncpg.Connection, Event], Awaitable[object]]
"""Handles one event; what it writes through the connection is committed with the checkpoint."""
BatchHandler = Callable[[asyncpg.Connection, Sequence[Event]], Awaitable[object]]
"""Handles the events of a batch, as an `EventHandler` does one."""

PATIENCE = 10.0
"""Seconds that a statement which should be quick may take before its connection counts as lost."""
_ENDED = "the handler ended the transaction it was given, which is the projection's to end"


class CheckpointMoved(Exception):
    """The checkpoint was moved by another session, or the projection was paused: read it again."""


class HandlerRaised(Exception):
    """The batch was rolled back because of `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class LostWhileHandling(StoreUnavailable):
    """The connection was lost while the handler ran. The message is stored beside the checkpoint."""


Finish = Callable[[Session, str], Awaitable[bool]]
"""Ends a transaction of a handler, whose id it gets; False if it is another transaction, or the checkpoint moved."""


async def handle(
    connection: Session, row: CheckpointRow, handler: BatchHandler, events: Sequence[Event], old: int, finish: Finish
) -> None:
    """Let the handler write, and `finish` note that, in one transaction, with the checkpoint at `old` when it begins.

    Raises CheckpointMoved, HandlerRaised, and StoreUnavailable if the connection is lost.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        locked = await row.lock_at(connection, old)
        if locked is None:
            raise CheckpointMoved
        if events:
            await handler(connection, events)
        if not connection.is_in_transaction():
            raise StoreFailed(_ENDED)
        if not await finish(connection, locked):
            # The handler may have begun another transaction, which its earlier writes are not in.
            raise CheckpointMoved if await _is_in(connection, locked) else StoreFailed(_ENDED)
    except Exception as error:
        await _roll_back(connection, transaction, error)
        if isinstance(error, CheckpointMoved):
            raise
        raise HandlerRaised(_explained(error)) from error
    try:
        await transaction.commit()
    except asyncpg.PostgresError as error:
        if is_connection_loss(error) or connection.is_in_transaction():
            raise  # the outcome is unknown until the checkpoint is read
        raise HandlerRaised(error) from error


async def _is_in(connection: Session, transaction: str) -> bool:
    """Return whether the connection is still in this transaction."""
    return bool(await connection.fetchval("SELECT $1 = pg_catalog.pg_current_xact_id()::text", transaction))


async def _roll_back(connection: Session, transaction: asyncpg.transaction.Transaction, error: Exception) -> None:
    """Roll back; raises StoreUnavailable if the connection is gone, which then caused `error`.

    The connection itself has to show that: the handler's error may be about another connection, or hide the reason.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            await transaction.rollback()
    except (*DRIVER_ERRORS, OSError) as failure:
        if is_cancelled(failure):
            raise  # the rollback itself was cancelled: the session is closed
        if not connection.is_closed() and not is_connection_loss(failure):
            raise HandlerRaised(error) from error
        lost = StoreUnavailable if isinstance(error, CheckpointMoved) else LostWhileHandling
        raise lost(f"the connection was lost: {in_one_line(error)}") from error


def _explained(error: Exception) -> Exception:
    if isinstance(error, asyncpg.InFailedSQLTransactionError):
        return StoreFailed(
            "the handler went on after an error of PostgreSQL, which undoes the transaction: let the error out, or "
            "put what may fail into `async with connection.transaction()`"
        )
    return error


def in_one_line(error: Exception) -> str:
    """Return an error in one line that PostgreSQL can store."""
    return visible(f"{type(error).__name__}: {first_line(error)}", limit=1000)
