"""What the facets of a store share: its connections, and what is known about its table."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar

from esx.errors import QueryCancelled, StoreFailed
from esx.layouts.detection import detect_layout
from esx.layouts.foreign.opening import find_again, learn
from esx.layouts.foreign.own import OwnLayout, own_kind
from esx.layouts.layout import Layout
from esx.layouts.operators import rewriter
from esx.layouts.trust import check_owners
from esx.layouts.unique_index import find_arbiter
from esx.postgres.connection import Connector
from esx.postgres.listener import Doorbell
from esx.postgres.pool import Loan, Pool
from esx.postgres.session import Session
from esx.postgres.watchdog import Watchdog
from esx.store.known_table import KnownTable
from esx.text import visible

_AFTER_CANCEL = 0.05
_PARTS_FOR = 5.0
"""How many seconds the tables that have the events of a store count as all, where there may be one for each stream."""

T = TypeVar("T")
P = ParamSpec("P")


class Facet:
    """The connections of a store. Each method of a facet borrows one."""

    def __init__(
        self,
        pool: Pool,
        connector: Connector,
        *,
        retry_for: float,
        read_only: bool,
        store: str | None = None,
        trust_owner: bool = False,
        layouts: Sequence[OwnLayout] = (),
        grouping: bool = True,
        record_conflicts: bool = False,
        look_again_after: float = 60.0,
    ) -> None:
        """Make a store. Readers look at the table's definition again after `look_again_after` seconds."""
        self._pool = pool
        self._connector = connector
        self._retry_for = retry_for
        self._read_only = read_only
        self._store = store
        self._trust_owner = trust_owner
        self._grouping = grouping
        self._record_conflicts = record_conflicts
        self._recorders: Pool | None = None
        self._kinds = [own_kind(layout) for layout in layouts]
        self._table: KnownTable | None = None
        self._look_again_after = look_again_after
        self._look_again_at = 0.0
        self._closed = False
        self.tell: Callable[[str], object] | None = None
        """Gets a line when the store of another tool is opened that was not named."""
        self._doorbell = Doorbell(connector, "new_events")
        self._watchdog = Watchdog(connector, pool.lent, connector.timeout)
        self._watchdog.start()

    async def close(self) -> None:
        """Close all connections. Feeds that are still open end with StoreClosed."""
        self._closed = True
        self._watchdog.stop()
        await self._doorbell.close()
        await self._pool.settled()
        self._pool.terminate()

    @property
    def address(self) -> str:
        """Where the store is, for messages: ``user@host:port/database``, without a password."""
        return self._connector.where

    @property
    def pooler(self) -> str | None:
        """A line about the connection pooler between esx and PostgreSQL; None if there is none."""
        pooler = self._connector.pooler
        return None if pooler is None else str(pooler)

    @property
    def _known(self) -> Layout:
        """The layout, however old; before it is known, that of esx's own table."""
        return Layout() if self._table is None else self._table.layout

    @property
    def foreign(self) -> str | None:
        """The kind and the table of another tool's store; None for esx's own, and before it is known."""
        layout = self._known
        return None if layout.foreign is None else f"{layout.foreign.kind.title} in {visible(layout.called, limit=200)}"

    @property
    def separator(self) -> str:
        """The character that ends the category in a stream's id."""
        return self._known.separator

    @property
    def has_category_column(self) -> bool:
        """Whether the categories of streams are in a column, not in their ids."""
        return self._known.category is not None

    @property
    def caution(self) -> str | None:
        """What a user should know of the order in another tool's store, in one line; None if there is nothing."""
        return None if self._known.foreign is None else self._known.warning

    @property
    def unrecorded(self) -> str | None:
        """Why nothing is known of the feed and of consumers now, in one line: only a recording has times like that."""
        return None

    @property
    def before_first(self) -> int:
        """The position before the first event."""
        return self._known.before_first

    @property
    def unnumbered(self) -> str | None:
        """Why there is no global order, in one line; None if there is one, and before the table is known."""
        return self._known.unnumbered

    def trust_owner(self) -> None:
        """Trust the owner of the table from now on, as ``connect(trust_owner=True)`` does."""
        self._trust_owner = True
        self._pool.check = None

    def _conflict_pool(self) -> Pool:
        """Return a pool of one connection that is opened when it is needed, to record conflicts with."""
        if self._recorders is None:
            # It is not worth a flush of the log, and must not wait long for anybody.
            settings = {"synchronous_commit": "off", "statement_timeout": "5000", "lock_timeout": "1000"}
            connect = partial(self._connector.open, "conflicts", settings=settings, limit=5.0)
            self._recorders = Pool(connect, 1, self._connector.where, timings=self._connector.timings)
        pool, like = self._recorders, self._pool
        pool.check, pool.rewrite, pool.restricted = like.check, like.rewrite, like.restricted
        return pool

    # -- connections -------------------------------------------------------------------------------------------

    def _connection(self) -> Loan:
        """Lend a connection to read with."""
        return self._pool.lend()

    def _writing(self) -> Loan:
        """Lend a connection that finds names as the user does, for triggers and for code of the user."""
        self._check_writable()
        return self._pool.lend(guarded=False)

    def _reading(self) -> AbstractAsyncContextManager[tuple[Session, Layout]]:
        """Lend a connection to read with, and the layout of the table."""
        return _Reading(self)

    def _keeping(self) -> AbstractAsyncContextManager[tuple[Session, Layout]]:
        """Lend a connection to write to the store's own tables beside events, and the layout."""
        self._check_writable()
        return _Reading(self)

    async def _read(
        self,
        work: Callable[Concatenate[Session, Layout, P], Awaitable[T]],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        """Do `work` with a connection to read with."""
        async with self._reading() as (connection, layout):
            return await work(connection, layout, *arguments, **options)

    async def _insist(self, work: Callable[[Session, Layout], Awaitable[T]]) -> T:
        """Do `work` with a connection to read with, again if one of its statements is cancelled."""
        deadline = time.monotonic() + self._retry_for
        while True:
            try:
                return await self._read(work)
            except QueryCancelled:
                if time.monotonic() + _AFTER_CANCEL > deadline:
                    raise
            await asyncio.sleep(_AFTER_CANCEL)

    def _check_writable(self) -> None:
        # The session of a pooler cannot be made read-only, because other clients use it too.
        if self._read_only:
            raise StoreFailed(f"{self.address} was opened read-only: nothing can be changed there")

    # -- the table ---------------------------------------------------------------------------------------------

    async def _look(self, connection: Session) -> KnownTable:
        """Return what is known about the table, not older than `look_again_after`."""
        if self._table is None or time.monotonic() > self._look_again_at:
            # A transaction that has begun may not see a table that was made meanwhile.
            await connection.recover()
            store = self._store
            if store is None and self._table is not None and self._table.layout.foreign is not None:
                store = self._table.layout.called  # the one that was there alone when it was opened
            layout = None if self._table is None else await find_again(connection, self._table.layout)
            layout = layout or await detect_layout(connection, store, self._kinds)
            if not self._trust_owner:
                self._pool.check = partial(check_owners, layout=layout)
                await self._pool.check(connection)
                self._pool.checked_at = time.monotonic()
            layout = await learn(connection, layout)
            self._pool.rewrite = connection.rewrite = rewriter(layout.custom_columns)
            if self._read_only:
                self._pool.restricted = layout.restricted
            self._doorbell.table = layout.base_oid
            if layout.foreign is not None:
                self._doorbell.no_trigger = f"a store of {layout.foreign.kind.title} does not notify esx"
            found = KnownTable(layout, await find_arbiter(connection, layout), tuple(connection.as_user()))
            first = self._table is None
            if found != self._table:
                self._table = found
            if first and self._store is None and self.tell is not None and self.foreign is not None:
                caution = "" if layout.warning is None else f"; {layout.warning}"
                self.tell(f"reading the store of {self.foreign} (docs/stores.md){caution}")
            # Where each stream may be a table, there are new ones often.
            after = min(self._look_again_after, _PARTS_FOR) if layout.parts else self._look_again_after
            self._look_again_at = time.monotonic() + after
        return self._table

    async def _load(self) -> KnownTable:
        """Return what is known about the table, however old."""
        if self._table is not None:
            return self._table
        async with self._connection() as connection:
            return await self._look(connection)

    async def _changed(self, relied_on: KnownTable) -> KnownTable | None:
        """Look at the table now, and return what is known if it differs from `relied_on`, else None."""
        if self._table is relied_on:
            self._look_again_at = 0.0
            async with self._connection() as connection:
                await self._look(connection)
        return None if self._table is relied_on else self._table


class _Reading:
    """The loan of a connection, with the layout. A class is faster than `asynccontextmanager`."""

    __slots__ = ("_facet", "_loan")

    def __init__(self, facet: Facet) -> None:
        self._facet = facet
        self._loan = facet._connection()

    async def __aenter__(self) -> tuple[Session, Layout]:
        connection = await self._loan.__aenter__()
        try:
            return connection, (await self._facet._look(connection)).layout
        except BaseException as error:
            await self._loan.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._loan.__aexit__(kind, error, trace)
