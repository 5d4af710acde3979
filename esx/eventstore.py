"""The event store for users: its facets, connecting, the schema and the state of the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from esx.errors import EsxError, OwnerNotTrusted, SchemaMissing, StoreFailed
from esx.layouts import init
from esx.layouts.detection import find_home
from esx.layouts.foreign.opening import find_others, named
from esx.layouts.foreign.own import OwnLayout
from esx.layouts.foreign.recognition import (
    FoundStore,
    Lookalike,
    absent,
    estimated,
    lookalikes,
    read_stores,
    read_tables,
)
from esx.model import Notification
from esx.postgres.connection import Connector, open_pool
from esx.store.append.facet import Appends
from esx.store.bulk.facet import Bulk
from esx.store.conflicts.facet import ConflictReads
from esx.store.feed.facet import Feeds
from esx.store.operate.facet import Operations
from esx.store.overview.facet import Overviews
from esx.store.relay.facet import Relays
from esx.store.search.facet import Searches
from esx.store.traffic.facet import TrafficReads
from esx.text import visible

if TYPE_CHECKING:
    from esx.doctor import Checked, Finding, Thresholds
    from esx.store.health import Health
    from esx.store.server_activity import ServerActivity, ServerPlace
    from esx.store.table_shape import TableShape
    from esx.store.views import View


class EventStore(Appends, Searches, Overviews, ConflictReads, TrafficReads, Relays, Operations, Bulk, Feeds):
    """An event store in PostgreSQL. Make one with `EventStore.connect`, as an async context manager.

    All methods raise StoreUnavailable if the database cannot be reached or the connection is lost, and SchemaMissing
    without an events table.
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
        layouts: Sequence[OwnLayout] = (),
        statement_timeout: float | None = None,
        timeout: float = 10.0,
        retry_for: float = 10.0,
        notification: Notification = Notification.DOORBELL,
        grouping: bool = True,
        record_conflicts: bool = False,
    ) -> Connecting:
        """Connect to the database at `dsn`; None means the database of libpq's ``PG*`` variables.

        Use it as ``async with EventStore.connect(dsn) as store``, or as ``store = await EventStore.connect(dsn)``
        with ``await store.close()`` later. What the address leaves out comes from libpq's variables and files, as in
        psql; docs/configuration.md lists them. Raises StoreUnavailable after `timeout` seconds, or after the
        ``connect_timeout`` of the address for each host.

        The store opens up to `max_connections` connections when it needs them, and one more for notifications when
        a feed follows. Code inside of `lock_stream` may open as many again, as it must not wait for a connection of a
        task that waits for the lock.

        `store` is the name of the table or view, as SQL writes it: ``tenant2.events``. Without it the store is the
        table events that search_path finds. Reading a view runs code of its owner, so a view is read only if it is
        named here; StoreNotNamed is raised for a view that search_path finds. `layouts` describe stores that no tool
        has made; `store` may be the name of one. Their SQL is trusted.

        Reading a table runs code of its owner too: functions in its indexes, policies, types. OwnerNotTrusted is
        raised before anything is read if the owner has fewer rights than this user, unless `trust_owner` is true.
        Queries that read find names in pg_catalog only, so that no user can replace PostgreSQL's functions and
        operators. Appends and handlers of projections find names by search_path.

        A `read_only` store cannot write. A statement that takes longer than `statement_timeout` seconds (0: no limit,
        None: the server's own limit) ends with QueryTimeout; exports have no limit.

        A connection counts as lost if it is silent for `timeout` seconds while PostgreSQL does no work for it. An
        append whose connection is lost is tried again for up to `retry_for` seconds, where that is safe. `notification`
        says how this store's appends wake subscribers. With `grouping` appends of several tasks that wait for each
        other share a transaction (docs/library.md); without it, each has its own.

        With `record_conflicts` appends that are refused with WrongVersion are recorded in the table conflicts, a sample
        of them, on one more connection (docs/conflicts.md); `conflicts` reads them, `recording` says how that goes.

        esx notices a connection pooler in transaction mode; feeds poll there. It raises StoreFailed there for another
        `notification` than the default, and, unless the store is read-only, if transactions are not read committed by
        default.
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
            return cls(
                pool,
                connector,
                retry_for=retry_for,
                read_only=read_only,
                store=store,
                trust_owner=trust_owner,
                layouts=layouts,
                grouping=grouping,
                record_conflicts=record_conflicts,
            )

        return Connecting(connect())

    async def __aenter__(self) -> EventStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def init(self, *, lock_timeout: float = 5.0, beside_others: bool = False) -> list[str]:
        """Apply schema.sql and return what it changed; an empty list if everything was there.

        It waits up to `lock_timeout` seconds for the lock of a table. Raises StoreFailed if another table is named as
        the store, as schema.sql makes the table events; if a table events is there that is not esx's; and, unless
        `beside_others`, if it would make the tables in a database with a store of another tool.
        """
        if self._store is not None:
            raise StoreFailed(
                "init makes the table events in the first schema of search_path: leave the store's name out, and "
                "name a schema in the address: ?search_path=..."
            )
        if not beside_others and (others := await self.beside()) is not None:
            raise StoreFailed(f"{others}: `esx init --yes` makes its tables all the same")
        async with self._writing() as connection:
            changes = await init.apply_schema(connection, lock_timeout)
        self._table = None
        return changes

    async def beside(self) -> str | None:
        """Return in one line beside which store of another tool `init` would make esx's tables; None for none.

        None too if there is a table events already.
        """
        async with self._connection() as connection:
            schema, events = await find_home(connection)
            others = [] if events is not None else await find_others(connection, self._kinds)
        if not others:
            return None
        made = f"esx would make tables of its own in schema {visible(schema, limit=200)}"
        return f"the database holds {named(others)}, and {made}"

    async def stores(self) -> tuple[list[FoundStore], list[Lookalike]]:
        """Return the event stores of the database, of any kind; and, if there are none, the tables that look like one.

        It looks in all schemas, not only in those of search_path. It asks the catalogs and reads no event.
        """
        async with self._connection() as connection:
            found = await estimated(connection, await read_stores(connection, self._kinds))
            return found, [] if found else lookalikes(await read_tables(connection))

    async def databases(self) -> list[str]:
        """Return the names of the other databases of this server to which this user may connect, at most 200."""
        from esx.store.server_activity import other_databases

        async with self._connection() as connection:
            return await other_databases(connection)

    async def absent_layouts(self) -> list[str]:
        """Return, in a line each, the layouts given to `connect` whose relation is not in this database."""
        async with self._connection() as connection:
            return await absent(connection, self._kinds)

    async def check_store(self) -> list[Checked]:
        """Return what this store has, lacks, does slowly and does not promise; it reads no event.

        For a store that lacks a column or a table that is what is returned. Raises SchemaMissing where there is none.
        """
        from esx.doctor.store_check import check_layout, lacks  # not needed by an application

        try:
            layout = (await self._load()).layout
        except SchemaMissing:
            async with self._connection() as connection:
                found = await read_stores(connection, self._kinds)
                near = lookalikes(await read_tables(connection))
            if missing := lacks(found, near, self._store):
                return missing
            raise
        async with self._pool.lend(grouped=False) as connection:
            return await check_layout(connection, layout)

    async def has_schema(self) -> bool:
        """Return whether there is a usable events table."""
        return await self.missing() is None

    async def hidden(self) -> str | None:
        """Return a message that names other stores of the database, if there is no events table here; else None."""
        missing = await self.missing()
        return str(missing) if missing is not None and (missing.elsewhere or missing.of_others) else None

    async def missing(self) -> SchemaMissing | None:
        """Return why there is no usable events table, in one line, as reading would raise it; None if there is one."""
        try:
            # The connection must see the error: PostgreSQL may have refused the name, which ends a transaction.
            async with self._connection() as connection:
                await self._look(connection)
        except SchemaMissing as missing:
            return missing
        return None

    async def warning(self) -> str | None:
        """Return a line to show before this store is read, such as whose view it is; None if there is none.

        Raises SchemaMissing and StoreNotNamed.
        """
        return (await self._load()).layout.warning

    async def sql(self, view: View, *, limit: int | None = None) -> str:
        """Return the query for the rows of `view`, at most `limit`, to be run with psql."""
        async with self._reading() as (_, layout):
            return view.sql(layout, limit)

    async def health(self) -> Health:
        """Return the state of the store in figures; costs the same at any size."""
        from esx.store.health import read_health

        return replace(await self._read(read_health), recording=self.recording)

    async def table_shapes(self) -> list[TableShape]:
        """Return what the tables with the events look like; it reads no event."""
        from esx.store.table_shape import read_shapes

        return await self._read(read_shapes)

    async def pressure(self, application_name: str) -> ServerActivity:
        """Return counters of the database, and what sessions of that application name wait for now."""
        from esx.store.server_activity import read_pressure

        return await self._read(read_pressure, self._connector.called(application_name))

    async def place(self) -> ServerPlace:
        """Return where the server is, and its version."""
        from esx.store.server_activity import read_place

        async with self._connection() as connection:
            return await read_place(connection)

    async def doctor(
        self,
        *,
        full: bool = False,
        on_progress: Callable[[str], None] | None = None,
        thresholds: Thresholds | None = None,
    ) -> list[Finding]:
        """Check the store for problems, and return the findings of all checks, with remedies.

        It is quick at any size, unless `full` looks at each event too; then `on_progress` gets texts about the
        progress. `thresholds` are the limits from which on something is reported. It only reads, and works without the
        tables.
        """
        from esx.doctor.diagnosis import check_target, diagnose, diagnose_foreign

        layout = refused = None
        try:
            layout = (await self._load()).layout
        except OwnerNotTrusted:
            raise
        except SchemaMissing as missing:
            if missing.of_others:
                refused = str(missing)
        except EsxError:
            pass  # the doctor reports what is wrong with the table
        async with self._pool.lend(grouped=False) as connection:
            if refused is not None or (layout is not None and layout.foreign is not None):
                return await diagnose_foreign(
                    connection, layout, refused, self._connector.pooler, thresholds, trust_owner=self._trust_owner
                )
            if not self._trust_owner:
                await check_target(connection, self._store)
            return await diagnose(
                connection,
                store=self._store,
                pooler=self._connector.pooler,
                full=full,
                on_progress=on_progress,
                thresholds=thresholds,
            )


class Connecting:
    """A store that is being connected: await it, or use it with ``async with``."""

    def __init__(self, connecting: Awaitable[EventStore]) -> None:
        self._connecting = connecting
        self._store: EventStore | None = None

    def __await__(self) -> Generator[Any, Any, EventStore]:
        return self._connecting.__await__()

    async def __aenter__(self) -> EventStore:
        self._store = await self._connecting
        return self._store

    async def __aexit__(self, *_: object) -> None:
        if self._store is not None:
            await self._store.close()
