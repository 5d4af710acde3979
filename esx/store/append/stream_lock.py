"""Locking a stream: read and decide first, then append, without a conflict."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import asyncpg

from esx.errors import EsxError, QueryGivenUp, StoreFailed, StoreUnavailable, WrongVersion
from esx.expected import NO_STREAM, ExpectedVersion
from esx.model import AppendResult, NewEvent
from esx.postgres.driver_errors import is_connection_loss
from esx.postgres.hold import Hold
from esx.postgres.session import Session
from esx.store.append.appender import Appender
from esx.store.append.refusals import REFUSALS
from esx.store.append.retries import unknown


class LockedStream:
    """A locked stream: until the transaction ends, no other writer that locks it can append to it.

    `version` is the stream's highest stream_seq, appends under the lock included; -1 if it has no events.
    """

    def __init__(self, connection: Session, appender: Appender, stream_id: str, version: int) -> None:
        self.version = version
        self._connection = connection
        self._appender = appender
        self._stream_id = stream_id
        self._appended = False
        # The error of the last append and its events, and the events that earlier appends stored.
        self._failure: Exception | None = None
        self._refused: Sequence[NewEvent] = ()
        self._stored: list[NewEvent] = []

    async def append(self, events: Sequence[NewEvent]) -> AppendResult:
        """Append `events`, all or none; they are stored when the ``async with`` ends without an error.

        Raises InvalidEvent and EventIdsReused, and WrongVersion if a writer without the lock was faster.
        """
        self._appended = True
        try:
            result = await self._appender.append(self._connection, self._stream_id, events, _at(self.version))
        except Exception as error:
            self._failure, self._refused = error, events
            raise
        self.version = result.version
        self._stored += events
        return result

    def _undone(self) -> bool:
        """Return whether an append failed so that PostgreSQL can only roll the transaction back."""
        error = self._failure
        return error is not None and (not isinstance(error, EsxError) or error.__cause__ is not None)


class _Abandoned(EsxError):
    """Rolls the transaction back after an error of the caller's code."""


@contextlib.asynccontextmanager
async def lock_stream(
    acquire: Callable[[], AbstractAsyncContextManager[Session]],
    load: Callable[[], Awaitable[Appender]],
    stream_id: str,
    lost: Callable[[WrongVersion, Sequence[NewEvent]], None],
) -> AsyncIterator[LockedStream]:
    """Lock a stream for one transaction on a connection of its own; see `EventStore.lock_stream`.

    `lost` is told of a writer without the lock that was faster.
    """
    appender = await load()
    locked: LockedStream | None = None
    at = -1
    # An error of the caller's code is kept apart: as one of the store's, a TimeoutError would mean a lost connection.
    raised: Exception | None = None
    try:
        async with acquire() as connection:
            try:
                async with connection.transaction():
                    at = await appender.lock_one(connection, stream_id)
                    locked = LockedStream(connection, appender, stream_id, at)
                    # Reads of the caller's code must not wait for tasks that wait for the lock.
                    hold = Hold()
                    try:
                        yield locked
                    except Exception as error:
                        if error is locked._failure:
                            if isinstance(error, WrongVersion):
                                lost(error, locked._refused)
                            raise
                        raised = error
                        raise _Abandoned from error
                    finally:
                        hold.end()
                    if locked._undone():
                        raise StoreFailed(
                            "an append under the lock failed, so nothing was stored: let its error out, or lock again"
                        ) from locked._failure
            except (asyncpg.UniqueViolationError, *REFUSALS) as error:
                if await appender.lost_race(connection, error):
                    # A writer without the lock was faster.
                    version = await appender.version(connection, stream_id)
                    conflict = WrongVersion(stream_id, _at(at), version)
                    if locked is not None:
                        lost(conflict, locked._refused or locked._stored)
                    raise conflict from error
                if locked is None:
                    raise
                refused, stored = locked._refused, locked._stored
                await appender.refusals.raise_meaning(connection, error, stream_id, refused, stored)
    except (_Abandoned, StoreUnavailable, QueryGivenUp) as error:
        if raised is None:
            cause = error.__cause__
            if locked is None or not locked._appended or cause is None or not is_connection_loss(cause):
                raise
            raise unknown(error) from error
    if raised is not None:
        raise raised


def _at(version: int) -> ExpectedVersion:
    return NO_STREAM if version < 0 else version
