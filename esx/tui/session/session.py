"""The explorer's connection: opened, watched, and recovered. Plain asyncio code, no screen."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from enum import Enum

from esx.database_choice import Database
from esx.errors import EsxError, NotAllowed, OwnerNotTrusted, SchemaMissing, StoreNotNamed, StoreUnavailable
from esx.eventstore import EventStore
from esx.filter_language import USUAL, Dialect
from esx.fold.reducer import Reducer
from esx.layouts.foreign.own import OwnLayout
from esx.layouts.foreign.recognition import FoundStore
from esx.payloads.decoder import Decoder
from esx.tui.session.remembered import Remembered
from esx.tui.session.trusted import Trusted
from esx.tui.session.words import Words
from esx.tui.tuning import Tuning


class SessionState(Enum):
    """The state of the connection, in words for the user."""

    CONNECTING = "connecting"
    UNREACHABLE = "offline"
    REFUSED = "login refused"
    NO_SCHEMA = "no event store"
    NOT_ALLOWED = "no rights"
    NOT_TRUSTED = "owner not trusted"
    CONNECTED = "connected"
    LOST = "reconnecting"


class ExplorerSession:
    """Keeps one store open and knows whether it answers.

    Its sessions only read, unless the database's `read_only` is False and they `may_write`. A statement may take
    `statement_timeout` seconds, unless the database has its own. `resolve` returns the database, which may take time:
    the embedded one has to be started. `connect`, to a recording, takes the place of `EventStore.connect`. `changed`
    is called after each change of `state` or `reason`, `told` with the error of a query that fails while the connection
    is fine.
    """

    def __init__(
        self,
        resolve: Callable[[], Awaitable[Database]],
        *,
        changed: Callable[[], None],
        told: Callable[[str], None],
        statement_timeout: float,
        reducer: Reducer,
        decoder: Decoder | None = None,
        tuning: Tuning,
        trusted: Trusted | None = None,
        may_write: bool = True,
        layouts: Sequence[OwnLayout] = (),
        remembered: Remembered | None = None,
        connect: Callable[..., Awaitable[EventStore]] | None = None,
        dialect: Dialect = USUAL,
    ) -> None:
        self.remembered = remembered or Remembered(None)
        """How the user has divided the screens."""
        self.words = Words(tuning.clock, dialect)
        """What the lines for filters complete."""
        self.database: Database | None = None
        """The database, once it is known."""
        self.reducer = reducer
        self.decoder = decoder
        self.tuning = tuning
        self._resolve = resolve
        self._connect: Callable[..., Awaitable[EventStore]] = connect or EventStore.connect
        self._trusted = trusted
        self._owner: str | None = None
        self._statement_timeout = statement_timeout
        self._may_write = may_write
        self._layouts = layouts
        self._told = told
        self.shows_recording = connect is not None
        """Whether it shows what was, not what is."""
        self.state = SessionState.CONNECTING
        self.reason = ""
        self.refused = False
        """Whether the server refused the login at the last attempt, and a key has to ask for the next."""
        self.answered = False
        """Whether the server answered at the last attempt, and only its answer was no."""
        self.choosable: Sequence[FoundStore] = ()
        """The stores of the database that can be shown, where the wanted one cannot."""
        self.head = 0
        """The head of the store when it answered first: what is read from then on has the events up to there."""
        self.to_mend = 0
        """How many things the doctor found to mend, when it looked last."""
        self._store: EventStore | None = None
        self._changed = changed
        self._trouble = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def store(self) -> EventStore | None:
        """The store, once there is one with a schema; it stays while the connection is lost."""
        return self._store if self.state in (SessionState.CONNECTED, SessionState.LOST) else None

    @property
    def unrecorded(self) -> str | None:
        """Why nothing is known of the feed and of consumers at the time of a recording; None if it is."""
        return None if self._store is None else self._store.unrecorded

    @property
    def named(self) -> str | None:
        """The name of the store that was asked for, None for the table events or the only store."""
        return None if self.database is None else self.database.store

    @property
    def dsn(self) -> str | None:
        """The address of the database, with its password if it has one."""
        return None if self.database is None else self.database.dsn

    @property
    def address(self) -> str:
        """Where the database is, without a password; empty before the first connection."""
        return "" if self._store is None else self._store.address

    def report(self, error: EsxError, *, of: str = "") -> None:
        """Handle an error of a query; `of` names the screen that asked, if it is not the visible one."""
        if not isinstance(error, StoreUnavailable | SchemaMissing | OwnerNotTrusted):
            self._told(f"{of}: {error}" if of else str(error))
        elif self.state is SessionState.CONNECTED:
            self._set(SessionState.LOST, str(error))
            self._trouble.set()

    def typed(self, words: str) -> str:
        """Return ``esx`` with these words as it is typed in a shell to reach this database, whoever named it."""
        return f"esx {words}" if self.database is None else self.database.command(words)

    async def stores(self) -> list[FoundStore]:
        """Return the event stores in the database, none if it cannot be asked now."""
        try:
            return [] if self._store is None else (await self._store.stores())[0]
        except EsxError:
            return []

    async def databases(self) -> list[str]:
        """Return the other databases of the server that one may connect to, none if it cannot be asked now."""
        try:
            return [] if self._store is None or self.shows_recording else await self._store.databases()
        except EsxError:
            return []

    def trust(self) -> bool:
        """Read from now on although that runs the owner's code; return whether the decision could be saved."""
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
        """Call `changed` and `told` no more: another database is shown from now on."""
        self._changed, self._told = (lambda: None), (lambda _message: None)

    def retry(self) -> None:
        """Make the next attempt at once."""
        self._hurry.set()

    async def run(self) -> None:
        """Open the store and keep it connected until cancelled; close it then."""
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
                store: EventStore = await self._connect(
                    database.dsn,
                    read_only=database.read_only is not False or not self._may_write,
                    statement_timeout=self._statement_timeout if timeout is None else timeout,
                    application_name="esx explorer",
                    store=database.store,
                    trust_owner=database.trust_owner,
                    layouts=self._layouts,
                )
            except EsxError as error:
                await self._fail(error)
            else:
                store.feed_settings = replace(store.feed_settings, poll=self.tuning.poll)
                return store

    async def _until_ready(self, store: EventStore) -> None:
        """Return once the store answers and has its table."""
        while True:
            try:
                missing = await store.missing()
                if missing is None:
                    self.head = await store.head()
                    self._set(SessionState.CONNECTED, "")
                    return
                told = self.named is not None or missing.elsewhere or missing.of_others
                await self._not_there(str(missing) if told else "")
            except StoreNotNamed as error:
                await self._not_there(str(error))
            except OwnerNotTrusted as error:
                self._owner = error.owner
                if self._trusted is not None and self._trusted.knows(self._place(store), error.owner):
                    store.trust_owner()
                    continue
                self._set(SessionState.NOT_TRUSTED, str(error))
            except NotAllowed as error:
                self._set(SessionState.NOT_ALLOWED, str(error))
            except EsxError as error:
                await self._fail(error)
                continue
            await self._pause(self.tuning.retry)

    async def _not_there(self, reason: str) -> None:
        """Say that there is no store to show, and which others there are."""
        found = [each for each in await self.stores() if each.problem is None]
        changed = found != self.choosable
        self.choosable = found
        self._set(SessionState.NO_SCHEMA, reason, changed=changed)

    async def _fail(self, error: EsxError) -> None:
        """Say why the database does not answer, and wait for the next attempt."""
        self.refused = refused = isinstance(error, StoreUnavailable) and error.refused
        self.answered = isinstance(error, StoreUnavailable) and error.answered
        state = SessionState.REFUSED if refused else SessionState.UNREACHABLE
        self._set(state if self.store is None else SessionState.LOST, str(error))
        # A server may lock a user out after some wrong passwords: only a key tries again.
        await self._pause(None if refused else self.tuning.retry)

    async def _pause(self, seconds: float | None) -> None:
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)

    def _set(self, state: SessionState, reason: str, *, changed: bool = False) -> None:
        if changed or (state, reason) != (self.state, self.reason):
            self.state = state
            self.reason = reason
            self._changed()
