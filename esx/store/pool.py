"""A few connections, lent one at a time.

asyncpg's own pool costs some 40 us each time a connection is lent and returned, as much as a small append costs
altogether. This one does less: it keeps no idle timers and resets nothing, because every statement of the store
keeps its settings and locks inside its transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import asyncpg

from esx.store.driver import as_store_error, given_up, is_connection_loss
from esx.store.errors import EsxError, StoreClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from types import TracebackType

    from esx.store.connection import Session

_REST_LIMIT = 10.0
_REST_PAUSE = 0.005
_CLOSE_PATIENCE = 1.0


class Pool:
    """Lends at most `size` connections, opening them as needed with `connect`; `where` names them in errors."""

    def __init__(self, connect: Callable[[], Awaitable[Session]], size: int, where: str) -> None:
        self._connect = connect
        self._where = where
        self._room = size
        self._idle: list[Session] = []
        self._lent: set[Session] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._settling: set[asyncio.Task[bool]] = set()
        self._closed = False

    def lend(self) -> Loan:
        """Return a context manager for one connection. Errors of the driver become the store's own."""
        return Loan(self)

    def idle(self) -> Loan | None:
        """Return the loan of a connection that is idle now, for a plain ``with``; None if there is none.

        For what is called most: ``with pool.idle() or await pool.taken() as connection`` does without the coroutines of
        ``async with pool.lend()``.
        """
        idle = self._idle
        if not idle or idle[-1].is_closed():
            return None
        loan = Loan(self)
        loan._connection = connection = idle.pop()
        self._lent.add(connection)
        return loan

    async def taken(self) -> Loan:
        """Return the loan of a connection, for a plain ``with``, once there is one to be had."""
        loan = Loan(self)
        await loan.__aenter__()
        return loan

    @property
    def lent(self) -> Collection[asyncpg.Connection]:
        """The connections that are in use now."""
        return self._lent

    async def settled(self) -> None:
        """Wait a moment for those whose work was cut short, so that PostgreSQL hears of it before they are closed.

        PgBouncer 1.18 even ends, for all of its clients, when a request to cancel is broken off.
        """
        if self._settling:
            await asyncio.wait(self._settling, timeout=_CLOSE_PATIENCE)

    def terminate(self) -> None:
        """Close all connections at once, also those that are lent."""
        self._closed = True
        for connection in (*self._idle, *self._lent):
            connection.terminate()
        self._idle.clear()
        for task in self._settling:
            task.cancel()
        while self._waiting:
            self._wake()

    async def _take(self) -> Session:
        while True:
            if self._closed:
                raise StoreClosed(f"cannot reach {self._where}: the store is closed")
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    self._lent.add(connection)
                    return connection
                self._room += 1
            if self._room:
                self._room -= 1
                try:
                    connection = await self._connect()
                except BaseException:
                    self._room += 1
                    self._wake()
                    raise
                if self._closed:
                    connection.terminate()
                    continue
                self._lent.add(connection)
                return connection
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # Woken in the moment of being cancelled, it passes its turn on; else `_wake` will pass it over.
                if not waiter.cancelled():
                    self._wake()
                raise

    def _settle(self, connection: Session) -> None:
        """Give back a connection whose work was cut short, once PostgreSQL has seen that too."""
        task = asyncio.ensure_future(_at_rest(connection))
        self._settling.add(task)

        def done(task: asyncio.Task[bool]) -> None:
            self._settling.discard(task)
            self._give_back(connection, broken=task.cancelled() or not task.result())

        task.add_done_callback(done)

    def _give_back(self, connection: Session, *, broken: bool = False) -> None:
        self._lent.discard(connection)
        if broken or self._closed or connection.is_closed() or connection.is_in_transaction():
            # A transaction left open could only be one that was cut short.
            connection.terminate()
            self._room += 1
        else:
            self._idle.append(connection)
        if self._waiting:
            self._wake()

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


async def _at_rest(connection: Session) -> bool:
    """Wait until a connection can be used again after its work was cancelled; return whether it can."""
    try:
        async with asyncio.timeout(_REST_LIMIT):
            while not connection.is_closed():
                try:
                    await connection.execute("SELECT 1")
                except asyncpg.InternalClientError:
                    # The answer to what was cancelled is still being read.
                    await asyncio.sleep(_REST_PAUSE)
                else:
                    return True
    except Exception:
        return False
    return False


class Loan:
    """One connection for the length of an ``async with``; of a plain ``with`` where it has been taken already."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Session | None = None

    async def __aenter__(self) -> Session:
        try:
            self._connection = await self._pool._take()
        except Exception as error:
            translated = self._translated(error)
            if translated is None:
                raise
            raise translated from error
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __enter__(self) -> Session:
        assert self._connection is not None
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, connection = self._pool, self._connection
        assert connection is not None
        if error is None:
            pool._give_back(connection)
            return
        if not isinstance(error, Exception):
            pool._settle(connection)
            return
        # asyncpg may take a lost connection for usable; then the next one to get it would wait for ever.
        pool._give_back(connection, broken=is_connection_loss(error))
        limited = isinstance(error, TimeoutError) and connection.limited
        translated = given_up() if limited else self._translated(error)
        if translated is not None:
            raise translated from error

    def _translated(self, error: Exception) -> EsxError | None:
        return None if isinstance(error, EsxError) else as_store_error(error, self._pool._where)
