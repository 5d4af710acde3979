"""Consumers from outside: which there are, how far they are, and what an operator can do to them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

import asyncpg

from esx.errors import OtherToolsConsumer, SchemaMissing, StoreFailed, UnknownConsumer
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.postgres.driver_errors import DRIVER_ERRORS, as_store_error
from esx.postgres.session import Session
from esx.store.consume.checkpoints import CheckpointRow, Kind, keeps_runner
from esx.store.consume.facet import Projections
from esx.store.consume.handler_transaction import BatchHandler, EventHandler
from esx.store.consume.put_aside import STATES, PutAside, read_put_aside
from esx.store.consume.report import ConsumerReport
from esx.store.consume.status import read_status
from esx.store.feed.feed import Feed
from esx.store.feed.writers import read_writers
from esx.store.operate import skipping
from esx.store.operate.appended import count_appended
from esx.store.operate.skipping import Skippable
from esx.store.operate.tables import find_table

if TYPE_CHECKING:
    from esx.store.operate.audit import AuditReport
    from esx.store.operate.checking import CheckLimits, CheckVerdict
    from esx.store.operate.rebuild import RebuildProgress, Rebuilt
    from esx.store.operate.replay import ReplayOf
    from esx.store.operate.stepping import Stepper

_REPLAYED = 2000
"""How many events are handled in one transaction where a read model is made anew."""
_STEPPED = 100
_CLOSE_PATIENCE = 2.0


class Operations(Projections):
    """Lists consumers of all kinds, and lets a user pause, move and repair them."""

    async def consumers(self) -> list[ConsumerReport]:
        """Return all consumers, by name: projections and relays. It costs the same at any size of the store.

        `other_consumers` returns those of another tool's store.
        """
        async with self._reading() as (connection, layout):
            return await read_status(connection, layout, everything=True) if layout.own else []

    async def consumer(self, name: str) -> ConsumerReport:
        """Return one consumer. Raises UnknownConsumer, and OtherToolsConsumer for one of another tool."""
        for report in await self.consumers():
            if report.name == name:
                return report
        await self._refuse_others(name)
        raise UnknownConsumer(name)

    async def _refuse_others(self, name: str) -> None:
        """Raise OtherToolsConsumer for a consumer that another tool keeps."""
        layout = (await self._load()).layout
        if layout.foreign is None:
            return
        if any(each.name == name for each in (await self.other_consumers()).consumers):
            raise OtherToolsConsumer(name, layout.foreign.kind.title)

    async def check(self, limits: CheckLimits | None = None) -> CheckVerdict:
        """Judge all consumers and the open writers, for monitoring; costs the same at any size of the store."""
        from esx.store.operate.checking import CheckLimits, judge

        reports = await self.consumers()
        others = await self.other_consumers()
        async with self._reading() as (connection, layout):
            writers = None
            # A standby does not know the locks of the primary.
            if not await connection.fetchval("SELECT pg_is_in_recovery()"):
                writers = await read_writers(connection, layout)
            now = await connection.fetchval("SELECT clock_timestamp()")
        return judge(reports, others, writers, now, limits or CheckLimits())

    async def count_appended(self, after: int, upto: int) -> tuple[int, dict[str, int]]:
        """Count the events after a position, up to another, by category; return up to where they were counted.

        That is `upto`, or less where there are more than 100,000. `upto` is to be a safe position.
        """
        return await self._read(count_appended, after, upto)

    async def pause_consumer(self, name: str) -> None:
        """Pause a consumer in all processes: after this it commits nothing until it is resumed.

        Waits for the events that are being handled. Raises UnknownConsumer.
        """
        async with self._operated(name) as (connection, _, row):
            await row.set_paused(connection, True)

    async def resume_consumer(self, name: str) -> None:
        """Let a paused consumer go on. Raises UnknownConsumer."""
        async with self._operated(name) as (connection, _, row):
            await row.set_paused(connection, False)

    async def reset_consumer(self, name: str, *, to: int = 0, truncate: Sequence[str] = ()) -> None:
        """Make a consumer go on after global_seq `to`, in all processes; 0 is the start of the store.

        The tables `truncate`, as SQL writes their names, are emptied in the same transaction. What was put aside after
        `to` is forgotten. Waits for the events that are being handled. Raises UnknownConsumer.
        """

        async def clear(connection: asyncpg.Connection) -> None:
            await connection.execute(f"TRUNCATE {', '.join(truncate)}")

        async with self._operated(name) as (connection, _, row):
            if not truncate:
                await row.reset(connection, to, None)
                return
        # Its triggers are the user's code.
        async with self._writing() as connection:
            truncate = [await find_table(connection, table) for table in truncate]
            await row.reset(connection, to, clear)

    async def skippable(self, name: str, global_seq: int | None = None) -> Skippable:
        """Return the event that `skip_event` would skip; raises as it does."""
        await self._refuse_others(name)
        async with self._reading() as (connection, layout):
            await _check_known(connection, layout, name)
            return await skipping.find_skippable(connection, layout, name, global_seq)

    async def skip_event(self, name: str, global_seq: int | None = None) -> PutAside:
        """Let a consumer go on without an event: the one that stopped it, or the one with this `global_seq`.

        The event stays on record as skipped. Events that are parked behind it are handled. Raises UnknownConsumer,
        NotFound if that event is neither parked nor what stopped it, InvalidQuery if the consumer has not failed at an
        event, and HistoryChanged if the store no longer holds what was handled before.
        """
        async with self._operated(name) as (connection, layout, _):
            return await skipping.skip(connection, layout, name, global_seq)

    async def put_aside(self, name: str, *, states: Sequence[str] = STATES, limit: int = 1000) -> list[PutAside]:
        """Return the events that a consumer has parked or skipped, in the global order, at most `limit`.

        Raises UnknownConsumer.
        """
        await self._refuse_others(name)
        async with self._reading() as (connection, layout):
            await _check_known(connection, layout, name)
            return await read_put_aside(connection, layout, name, states=states, limit=limit)

    async def parked_streams(self, name: str, global_seq: int | None = None) -> dict[str, int]:
        """Return how many events of each stream a consumer has parked; with `global_seq`, of the stream of that event.

        Raises UnknownConsumer, and NotFound if nothing, or not that event, is parked.
        """
        await self._refuse_others(name)
        async with self._reading() as (connection, layout):
            await _check_known(connection, layout, name)
            return await skipping.parked_streams(connection, layout, name, global_seq)

    async def retry_events(self, name: str, global_seq: int | None = None) -> int:
        """Let a consumer try its parked events again, in order for each stream; return how many those are.

        With `global_seq`, only those of the stream of that event. The instance that runs the consumer does so, within a
        second; what fails again is parked again. Raises UnknownConsumer and NotFound.
        """
        async with self._operated(name) as (connection, layout, _):
            streams = await skipping.parked_streams(connection, layout, name, global_seq)
            return await skipping.mark_retry(connection, layout, name, list(streams))

    async def delete_consumer(self, name: str) -> None:
        """Forget a consumer: its position, and what it has put aside. Its read model or its target stays.

        A running instance ends with an error. Raises UnknownConsumer.
        """
        async with self._operated(name) as (connection, _, row):
            await row.delete(connection)

    async def rebuild_projection(
        self,
        name: str,
        handler: EventHandler | BatchHandler,
        tables: Sequence[str],
        *,
        batches: bool = False,
        on_progress: Callable[[RebuildProgress], object] | None = None,
    ) -> Rebuilt:
        """Make the read model of a projection anew while the old one serves, and swap the two in one transaction.

        `handler` handles all events, from where the projection began and with its filter, as `project` does, or with
        `batches` as `project_batches` does. Names of `tables` that it writes without a schema lead to empty tables of a
        schema of their own. At the end the rows of the tables are replaced, and the position is moved, in one
        transaction; who reads meanwhile sees the old rows. Views, grants, foreign keys and sequences stay. Events that
        were skipped are left out, parked ones are handled. A program that runs the projection goes on by itself.

        Raises UnknownConsumer; InvalidQuery for a table that cannot be rebuilt, and why; StoreFailed if the handler
        writes to another table; ProjectionFailed with the event that it cannot handle. Then nothing has changed. What a
        handler does elsewhere, such as NOTIFY or another connection, is not seen.
        """
        from esx.store.operate.rebuild import Rebuild

        async with self._replaying(name, handler, "rebuild", batches=batches) as given:
            return await Rebuild(given, on_progress).run(tables)

    async def audit_projection(
        self,
        name: str,
        handler: EventHandler | BatchHandler,
        tables: Sequence[str],
        *,
        ignored: Sequence[str] = (),
        batches: bool = False,
        on_progress: Callable[[int, int], object] | None = None,
    ) -> AuditReport:
        """Make the read model of a projection again from its events, compare it row by row, and undo all of it.

        It is as `rebuild_projection`, in one REPEATABLE READ transaction that is rolled back, up to the position of the
        projection. Columns that are `ignored`, in all tables, are not compared: those that hold the time of handling or
        an identity. Parked and skipped events are left out. `on_progress` gets the position, and that of the end. It
        holds back vacuum in the whole cluster until it ends.

        Raises UnknownConsumer, InvalidQuery, ProjectionFailed, and StoreFailed if the handler writes to another table,
        or reads the tables by their schema.
        """
        from esx.store.operate.audit import Audit

        async with self._replaying(name, handler, "audit", batches=batches) as given:
            return await Audit(given, on_progress).run(tables, ignored)

    @contextlib.asynccontextmanager
    async def step_projection(
        self, name: str, handler: EventHandler | BatchHandler, tables: Sequence[str], *, batches: bool = False
    ) -> AsyncIterator[Stepper]:
        """Step through a projection's events in scratch tables, which are empty at first and gone at the end.

        Use it as ``async with store.step_projection(...) as stepper``. It holds back vacuum in the whole cluster until
        it ends. Raises UnknownConsumer and InvalidQuery.
        """
        from esx.store.operate.stepping import Stepper

        async with self._replaying(name, handler, "step", batches=batches, page=_STEPPED) as given:
            stepper = Stepper(given)
            transaction = given.session.transaction()
            await transaction.start()
            # It is rolled back with the session, whatever savepoints are open.
            try:
                await stepper.begin(tables)
                yield stepper
            finally:
                await stepper.close()

    @contextlib.asynccontextmanager
    async def _replaying(
        self, name: str, handler: EventHandler | BatchHandler, what: str, *, batches: bool, page: int = _REPLAYED
    ) -> AsyncIterator[ReplayOf]:
        """Lend a session of its own, for a projection that is known."""
        from esx.store.operate.replay import ReplayOf

        async with self._operated(name) as (_, layout, _row):
            pass
        if self._connector.pooler is not None:
            raise StoreFailed(
                f"a session of its own is needed for this ({what}), which a connection pooler does not give"
            )
        session = await self._connector.open(what)

        def make_feed(after: int, where: Filter) -> Feed:
            return self._feed(layout, after=after, where=where, page=page)

        try:
            yield ReplayOf(name, handler, batches, layout, session, make_feed)
        except DRIVER_ERRORS as error:
            raise as_store_error(error, self._connector.where) or error from error
        finally:
            with contextlib.suppress(*DRIVER_ERRORS, OSError):
                await session.close(timeout=_CLOSE_PATIENCE)

    @contextlib.asynccontextmanager
    async def _operated(self, name: str) -> AsyncIterator[tuple[Session, Layout, CheckpointRow]]:
        await self._refuse_others(name)
        async with self._keeping() as (connection, layout):
            if layout.foreign is not None:
                layout.check_appends()
            kind = await _check_known(connection, layout, name)
            yield connection, layout, CheckpointRow(layout, name, kind)


async def _check_known(connection: asyncpg.Connection, layout: Layout, name: str) -> Kind:
    """Return the kind of a consumer. Raises UnknownConsumer, and SchemaMissing where it is too old for operating."""
    if layout.foreign is not None:  # beside it nothing is kept
        raise UnknownConsumer(name)
    if not await keeps_runner(connection, layout):
        raise SchemaMissing("the tables of consumers are those of an older esx: run `esx init` to complete them")
    kind: Kind | None = await connection.fetchval(f"SELECT kind FROM {layout.ours('consumers')} WHERE name = $1", name)
    if kind is None:
        raise UnknownConsumer(name)
    return kind
