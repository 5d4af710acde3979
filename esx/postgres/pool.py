"""A few connections, lent one at a time.

asyncpg's own pool costs 44 us each time a connection is lent and returned, as much as a small append costs altogether;
this one costs 3 us. It resets nothing when a connection comes back, because every statement of the store keeps its
settings and locks inside its transaction.

Connections are lent in one of two ways (`Session.resolve`): guarded, to read and to write to the store's own tables, or
as the user's, to append and for code of the user. A read may share a transaction with the read before it; a timer ends
that transaction when it has not been used for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from types import TracebackType
from typing import Any

from esx.errors import EsxError, StoreClosed
from esx.postgres.background import tell_failure
from esx.postgres.driver_errors import DRIVER_ERRORS, as_store_error, given_up, is_of_no_more_use
from esx.postgres.hold import holds_something
from esx.postgres.session import Session
from esx.postgres.timings import Timings

_CLOSE_PATIENCE = 1.0


class Pool:
    """Lends at most `size` connections, opened as needed with `connect`; `where` names them in errors.

    Callers that find no idle connection wait in a queue. A connection that is opened or comes back goes to the first of
    the queue at once, so no connection is idle while the queue is not empty, and no caller overtakes. Connections are
    opened for the queue, not for one caller: so callers that always give up before a connection is open get one too.

    A task with a `Hold` that needs another connection must not wait for tasks that wait for what it holds: it gets one
    of up to `size` spare connections, of which one is kept open.
    """

    def __init__(
        self,
        connect: Callable[[], Coroutine[Any, Any, Session]],
        size: int,
        where: str,
        *,
        read_only: bool = False,
        timings: Timings | None = None,
    ) -> None:
        self._connect = connect
        self._where = where
        self._read_only = read_only
        self._timings = timings or Timings()
        self.check: Callable[[Session], Awaitable[None]] | None = None
        """Called now and then with a connection to read with; it raises if nothing should be read."""
        self.checked_at = 0.0
        """When it was called last, by the monotonic clock."""
        self.rewrite: Callable[[str], str] | None = None
        """Changes each query before it is sent, if columns have types that are not PostgreSQL's own."""
        self.restricted = ""
        """The kinds of relations that guarded connections may not read."""
        self._size = self._kept = size
        self._reserve: Pool | None = None
        self._room = size
        self._idle: list[Session] = []
        self._lent: set[Session] = set()
        self._waiting: deque[asyncio.Future[Session | Exception]] = deque()
        self._opening: set[asyncio.Task[Session]] = set()
        self._settling: set[asyncio.Task[bool]] = set()
        self._closed = False

    def lend(self, *, guarded: bool = True, grouped: bool = True) -> Loan:
        """Return a context manager for one connection. Errors of the driver become the store's own.

        A guarded connection of a read-only pool is in a READ ONLY transaction: code of other users that runs in spite
        of the guard can change what the session may do, but not what the transaction may do. Loans in quick succession
        share the transaction, for up to `Timings.group` seconds. Behind a pooler each guarded loan has a transaction of
        its own, as nothing can be set for longer. `grouped` False is for callers that begin a transaction themselves.
        """
        return Loan(self, guarded=guarded, grouped=grouped)

    def idle(self, *, guarded: bool) -> Loan | None:
        """Return the loan of a connection that is idle now, for a plain ``with``; None if there is none.

        It is for the most frequent calls: ``with pool.idle(guarded=True) or await pool.taken(guarded=True) as session``
        avoids the coroutines of ``async with pool.lend()``. It lends no connection in a transaction.
        """
        idle = self._idle
        if (
            not idle
            or idle[-1].is_closed()
            or idle[-1].guarded is not guarded
            or (guarded and self._in_group(idle[-1]))
        ):
            return None
        loan = Loan(self, guarded=guarded)
        loan._connection = self._hand_out(idle.pop())
        return loan

    async def taken(self, *, guarded: bool) -> Loan:
        """Return the loan of a connection for a plain ``with``, as `idle` does, but wait for one."""
        loan = Loan(self, guarded=guarded)
        await loan.__aenter__()
        return loan

    def _in_group(self, connection: Session) -> bool:
        """Return whether guarded loans of this connection are in a transaction."""
        return self._read_only or connection.kept is None

    @property
    def lent(self) -> Collection[Session]:
        """The connections that are in use now."""
        return self._lent

    @property
    def waiting(self) -> int:
        """How many callers wait for a connection."""
        return len(self._waiting)

    async def settled(self) -> None:
        """Wait a moment for connections whose work was cancelled, so that PostgreSQL learns of it before they close.

        PgBouncer 1.18 even crashes, for all of its clients, when a cancel request is interrupted.
        """
        if self._settling:
            await asyncio.wait(self._settling, timeout=_CLOSE_PATIENCE)

    def terminate(self) -> None:
        """Close all connections at once, also those that are lent."""
        self._closed = True
        for connection in (*self._idle, *self._lent):
            connection.terminate()
        self._idle.clear()
        for task in (*self._settling, *self._opening):
            task.cancel()
        self._fail(self._store_closed(), len(self._waiting))
        if self._reserve is not None:
            self._reserve.terminate()

    def _serving(self) -> Pool:
        """Return the pool that lends to this task: the spare one, if other tasks may wait for what it holds."""
        if self._idle or self._room or not holds_something():
            return self
        if self._reserve is None:
            self._reserve = reserve = Pool(
                self._connect, self._size, self._where, read_only=self._read_only, timings=self._timings
            )
            reserve._kept = 1
            reserve._lent, reserve._settling, reserve._closed = self._lent, self._settling, self._closed
        self._reserve.check, self._reserve.restricted, self._reserve.rewrite = self.check, self.restricted, self.rewrite
        return self._reserve

    async def _take(self, *, guarded: bool) -> Session:
        while self._idle:
            connection = self._idle.pop(self._choose(guarded=guarded))
            if not connection.is_closed():
                return self._hand_out(connection)
            self._room += 1
        given = await self._wait()
        while given.is_closed():
            # It was lost meanwhile: it is still our turn.
            self._give_back(given)
            given = await self._wait(first=True)
        return self._hand_out(given)

    def _hand_out(self, connection: Session) -> Session:
        self._lent.add(connection)
        connection.rewrite = self.rewrite
        return connection

    def _choose(self, *, guarded: bool) -> int:
        """Return the index of the idle connection to lend: the last one that need not switch."""
        for at in range(len(self._idle) - 1, -1, -1):
            if self._idle[at].guarded is guarded or self._idle[at].kept is None:
                return at
        return -1

    async def _wait(self, *, first: bool = False) -> Session:
        """Wait in the queue, before all others if `first`, and return the connection that comes."""
        if self._closed:
            raise self._store_closed()
        # If others wait for more than is being opened, opening has just failed, and they get the error.
        barren = len(self._waiting) > len(self._opening)
        waiter: asyncio.Future[Session | Exception] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(waiter)
        else:
            self._waiting.append(waiter)
        if not barren:
            self._open()
        try:
            given = await waiter
        except BaseException:
            if waiter.cancel() or waiter.cancelled():
                with contextlib.suppress(ValueError):  # not in the queue any more
                    self._waiting.remove(waiter)
            elif not isinstance(given := waiter.result(), Exception):
                # It came at the moment when we were cancelled.
                self._give_back(given)
            raise
        if isinstance(given, Exception):
            if (translated := as_store_error(given, self._where)) is None:
                raise given
            raise translated from given
        return given

    def _open(self) -> None:
        """Open connections for the queue, as far as there is room."""
        while self._room and len(self._opening) < len(self._waiting) and not self._closed:
            self._room -= 1
            opening = asyncio.create_task(self._connect(), name="esx-open")
            self._opening.add(opening)
            opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Session]) -> None:
        self._opening.discard(opening)
        error = None if opening.cancelled() else opening.exception()
        if error is None and not opening.cancelled():
            self._lent.add(opening.result())
            self._give_back(opening.result())
            self._open()
            return
        self._room += 1
        if not isinstance(error, Exception):
            return  # the store is closed, or the program ends
        # If connections are lent or being opened, the rest of the queue can wait for them. Else all fail.
        self._fail(error, 1 if self._lent or self._opening else len(self._waiting))
        if self._lent:
            self._open()

    def _fail(self, error: Exception, count: int) -> None:
        """Give `error` to the first `count` of the queue."""
        for _ in range(count):
            if (waiter := self._next()) is not None:
                waiter.set_result(error)

    def _store_closed(self) -> StoreClosed:
        return StoreClosed(f"cannot reach {self._where}: the store is closed")

    def _settle(self, connection: Session) -> None:
        """Give back a connection whose work was cancelled, when it can be used again."""
        task = asyncio.create_task(connection.settle(), name="esx-settle")
        self._settling.add(task)

        def done(task: asyncio.Task[bool]) -> None:
            self._settling.discard(task)
            tell_failure(task)
            failed = task.cancelled() or task.exception() is not None
            self._give_back(connection, broken=failed or not task.result())

        task.add_done_callback(done)

    def _give_back(self, connection: Session, *, broken: bool = False) -> None:
        # A transaction that is still open was cancelled.
        if broken or self._closed or connection.is_closed() or not connection.clean:
            self._lent.discard(connection)
            connection.terminate()
            self._room += 1
            self._open()
        elif self._waiting and (waiter := self._next()) is not None:
            waiter.set_result(connection)
        else:
            self._lent.discard(connection)
            if len(self._idle) < self._kept:
                self._idle.append(connection)
            else:
                connection.terminate()
                self._room += 1

    def _let_rest(self, connection: Session) -> None:
        """Keep the transaction of a connection for a moment, for the next loan."""
        loop = asyncio.get_running_loop()
        connection.rests_since = loop.time()
        if connection.resting is None:
            connection.resting = loop.call_later(self._timings.rest, self._rest, connection)

    def _rest(self, connection: Session) -> None:
        """End the transaction of a connection that was not used for a moment."""
        if connection not in self._idle or not connection.in_group:
            connection.resting = None
            return
        loop = asyncio.get_running_loop()
        if loop.time() < connection.rests_since + self._timings.rest:
            connection.resting = loop.call_later(self._timings.rest, self._rest, connection)
            return
        connection.resting = None
        self._idle.remove(connection)
        self._lent.add(connection)
        self._settle(connection)

    def _next(self) -> asyncio.Future[Session | Exception] | None:
        """Take the first waiter out of the queue and return it; None if there is none."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None


class Loan:
    """One connection for the length of an ``async with``, or of a plain ``with`` if it was taken before."""

    __slots__ = ("_connection", "_grouped", "_guarded", "_pool")

    def __init__(self, pool: Pool, *, guarded: bool, grouped: bool = True) -> None:
        self._pool = pool
        self._grouped = grouped
        self._guarded = guarded
        self._connection: Session | None = None

    async def __aenter__(self) -> Session:
        self._pool = pool = self._pool._serving()
        try:
            connection = await pool._take(guarded=self._guarded)
        except Exception as error:
            if (translated := self._translated(error)) is None:
                raise
            raise translated from error
        self._connection = connection
        try:
            await self._prepare(connection)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return connection

    async def _prepare(self, connection: Session) -> None:
        pool, guarded = self._pool, self._guarded
        grouped = guarded and self._grouped and pool._in_group(connection)
        switches = connection.guarded is not guarded or (guarded and connection.restricted != pool.restricted)
        goes_on = grouped and not switches and time.monotonic() < connection.group_until
        if connection.in_group and not goes_on:
            await connection.end(commit=True)
        if switches and connection.kept is not None:
            # Outside of a transaction: a rollback would undo the settings.
            await connection.resolve(guarded=guarded, restricted=pool.restricted)
        if grouped and not connection.in_group:
            await connection.begin(read_only=pool._read_only)
            connection.group_until = time.monotonic() + pool._timings.group
            if connection.kept is None:
                await connection.resolve(guarded=guarded, restricted=pool.restricted)
        reads = guarded and self._grouped
        if reads and pool.check is not None and time.monotonic() >= pool.checked_at + pool._timings.check:
            pool.checked_at = time.monotonic()
            try:
                await pool.check(connection)
            except BaseException:
                pool.checked_at = 0.0  # the next loan is to fail too
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self._connection
        assert connection is not None
        keeps = self._pool._read_only and connection.kept is not None and connection.may_rest
        if error is None and keeps and connection.in_group:
            self._pool._let_rest(connection)
        elif connection.in_group and (error is None or isinstance(error, Exception)) and not connection.is_closed():
            try:
                await connection.end(commit=error is None)
            except asyncio.CancelledError:
                self._pool._settle(connection)
                raise
            except (*DRIVER_ERRORS, OSError) as failed:
                connection.terminate()
                if error is None and not self._pool._read_only:
                    self.__exit__(type(failed), failed, failed.__traceback__)
                # Else what was read is still right.
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
        pool._give_back(connection, broken=is_of_no_more_use(error, standby=bool(connection.standby)))
        limited = isinstance(error, TimeoutError) and connection.limited
        translated = given_up() if limited else self._translated(error)
        if translated is not None:
            raise translated from error

    def _translated(self, error: Exception) -> EsxError | None:
        return None if isinstance(error, EsxError) else as_store_error(error, self._pool._where)
