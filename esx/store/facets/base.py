"""What all facets of a store share: its connections, and what is known of its table."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from esx.store.append import Appender
from esx.store.doorbell import Doorbell
from esx.store.errors import QueryCancelled, StoreFailed
from esx.store.judge import find_judge
from esx.store.reading import Reader
from esx.store.relation import detect_layout
from esx.store.silence import Watch
from esx.store.strange import rewriter
from esx.store.tail import Tails
from esx.store.trust import check_owners, restrictions
from esx.store.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.store.connection import Connector, Session
    from esx.store.pool import Loan, Pool
    from esx.store.writing import Parts

# For how many seconds readers go by what was found out about the table.
_BELIEVED_FOR = 60.0
_AFTER_CANCEL = 0.05

T = TypeVar("T")


class Base:
    """The connections of a store. Facets borrow one for each of their methods."""

    def __init__(
        self,
        pool: Pool,
        connector: Connector,
        *,
        retry_for: float,
        read_only: bool,
        store: str | None = None,
        trust_owner: bool = False,
    ) -> None:
        self._pool = pool
        self._connector = connector
        self._patience = retry_for
        self._read_only = read_only
        self._store = store
        self._trust_owner = trust_owner
        self._parts: Parts | None = None
        self._believed_until = 0.0
        self._closed = False
        self._doorbell = Doorbell(connector, "new_events")
        self._tails = Tails()
        self._turns = Turns()
        self._watch = Watch(connector, pool.lent, connector.timeout)
        self._watch.start()

    async def close(self) -> None:
        """Close all connections. Feeds that are still open end with StoreClosed."""
        self._closed = True
        self._watch.stop()
        await self._doorbell.close()
        await self._pool.settled()
        self._pool.terminate()

    @property
    def address(self) -> str:
        """Where the store is, for people: ``user@host:port/database``, never a password."""
        return self._connector.where

    @property
    def pooler(self) -> str | None:
        """What is known of a connection pooler that stands before PostgreSQL, in one line; None if there is none."""
        pooler = self._connector.pooler
        return None if pooler is None else str(pooler)

    def _connection(self) -> Loan:
        """Lend a connection to read with."""
        return self._pool.lend()

    def trust_owner(self) -> None:
        """Read from now on although code of the table's owner runs then, as ``connect(trust_owner=True)`` does."""
        self._trust_owner = True
        self._pool.check = None

    async def _insisting(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Do `work` with a connection to read with, again where somebody cancels one of its statements."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                async with self._connection() as connection:
                    return await work(connection)
            except QueryCancelled:
                if time.monotonic() + _AFTER_CANCEL > deadline:
                    raise
            await asyncio.sleep(_AFTER_CANCEL)

    def _keeping(self) -> Loan:
        """Lend a connection to write with to the store's own tables, all but that of the events."""
        self._check_writable()
        return self._pool.lend()

    def _writing(self) -> Loan:
        """Lend a connection on which triggers and the code of users find what they are used to."""
        self._check_writable()
        return self._pool.lend(guarded=False)

    def _check_writable(self) -> None:
        # A pooler's session cannot be made read-only, as others use it too.
        if self._read_only:
            raise StoreFailed(f"{self.address} was opened read-only: nothing can be changed there")

    async def _tools(self, connection: Session) -> Parts:
        parts = self._parts
        if parts is None or time.monotonic() > self._believed_until:
            # A transaction that is under way need not have heard of a table that was made meanwhile.
            await connection.recover()
            layout = await detect_layout(connection, self._store)
            if not self._trust_owner:
                self._pool.check = partial(check_owners, layout=layout)
                await self._pool.check(connection)
                self._pool.checked_at = time.monotonic()
            self._pool.rewrite = connection.rewrite = rewriter(layout.strange)
            if self._read_only:
                self._pool.restricted = await restrictions(connection, layout)
            self._doorbell.table = layout.base_oid
            judge = await find_judge(connection, layout)
            as_user = tuple(connection.as_user())
            if parts is None or (parts[0], parts[1].judge, parts[1].as_user) != (layout, judge, as_user):
                self._parts = parts = (layout, Appender(layout, judge, as_user), Reader(layout))
            self._believed_until = time.monotonic() + _BELIEVED_FOR
        return parts

    async def _load(self) -> Parts:
        if self._parts is not None:
            return self._parts
        async with self._connection() as connection:
            return await self._tools(connection)

    async def _learn_again(self, relied_on: Parts) -> Parts | None:
        """Look what the table is like now, and return that if it is something else than what was relied on."""
        if self._parts is relied_on:
            self._believed_until = 0.0
            async with self._connection() as connection:
                await self._tools(connection)
        return None if self._parts is relied_on else self._parts
