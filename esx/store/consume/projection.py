"""Projections: read models kept up to date, each event handled exactly once.

The checkpoint is a row of the database that the handler writes to, and moves in the handler's transaction. So a crash
at any moment leaves both before the batch, or both after it. Three things guard this:

1. Only one instance is active: it holds the projection's lease, an advisory lock in the session in which it works. An
   instance that loses the session loses the lease and the transaction with it, so it cannot commit without the lease.
   The other instances ask for the lease now and then.
2. Each batch locks the checkpoint's row at its expected position first, and moves it at the end. So no event is handled
   twice even without a lease, behind a connection pooler such as PgBouncer in transaction mode.
3. If the connection is lost during a COMMIT, its outcome is read from the checkpoint, after the lease was taken again:
   by then the old session is gone, and its transaction is decided.

The feed reads on the store's own connections, so a handler cannot disturb it by what it does to its session.

Beside its checkpoint each projection stores the history that it has read (see esx/store/feed/history.py). The history
is compared at the beginning of each session, and when the head is below the position. If it differs, the projection
ends with HistoryChanged.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import asyncpg

from esx.errors import EsxError, HistoryChanged, ProjectionFailed, QueryCancelled, StoreUnavailable
from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.connection import Connector
from esx.postgres.driver_errors import DRIVER_ERRORS, as_store_error, is_cancelled
from esx.postgres.session import Session
from esx.postgres.watchdog import Watchdog
from esx.store.consume.checkpoints import CheckpointRow, keep_alive, take_lease
from esx.store.consume.handler_transaction import (
    PATIENCE,
    BatchHandler,
    CheckpointMoved,
    HandlerRaised,
    LostWhileHandling,
    handle,
    in_one_line,
)
from esx.store.feed.comparison import compare_kept
from esx.store.feed.feed import Feed
from esx.store.feed.history import History, history_at
from esx.store.feed.server import Server, look
from esx.store.feed.source import Lend

_LOOK = 0.5  # how often a paused, waiting or idle instance looks at its checkpoint
_CLOSE_PATIENCE = 2.0
_RETRY_FIRST = 0.1
_RETRY_LAST = 5.0
# What PostgreSQL asks to be tried again: serialization failures and deadlocks, and locks not got in time.
_TRANSIENT = (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError, QueryCancelled)
_log = logging.getLogger("esx.projection")


class _StoreClosed(Exception):
    """The store that the projection runs on was closed."""


class _Part(NamedTuple):
    """Events to be handled in one transaction, and the feed's position and `looked` count after them."""

    events: Sequence[Event]
    position: int
    looked: int


