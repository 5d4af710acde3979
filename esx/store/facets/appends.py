"""Appending with an expected version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.store import locked, writing
from esx.store.errors import EsxError, EventIdsReused, InvalidEvent, WrongVersion
from esx.store.facets.reads import Reads
from esx.store.model import ANY, Strategy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from esx.store.layout import Layout
    from esx.store.locked import LockedStream
    from esx.store.model import AppendResult, Event, ExpectedVersion, NewEvent, StreamAppend
    from esx.store.writing import Parts

# What is said of the append itself, and holds.
_ANSWERS = (WrongVersion, InvalidEvent, EventIdsReused)


class Appends(Reads):
    """Appends to streams. It reads too, because who decides what to append reads first."""

    async def append(
        self,
        stream_id: str,
        events: Sequence[NewEvent],
        *,
        expected: ExpectedVersion = ANY,
        strategy: Strategy = Strategy.CONDITIONAL,
    ) -> AppendResult:
        """Append `events` to a stream, all or none, if the stream is at the `expected` version.

        Repeating an append with the same event ids is safe for NO_STREAM and exact versions: it returns the first
        one's result, and that is what happens by itself when the connection is lost (or, behind a pooler, when the
        statement timeout has passed). For ANY and STREAM_EXISTS that holds where a unique index keeps event ids unique;
        without one the loss of the connection raises OutcomeUnknown, and repeating may store the events twice. A
        statement that somebody cancelled stored nothing, and is tried again whatever was expected; where that goes on
        for `retry_for` seconds, QueryCancelled is raised. Raises WrongVersion, InvalidEvent for an event that cannot be
        stored, and EventIdsReused.
        """
        trouble: writing.Trouble | None = None
        while True:
            parts = self._parts
            began = False
            try:
                parts = parts or await self._load()
                self._check_writable()
                # Behind a pooler what guards is a transaction, and an append is one statement.
                guarded = self._connector.pooler is None
                with self._pool.idle(guarded=guarded) or await self._pool.taken(guarded=guarded) as connection:
                    began = True
                    again = trouble is not None and trouble.lost
                    return await parts[1].append(connection, stream_id, events, expected, strategy, again=again)
            except _ANSWERS:
                raise
            except EsxError as error:
                trouble = trouble or self._trouble(lambda layout: writing.repeatable(layout, expected))
                await trouble.outlast(error, parts, began=began)

    async def append_to_streams(self, appends: Sequence[StreamAppend]) -> list[AppendResult]:
        """Append to several streams in one transaction, all or nothing, in the order given.

        They get their global sequence numbers in that order. Safe to repeat, and repeated after a lost connection, if
        all of them expect NO_STREAM or an exact version; otherwise the loss raises OutcomeUnknown. Raises WrongVersion
        for the first stream that is not at its expected version, InvalidEvent, whose reason names the stream, and
        EventIdsReused.
        """
        trouble: writing.Trouble | None = None
        while True:
            parts = self._parts
            began = False
            try:
                parts = parts or await self._load()
                async with self._writing() as connection:
                    began = True
                    return await writing.append_to_streams(connection, parts[1], appends)
            except _ANSWERS:
                raise
            except EsxError as error:
                trouble = trouble or self._trouble(lambda layout: writing.repeatable_together(layout, appends))
                await trouble.outlast(error, parts, began=began)

    def _trouble(self, repeatable: Callable[[Layout], bool]) -> writing.Trouble:
        return writing.Trouble(self._patience, repeatable, self._learn_again)

    async def decide(
        self,
        stream_id: str,
        decision: Callable[[list[Event]], Sequence[NewEvent] | Awaitable[Sequence[NewEvent]]],
        *,
        attempts: int = 10,
        strategy: Strategy = Strategy.CONDITIONAL,
    ) -> AppendResult | None:
        """Read a stream, let `decision` say from its events what to append, and append that at the version read.

        After a conflict it waits a little (jittered, growing), lines up with those of this store who decide about the
        same stream, reads what is new, and asks again, up to `attempts` times; then WrongVersion is raised. `decision`
        may be a coroutine function; with nothing to append the result is None.
        """

        async def append(events: Sequence[NewEvent], expected: ExpectedVersion) -> AppendResult:
            return await self.append(stream_id, events, expected=expected, strategy=strategy)

        return await writing.decide(
            lambda start: self.read(stream_id, start=start),
            append,
            decision,
            attempts=attempts,
            turns=self._turns,
            stream_id=stream_id,
        )

    def lock_stream(self, stream_id: str) -> AbstractAsyncContextManager[LockedStream]:
        """Lock a stream for an ``async with``: read and decide there, append with the lock's own `append`.

        Writers that lock queue, so none of them meets a conflict; its `version` is the stream's. All is one
        transaction, which holds a connection. Raises WrongVersion if somebody who takes no lock was faster, and
        OutcomeUnknown if the connection is lost after an append. What else is raised inside undoes the appends.

            async with store.lock_stream("account-42") as stream:
                await stream.append([NewEvent("Deposited", {"at": stream.version})])
        """
        return locked.lock_stream(self._writing, self._to_lock, stream_id)

    async def _to_lock(self) -> Parts:
        """Return what is known of the table; where streams cannot be locked, look whether that has changed."""
        parts = await self._load()
        return parts if parts[0].lockable else await self._learn_again(parts) or parts
