"""Decides whether a failed append is tried again: after a lost connection, or if the table has changed."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable

from esx.errors import (
    EsxError,
    OutcomeUnknown,
    QueryCancelled,
    QueryGivenUp,
    QueryTimeout,
    StoreClosed,
    StoreUnavailable,
)
from esx.expected import NO_STREAM, ExpectedVersion
from esx.layouts.layout import Layout
from esx.postgres.driver_errors import is_spent
from esx.store.known_table import KnownTable

_RETRY_FIRST = 0.05
_RETRY_LAST = 2.0
# How often an append looks again what its table is like.
_CHANGES = 3


def backoff(attempt: int, first: float, last: float) -> float:
    """Return how many seconds to wait after failure number `attempt` (from 0): growing, with full jitter.

    With less jitter, writers that failed together would meet again
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    return random.uniform(0, min(last, first * 2.0**attempt))  # noqa: S311 - jitter, not a secret


def is_exact(expected: ExpectedVersion) -> bool:
    """Return whether a single version is expected, so that an append can be stored once at most."""
    return expected is NO_STREAM or isinstance(expected, int)


class Retries:
    """Decides whether an append is tried again, and waits before that.

    It is tried again for up to `seconds` after lost connections and cancelled statements, and a few times if `changed`
    finds another table than the append relied on. An attempt whose connection was lost may have been stored; after it,
    only an append that would be recognised as a repetition is tried again. `recognised` decides that for a layout.
    """

    __slots__ = ("_changed", "_changes", "_deadline", "_failures", "_recognised", "_seconds", "began", "lost")

    def __init__(
        self,
        seconds: float,
        recognised: Callable[[Layout], bool],
        changed: Callable[[KnownTable], Awaitable[KnownTable | None]],
    ) -> None:
        self.began = False
        """To be set when an attempt has a connection."""
        self.lost = False
        """Whether an earlier attempt may have been stored."""
        self._seconds = seconds
        self._deadline: float | None = None
        self._recognised = recognised
        self._changed = changed
        self._failures = 0
        self._changes = 0

    async def wait(self, error: EsxError, relied_on: KnownTable | None) -> None:
        """Return when it is time for the next attempt, after one that failed with `error`.

        If there is none, raises OutcomeUnknown if an attempt may have been stored, else `error`.
        """
        certain = isinstance(error, QueryCancelled) or is_spent(error)
        if certain or isinstance(error, StoreUnavailable | QueryGivenUp):
            # A cancelled statement has certainly stored nothing, and neither has one that a trigger ended.
            self.lost = self.lost or (self.began and not certain)
            self.began = False
            pause = backoff(self._failures, _RETRY_FIRST, _RETRY_LAST)
            at = time.monotonic()
            if self._deadline is None:
                # From the first failure on: it may have taken as long to notice a silent connection.
                self._deadline = at + self._seconds
            hopeless = isinstance(error, StoreClosed) or at + pause > self._deadline
            if hopeless or (self.lost and (relied_on is None or not self._recognised(relied_on.layout))):
                raise unknown(error) if self.lost else error
            self._failures += 1
            await asyncio.sleep(pause)
            return
        # PostgreSQL refused it, perhaps because the table is another one by now; then nothing was stored.
        self.began = False
        now = None
        if relied_on is not None and self._changes < _CHANGES and not isinstance(error, QueryTimeout):
            self._changes += 1
            with contextlib.suppress(EsxError):
                now = await self._changed(relied_on)
        if now is None or (self.lost and not self._recognised(now.layout)):
            raise unknown(error) if self.lost else error


def unknown(error: EsxError) -> OutcomeUnknown:
    """Return the error for an append of which `error` does not say whether it was stored."""
    outcome = OutcomeUnknown(f"{error}; whether the append was stored is not known")
    outcome.__cause__ = error
    return outcome