class Projection:
    """One instance of a projection, active or waiting. Run it once, from one task."""

    def __init__(
        self,
        name: str,
        handler: BatchHandler,
        *,
        connector: Connector,
        layout: Layout,
        watchdog: Watchdog,
        make_feed: Callable[[Lend, int], Feed],
        lend: Lend,
        closed: Callable[[], bool],
    ) -> None:
        self._name = name
        self._row = CheckpointRow(layout, name)
        self._handler = handler
        self._connector = connector
        self._layout = layout
        self._watchdog = watchdog
        self._make_feed = make_feed
        self._lend = lend
        self._closed = closed
        self._id = 0
        self._position = 0
        self._looked = 0
        """How many events the feed had passed at the position."""
        self._history = History(Server(None, None), 0, 0, 0)
        self._retry = _RETRY_FIRST
        self._next_look = 0.0
        self._trouble: str | None = None
        """The error to store beside the checkpoint when there is a connection again."""

    async def run(self) -> None:
        """Wait for the lease, catch up, and follow, until it is cancelled or fails; see `EventStore.project`."""
        try:
            while True:
                try:
                    await self._session()
                except (EsxError, *DRIVER_ERRORS, OSError) as error:
                    await self._go_on_after(error)
        except _StoreClosed:
            raise StoreUnavailable(f"the store was closed while projection {self._name!r} ran") from None

    async def _go_on_after(self, error: Exception) -> None:
        """Wait after an error that can pass; store and raise any other."""
        meaning = error if isinstance(error, EsxError) else as_store_error(error, self._connector.where)
        if isinstance(meaning, HistoryChanged):
            # The feed does not know the name of its projection.
            meaning = HistoryChanged(meaning.position, meaning.head, meaning.reason, meaning.erased, self._name)
        if isinstance(error, LostWhileHandling):
            self._trouble = str(error)
        # The address may lead to a standby for a while: that is not the projection's error.
        passing = any(isinstance(each, asyncpg.ReadOnlySQLTransactionError) for each in (error, error.__cause__))
        if passing or isinstance(meaning, StoreUnavailable | QueryCancelled):
            await self._wait_to_retry(meaning)
            return
        if not isinstance(error, ProjectionFailed):
            # For example a filter that fails at an event; an error of the handler is stored already.
            await self._note(meaning or error)
        if meaning is None or meaning is error:
            raise error
        raise meaning from error

    async def _note(self, error: Exception) -> None:
        """Store what ended the projection beside its checkpoint, if possible."""
        with contextlib.suppress(EsxError, *DRIVER_ERRORS, OSError):
            async with self._lend() as connection:
                await self._row.note_error(connection, self._position, in_one_line(error))

    async def _wait_to_retry(self, reason: object) -> None:
        """Wait, twice as long each time until the projection moves."""
        self._check_open()
        _log.warning("projection %r tries again in %.1f s: %s", self._name, self._retry, reason)
        await asyncio.sleep(self._retry)
        self._retry = min(self._retry * 2, _RETRY_LAST)

    def _check_open(self) -> None:
        if self._closed():
            raise _StoreClosed

    async def _session(self) -> None:
        """Work until the connection is lost."""
        connection = await self._connector.open("projection")
        try:
            # A silent connection would keep the lease, and keep this instance waiting.
            with self._watchdog.including(connection):
                self._id = (await self._row.register(connection)).id
                if not self._row.keeps_history:
                    _log.warning("projection %r keeps no history of what it reads: run `esx init`", self._name)
                await self._wait_for_lease(connection)
                while True:
                    with contextlib.suppress(CheckpointMoved):
                        await self._work(connection)
        finally:
            with contextlib.suppress(*DRIVER_ERRORS, OSError):
                await connection.close(timeout=_CLOSE_PATIENCE)

    async def _wait_for_lease(self, connection: Session) -> None:
        """Return as the active instance."""
        if self._connector.pooler is not None:
            return
        await keep_alive(connection)
        while not await take_lease(connection, self._layout, self._id):
            self._check_open()
            await asyncio.sleep(_LOOK)

    async def _work(self, connection: Session) -> None:
        """Follow the feed from the checkpoint, until CheckpointMoved or another error is raised."""
        checkpoint = await self._row.load(connection)
        if checkpoint is None or checkpoint.id != self._id:
            raise ProjectionFailed(self._name, None, "it was deleted")
        self._position = checkpoint.position
        if self._trouble is not None:
            await self._row.note_error(connection, self._position, self._trouble)
            self._trouble = None
        if checkpoint.paused:
            self._check_open()
            await asyncio.sleep(_LOOK)
            raise CheckpointMoved
        await self._recognise(connection, checkpoint.history)

        @contextlib.asynccontextmanager
        async def lend() -> AsyncIterator[asyncpg.Connection]:
            # The feed reads at least once a second, and all events up to its position are handled then.
            await self._look(connection, feed)
            async with self._lend() as reading:
                yield reading

        feed = self._make_feed(lend, self._position)
        self._looked = feed.looked
        async with contextlib.aclosing(feed.follow()) as batches:
            async for batch in batches:
                if batch.events:
                    await self._handle(connection, _Part(batch.events, batch.position, feed.looked))

    async def _recognise(self, connection: Session, kept: str | None) -> None:
        """Raise HistoryChanged unless the store holds the history `kept`, up to the position."""
        server = await self._compare(connection, kept)
        known = None if kept is None else History.from_json(kept)
        if known is not None and known.position == self._position:
            self._history = known.on(server)
            return
        # Nothing is kept, or an older esx has moved the checkpoint: trust what is there now.
        self._history = await history_at(connection, self._layout, self._position)
        await self._row.keep_history(connection, self._position, self._history)

    async def _compare(self, connection: Session, kept: str | None) -> Server:
        """Return the server; raises HistoryChanged."""
        here = await look(connection, self._layout)
        difference = await compare_kept(connection, self._layout, here, kept, self._position)
        if difference is not None:
            raise difference.error(self._position, projection=self._name)
        return here.server

    async def _look(self, connection: Session, feed: Feed) -> None:
        """Move the checkpoint over events that the filter left out, and notice a pause, a reset, or a lost session."""
        self._check_open()
        now = asyncio.get_running_loop().time()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK
        async with asyncio.timeout(PATIENCE):
            if feed.position > self._position:
                passed = _Part((), feed.position, feed.looked)
                history = self._history_after(passed)
                if not await self._row.advance(connection, self._position, history):
                    raise CheckpointMoved
                self._moved(passed, history)
                return
            within = await self._row.within_head(connection, self._id, self._position)
            if within is None:
                raise CheckpointMoved
            if not within:
                await self._compare(connection, self._row.as_kept(self._history))

    def _history_after(self, part: _Part) -> History:
        return self._history.moved(part.events, part.position, part.looked - self._looked)

    def _moved(self, part: _Part, history: History) -> None:
        self._position, self._looked, self._history = part.position, part.looked, history
        self._retry = _RETRY_FIRST

    async def _handle(self, connection: Session, part: _Part) -> None:
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
            await self._row.note_error(connection, self._position, reason)
            if not transient:
                raise ProjectionFailed(self._name, events[0].global_seq, reason) from cause
            await self._wait_to_retry(reason)
        for event in events[:-1]:
            await self._handle(connection, _Part([event], event.global_seq, self._looked + 1))
        await self._handle(connection, _Part(events[-1:], part.position, self._looked + 1))
        # The events that the filter left out do not count: it is not known on which side of the window they are.
        self._looked = part.looked
