"""Projections: read models kept up to date, each event handled exactly once.

The checkpoint is a row of the database that the handler writes to, and moves in the handler's own transaction. So
a crash at any moment leaves both where they were before the batch, or both after it. Three things guard this:

1. Only one instance is active: it holds an advisory lock in the session that it works in. Who loses the session
   loses the lock and the transaction with it, so there is no moment at which a fenced-off instance could commit.
   The others ask for the lock now and then; waiting in a statement would hold back vacuum in the whole cluster.
2. Each batch begins by locking the checkpoint's row where it is expected to be, and ends by moving it from there.
   That keeps two instances from handling an event twice even where there is no lock: behind a connection pooler
   such as PgBouncer in transaction mode, a session's lock would stay behind on a connection that others share.
3. When a COMMIT is cut off, what became of it is read from the checkpoint, after the lock has been got again: by then
   the old session is gone, and its transaction decided.

The feed reads on the store's own connections, so that nothing a handler does to its session can disturb it.

Beside its checkpoint each keeps what it knows of the history that it has read (see history.py). That is compared at the
beginning of each session, and whenever the head is found below the position: if it differs, the projection ends with
HistoryChanged, and nothing goes on by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from esx.store import projection_table as table
from esx.store.driver import DRIVER_ERRORS, as_store_error, first_line, is_cancelled, is_connection_loss
from esx.store.errors import (
    EsxError,
    HistoryChanged,
    ProjectionFailed,
    QueryCancelled,
    StoreFailed,
    StoreUnavailable,
)
from esx.store.history import History, Server, compare_kept, history_at, look
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from esx.store.connection import Connector, Session
    from esx.store.feed import Feed
    from esx.store.layout import Layout
    from esx.store.model import Event
    from esx.store.silence import Watch

    EventHandler = Callable[[asyncpg.Connection, Event], Awaitable[object]]
    BatchHandler = Callable[[asyncpg.Connection, Sequence[Event]], Awaitable[object]]
    Lend = Callable[[], AbstractAsyncContextManager[asyncpg.Connection]]

_LOOK = 0.5  # how often a paused, waiting or idle instance looks at its checkpoint
_PATIENCE = 10.0
_CLOSE_PATIENCE = 2.0
_RETRY_FIRST = 0.1
_RETRY_LAST = 5.0
# What PostgreSQL asks to be tried again: serialization failures and deadlocks, and locks not got in time.
_TRANSIENT = (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError, QueryCancelled)
# A client's machine that vanished is noticed within half a minute, instead of after hours, and frees its lock.
_KEEPALIVE = """
    SELECT set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),
           set_config('tcp_keepalives_count', '4', false)
