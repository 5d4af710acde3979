"""The explorer's connection: opened, watched, and found again. Plain asyncio code, no screen."""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum
from typing import TYPE_CHECKING

from esx.store.errors import EsxError
from esx.store.store import EventStore

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY = 3.0
"""Seconds between attempts to reach a database that is away."""


class LinkState(Enum):
    """How the explorer stands with its database."""

    CONNECTING = "connecting"
    UNREACHABLE = "offline"
    NO_SCHEMA = "no event store"
    CONNECTED = "connected"
    LOST = "reconnecting"


class Link:
    """Keeps one read-only store open and knows whether it answers.

    `run` goes on until it is cancelled; `changed` is called after each change of `state` or `reason`.
    """

    def __init__(self, dsn: str | None, changed: Callable[[], None]) -> None:
        self.dsn = dsn
        self.state = LinkState.CONNECTING
        self.reason = ""
        self._store: EventStore | None = None
        self._changed = changed
        self._trouble = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def store(self) -> EventStore | None:
        """The store, once there is one with a schema; it stays while the connection is lost."""
        return self._store if self.state in (LinkState.CONNECTED, LinkState.LOST) else None

    @property
    def address(self) -> str:
        """Where the database is, without a password; empty before the first connection."""
        return "" if self._store is None else self._store.address

    def report(self, error: EsxError) -> None:
        """Take note that the store did not answer a query."""
        if self.state is LinkState.CONNECTED:
            self._set(LinkState.LOST, str(error))
            self._trouble.set()

    def retry(self) -> None:
        """Try at once instead of at the next turn."""
        self._hurry.set()

    async def run(self) -> None:
        """Open the store and watch over it until cancelled; closes it then."""
        try:
            self._store = await self._open()
            await self._until_ready(self._store)
            while True:
                await self._trouble.wait()
                self._trouble.clear()
                await self._until_ready(self._store)
        finally:
            if self._store is not None:
                await self._store.close()

    async def _open(self) -> EventStore:
        while True:
            try:
                store: EventStore = await EventStore.connect(self.dsn, read_only=True, application_name="esx explorer")
            except EsxError as error:
                self._set(LinkState.UNREACHABLE, str(error))
                await self._pause()
            else:
                return store

    async def _until_ready(self, store: EventStore) -> None:
        """Return once the store answers and has its table."""
        while True:
            try:
                if await store.has_schema():
                    await store.head()
                    self._set(LinkState.CONNECTED, "")
                    return
                self._set(LinkState.NO_SCHEMA, "")
            except EsxError as error:
                self._set(LinkState.UNREACHABLE if self.store is None else LinkState.LOST, str(error))
            await self._pause()

    async def _pause(self) -> None:
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), RETRY)

    def _set(self, state: LinkState, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state = state
            self.reason = reason
            self._changed()
