"""Appending to several streams in one transaction."""

import asyncio
from collections.abc import Sequence
from typing import NoReturn

import asyncpg

from esx.errors import InvalidEvent
from esx.model import AppendResult, NewEvent, StreamAppend
from esx.postgres.driver_errors import STALE
from esx.postgres.session import Session
from esx.store.append.appender import Appender
from esx.store.append.refusals import REFUSALS
from esx.store.append.retries import backoff
from esx.text import visible

CONFLICT_FIRST = 0.002
CONFLICT_LAST = 0.25
_RACES = 10
_PASSING = (asyncpg.DeadlockDetectedError, *STALE)


async def append_together(
    connection: Session, appender: Appender, appends: Sequence[StreamAppend]
) -> list[AppendResult]:
    """Append to several streams in one transaction on one connection; see `EventStore.append_to_streams`.

    The streams are locked first, always in the same order, so that such appends queue and do not deadlock.
    """
    for race in range(_RACES):
        try:
            async with connection.transaction():
                await appender.lock(connection, [each.stream_id for each in appends])
                return [
                    await appender.append(connection, each.stream_id, each.events, each.expected) for each in appends
                ]
        except (asyncpg.UniqueViolationError, *_PASSING, InvalidEvent, *REFUSALS) as error:
            lost_race = isinstance(error, _PASSING) or await appender.lost_race(connection, error)
            if not lost_race:
                # The transaction is over, so PostgreSQL can be asked for the reason.
                await _raise_meaning(connection, appender, appends, error)
            # A writer without locks was faster; the next attempt sees its events.
            if race == _RACES - 1:
                raise
            await asyncio.sleep(backoff(race, CONFLICT_FIRST, CONFLICT_LAST))
    raise AssertionError("unreachable")


async def _raise_meaning(
    connection: Session, appender: Appender, appends: Sequence[StreamAppend], error: Exception
) -> NoReturn:
    """Raise what is wrong with the first of the appends that was refused, naming its stream."""
    before: list[NewEvent] = []
    for each in appends:
        meaning = await appender.refusals.meaning(connection, error, each.stream_id, each.events, before)
        if isinstance(meaning, InvalidEvent):
            where = f"stream {visible(each.stream_id, limit=200)}"
            raise InvalidEvent(meaning.index, f"{where}: {meaning.reason}") from error
        if meaning is not None:
            raise meaning from error
        before += each.events
    raise error
