"""Projections: read models, each with its checkpoint."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import get_args

import asyncpg

from esx.errors import InvalidQuery, StoreFailed
from esx.filters import Filter
from esx.layouts.detection import check_order
from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.session import Session
from esx.store.consume.checkpoints import CheckpointRow
from esx.store.consume.consumer import as_json
from esx.store.consume.handler_transaction import BatchHandler, EventHandler
from esx.store.consume.others import OtherConsumers, read_others
from esx.store.consume.projection import Projection
from esx.store.consume.put_aside import OnError
from esx.store.consume.report import ProjectionStatus
from esx.store.consume.status import read_status
from esx.store.feed.facet import Feeds

_BATCH = 500


class Projections(Feeds):
    """Runs projections, and returns how far each is."""

    async def project(
        self,
        name: str,
        handler: EventHandler,
        *,
        stream: str | None = None,
        event_type: str | None = None,
        where: str | None = None,
        batch: int = _BATCH,
        on_error: OnError = "stop",
    ) -> None:
        """Keep a read model up to date with ``await handler(connection, event)``, until cancelled.

        What the handler writes through `connection` is stored exactly once per event, in order: it is committed
        together with the projection's checkpoint, up to `batch` events in one transaction. The handler must not end
        that transaction. One instance per name is active, in all processes; others wait and take over when it ends.
        After a lost connection the projection connects again, and no event is lost or handled twice. Deadlocks,
        serialization failures and lock timeouts are tried again. After any other error the batch is rolled back and
        handled event by event; the event that fails then stops the projection, or is put aside if `on_error` says so:
        ``"park"`` parks it and the later events of its stream, up to 10,000 events, until `retry_events` or
        `skip_event` is called; ``"skip"`` leaves it out, and keeps a record. The filter is that of `subscribe`.

        Raises ProjectionFailed, HistoryChanged if the store no longer holds the events that were handled, OrderUnknown
        where no position is safe, InvalidQuery for a wrong filter, name or batch, and StoreUnavailable if the store is
        closed or cannot be reached at the start.
        """

        async def each(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
            for event in events:
                await handler(connection, event)

        await self.project_batches(
            name, each, stream=stream, event_type=event_type, where=where, batch=batch, on_error=on_error
        )

    async def project_batches(
        self,
        name: str,
        handler: BatchHandler,
        *,
        stream: str | None = None,
        event_type: str | None = None,
        where: str | None = None,
        batch: int = _BATCH,
        on_error: OnError = "stop",
    ) -> None:
        """Do as `project` does, with ``await handler(connection, events)`` once for each batch.

        That is faster where one statement can take many events, e.g. ``connection.executemany``. After an error the
        handler gets the events of the batch again, one at a time.
        """
        if not name:
            raise InvalidQuery("a projection needs a name")
        if on_error not in get_args(OnError):
            raise InvalidQuery(f"{on_error!r} is nothing to do on an error: use stop, park or skip")
        if batch < 1:
            raise InvalidQuery(f"a batch of {batch} events makes no sense: use a number from 1")
        chosen = Filter(stream, event_type, where)
        self._check_writable()

        async def begin(connection: Session, layout: Layout) -> Layout:
            _check_own(layout)
            if not layout.own:
                raise StoreFailed(
                    f"a projection keeps its position beside the table events of search_path, not {layout.called}: "
                    "name its schema in the address instead: ?search_path=..."
                )
            await check_order(connection, layout)
            await CheckpointRow(layout, name).register(connection)
            return layout

        layout = await self._insist(begin)
        await Projection(
            CheckpointRow(layout, name),
            handler,
            on_error=on_error,
            connector=self._connector,
            layout=layout,
            watchdog=self._watchdog,
            make_feed=lambda before, after: self._feed(layout, after=after, where=chosen, page=batch, before=before),
            lend=self._connection,
            closed=lambda: self._closed,
            wants=as_json(chosen),
        ).run()

    async def projections(self) -> list[ProjectionStatus]:
        """Return the status of each projection, by name; costs the same at any size of the store."""
        async with self._reading() as (connection, layout):
            # Otherwise the table projections belongs to another events table.
            return await read_status(connection, layout) if layout.own else []

    async def other_consumers(self) -> OtherConsumers:
        """Return how far the consumers of another tool's store are, by what that tool keeps; none for esx's own.

        It costs the same at any size of the store.
        """
        return await self._read(read_others, trust_owner=self._trust_owner)

    async def pause_projection(self, name: str) -> None:
        """Pause a projection in all processes: after this it commits nothing until it is resumed.

        Waits for the batch that is being handled. Raises UnknownProjection.
        """
        async with self._checkpoint(name) as (connection, row):
            await row.set_paused(connection, True)

    async def resume_projection(self, name: str) -> None:
        """Let a paused projection go on. Raises UnknownProjection."""
        async with self._checkpoint(name) as (connection, row):
            await row.set_paused(connection, False)

    async def reset_projection(
        self,
        name: str,
        *,
        to: int = 0,
        clear: Callable[[asyncpg.Connection], Awaitable[object]] | None = None,
    ) -> None:
        """Make a projection start again after global_seq `to`, in all processes; 0 is the start of the store.

        `clear(connection)` is called in the same transaction, to empty the read model. Waits for the batch that is
        being handled. A position above 0 should be a safe one, such as that of a feed: events that become visible below
        it later are not handled. Raises UnknownProjection, and ProjectionFailed if `clear` raises.
        """
        layout = (await self._load()).layout
        _check_own(layout)
        self._check_writable()
        # `clear` is the user's code.
        async with self._pool.lend(guarded=clear is None) as connection:
            await CheckpointRow(layout, name).reset(connection, to, clear)

    async def accept_history(self, name: str) -> None:
        """Let a projection that ended with HistoryChanged go on at its position, with the history that is there now.

        Use it after events were erased on purpose, or after a restore that was checked. No event is handled again:
        events up to the position that were not handled are skipped, and the read model keeps what it has of events that
        are gone. `reset_projection` rebuilds it instead. Raises UnknownProjection, and HistoryChanged while the
        position is above the head, as then the next events would be skipped too.
        """
        async with self._checkpoint(name) as (connection, row):
            await row.accept(connection)

    async def delete_projection(self, name: str) -> None:
        """Delete the checkpoint of a projection; its read model stays. A running instance raises ProjectionFailed.

        Raises UnknownProjection.
        """
        async with self._checkpoint(name) as (connection, row):
            await row.delete(connection)

    @contextlib.asynccontextmanager
    async def _checkpoint(self, name: str) -> AsyncIterator[tuple[Session, CheckpointRow]]:
        async with self._keeping() as (connection, layout):
            _check_own(layout)
            yield connection, CheckpointRow(layout, name)


def _check_own(layout: Layout) -> None:
    """Raise StoreFailed for the store of another tool, beside which esx keeps nothing."""
    if layout.foreign is not None:
        layout.check_appends()
