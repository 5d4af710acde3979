"""Appending as callers need it: surviving a lost connection, to several streams at once, and deciding again.

One attempt on one connection is `esx.store.append`.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from esx.store.append import REFUSALS
from esx.store.errors import EventIdsReused, InvalidEvent, OutcomeUnknown, StoreClosed, StoreUnavailable, WrongVersion
from esx.store.model import NO_STREAM
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from esx.store.append import Appender
    from esx.store.connection import Session
    from esx.store.errors import QueryGivenUp
    from esx.store.layout import Layout
    from esx.store.model import AppendResult, Event, ExpectedVersion, NewEvent, StreamAppend

    Acquire = Callable[[], AbstractAsyncContextManager[Session]]

T = TypeVar("T")

_RETRY_FIRST = 0.05
_RETRY_LAST = 2.0
_CONFLICT_FIRST = 0.002
_CONFLICT_LAST = 0.25
_RACES = 10


def backoff(attempt: int, first: float, last: float) -> float:
    """Return how many seconds to wait after failure number `attempt` (from 0): growing, and jittered in full.

    Full jitter, because writers that failed together would otherwise meet again
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    return random.uniform(0, min(last, first * 2.0**attempt))  # noqa: S311 - jitter, not a secret


def repeatable(layout: Layout, expected: ExpectedVersion) -> bool:
    """Return whether repeating an append is recognised by its event ids."""
    return layout.event_id is not None and (
        layout.unique_event_id or expected is NO_STREAM or isinstance(expected, int)
    )


def repeatable_together(layout: Layout, parts: Sequence[StreamAppend]) -> bool:
    """Return whether repeating an append to several streams is recognised by its event ids."""
    # One that is stored elsewhere would abort the transaction before it can be recognised, so unique ids do not help.
    return layout.event_id is not None and all(
        isinstance(part.expected, int) or part.expected is NO_STREAM for part in parts
    )


class Patience:
    """How long a write goes on whose connections are lost: for up to `seconds`, while that is safe."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._failures = 0

    async def wait(self, error: StoreUnavailable | QueryGivenUp, *, began: bool, may_repeat: bool) -> None:
        """Pause before the next attempt; `began` says whether any attempt had a connection.

        That attempt may have committed, so it must be one that is recognised when it is repeated: `may_repeat`. Raises
        OutcomeUnknown if there can be no other and one had begun, `error` if none ever began.
        """
        pause = backoff(self._failures, _RETRY_FIRST, _RETRY_LAST)
        hopeless = isinstance(error, StoreClosed) or time.monotonic() + pause > self._deadline
        if hopeless or (began and not may_repeat):
            if began:
                raise OutcomeUnknown(f"{error}; whether the append was stored is not known") from error
            raise error
        self._failures += 1
        await asyncio.sleep(pause)


async def append_to_streams(
    connection: Session, appender: Appender, parts: Sequence[StreamAppend]
) -> list[AppendResult]:
    """Append to several streams in one transaction, all or nothing, in the order given.

    The streams are locked first, in one order for everybody, so that such appends queue instead of deadlocking.
    Raises WrongVersion for the first stream that is elsewhere, InvalidEvent, whose reason names the stream, and
    EventIdsReused.
    """
    for race in range(_RACES):
        try:
            async with connection.transaction():
                await appender.lock(connection, [part.stream_id for part in parts])
                return [await appender.append(connection, part.stream_id, part.events, part.expected) for part in parts]
        except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError) as error:
            if isinstance(error, asyncpg.UniqueViolationError) and not await appender.lost_race(connection, error):
                before: list[NewEvent] = []
                for part in parts:
                    reused = await appender.ids_refused(connection, part.stream_id, part.events, before)
                    if reused is not None:
                        raise _in_part(part, reused) from error
                    before += part.events
                raise
            # Somebody who takes no locks was faster; the next attempt sees what they stored.
            if race == _RACES - 1:
                raise
            await asyncio.sleep(backoff(race, _CONFLICT_FIRST, _CONFLICT_LAST))
        except (InvalidEvent, *REFUSALS) as error:
            # The transaction is over, so now PostgreSQL can be asked what it refuses.
            for ask in (appender.refusal, appender.refused_by_table):
                for part in parts:
                    refused = await ask(connection, part.stream_id, part.events)
                    if refused is not None:
                        raise _in_part(part, refused) from error
            raise
    raise AssertionError("unreachable")


def _in_part(part: StreamAppend, error: InvalidEvent | EventIdsReused) -> InvalidEvent | EventIdsReused:
    if isinstance(error, EventIdsReused):
        return error
    return InvalidEvent(error.index, f"stream {visible(part.stream_id, limit=200)}: {error.reason}")


async def decide(
    read: Callable[[int], AsyncIterator[Event]],
    append: Callable[[Sequence[NewEvent], ExpectedVersion], Awaitable[AppendResult]],
    decision: Callable[[list[Event]], Sequence[NewEvent] | Awaitable[Sequence[NewEvent]]],
    *,
    attempts: int,
) -> AppendResult | None:
    """Read, decide, append; after a conflict read what is new, wait a little, and decide again.

    Returns None if there is nothing to append. Raises WrongVersion after `attempts` conflicts.
    """
    history: list[Event] = []
    for attempt in range(attempts):
        history += [event async for event in read(history[-1].stream_seq + 1 if history else 0)]
        decided = decision(history)
        events = await decided if inspect.isawaitable(decided) else decided
        if not events:
            return None
        try:
            return await append(events, history[-1].stream_seq if history else NO_STREAM)
        except WrongVersion:
            if attempt == attempts - 1:
                raise
        await asyncio.sleep(backoff(attempt, _CONFLICT_FIRST, _CONFLICT_LAST))
    raise ValueError("attempts must be at least 1")
