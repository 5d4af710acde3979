"""The store as its users see it: connect, then all that its facets offer; its schema and its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esx.store import health, pressure, schema
from esx.store.connection import Connector, open_pool
from esx.store.errors import EsxError, OwnerNotTrusted, SchemaMissing, StoreFailed
from esx.store.facets.appends import Appends
from esx.store.facets.bulk import Bulk
from esx.store.facets.feeds import Feeds
from esx.store.facets.projections import Projections
from esx.store.facets.searches import Searches
from esx.store.model import Notification

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from esx.store.doctor import Finding
    from esx.store.health import Health
    from esx.store.pressure import Place, Pressure


class EventStore(Appends, Searches, Feeds, Projections, Bulk):
    """An event store in PostgreSQL. Make one with `EventStore.connect`, as an async context manager.

    All methods raise StoreUnavailable when the database cannot be reached or goes away, and SchemaMissing when
    it has no events table.
    """

    @classmethod
    def connect(
        cls,
        dsn: str | None = None,
        *,
        max_connections: int = 10,
        application_name: str = "esx",
        read_only: bool = False,
        store: str | None = None,
        trust_owner: bool = False,
        statement_timeout: float | None = None,
        timeout: float = 10.0,
        retry_for: float = 10.0,
        notification: Notification = Notification.DOORBELL,
    ) -> Connecting:
        """Connect to the database at `dsn` (None: where libpq's ``PG*`` variables point).

        Use it as ``async with EventStore.connect(dsn) as store`` or ``store = await EventStore.connect(dsn)``
        with ``await store.close()`` later. At most `max_connections` connections are opened, as needed, and one
        more to listen on once something subscribes. What is done inside of `lock_stream` while all are in use may open
        as many again, since it would wait for those who wait for the lock. Raises StoreUnavailable within `timeout`
        seconds, or after what ``connect_timeout`` of the address allows for each host. What the address leaves out is
        taken from libpq's variables and files, as psql does; docs/configuration.md lists them.

        Without `store` it is the table events that search_path finds. Else it is the table or view of that name, as SQL
        writes it: ``tenant2.events``. Only a view that is named so is read, as what its owner has put into it runs
        then; StoreNotNamed is raised for one that is merely found.

        To read a table runs what its owner has put into it: functions in its indexes, policies, types. Where such code
        is that of a user who has fewer rights than this one, OwnerNotTrusted is raised before anything is read, unless
        `trust_owner` is given. Names are found in pg_catalog alone, so that nobody can put functions or operators of
        his own in the place of PostgreSQL's; appends and handlers of projections find names as search_path says.

        A `read_only` session may not write. A statement that takes longer than `statement_timeout` seconds (0: no
        limit, None: the server's own) ends with QueryTimeout; exports have no such limit.

        A connection that is silent for `timeout` seconds while PostgreSQL has nothing to do for it counts as lost. An
        append whose connection is lost is tried again for up to `retry_for` seconds where that is safe.
        `notification` says how this store's appends wake subscribers.

        Behind a connection pooler in transaction mode, which is noticed, feeds poll; StoreFailed is raised there for a
        `notification` of its own, and for appends where transactions are not read committed by default.
        """

        async def connect() -> EventStore:
            connector = Connector(dsn, application_name, timeout=timeout)
            pool = await open_pool(
                connector,
                size=max_connections,
                read_only=read_only,
                statement_timeout=statement_timeout,
                notification=notification,
            )
            return cls(pool, connector, retry_for=retry_for, read_only=read_only, store=store, trust_owner=trust_owner)

        return Connecting(connect())

    async def __aenter__(self) -> EventStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def init(self) -> list[str]:
        """Apply schema.sql and return what it changed; an empty list if everything was there.

        Raises StoreFailed where another table is named as the store: schema.sql makes the table events.
        """
        if self._store is not None:
            raise StoreFailed(
                "init makes the table events in the first schema of search_path: leave the store's name out, and "
                "name a schema in the address: ?search_path=..."
            )
        async with self._writing() as connection:
            changes = await schema.apply_schema(connection)
        self._parts = None
        return changes

    async def has_schema(self) -> bool:
        """Return whether there is a usable events table."""
        async with self._connection() as connection:
            try:
                await self._tools(connection)
            except SchemaMissing:
                return False
        return True

    async def hidden(self) -> str | None:
        """Return where else there are stores, with the remedy, if the table is not found where it was looked for."""
        async with self._connection() as connection:
            try:
                await self._tools(connection)
            except SchemaMissing as error:
                return str(error) if error.elsewhere else None
        return None

    async def warning(self) -> str | None:
        """Return what the user should know before this store is read, in one line: whose view it is. None for a table.

        Raises SchemaMissing and StoreNotNamed.
        """
        layout, _, _ = await self._load()
        return layout.warning

    async def health(self) -> Health:
        """Return the state of the store in figures; costs the same at any size."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await health.read_health(connection, layout)

    async def pressure(self, application_name: str) -> Pressure:
        """Return counters of what the database has done, and what sessions of that name wait for just now."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            name = self._connector.called(application_name)
            return await pressure.read_pressure(connection, layout, name)

    async def place(self) -> Place:
        """Return where the server is, and which version it has."""
        async with self._connection() as connection:
            return await pressure.read_place(connection)

    async def doctor(self, *, full: bool = False, on_progress: Callable[[str], None] | None = None) -> list[Finding]:
        """Look for what is wrong with the store, and return what each check found, with its remedy.

        Quick at any size, unless `full` asks to look at every event too; `on_progress` is told how far that has
        come. It only reads, and does not need the tables to be there.
        """
        from esx.store.doctor.diagnosis import diagnose
        from esx.store.doctor.target import check_target

        try:
            await self._load()
        except OwnerNotTrusted:
            raise
        except EsxError:
            pass  # what is wrong with the table is what the doctor tells
        async with self._pool.lend(grouped=False) as connection:
            if not self._trust_owner:
                await check_target(connection, self._store)
            return await diagnose(
                connection, store=self._store, pooler=self._connector.pooler, full=full, on_progress=on_progress
            )


class Connecting:
    """A connection being made: await it for the store, or use it with ``async with``."""

    def __init__(self, connecting: Awaitable[EventStore]) -> None:
        self._connecting = connecting
        self._store: EventStore | None = None

    def __await__(self) -> Generator[Any, Any, EventStore]:
        return self._connecting.__await__()

    async def __aenter__(self) -> EventStore:
        self._store = await self._connecting
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            await self._store.close()
