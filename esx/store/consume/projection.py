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

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg

from esx.errors import EsxError, ProjectionFailed, QueryCancelled
from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.driver_errors import is_cancelled
from esx.postgres.session import Session
from esx.store.consume.checkpoints import Checkpoint, CheckpointRow
from esx.store.consume.consumer import LOOK, Consumer, Part
from esx.store.consume.handler_transaction import BatchHandler, HandlerRaised, handle, in_one_line
from esx.store.consume.put_aside import MOST_WAITING, Aside, OnError
from esx.store.feed.feed import Feed

# What PostgreSQL asks to be tried again: serialization failures and deadlocks, and locks not got in time.
_RETRIED = 100  # how many parked events of a stream are handled in one transaction
_TRANSIENT = (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError, QueryCancelled)


class Projection(Consumer):
    """One instance of a projection; see `EventStore.project`."""

    kind = "projection"
    final = ProjectionFailed

    def __init__(
        self, row: CheckpointRow, handler: BatchHandler, *, on_error: OnError, layout: Layout, **surroundings: Any
    ) -> None:
        super().__init__(row, layout=layout, **surroundings)
        self._handler = handler
        self._on_error = on_error
        self._aside = Aside(layout, row.name)
        self._next_retry = 0.0

    def _failure(self, reason: str) -> EsxError:
        return ProjectionFailed(self._name, None, reason)

    async def _begin(self, connection: Session, checkpoint: Checkpoint) -> Checkpoint:
        await self._aside.load(connection, needed=self._on_error != "stop")
        return checkpoint

    async def _handle(self, connection: Session, part: Part) -> None:
        """Handle events in one transaction; if that fails, one by one, up to the one that fails."""
        events = part.events
        while True:
            try:
                await self._step(connection, part)
            except HandlerRaised as failure:
                cause = failure.cause
            else:
                return
            transient = _is_transient(cause)
            if len(events) > 1 and not transient:
                break
            reason = in_one_line(cause)
            if not transient and self._on_error != "stop":
                await self._put_aside(connection, part, reason)
                return
            await self._row.note_error(connection, self._position, reason, events[0].global_seq)
            if not transient:
                raise ProjectionFailed(self._name, events[0].global_seq, reason) from cause
            await self._wait_to_retry(reason)
        for event in events[:-1]:
            await self._handle(connection, Part([event], event.global_seq, self._looked + 1))
        await self._handle(connection, Part(events[-1:], part.position, self._looked + 1))
        # The events that the filter left out do not count: it is not known on which side of the window they are.
        self._looked = part.looked

    async def _step(self, connection: Session, part: Part) -> None:
        """Handle what can be handled, put aside what has to wait, and move the checkpoint, in one transaction."""
        ready, behind = self._aside.split(part.events)
        if behind:
            await self._check_room(connection, behind)
        history = self._history_after(part)

        async def finish(session: Session, transaction: str) -> bool:
            if behind:
                await self._aside.add_behind(session, behind)
            return await self._row.advance(
                session, self._position, history, transaction=transaction, handled=len(ready)
            )

        await handle(connection, self._row, self._handler, ready, self._position, finish)
        self._moved(part, history)

    async def _put_aside(self, connection: Session, part: Part, reason: str) -> None:
        """Park or skip the one event of a part, and move the checkpoint over it."""
        [event] = part.events
        state = "skipped" if self._on_error == "skip" else "parked"
        if state == "parked":
            await self._check_room(connection, part.events)
        history = self._history_after(part)

        async def finish(session: Session, transaction: str) -> bool:
            await self._aside.add(session, event, reason, state)
            return await self._row.advance(session, self._position, history, transaction=transaction)

        try:
            await handle(connection, self._row, self._handler, (), self._position, finish)
        except HandlerRaised as failure:
            raise ProjectionFailed(self._name, event.global_seq, in_one_line(failure.cause)) from failure.cause
        self._log.warning("projection %r has %s event %s: %s", self._name, state, event.global_seq, reason)
        self._moved(part, history)
        await self._aside.load(connection, needed=True)

    async def _check_room(self, connection: Session, events: Sequence[Event]) -> None:
        """Raise ProjectionFailed if so many events wait that something else must be wrong."""
        if self._aside.full(len(events)):
            await self._aside.load(connection, needed=True)
        if self._aside.full(len(events)):
            reason = f"{MOST_WAITING:,} events are parked: retry or skip some before it goes on"
            await self._row.note_error(connection, self._position, reason, events[0].global_seq)
            raise ProjectionFailed(self._name, events[0].global_seq, reason)

    # -- parked events -------------------------------------------------------------------------------------------

    async def _look(self, connection: Session, feed: Feed) -> None:
        await self._handle_due(connection)
        await super()._look(connection, feed)

    async def _handle_due(self, connection: Session) -> None:
        """Handle the parked events that a user wants to be tried again."""
        now = asyncio.get_running_loop().time()
        if not self._aside.streams or now < self._next_retry:
            return
        self._next_retry = now + LOOK
        for stream in await self._aside.due(connection):
            await self._retry_stream(connection, stream)
        await self._aside.load(connection, needed=False)

    async def _retry_stream(self, connection: Session, stream: str) -> None:
        """Handle the waiting events of a stream in order, up to one that fails."""
        most = _RETRIED
        while numbers := await self._aside.waiting(connection, stream, most):
            async with self._lend() as reading:
                events = await self._aside.read(reading, numbers)
            if len(events) < len(numbers):
                gone = min(set(numbers) - {event.global_seq for event in events})
                before = [event for event in events if event.global_seq < gone]
                if not before:
                    await self._aside.failed_again(connection, stream, gone, "it is no longer in the store: skip it")
                    return
                events = before
            try:
                await self._handle_waiting(connection, events)
            except HandlerRaised as failure:
                if len(events) > 1:
                    most = 1
                    continue
                if _is_transient(failure.cause):
                    return  # it is tried again at the next look
                reason = in_one_line(failure.cause)
                await self._aside.failed_again(connection, stream, events[0].global_seq, reason)
                return

    async def _handle_waiting(self, connection: Session, events: Sequence[Event]) -> None:
        numbers = [event.global_seq for event in events]

        async def finish(session: Session, transaction: str) -> bool:
            return await self._aside.remove(session, numbers, transaction)

        await handle(connection, self._row, self._handler, events, self._position, finish)


def _is_transient(cause: Exception) -> bool:
    return isinstance(cause, _TRANSIENT) or is_cancelled(cause)
