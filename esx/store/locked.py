"""Deciding under a lock: a stream is locked first, then read, then appended to."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import asyncpg

from esx.store.driver import is_connection_loss
from esx.store.errors import EsxError, OutcomeUnknown, QueryGivenUp, StoreFailed, StoreUnavailable, WrongVersion
from esx.store.model import NO_STREAM
from esx.store.pool import Hold
from esx.store.refusals import REFUSALS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from esx.store.append import Appender
    from esx.store.connection import Session
    from esx.store.layout import Layout
    from esx.store.model import AppendResult, NewEvent
    from esx.store.reading import Reader


class LockedStream:
    """A stream that nobody else who locks can append to, until the end of the transaction; `version` is where it is."""

    def __init__(self, connection: Session, appender: Appender, stream_id: str, version: int) -> None:
        self.version = version
        self.appended = False
        self.failure: Exception | None = None
        """What the last append raised."""
        self.refused: Sequence[NewEvent] = ()
        """What that append was to store."""
        self.stored: list[NewEvent] = []
        """What the appends before it have."""
        self._connection = connection
        self._appender = appender
        self._stream_id = stream_id

    async def append(self, events: Sequence[NewEvent]) -> AppendResult:
        """Append `events`, all or none; they are stored when the ``async with`` ends without an error."""
        self.appended = True
        expected = NO_STREAM if self.version < 0 else self.version
        try:
            result = await self._appender.append(self._connection, self._stream_id, events, expected)
        except Exception as error:
            self.failure, self.refused = error, events
            raise
        self.version = result.version
        self.stored += events
        return result

    @property
    def undone(self) -> bool:
        """Whether an append failed in a way after which PostgreSQL undoes the transaction, whatever comes."""
        error = self.failure
        return error is not None and (not isinstance(error, EsxError) or error.__cause__ is not None)


class _Abandoned(EsxError):
    """The transaction is to be undone, for a reason that is not the store's."""


@contextlib.asynccontextmanager
async def lock_stream(
    acquire: Callable[[], AbstractAsyncContextManager[Session]],
    tools: Callable[[], Awaitable[tuple[Layout, Appender, Reader]]],
    stream_id: str,
) -> AsyncIterator[LockedStream]:
    """Lock a stream for the length of one transaction; see `EventStore.lock_stream`."""
    _, appender, _ = await tools()
    locked: LockedStream | None = None
    at = -1
    # What the user's code raised is the user's: taken for the store's own, a TimeoutError would mean a lost connection.
    raised: Exception | None = None
    try:
        async with acquire() as connection:
            try:
                async with connection.transaction():
                    at = await appender.lock_one(connection, stream_id)
                    locked = LockedStream(connection, appender, stream_id, at)
                    # What the user's code reads meanwhile must not wait for those who wait for the lock.
                    hold = Hold()
                    try:
                        yield locked
                    except Exception as error:
                        if error is locked.failure:
                            raise
                        raised = error
                        raise _Abandoned from error
                    finally:
                        hold.end()
                    if locked.undone:
                        raise StoreFailed(
                            "an append under the lock failed, so nothing was stored: let its error out, or lock anew"
                        ) from locked.failure
            except asyncpg.UniqueViolationError as error:
                if not await appender.lost_race(connection, error):
                    if locked is None:
                        raise
                    reused = await appender.refusals.ids_refused(connection, stream_id, locked.refused, locked.stored)
                    if reused is None:
                        raise
                    raise reused from error
                # Somebody who takes no lock was faster.
                expected = NO_STREAM if at < 0 else at
                raise WrongVersion(stream_id, expected, await appender.version(connection, stream_id)) from error
            except REFUSALS as error:
                if locked is None:
                    raise
                refused = await appender.refusals.why_refused(connection, stream_id, locked.refused)
                if refused is None:
                    raise
                raise refused from error
    except (_Abandoned, StoreUnavailable, QueryGivenUp) as error:
        if raised is None:
            cause = error.__cause__
            if locked is None or not locked.appended or cause is None or not is_connection_loss(cause):
                raise
            raise OutcomeUnknown(f"{error}; whether the append was stored is not known") from error
    if raised is not None:
        raise raised
