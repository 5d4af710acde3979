"""The explorer's side of its connection: which database is shown, how it is connected, and how to change that."""

import contextlib
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from textual import on
from textual.content import Content
from textual.notifications import SeverityLevel
from textual.widgets import Static

from esx.config import Config
from esx.database_choice import Database
from esx.embedded import data_directory
from esx.errors import StoreUnavailable
from esx.eventstore import EventStore
from esx.filter_language import Dialect
from esx.fold.reducer import Reducer
from esx.payloads.decoder import Decoder, decoding
from esx.permissions import Permissions
from esx.text import visible
from esx.tui.contrast import ReadableApp
from esx.tui.keymap import Keyed
from esx.tui.lists.pagedlist import PagedList
from esx.tui.screens.base import StorePane
from esx.tui.screens.main import ExplorerScreen
from esx.tui.session.connections import ConnectionChoice, Connections
from esx.tui.session.follower import Follower
from esx.tui.session.remembered import Remembered
from esx.tui.session.session import ExplorerSession, SessionState
from esx.tui.session.status import status, trouble
from esx.tui.session.trusted import Trusted
from esx.tui.tasks import cancel, start
from esx.tui.tuning import Tuning
from esx.tui.widgets.notice import Notice
from esx.tui.widgets.statusbar import StatusBar


