"""The explorer's connection: opened, watched, and found again. Plain asyncio code, no screen."""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum
from typing import TYPE_CHECKING

from esx.store.errors import EsxError, NotAllowed, OwnerNotTrusted, SchemaMissing, StoreUnavailable
from esx.store.store import EventStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.database import Database
    from esx.tui.trusted import Trusted

RETRY = 3.0
"""Seconds between attempts to reach a database that is away."""


class LinkState(Enum):
    """How the explorer stands with its database."""

    CONNECTING = "connecting"
    UNREACHABLE = "offline"
    NO_SCHEMA = "no event store"
    NOT_ALLOWED = "no rights"
    NOT_TRUSTED = "owner not trusted"
    CONNECTED = "connected"
    LOST = "reconnecting"


class Link:
    """Keeps one store open and knows whether it answers.

    Its sessions only read, unless the database's `read_only` is False and they `may_write`, and a statement may take
    `statement_timeout` seconds, unless the database has its own. `resolve` says which database it is, which may take a
    while: the embedded one has to be started. `run` goes on until it is cancelled; `changed` is called after each
    change of `state` or `reason`, `told` with what went wrong with a query while the connection is fine.
    """

    def __init__(
        self,
        resolve: Callable[[], Awaitable[Database]],
        *,
        changed: Callable[[], None],
        told: Callable[[str], None],
        statement_timeout: float,
        trusted: Trusted | None = None,
        may_write: bool = True,
    ) -> None:
        self.database: Database | None = None
        """The database, once it is known."""
        self._resolve = resolve
        self._trusted = trusted
        self._owner: str | None = None
        self._statement_timeout = statement_timeout
        self._may_write = may_write
        self._told = told
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
    def dsn(self) -> str | None:
        """The address of the database, with its password if it has one."""
        return None if self.database is None else self.database.dsn

    @property
    def address(self) -> str:
        """Where the database is, without a password; empty before the first connection."""
        return "" if self._store is None else self._store.address

    def report(self, error: EsxError, *, of: str = "") -> None:
        """Take note that the store did not answer a query; `of` names who asked, where that is not seen."""
        if not isinstance(error, StoreUnavailable | SchemaMissing | OwnerNotTrusted):
            self._told(f"{of}: {error}" if of else str(error))
        elif self.state is LinkState.CONNECTED:
            self._set(LinkState.LOST, str(error))
            self._trouble.set()

    def trust(self) -> bool:
        """Read although the owner's code runs then, now and from now on; return whether that could be written down."""
        store, owner = self._store, self._owner
        if store is None or owner is None:
            return True
        store.trust_owner()
        self._hurry.set()
        return self._trusted is not None and self._trusted.add(self._place(store), owner)

    def _place(self, store: EventStore) -> str:
        named = None if self.database is None else self.database.store
        return store.address if named is None else f"{store.address} {named}"

    def leave(self) -> None:
        """Tell nobody anything any more: what still runs on this database is not what is shown."""
        self._changed, self._told = (lambda: None), (lambda _message: None)

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
                self.database = database = await self._resolve()
                timeout = database.statement_timeout
                store: EventStore = await EventStore.connect(
                    database.dsn,
                    read_only=database.read_only is not False or not self._may_write,
                    statement_timeout=self._statement_timeout if timeout is None else timeout,
                    application_name="esx explorer",
                    store=database.store,
                    trust_owner=database.trust_owner,
                )
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
                self._set(LinkState.NO_SCHEMA, await store.hidden() or "")
            except OwnerNotTrusted as error:
                self._owner = error.owner
                if self._trusted is not None and self._trusted.knows(self._place(store), error.owner):
                    store.trust_owner()
                    continue
                self._set(LinkState.NOT_TRUSTED, str(error))
            except NotAllowed as error:
                self._set(LinkState.NOT_ALLOWED, str(error))
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
