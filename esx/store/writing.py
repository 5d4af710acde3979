"""Appending as callers need it: surviving a lost connection, to several streams at once, and deciding again.

One attempt on one connection is `esx.store.append`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import time
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from esx.store.errors import (
    EsxError,
    InvalidEvent,
    OutcomeUnknown,
    QueryCancelled,
    QueryGivenUp,
    QueryTimeout,
    StoreClosed,
    StoreUnavailable,
    WrongVersion,
)
from esx.store.model import NO_STREAM
from esx.store.refusals import REFUSALS
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from esx.store.append import Appender
    from esx.store.connection import Session
    from esx.store.layout import Layout
    from esx.store.model import AppendResult, Event, ExpectedVersion, NewEvent, StreamAppend
    from esx.store.reading import Reader
    from esx.store.turns import Turns

    Parts = tuple[Layout, Appender, Reader]
    Acquire = Callable[[], AbstractAsyncContextManager[Session]]

T = TypeVar("T")

_RETRY_FIRST = 0.05
_RETRY_LAST = 2.0
_CONFLICT_FIRST = 0.002
_CONFLICT_LAST = 0.25
_RACES = 10
# How often a write looks again what its table is like.
_CHANGES = 3


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


class Trouble:
    """What a write has met so far, and whether it goes on.

    It does for up to `seconds` where connections are lost or statements cancelled, and where the table is another than
    what it relied on, which `learn_again` finds out. An attempt whose connection was lost may have been stored, so any
    after it must be one that is recognised: `repeatable` says so of a layout. `lost` tells that there was such an
    attempt.
    """

    def __init__(
        self,
        seconds: float,
        repeatable: Callable[[Layout], bool],
        learn_again: Callable[[Parts], Awaitable[Parts | None]],
    ) -> None:
        self.lost = False
        self._deadline = time.monotonic() + seconds
        self._repeatable = repeatable
        self._learn_again = learn_again
        self._failures = 0
        self._changes = 0

    async def outlast(self, error: EsxError, relied_on: Parts | None, *, began: bool) -> None:
        """Return when the next attempt may be made, after one that failed with `error`.

        `began` says whether that one had a connection. Raises OutcomeUnknown if there can be no other and one may have
        been stored, else `error`.
        """
        if isinstance(error, StoreUnavailable | QueryGivenUp | QueryCancelled):
            # What was cancelled is certain: nothing of it was stored.
            self.lost = self.lost or (began and not isinstance(error, QueryCancelled))
            pause = backoff(self._failures, _RETRY_FIRST, _RETRY_LAST)
            hopeless = isinstance(error, StoreClosed) or time.monotonic() + pause > self._deadline
            if hopeless or (self.lost and (relied_on is None or not self._repeatable(relied_on[0]))):
                raise self._unknown(error) if self.lost else error
            self._failures += 1
            await asyncio.sleep(pause)
            return
        # PostgreSQL refused it. Perhaps it was made for a table that is another by now: then nothing was stored.
        now = None
        if relied_on is not None and self._changes < _CHANGES and not isinstance(error, QueryTimeout):
            self._changes += 1
            with contextlib.suppress(EsxError):
                now = await self._learn_again(relied_on)
        if now is None or (self.lost and not self._repeatable(now[0])):
            raise self._unknown(error) if self.lost else error

    @staticmethod
    def _unknown(error: EsxError) -> OutcomeUnknown:
        unknown = OutcomeUnknown(f"{error}; whether the append was stored is not known")
        unknown.__cause__ = error
        return unknown


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
                    reused = await appender.refusals.ids_refused(connection, part.stream_id, part.events, before)
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
            for part in parts:
                refused = await appender.refusals.why_refused(connection, part.stream_id, part.events)
                if refused is not None:
                    raise _in_part(part, refused) from error
            raise
    raise AssertionError("unreachable")


def _in_part(part: StreamAppend, error: EsxError) -> EsxError:
    if not isinstance(error, InvalidEvent):
        return error
    return InvalidEvent(error.index, f"stream {visible(part.stream_id, limit=200)}: {error.reason}")


async def decide(
    read: Callable[[int], AsyncIterator[Event]],
    append: Callable[[Sequence[NewEvent], ExpectedVersion], Awaitable[AppendResult]],
    decision: Callable[[list[Event]], Sequence[NewEvent] | Awaitable[Sequence[NewEvent]]],
    *,
    attempts: int,
    turns: Turns,
    stream_id: str,
) -> AppendResult | None:
    """Read, decide, append; after a conflict read what is new, wait a little, and decide again.

    Who meets a conflict lines up for the stream, and so does who finds a line there: else whoever came last would be as
    likely to be the next as whoever has tried longest. Returns None if there is nothing to append. Raises WrongVersion
    after `attempts` conflicts.
    """
    history: list[Event] = []
    for attempt in range(attempts):
        async with turns.turn(stream_id) if attempt or stream_id in turns else contextlib.nullcontext():
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
