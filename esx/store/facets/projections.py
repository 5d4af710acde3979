"""Read models, each with its checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.store import projection_table
from esx.store.barrier import Filter
from esx.store.errors import InvalidQuery, StoreFailed
from esx.store.facets.base import Base
from esx.store.feed import Feed
from esx.store.projection import Projection
from esx.store.relation import check_order

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import asyncpg

    from esx.store.connection import Session
    from esx.store.layout import Layout
    from esx.store.model import Event
    from esx.store.projection import BatchHandler, EventHandler
    from esx.store.projection_table import ProjectionStatus

_BATCH = 500


class Projections(Base):
    """Runs projections, and tells how far each has come."""

    async def project(
        self,
        name: str,
        handler: EventHandler,
        *,
        stream: str | None = None,
        event_type: str | None = None,
        where: str | None = None,
        batch: int = _BATCH,
    ) -> None:
        """Keep a read model up to date with ``await handler(connection, event)``, until cancelled.

        What the handler writes through `connection` happens exactly once per event, in order: it is committed together
        with the projection's checkpoint, up to `batch` events in one transaction, which is the projection's to end.
        One instance per name is active, in all processes; others wait and take over when it ends. A lost connection is
        replaced, and nothing is lost or repeated. Deadlocks, serialization failures and lock timeouts are tried again.
        At any other error the batch is rolled back and handled event by event; the event that fails then stops the
        projection. The filter is that of `subscribe`.

        Raises ProjectionFailed, HistoryChanged where the store is found to hold another history than was handled, or
        one without events that were in it, OrderUnknown where no position can be called safe, InvalidQuery for a filter
        that makes no sense, and StoreUnavailable if the store is closed or cannot be reached at the start.
        """

        async def each(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
            for event in events:
                await handler(connection, event)

        await self.project_batches(name, each, stream=stream, event_type=event_type, where=where, batch=batch)

    async def project_batches(
        self,
        name: str,
        handler: BatchHandler,
        *,
        stream: str | None = None,
        event_type: str | None = None,
        where: str | None = None,
        batch: int = _BATCH,
    ) -> None:
        """Do as `project` does, with ``await handler(connection, events)`` once for each batch.

        That is faster where one statement can take many events, e.g. ``connection.executemany``. After an error the
        handler gets the events of the batch again, one at a time.
        """
        if not name:
            raise InvalidQuery("a projection needs a name")
        if batch < 1:
            raise InvalidQuery(f"a batch of {batch} events makes no sense: use a number from 1")
        chosen = Filter(stream, event_type, where)
        self._check_writable()

        async def begin(connection: Session) -> Layout:
            layout, _, _ = await self._tools(connection)
            if not layout.own:
                raise StoreFailed(
                    f"a projection keeps its position beside the table events of search_path, not {layout.called}: "
                    "name its schema in the address instead: ?search_path=..."
                )
            await check_order(connection, layout)
            await projection_table.register(connection, layout, name)
            return layout

        layout = await self._insisting(begin)
        await Projection(
            name,
            handler,
            connector=self._connector,
            layout=layout,
            watch=self._watch,
            make_feed=lambda lend, after: Feed(
                lend, self._doorbell, layout, after=after, where=chosen, page=batch, keeps_fence=True
            ),
            lend=self._connection,
            closed=lambda: self._closed,
        ).run()

    async def projections(self) -> list[ProjectionStatus]:
        """Return how far each projection has come, by name; costs the same at any size of the store."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            # What is found by its plain name belongs to another table.
            return await projection_table.read_status(connection, layout) if layout.own else []

    async def pause_projection(self, name: str) -> None:
        """Pause a projection, wherever it runs: once this returns, it commits nothing until it is resumed.

        Waits for the batch that is being handled. Raises UnknownProjection.
        """
        layout, _, _ = await self._load()
        async with self._keeping() as connection:
            await projection_table.set_paused(connection, layout, name, True)

    async def resume_projection(self, name: str) -> None:
        """Let a paused projection go on. Raises UnknownProjection."""
        layout, _, _ = await self._load()
        async with self._keeping() as connection:
            await projection_table.set_paused(connection, layout, name, False)

    async def reset_projection(
        self,
        name: str,
        *,
        to: int = 0,
        clear: Callable[[asyncpg.Connection], Awaitable[object]] | None = None,
    ) -> None:
        """Make a projection start again after global_seq `to`, wherever it runs; 0 is the start of the store.

        `clear(connection)` is called in the same transaction, to empty the read model. Waits for the batch that is
        being handled. A position above 0 should be a safe one, e.g. that of a feed: events that become visible below
        it later are not handled. Raises UnknownProjection, and ProjectionFailed if `clear` raises.
        """
        layout, _, _ = await self._load()
        # What clears the read model is the user's code.
        async with self._keeping() if clear is None else self._writing() as connection:
            await projection_table.reset(connection, layout, name, to, clear)

    async def accept_history(self, name: str) -> None:
        """Let a projection that ended with HistoryChanged go on at its position, with what the store holds now.

        For one who has looked, after events were erased on purpose, or a restore that was checked. Nothing is handled
        again and nothing undone: events of the history that is there now, up to the position, are skipped where they
        were not handled, and what the read model has of events that are gone stays. To rebuild, use
        `reset_projection`. Raises UnknownProjection, and HistoryChanged while the position is beyond the head, since
        then the next events would be skipped as well.
        """
        async with self._keeping() as connection:
            layout, _, _ = await self._tools(connection)
            await projection_table.accept(connection, layout, name)

    async def delete_projection(self, name: str) -> None:
        """Forget a projection that is no longer run; its read model stays. A running instance ends in ProjectionFailed.

        Raises UnknownProjection.
        """
        layout, _, _ = await self._load()
        async with self._keeping() as connection:
            await projection_table.delete(connection, layout, name)