class ConnectedApp(Keyed, ReadableApp):
    """Keeps a session on one of its databases, says how it is connected, and changes to another database.

    `session` and `follower` are those of the database that is shown.
    """

    KEYMAP_PREFIX = "app"

    def __init__(
        self,
        database: Database,
        config: Config,
        *,
        reducer: Reducer,
        decoder: Decoder | None,
        permissions: Permissions,
        tuning: Tuning,
        connect: Callable[..., Awaitable[EventStore]] | None = None,
    ) -> None:
        super().__init__()
        self._connect_to = connect
        self.config = config
        """The settings in effect."""
        self.permissions = permissions
        """What may be done here beyond reading."""
        path = None if permissions.served else data_directory(os.environ).expanduser() / "screens.json"
        # A page leaves no files.
        self._remembered = Remembered(path)
        self._reducer = reducer
        self._decoder = decoder
        self._tuning = tuning
        self._asked_for = ""
        self.connections = Connections(database, config)
        """The databases that can be shown."""
        self._choose(self.connections.current)

    @property
    def main(self) -> ExplorerScreen:
        """The screen below every dialog; queries of the app itself see only the topmost screen."""
        return cast("ExplorerScreen", self.screen_stack[0])

    @property
    def _is_up(self) -> bool:
        """Whether the screens are laid out."""
        return bool(self.screen_stack) and bool(self.main.query(StatusBar))

    def _choose(self, choice: ConnectionChoice) -> None:
        self._choice = choice
        self.session = ExplorerSession(
            partial(self.connections.open, choice),
            changed=self._session_changed,
            told=self._told,
            statement_timeout=self.config.statement_timeout,
            layouts=self.config.layouts,
            reducer=decoding(self._reducer, self._decoder),
            decoder=self._decoder,
            tuning=self._tuning,
            trusted=Trusted(os.environ),
            may_write=self.permissions.load,
            remembered=self._remembered,
            connect=self._connect_to,
            dialect=Dialect(correlation=self.config.fields.correlation),
        )
        self.follower = Follower(self.session, self._watch)
        self._followed = False

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,  # noqa: ARG002
    ) -> None:
        """Show a notice; never as markup, because its text may come from the database."""
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=False)

    def _told(self, message: str) -> None:
        self.notify(visible(message, limit=300), severity="warning", timeout=8)

    def connect(self) -> None:
        """Begin to connect."""
        self._session_changed()
        start(self, self.session.run, "session")

    async def disconnect(self) -> None:
        """End the session, and stop the embedded server if it was started for the explorer alone."""
        self.workers.cancel_group(self, "session")
        with contextlib.suppress(Exception):
            await self.workers.wait_for_complete([each for each in self.workers if each.group == "session"])
        await self.connections.close()

    def _once_stopped(self, key: str, does: str, then: Callable[[], object]) -> None:
        """Call `then` once the running load test, if any, has stopped; at once, if `key` was pressed before."""
        panes = () if self._asked_for == key else self.main.query(StorePane)
        waits_for = next(filter(None, (pane.stop(then) for pane in panes)), "")
        self._asked_for = key
        if waits_for:
            self.notify(f"{waits_for}; {key} again {does} at once", timeout=60)
        else:
            then()

    def action_connections(self) -> None:
        """Choose another database."""
        from esx.tui.dialogs.picker import ConnectionPicker

        picker = ConnectionPicker(
            self.connections,
            self._choice,
            status(self.session, self.follower),
            self._other_stores,
            self._other_databases,
        )
        self.push_screen(picker, self._picked)

    async def _other_stores(self) -> list[ConnectionChoice]:
        """Return the stores in the same database."""
        session = self.session
        if session.database is None:
            return []
        shown = session.store is not None
        return self.connections.of_stores(session.database, await session.stores(), shown=shown)

    async def _other_databases(self) -> list[ConnectionChoice]:
        """Return the other databases of the same server."""
        database = self.session.database
        if database is None:
            return []
        return self.connections.of_server(database, await self.session.databases())

    def _picked(self, choice: ConnectionChoice | None) -> None:
        if choice is not None and choice is not self._choice:
            # Later: a task of the old screens may be what calls this.
            show = partial(self.call_later, self._replace, choice)
            self._once_stopped("ctrl+o", f"shows {visible(choice.name, limit=60)}", show)

    async def _replace(self, choice: ConnectionChoice) -> None:
        self._asked_for = ""
        self.session.leave()
        for group in ("session", "follow"):
            cancel(self, group)
        # Dialogs too: one may have been opened while a load test was being stopped.
        while len(self.screen_stack) > 1:
            self.pop_screen()
        await self.main.clear()
        self.left_database()
        self.clear_notifications()
        self._choose(choice)
        self.connect()

    def left_database(self) -> None:
        """Forget what was asked for in the database that is left."""

    def tell_state(self) -> None:
        """Show the state of the store, which may have changed with time."""
        if self._is_up:
            self._write_status()

    def _session_changed(self) -> None:
        if not self._is_up:
            return
        session = self.session
        self._write_status()
        banner = self.main.query_one("#banner", Static)
        lost = session.state is SessionState.LOST
        banner.set_class(lost, "-shown")
        if lost:
            doing = "not tried again by itself · r tries again" if session.refused else "reconnecting · r tries now"
            banner.update(Content(f"{doing} · {visible(session.reason, limit=500)}"))
        why = trouble(session, self._choice.full_name, self.permissions)
        if why is not None:
            self.main.query_one(Notice).say(*why)
        if session.state is SessionState.CONNECTED:
            # At the latest: the first rows on screen begin it too.
            self.set_timer(0.5, self._follow)
            for pane in self.main.query(StorePane):
                if pane.ready:
                    pane.connected()
        self.call_later(self.main.show_wanted)

    @on(PagedList.Moved)
    def _follow(self) -> None:
        """Begin to follow the feed, after the rows of the first screen have been read."""
        if self.session.state is SessionState.CONNECTED and not self._followed:
            self._followed = True
            start(self, self.follower.run, "follow")

    def _watch(self) -> None:
        """Show how the feed is connected now."""
        if self.follower.problem:
            self.session.report(StoreUnavailable(self.follower.problem))
        if self._is_up:
            self._write_status()

    def _write_status(self) -> None:
        self.main.query_one(StatusBar).say(self._names(), *status(self.session, self.follower))

    def _names(self) -> list[str]:
        """Return the names of the database, the longest first, with another tool's store that nobody named."""
        names = list(self._choice.names)
        foreign = None if self.session.store is None else self.session.store.foreign
        if foreign is None or self._choice.store is not None:
            return names
        return [*(f"{foreign} · {name}" for name in names), foreign]

    def action_retry(self) -> None:
        """Try to reach the database now."""
        self.session.retry()

    def action_trust(self) -> None:
        """Trust the owner of the store, where esx asks."""
        if self.session.state is SessionState.NOT_TRUSTED and not self.session.trust():
            self._told("that could not be written down, so esx will ask again")
