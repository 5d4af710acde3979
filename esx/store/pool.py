"""A few connections, lent one at a time.

asyncpg's own pool costs some 40 us each time a connection is lent and returned, as much as a small append costs
altogether. This one does less: it keeps no idle timers and resets nothing, because every statement of the store
keeps its settings and locks inside its transaction. What it does keep apart are the two ways of finding names
(`Session.resolve`): connections are lent guarded, to read and to keep the store's own tables, or as the user's, to
append and for code that is the user's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import asyncpg

from esx.store.background import tell_failure
from esx.store.driver import DRIVER_ERRORS, as_store_error, given_up, is_connection_loss
from esx.store.errors import EsxError, StoreClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine
    from types import TracebackType

    from esx.store.connection import Session

_REST_LIMIT = 10.0
_REST_PAUSE = 0.005
_CLOSE_PATIENCE = 1.0
_CHECK_EVERY = 5.0
# Seconds for which a transaction serves loans that follow each other, and for which it may wait for the next.
_GROUP_FOR = 0.5
_REST_FOR = 0.05


class Hold:
    """What a task holds from now on until `end`, and others may wait for, with a connection of theirs.

    The tasks that it starts meanwhile hold it too, and no longer than it does.
    """

    def __init__(self) -> None:
        self.holds = True
        _HOLDING.set((*(each for each in _HOLDING.get() if each.holds), self))

    def end(self) -> None:
        """Take note that it is held no longer."""
        self.holds = False


_HOLDING: ContextVar[tuple[Hold, ...]] = ContextVar("holding", default=())


class Pool:
    """Lends at most `size` connections, opening them as needed with `connect`; `where` names them in errors.

    Whoever finds none idle lines up. A connection that is opened or comes back goes to whoever has waited longest, at
    once: none is idle while somebody waits, so who asks again cannot overtake who waits already. Connections are opened
    for the line, not for one caller. So callers who give up sooner than one can be opened get one in the end, too.

    Whoever holds a connection and needs another to go on must not wait for those who wait for what he holds: within
    a `Hold` he gets one of up to `size` others, of which one is kept.
    """

    def __init__(
        self, connect: Callable[[], Coroutine[Any, Any, Session]], size: int, where: str, *, read_only: bool = False
    ) -> None:
        self._connect = connect
        self._where = where
        self._read_only = read_only
        self.check: Callable[[Session], Awaitable[None]] | None = None
        """Called with a connection to read with, now and then: it may find that nothing should be read."""
        self.checked_at = 0.0
        """When that was done, by the monotonic clock."""
        self.rewrite: Callable[[str], str] | None = None
        """What each query is changed by before it is sent, where columns are of types that are not PostgreSQL's own."""
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

        A guarded one of a read-only pool is in a READ ONLY transaction: where something of somebody else's runs after
        all, it can switch off what a session may not do, but not what a transaction may not. What is lent again at once
        is in the same one, for half a second at most. So it is behind a pooler, where nothing can be set for longer,
        but there the transaction ends with the loan. `grouped` False is for who does so himself.
        """
        return Loan(self, guarded=guarded, grouped=grouped)

    def idle(self, *, guarded: bool) -> Loan | None:
        """Return the loan of a connection that is idle now, for a plain ``with``; None if there is none.

        For what is called most: ``with pool.idle(guarded=True) or await pool.taken(guarded=True) as connection`` does
        without the coroutines of ``async with pool.lend()``. Not for what is lent in a transaction.
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
        loan._connection = connection = idle.pop()
        connection.rewrite = self.rewrite
        self._lent.add(connection)
        return loan

    async def taken(self, *, guarded: bool) -> Loan:
        """Return the loan of a connection for a plain ``with``, as `idle` does, once there is one to be had."""
        loan = Loan(self, guarded=guarded)
        await loan.__aenter__()
        return loan

    def _in_group(self, connection: Session) -> bool:
        """Return whether what is read there is read in a transaction, for each loan one."""
        return self._read_only or connection.kept is None

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
        for task in (*self._settling, *self._opening):
            task.cancel()
        self._fail(self._store_closed(), len(self._waiting))
        if self._reserve is not None:
            self._reserve.terminate()

    def _serving(self) -> Pool:
        """Return who is to lend to whoever asks now."""
        if self._idle or self._room or not any(each.holds for each in _HOLDING.get()):
            return self
        if self._reserve is None:
            self._reserve = reserve = Pool(self._connect, self._size, self._where, read_only=self._read_only)
            reserve._kept = 1
            reserve._lent, reserve._settling, reserve._closed = self._lent, self._settling, self._closed
        self._reserve.check, self._reserve.restricted, self._reserve.rewrite = self.check, self.restricted, self.rewrite
        return self._reserve

    async def _take(self, *, guarded: bool) -> Session:
        while self._idle:
            connection = self._idle.pop(self._choose(guarded=guarded))
            if not connection.is_closed():
                self._lent.add(connection)
                return connection
            self._room += 1
        given = await self._wait()
        while given.is_closed():
            # Lost on its way here: still our turn.
            self._give_back(given)
            given = await self._wait(first=True)
        return given

    def _choose(self, *, guarded: bool) -> int:
        """Return the place of the idle connection to lend: the last one that need not switch."""
        for at in range(len(self._idle) - 1, -1, -1):
            if self._idle[at].guarded is guarded or self._idle[at].kept is None:
                return at
        return -1

    async def _wait(self, *, first: bool = False) -> Session:
        """Line up, before all others if `first`, and return the connection that we are given."""
        if self._closed:
            raise self._store_closed()
        # Room that is left although others wait: nothing can be opened now, and they will hear of it.
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
                with contextlib.suppress(ValueError):  # passed over already
                    self._waiting.remove(waiter)
            elif not isinstance(given := waiter.result(), Exception):
                # Given to us in the moment of being cancelled.
                self._give_back(given)
            raise
        if isinstance(given, Exception):
            translated = as_store_error(given, self._where)
            if translated is None:
                raise given
            raise translated from given
        return given

    def _open(self) -> None:
        """Open connections for those who wait, as far as there is room."""
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
        # Where some are lent, the others may wait for these, or try too. Else all wait for the same answer.
        self._fail(error, 1 if self._lent or self._opening else len(self._waiting))
        if self._lent:
            self._open()

    def _fail(self, error: Exception, count: int) -> None:
        """Give `error` to the `count` who have waited longest."""
        for _ in range(count):
            if (waiter := self._next()) is not None:
                waiter.set_result(error)

    def _store_closed(self) -> StoreClosed:
        return StoreClosed(f"cannot reach {self._where}: the store is closed")

    def _settle(self, connection: Session) -> None:
        """Give back a connection whose work was cut short, once PostgreSQL has seen that too."""
        task = asyncio.create_task(_at_rest(connection), name="esx-settle")
        self._settling.add(task)

        def done(task: asyncio.Task[bool]) -> None:
            self._settling.discard(task)
            tell_failure(task)
            failed = task.cancelled() or task.exception() is not None
            self._give_back(connection, broken=failed or not task.result())

        task.add_done_callback(done)

    def _give_back(self, connection: Session, *, broken: bool = False) -> None:
        if (
            broken
            or self._closed
            or connection.is_closed()
            # A transaction left open could only be one that was cut short. Where that was its BEGIN, asyncpg alone
            # takes it for open, and would nest the next one in it.
            or ((connection.is_in_transaction() or connection._top_xact is not None) and not connection.rests)
        ):
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

    def _rest(self, connection: Session) -> None:
        """End the transaction of a connection that nobody has wanted for a moment."""
        if connection not in self._idle or not connection.in_group:
            connection.resting = None
            return
        loop = asyncio.get_running_loop()
        if loop.time() < connection.rests_since + _REST_FOR:
            connection.resting = loop.call_later(_REST_FOR, self._rest, connection)
            return
        connection.resting = None
        self._idle.remove(connection)
        self._lent.add(connection)
        self._settle(connection)

    def _next(self) -> asyncio.Future[Session | Exception] | None:
        """Return who has waited longest, and no longer waits from now on; None if nobody waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None


async def _at_rest(connection: Session) -> bool:
    """Wait until a connection can be used again after its work was cancelled; return whether it can."""
    try:
        async with asyncio.timeout(_REST_LIMIT):
            while not connection.is_closed():
                try:
                    await (connection.end() if connection.in_group else connection.execute("SELECT 1"))
                except asyncpg.InternalClientError:
                    # The answer to what was cancelled is still being read.
                    await asyncio.sleep(_REST_PAUSE)
                else:
                    return True
    except (*DRIVER_ERRORS, OSError):
        return False
    return False


class Loan:
    """One connection for the length of an ``async with``; of a plain ``with`` where it has been taken already."""

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
            translated = self._translated(error)
            if translated is None:
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
        connection.rewrite = pool.rewrite
        grouped = guarded and self._grouped and pool._in_group(connection)
        switches = connection.guarded is not guarded or (guarded and connection.restricted != pool.restricted)
        goes_on = grouped and not switches and time.monotonic() < connection.group_until
        if connection.in_group and not goes_on:
            await connection.end(commit=True)
        if switches and connection.kept is not None:
            # Outside of a transaction: what is set within one is gone if that is undone.
            await connection.resolve(guarded=guarded, restricted=pool.restricted)
        if grouped and not connection.in_group:
            await connection.begin(read_only=pool._read_only)
            connection.group_until = time.monotonic() + _GROUP_FOR
            if connection.kept is None:
                await connection.resolve(guarded=guarded, restricted=pool.restricted)
        reads = guarded and self._grouped
        if reads and pool.check is not None and time.monotonic() >= pool.checked_at + _CHECK_EVERY:
            pool.checked_at = time.monotonic()
            try:
                await pool.check(connection)
            except BaseException:
                pool.checked_at = 0.0  # whoever comes next is to hear of it too
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self._connection
        assert connection is not None
        keeps = self._pool._read_only and connection.kept is not None and connection.may_rest
        if error is None and keeps and connection.in_group:
            connection.rests_since = asyncio.get_running_loop().time()
            if connection.resting is None:
                connection.resting = asyncio.get_running_loop().call_later(_REST_FOR, self._pool._rest, connection)
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
                # Else what was read holds all the same.
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