"""
_ENDED = "the handler ended the transaction it was given, which is the projection's to end"
_log = logging.getLogger("esx.projection")


class _Moved(Exception):
    """The checkpoint is not where it was left, or the projection is paused: read it anew."""


class _StoreClosed(Exception):
    """The store that the projection runs on was closed."""


class _HandlerRaised(Exception):
    """The batch was rolled back because of `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Part(NamedTuple):
    """Events to be handled in one transaction, and where the feed is after them: `looked` counts what it passed."""

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
        watch: Watch,
        make_feed: Callable[[Lend, int], Feed],
        lend: Lend,
        closed: Callable[[], bool],
    ) -> None:
        self._name = name
        self._handler = handler
        self._connector = connector
        self._layout = layout
        self._watch = watch
        self._make_feed = make_feed
        self._lend = lend
        self._closed = closed
        self._id = 0
        self._position = 0
        self._looked = 0
        """What the feed had passed at the position."""
        self._kept = True
        """Whether the table has room for a history."""
        self._history = History(Server(None, None), 0, 0, 0)
        self._retry = _RETRY_FIRST
        self._next_look = 0.0
        self._trouble: str | None = None

    async def run(self) -> None:
        """Wait to be the active instance, catch up, and follow, until cancelled or failed."""
        try:
            while True:
                try:
                    await self._session()
                except (EsxError, *DRIVER_ERRORS, OSError) as error:
                    meaning = error if isinstance(error, EsxError) else as_store_error(error, self._connector.where)
                    if isinstance(meaning, HistoryChanged):
                        # The feed does not know whose it is.
                        meaning = HistoryChanged(
                            meaning.position, meaning.head, meaning.reason, meaning.erased, self._name
                        )
                    # That the address leads to a standby for a moment tells of the server, not of the projection.
                    passing = any(
                        isinstance(each, asyncpg.ReadOnlySQLTransactionError) for each in (error, error.__cause__)
                    )
                    if passing or isinstance(meaning, StoreUnavailable | QueryCancelled):
                        await self._wait_to_retry(meaning)
                    else:
                        if not isinstance(error, ProjectionFailed):
                            # Such as a filter that fails at an event: it is not the handler's error, but seen as such.
                            await self._note(meaning or error)
                        if meaning is None or meaning is error:
                            raise
                        raise meaning from error
        except _StoreClosed:
            raise StoreUnavailable(f"the store was closed while projection {self._name!r} ran") from None

    async def _note(self, error: Exception) -> None:
        """Keep what ended the projection beside its checkpoint, as far as that can be done."""
        with contextlib.suppress(EsxError, *DRIVER_ERRORS, OSError):
            async with self._lend() as connection:
                await table.note_error(connection, self._layout, self._name, self._position, _told(error))

    async def _wait_to_retry(self, reason: object) -> None:
        """Wait, twice as long each time until the projection moves on."""
        if self._closed():
            raise _StoreClosed
        _log.warning("projection %r tries again in %.1f s: %s", self._name, self._retry, reason)
        await asyncio.sleep(self._retry)
        self._retry = min(self._retry * 2, _RETRY_LAST)

    async def _session(self) -> None:
        """Work until the connection is lost."""
        connection = await self._connector.open("projection")
        try:
            # One that falls silent would keep the lock, and this waiting, for as long as its peer is there.
            with self._watch.including(connection):
                self._id = (await table.register(connection, self._layout, self._name)).id
                self._kept = await table.keeps_history(connection, self._layout)
                if not self._kept:
                    _log.warning("projection %r keeps no history of what it reads: run `esx init`", self._name)
                await self._wait_for_turn(connection)
                while True:
                    try:
                        await self._work(connection)
                    except _Moved:
                        continue
        finally:
            with contextlib.suppress(*DRIVER_ERRORS, OSError):
                await connection.close(timeout=_CLOSE_PATIENCE)

    async def _wait_for_turn(self, connection: Session) -> None:
        """Return as the active instance."""
        if self._connector.pooler is not None:
            return
        await connection.execute(_KEEPALIVE)
        while not await connection.fetchval(
            f"SELECT pg_try_advisory_lock({table.lock_class(self._layout)}, $1)", self._id
        ):
            if self._closed():
                raise _StoreClosed
            await asyncio.sleep(_LOOK)

    async def _work(self, connection: Session) -> None:
        """Follow the feed from the checkpoint. Raises _Moved when that is not where it was left."""
        checkpoint = await table.load(connection, self._layout, self._name, kept=self._kept)
        if checkpoint is None or checkpoint.id != self._id:
            raise ProjectionFailed(self._name, None, "somebody deleted it")
        self._position = checkpoint.position
        if self._trouble is not None:
            await table.note_error(connection, self._layout, self._name, self._position, self._trouble)
            self._trouble = None
        if checkpoint.paused:
            if self._closed():
                raise _StoreClosed
            await asyncio.sleep(_LOOK)
            raise _Moved
        await self._recognise(connection, checkpoint.history)

        @contextlib.asynccontextmanager
        async def lend() -> AsyncIterator[asyncpg.Connection]:
            # The feed comes by at least once a second, and has then had all up to its position handled.
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
        """Raise HistoryChanged unless what was read up to the position is what is there."""
        server = await self._compare(connection, kept)
        known = None if kept is None else History.from_json(kept)
        if known is not None and known.position == self._position:
            self._history = known.on(server)
            return
        # Nothing is known, or an older esx has moved on from there: what is there now is taken on trust.
        self._history = await history_at(connection, self._layout, self._position)
        if self._kept:
            await table.keep_history(connection, self._layout, self._name, self._position, self._history.to_json())

    async def _compare(self, connection: Session, kept: str | None) -> Server:
        """Return which server it is; raises HistoryChanged."""
        here = await look(connection, self._layout)
        difference = await compare_kept(connection, self._layout, here, kept, self._position)
        if difference is not None:
            raise difference.error(self._position, projection=self._name)
        return here.server

    async def _look(self, connection: Session, feed: Feed) -> None:
        """Keep what the filter passed over, and notice a pause, a reset, or the loss of the session."""
        if self._closed():
            raise _StoreClosed
        now = asyncio.get_running_loop().time()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK
        async with asyncio.timeout(_PATIENCE):
            if feed.position > self._position:
                passed = _Part((), feed.position, feed.looked)
                history = self._history_after(passed)
                if not await table.advance(
                    connection,
                    self._layout,
                    self._name,
                    self._position,
                    passed.position,
                    history=self._as_kept(history),
                ):
                    raise _Moved
                self._moved(passed, history)
                return
            within = await table.within_head(connection, self._layout, self._name, self._id, self._position)
            if within is None:
                raise _Moved
            if not within:
                await self._compare(connection, self._as_kept(self._history))

    def _history_after(self, part: _Part) -> History:
        return self._history.moved(part.events, part.position, part.looked - self._looked)

    def _as_kept(self, history: History) -> str | None:
        return history.to_json() if self._kept else None

    def _moved(self, part: _Part, history: History) -> None:
        self._position, self._looked, self._history = part.position, part.looked, history
        self._retry = _RETRY_FIRST

    async def _handle(self, connection: Session, part: _Part) -> None:
        """Handle events in one transaction; if that fails, one by one, so that only the culprit is left out."""
        events = part.events
        while True:
            try:
                await self._transact(connection, part)
            except _HandlerRaised as failure:
                cause = failure.cause
            else:
                return
            transient = isinstance(cause, _TRANSIENT) or is_cancelled(cause)
            if len(events) > 1 and not transient:
                break
            reason = _told(cause)
            await table.note_error(connection, self._layout, self._name, self._position, reason)
            if not transient:
                raise ProjectionFailed(self._name, events[0].global_seq, reason) from cause
            await self._wait_to_retry(reason)
        for event in events[:-1]:
            await self._handle(connection, _Part([event], event.global_seq, self._looked + 1))
        await self._handle(connection, _Part(events[-1:], part.position, self._looked + 1))
        # What the filter passed over in between does not count: nobody knows on which side of the window it lies.
        self._looked = part.looked

    async def _transact(self, connection: Session, part: _Part) -> None:
        """Let the handler write, and move the checkpoint, in one transaction."""
        history = self._history_after(part)
        transaction = connection.transaction()
        await transaction.start()
        try:
            locked = await table.lock_at(connection, self._layout, self._name, self._position)
            if locked is None:
                raise _Moved
            await self._handler(connection, part.events)
            if not connection.is_in_transaction():
                raise StoreFailed(_ENDED)
            if not await table.advance(
                *(connection, self._layout, self._name, self._position, part.position),
                history=self._as_kept(history),
                transaction=locked,
            ):
                # It may have begun another, which its earlier writes are not in.
                raise _Moved if await table.in_transaction(connection, locked) else StoreFailed(_ENDED)
        except Exception as error:
            await self._roll_back(connection, transaction, error)
            if isinstance(error, _Moved):
                raise
            raise _HandlerRaised(_explained(error)) from error
        try:
            await transaction.commit()
        except asyncpg.PostgresError as error:
            if is_connection_loss(error) or connection.is_in_transaction():
                raise  # the outcome is unknown, and read from the checkpoint
            raise _HandlerRaised(error) from error
        self._moved(part, history)

    async def _roll_back(
        self, connection: Session, transaction: asyncpg.transaction.Transaction, error: Exception
    ) -> None:
        """Roll back; raises StoreUnavailable if the connection is gone, which then was the reason for `error`.

        Whether it is gone is asked of the connection: the handler's error may tell of another one, or hide it.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                await transaction.rollback()
        except (*DRIVER_ERRORS, OSError) as failure:
            if is_cancelled(failure):
                raise  # before it began; the session is given up
            if not connection.is_closed() and not is_connection_loss(failure):
                raise _HandlerRaised(error) from error
            lost = f"the connection was lost: {_told(error)}"
            self._trouble = None if isinstance(error, _Moved) else lost
            raise StoreUnavailable(lost) from error


def _explained(error: Exception) -> Exception:
    if isinstance(error, asyncpg.InFailedSQLTransactionError):
        return StoreFailed(
            "the handler went on after an error of PostgreSQL, which undoes the transaction: let the error out, or "
            "put what may fail into `async with connection.transaction()`"
        )
    return error


def _told(error: Exception) -> str:
    """Return an error in one line that PostgreSQL can store."""
    return visible(f"{type(error).__name__}: {first_line(error)}", limit=1000)
