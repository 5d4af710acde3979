"""Appending with an expected version."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from esx.errors import EsxError, EventIdsReused, InvalidEvent, StoreFailed, WrongVersion
from esx.expected import ANY, NO_STREAM, ExpectedVersion
from esx.layouts.layout import Layout
from esx.model import AppendResult, Event, NewEvent, Strategy, StreamAppend
from esx.postgres.hold import holds_something
from esx.store.append.appender import Appender
from esx.store.append.group_sender import GroupSender
from esx.store.append.group_statement import GroupStatement
from esx.store.append.groups import Groups
from esx.store.append.refusals import event_rows
from esx.store.append.retries import Retries, backoff, is_exact
from esx.store.append.several import CONFLICT_FIRST, CONFLICT_LAST, append_together
from esx.store.append.stream_lock import LockedStream, lock_stream
from esx.store.append.stream_queues import StreamQueues
from esx.store.conflicts.conflict import ConflictRecording
from esx.store.conflicts.recorder import ConflictRecorder
from esx.store.known_table import KnownTable
from esx.store.read.facet import Reads

if TYPE_CHECKING:
    from esx.store.appenders.append_file import AppendFile
    from esx.store.appenders.protocol import StreamAppender
    from esx.store.appenders.statement import StatementAppender

T = TypeVar("T")


class Appends(Reads):
    """Appends to streams. It reads too, because a writer that decides what to append reads first."""

    @cached_property
    def _groups(self) -> Groups:
        return Groups(GroupSender(self._pool, lambda: self._table, self._takes_guarded).send, event_rows)

    def _takes_guarded(self) -> bool:
        # Behind a pooler a guarded loan is a transaction of its own, and an append is a single statement.
        return self._connector.pooler is None

    async def close(self) -> None:
        """Close all connections. Feeds that are still open end with StoreClosed.

        Appends that wait are not stored, and end with StoreClosed; those under way end with OutcomeUnknown.
        """
        await super().close()
        await self._groups.ended()
        if self._recorder is not None:
            await self._recorder.close()

    @property
    def recording(self) -> ConflictRecording | None:
        """How the recording of conflicts goes; None for a store that was opened without ``record_conflicts``."""
        return None if self._recorder is None else self._recorder.state

    @cached_property
    def _recorder(self) -> ConflictRecorder | None:
        if not self._record_conflicts or self._read_only:
            return None
        return ConflictRecorder(self._conflict_pool, lambda: self._table)

    def _note_conflict(self, conflict: WrongVersion, events: Sequence[NewEvent]) -> None:
        """Note why an append was refused, if that is wanted."""
        if self._recorder is not None:
            self._recorder.note(conflict, events)

    @cached_property
    def _queues(self) -> StreamQueues:
        return StreamQueues()

    async def append(
        self,
        stream_id: str,
        events: Sequence[NewEvent],
        *,
        expected: ExpectedVersion = ANY,
        strategy: Strategy = Strategy.CONDITIONAL,
        grouped: bool = True,
    ) -> AppendResult:
        """Append `events` to a stream, all or none, if the stream is at the `expected` version.

        With NO_STREAM and exact versions it is safe to repeat an append with the same event ids: it returns the result
        of the first one. esx does so itself after a lost connection (behind a pooler, also after the statement
        timeout). With ANY and STREAM_EXISTS the same holds where a unique index keeps event ids unique; without one, a
        lost connection raises OutcomeUnknown, and a repetition may store the events twice. A cancelled statement stored
        nothing and is always tried again; QueryCancelled is raised after `retry_for` seconds.

        Appends that other tasks ask for meanwhile are sent together with the next, each with an outcome of its own
        (docs/library.md, "Grouped appends"); with `grouped` False this one is a statement of its own.

        Raises WrongVersion, InvalidEvent for an event that cannot be stored, and EventIdsReused.
        """
        table = self._table
        if (
            grouped
            and self._grouping
            and not self._read_only
            and strategy is Strategy.CONDITIONAL
            and (table is None or table.of(GroupStatement).possible)
            and not holds_something()
        ):
            by_itself = partial(self._append_by_itself, stream_id, events, expected, strategy)
            append = self._groups.append(stream_id, events, expected, by_itself)
        else:
            append = self._append_by_itself(stream_id, events, expected, strategy)
        try:
            return await append
        except WrongVersion as conflict:
            self._note_conflict(conflict, events)
            raise

    async def _append_by_itself(
        self,
        stream_id: str,
        events: Sequence[NewEvent],
        expected: ExpectedVersion,
        strategy: Strategy,
        lost: EsxError | None = None,
    ) -> AppendResult:
        """Append in a statement of its own; after the error `lost` it may have been stored already."""
        guarded = self._takes_guarded()

        async def once(table: KnownTable, retries: Retries) -> AppendResult:
            self._check_writable()
            with self._pool.idle(guarded=guarded) or await self._pool.taken(guarded=guarded) as connection:
                retries.began = True
                return await table.of(Appender).append(
                    connection, stream_id, events, expected, strategy, again=retries.lost
                )

        def recognised(layout: Layout) -> bool:
            return layout.event_id is not None and (layout.unique_event_id or is_exact(expected))

        return await self._retried(once, recognised, lost)

    async def append_to_streams(self, appends: Sequence[StreamAppend]) -> list[AppendResult]:
        """Append to several streams in one transaction, all or nothing, in the order given.

        They get their global sequence numbers in that order. If all of them expect NO_STREAM or an exact version, it is
        safe to repeat, and is repeated after a lost connection; otherwise a lost connection raises OutcomeUnknown.
        Raises WrongVersion for the first stream that is not at its expected version, InvalidEvent, whose reason names
        the stream, and EventIdsReused.
        """

        async def once(table: KnownTable, retries: Retries) -> list[AppendResult]:
            async with self._writing() as connection:
                retries.began = True
                return await append_together(connection, table.of(Appender), appends)

        def recognised(layout: Layout) -> bool:
            # Unique ids do not help: an id that is stored elsewhere aborts the transaction before it is recognised.
            return layout.event_id is not None and all(is_exact(each.expected) for each in appends)

        try:
            return await self._retried(once, recognised)
        except WrongVersion as conflict:
            refused = (each for each in appends if each.stream_id == conflict.stream_id)
            self._note_conflict(
                conflict, next((each.events for each in refused if each.expected == conflict.expected), ())
            )
            raise

    async def _retried(
        self,
        once: Callable[[KnownTable, Retries], Awaitable[T]],
        recognised: Callable[[Layout], bool],
        lost: EsxError | None = None,
    ) -> T:
        """Append `once`, and again as `Retries` says; after the error `lost`, an attempt before may be stored."""
        retries = Retries(self._retry_for, recognised, self._changed)
        if lost is not None:
            retries.began = True
            await retries.wait(lost, self._table)
        while True:
            table = self._table
            try:
                table = table or await self._load()
                return await once(table, retries)
            except (WrongVersion, InvalidEvent, EventIdsReused):
                raise  # final answers about the append itself
            except EsxError as error:
                await retries.wait(error, table)

    async def decide(
        self,
        stream_id: str,
        decision: Callable[[list[Event]], Sequence[NewEvent] | Awaitable[Sequence[NewEvent]]],
        *,
        attempts: int = 10,
        strategy: Strategy = Strategy.CONDITIONAL,
    ) -> AppendResult | None:
        """Read a stream, call `decision` with its events, and append what it returns at the version read.

        After a conflict it waits a little (jittered, growing), queues behind other tasks of this store that decide
        about the same stream, reads the new events, and calls `decision` again, up to `attempts` times; then it raises
        WrongVersion. `decision` may be a coroutine function. Returns None if there is nothing to append.
        """
        history: list[Event] = []
        for attempt in range(attempts):
            # A task queues after a conflict, and if there is a queue: else the newest task could go before the one that
            # has tried longest.
            queued = attempt or stream_id in self._queues
            async with self._queues.turn(stream_id) if queued else contextlib.nullcontext():
                start = history[-1].stream_seq + 1 if history else 0
                history += [event async for event in self.read(stream_id, start=start)]
                decided = decision(history)
                events = await decided if inspect.isawaitable(decided) else decided
                if not events:
                    return None
                expected = history[-1].stream_seq if history else NO_STREAM
                try:
                    return await self.append(stream_id, events, expected=expected, strategy=strategy)
                except WrongVersion:
                    if attempt == attempts - 1:
                        raise
            await asyncio.sleep(backoff(attempt, CONFLICT_FIRST, CONFLICT_LAST))
        raise ValueError("attempts must be at least 1")

    @contextlib.asynccontextmanager
    async def lock_stream(self, stream_id: str) -> AsyncIterator[LockedStream]:
        """Lock a stream for an ``async with``: read and decide inside, and append with the lock's own `append`.

        Writers that lock a stream queue, so they get no conflicts. The whole is one transaction, which holds a
        connection; any other error inside the ``async with`` rolls the appends back. Raises WrongVersion if a writer
        without the lock was faster, and OutcomeUnknown if the connection is lost after an append.

            async with store.lock_stream("account-42") as stream:
                await stream.append([NewEvent("Deposited", {"at": stream.version})])
        """
        try:
            async with lock_stream(self._writing, self._to_lock, stream_id, self._note_conflict) as locked:
                yield locked
        except StoreFailed:
            # If it is another table by now, the next lock is for that; this one's caller has to begin again.
            if (table := self._table) is not None:
                with contextlib.suppress(EsxError):
                    await self._changed(table)
            raise

    async def _to_lock(self) -> Appender:
        """Return the appender; if streams could not be locked, look at the table again first."""
        table = await self._load()
        if not table.layout.lockable:
            table = await self._changed(table) or table
        return table.of(Appender)

    async def own_appender(self) -> StreamAppender:
        """Return this store for a load test. Raises StoreFailed if it takes no appends, as a store of another tool."""
        from esx.store.appenders.opening import check_own

        check_own((await self._load()).layout)
        return self

    async def other_appender(self, how: str | AppendFile) -> StatementAppender:
        """Return what a load test appends to this store with: the way of a kind of store, or the statement of a file.

        It is checked, and nothing is written. Raises StoreFailed, in one line with the remedy, where it cannot append,
        or what it appends could not be judged.
        """
        from esx.store.appenders.opening import check_judged, open_way

        layout = (await self._load()).layout
        check_judged(layout)
        async with self._writing() as session:
            return await open_way(self._writing, session, layout, how)
