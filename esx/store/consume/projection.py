"""Projections: read models kept up to date, each event handled exactly once.

The checkpoint is a row of the database that the handler writes to, and moves in the handler's transaction. So a crash
at any moment leaves both before the batch, or both after it. Three things guard this:

1. Only one instance is active, the one that holds the lease (see consumer.py). The handler's transaction is in the
   session of the lease, so an instance that lost its lease cannot commit.
2. Each batch locks the checkpoint's row at its expected position first, and moves it at the end. So no event is
   handled twice even without a lease, behind a connection pooler such as PgBouncer in transaction mode.
3. If the connection is lost during a COMMIT, its outcome is read from the checkpoint, after the lease was taken again:
   by then the old session is gone, and its transaction is decided.
"""

from typing import Any

import asyncpg

from esx.errors import EsxError, ProjectionFailed, QueryCancelled
from esx.postgres.driver_errors import is_cancelled
from esx.postgres.session import Session
from esx.store.consume.checkpoints import CheckpointRow
from esx.store.consume.consumer import Consumer, Part
from esx.store.consume.handler_transaction import BatchHandler, HandlerRaised, handle, in_one_line

# What PostgreSQL asks to be tried again: serialization failures and deadlocks, and locks not got in time.
_TRANSIENT = (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError, QueryCancelled)


class Projection(Consumer):
    """One instance of a projection; see `EventStore.project`."""

    kind = "projection"
    final = ProjectionFailed

    def __init__(self, row: CheckpointRow, handler: BatchHandler, **surroundings: Any) -> None:
        super().__init__(row, **surroundings)
        self._handler = handler

    def _failure(self, reason: str) -> EsxError:
        return ProjectionFailed(self._name, None, reason)

    async def _handle(self, connection: Session, part: Part) -> None:
        """Handle events in one transaction; if that fails, one by one, up to the one that fails."""
        events = part.events
        while True:
            history = self._history_after(part)
            try:
                await handle(connection, self._row, self._handler, events, self._position, history)
            except HandlerRaised as failure:
                cause = failure.cause
            else:
                self._moved(part, history)
                return
            transient = isinstance(cause, _TRANSIENT) or is_cancelled(cause)
            if len(events) > 1 and not transient:
                break
            reason = in_one_line(cause)
            await self._row.note_error(connection, self._position, reason, events[0].global_seq)
            if not transient:
                raise ProjectionFailed(self._name, events[0].global_seq, reason) from cause
            await self._wait_to_retry(reason)
        for event in events[:-1]:
            await self._handle(connection, Part([event], event.global_seq, self._looked + 1))
        await self._handle(connection, Part(events[-1:], part.position, self._looked + 1))
        # The events that the filter left out do not count: it is not known on which side of the window they are.
        self._looked = part.looked
