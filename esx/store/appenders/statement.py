"""Appending by one statement: what all ways of other stores have in common."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import asyncpg

from esx.errors import QueryGivenUp, StoreUnavailable
from esx.expected import NO_STREAM, ExpectedVersion
from esx.layouts.layout import Layout
from esx.model import NewEvent, Strategy
from esx.postgres.driver_errors import told
from esx.postgres.session import Session
from esx.store.append.retries import unknown
from esx.store.appenders.protocol import Conflict, Conflicts, Stored
from esx.text import visible

Lend = Callable[[], AbstractAsyncContextManager[Session]]


class StatementAppender(ABC):
    """Appends by calls of one statement, all of them in one transaction.

    Its sessions find names as the user does: functions and triggers of another tool may need the user's search_path.
    """

    conflicts: Conflicts
    called: str
    """What appends, for people."""
    text: str | None = None
    """What the user wrote for it, if anything."""
    tells_version = True
    """Whether its answer tells the version also of an append at any version."""

    def __init__(self, lend: Lend, layout: Layout, statement: str) -> None:
        self._lend = lend
        self._version = layout.version()
        self._statement = statement

    @abstractmethod
    def calls(self, stream_id: str, events: Sequence[NewEvent], version: int | None, /) -> list[list[object]]:
        """Return the arguments of each call. `version` is the expected one, -1 for no stream, None for any."""

    @abstractmethod
    def acknowledged(self, row: asyncpg.Record | None, version: int | None, /) -> int:
        """Return the version that a call's row tells, where its first event was expected after `version`.

        Raises Conflict, and OutcomeUnknown for an answer that does not say what was stored.
        """

    async def version(self, stream_id: str) -> int:
        """Return the version of a stream, -1 if it has no events."""
        async with self._lend() as session:
            rows = await session.repeat(self._version, stream_id)
        return int(rows[0][0])

    async def append(
        self,
        stream_id: str,
        events: Sequence[NewEvent],
        *,
        expected: ExpectedVersion,
        strategy: Strategy,  # noqa: ARG002 - it locks as its store does
    ) -> Stored:
        """Append all events or none. Nothing is tried again. See `StreamAppender`."""
        version = -1 if expected is NO_STREAM else expected if isinstance(expected, int) else None
        began = False
        try:
            async with self._lend() as session:
                began = True
                return Stored(await self._append(session, stream_id, self.calls(stream_id, events, version), version))
        except (StoreUnavailable, QueryGivenUp) as error:
            raise unknown(error) if began else error from None

    async def _append(
        self, session: Session, stream_id: str, calls: Sequence[Sequence[object]], version: int | None
    ) -> int:
        try:
            async with session.transaction() if len(calls) > 1 else contextlib.nullcontext():
                for call in calls:
                    rows = await session.repeat(self._statement, *call)
                    last = self.acknowledged(rows[0] if rows else None, version)
                    version = None if version is None else version + 1
        except asyncpg.PostgresError as error:
            if self.conflicts.has(error):
                raise Conflict(f"stream {visible(stream_id, limit=200)}: {told(error)}") from error
            raise
        return last
