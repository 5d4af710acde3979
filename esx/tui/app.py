"""The explorer: one connection, four screens, and what stays true on all of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import ContentSwitcher, Static
from textual.worker import Worker, WorkerState

from esx.config import BadConfig, Config
from esx.database import Database
from esx.files import new_file
from esx.fold.reducer import MERGE
from esx.permissions import Permissions
from esx.store.errors import StoreUnavailable
from esx.store.views import FeedView, TrailView
from esx.text import visible
from esx.tui import keymap
from esx.tui.cells import size_of
from esx.tui.connections import Choice, Connections
from esx.tui.follower import Follower
from esx.tui.keymap import Keyed
from esx.tui.link import Link, LinkState
from esx.tui.palette import Actions
from esx.tui.screens.pane import Pane
from esx.tui.screens.streams import StreamsPane
from esx.tui.stage import Stage, from_behind
from esx.tui.trusted import Trusted
from esx.tui.widgets.help import Help, groups_of, is_moving
from esx.tui.widgets.keyfooter import KeyFooter
from esx.tui.widgets.notice import Notice
from esx.tui.widgets.pagedlist import PagedList
from esx.tui.widgets.statusbar import ScreenTab, StatusBar
from esx.tui.work import cancel, start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from textual.actions import ActionParseResult
    from textual.app import ComposeResult
    from textual.command import Provider
    from textual.dom import DOMNode
    from textual.screen import Screen

    from esx.fold.reducer import Reducer
    from esx.store.store import EventStore
    from esx.store.views import View
    from esx.tui.screens.load import RunLoad

_SCREENS = [
    ("1", "Streams", "streams-screen"),
    ("2", "Feed", "feed-screen"),
    ("3", "Load", "load-screen"),
    ("4", "Health", "health-screen"),
]
_TRAIL = "trail-screen"
_COPIED_ROWS = 1000
"""How many rows a copied command or query asks for: what is shown may have millions."""
_GARBAGE = (5000, 20, 10)
"""When to look for garbage, in objects made and in rounds."""
_FOLLOW_AFTER = 0.5
"""Seconds after which the feed is followed though nothing is on screen yet."""
_OTHERS = "   ctrl+o  other connections"
_UNREACHABLE = (
    "Is the server running, and is this the right address? Give another with --dsn, ESX_DSN, DATABASE_URL or PG*.\n"
    f"It is tried again every few seconds.\n\nr  tries now{_OTHERS}   q  quits"
)
_NOT_ALLOWED = (
    "GRANT SELECT ON events TO this user, or connect as another.  esx doctor  (with the same --dsn) tells what else "
    f"is missing. This screen goes on by itself then.\n\nr  looks again now{_OTHERS}   q  quits"
)
_NOT_TRUSTED = (
    "Connect as a user with fewer rights; or trust the owner, if you would run programs of hers.\n\n"
    f"T  trusts the owner of this store, from now on{_OTHERS}   q  quits"
)
_NO_LOAD = "no load test here: `esx serve --allow-load` would let this page run one"
_NO_SCHEMA = (
    "Run  esx init  on this database to create it (with the same --dsn); this screen goes on by itself then.\n\n"
    f"r  looks again now{_OTHERS}   q  quits"
)
_ELSEWHERE = (
    "Start esx with that option, or with another --dsn. This screen goes on by itself once the table is found.\n\n"
    f"r  looks again now{_OTHERS}   q  quits"
)


class Explorer(Keyed, App[None]):
    """Browse an event store, follow it live, load it, and see how it is.

    `label` names the database for people, `name` is the one it has in `config`, `embedded` says that it is esx's own;
    `read_only`, `statement_timeout`, `store` and `trust_owner` are as in `esx.database.Database`. `background` runs
    while it is open. `run_load` runs a load test on the database that is shown; without it that screen says so.
    `reducer` folds streams.
    `permissions` are those of an explorer in a browser; without them all may be done.

    Raises BadConfig if the keymap of `config` names an action that is none, or its theme is unknown.
    """

    TITLE = "esx"
    PART = "app"
    ENABLE_COMMAND_PALETTE = True
    NOTIFICATION_TIMEOUT = 3
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {Actions}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "screen('streams-screen')", "Streams", show=False, tooltip="Screen Streams"),
        Binding("2", "screen('feed-screen')", "Feed", show=False, tooltip="Screen Feed"),
        Binding("3", "screen('load-screen')", "Load", show=False, tooltip="Screen Load"),
        Binding("4", "screen('health-screen')", "Health", show=False, tooltip="Screen Health"),
        Binding("r", "retry", "Retry", show=False, tooltip="Try to reach the database now"),
        Binding(
            "T", "trust", "Trust the owner", show=False, tooltip="Read a store although its owner's code runs then"
        ),
        Binding("ctrl+o", "connections", "Connections", show=False, tooltip="Show another database"),
        Binding("x", "copy_as", "Copy as", show=False, tooltip="Copy what is shown as an esx command or as SQL"),
        Binding("e", "export", "Export", show=False, tooltip="Export what is shown to a file, as NDJSON"),
        Binding(
            "ctrl+z",
            "suspend_process",
            "Suspend",
            show=False,
            priority=True,
            tooltip="Stop for now; fg in the shell goes on",
        ),
        Binding("question_mark", "help", "Help", key_display="?", tooltip="The keys that work here"),
        Binding("q", "quit", "Quit", tooltip="Leave"),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True, tooltip="Leave", id="app.quit-anywhere"),
    ]
    CSS = """
    ContentSwitcher { height: 1fr; }
    #banner {
        display: none; height: 1; padding: 0 1; background: $error 30%; text-wrap: nowrap; text-overflow: ellipsis;
    }
    #banner.-shown { display: block; }
    /* A notice of one line covers the frame below the parts, and nothing in them. */
    Toast { width: auto; max-width: 90%; padding: 0 1; margin: 0; }
    """

    def __init__(
        self,
        dsn: str | None,
        *,
        label: str,
        embedded: bool,
        name: str | None = None,
        read_only: bool | None = None,
        statement_timeout: float | None = None,
        store: str | None = None,
        trust_owner: bool = False,
        config: Config | None = None,
        background: Callable[[], Awaitable[None]] | None = None,
        run_load: RunLoad | None = None,
        reducer: Reducer = MERGE,
        permissions: Permissions | None = None,
    ) -> None:
        super().__init__()
        self.permissions = permissions or Permissions()
        """What may be done here beyond reading."""
        self.reducer = reducer
        """What folds a stream to its state."""
        self.config = config or Config()
        """The settings in effect."""
        self._configure()
        given = Database(dsn, "", label, embedded, name, read_only, statement_timeout, store, trust_owner)
        self._connections = Connections(given, self.config)
        self._connect(self._connections.current)
        self._background = background
        self._run_load = run_load
        self._wanted = "streams-screen"
        self._asked_for = ""
        self._under_trail = self._wanted
        self._mounting = asyncio.Lock()
        self._thresholds: tuple[int, int, int] | None = None

    def _configure(self) -> None:
        config = self.config
        keymap.check(config.keymap, config.path)
        self.set_keymap(config.keymap)
        if config.theme is not None:
            if config.theme not in self.available_themes:
                raise BadConfig(
                    f"{visible(str(config.path))}: theme {visible(config.theme, limit=60)} is unknown: "
                    f"use one of {', '.join(sorted(self.available_themes))}"
                )
            self.theme = config.theme

    def compose(self) -> ComposeResult:
        """Lay out the line at the top, the screens, and the keys at the bottom."""
        yield StatusBar(_SCREENS)
        yield Static(id="banner")
        with ContentSwitcher(initial="notice"):
            yield Notice(id="notice")
        yield KeyFooter()

    def get_default_screen(self) -> Stage:
        """Return what lies below every dialog."""
        return Stage("notice")

    def on_mount(self) -> None:
        """Begin to connect; the first frame does not wait for it."""
        self._main.query_one(StatusBar).mark(self._wanted)
        self._link_changed()
        # What is there by the first frame stays: to look it through for garbage stops everything for a twentieth of a
        # second, again and again. And each frame makes thousands of objects that last until the next.
        self.call_after_refresh(gc.freeze)
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*_GARBAGE)
        gc.enable()
        start(self, self._run_link, "link")
        # While it connects: its rows can then be asked for at once.
        self.call_after_refresh(self._mount, self._wanted)
        if self._background is not None:
            start(self, partial(self._run_background, self._background), "background")

    async def _run_background(self, background: Callable[[], Awaitable[None]]) -> None:
        try:
            await background()
        except Exception as error:
            # Whatever it is, the explorer goes on without it.
            text = str(error) or type(error).__name__
            self.notify(
                visible(text, limit=300), title="background work stopped", severity="error", timeout=15, markup=False
            )

    async def on_unmount(self) -> None:
        """Stop the embedded server, if it was started for the explorer alone."""
        gc.unfreeze()
        if self._thresholds is not None:
            gc.set_threshold(*self._thresholds)
        self.workers.cancel_group(self, "link")
        with contextlib.suppress(Exception):
            await self.workers.wait_for_complete([each for each in self.workers if each.group == "link"])
        await self._connections.close()

    @property
    def _main(self) -> Stage:
        """What lies below any dialog: the application itself looks at the topmost screen only."""
        return cast("Stage", self.screen_stack[0])

    @property
    def _is_up(self) -> bool:
        """Whether the screens have been laid out, and not yet been taken down."""
        return bool(self.screen_stack) and bool(self._main.query(StatusBar))

    # -- connection -------------------------------------------------------------------------------------------

    def _connect(self, choice: Choice) -> None:
        """Make the link and the follower for a database."""
        self._choice = choice
        self.link = Link(
            partial(self._connections.open, choice),
            changed=self._link_changed,
            told=self._told,
            statement_timeout=self.config.statement_timeout,
            trusted=Trusted(os.environ),
            may_write=self.permissions.load,
        )
        self.follower = Follower(self.link, self._watch)
        self._followed = False

    async def _run_link(self) -> None:
        await self.link.run()

    def _told(self, message: str) -> None:
        self.notify(visible(message, limit=300), severity="warning", timeout=8, markup=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to suspend only where a shell is there to go on from: not in a browser."""
        if action == "suspend_process":
            return not self.is_web and self._driver is not None and self._driver.can_suspend
        return super().check_action(action, parameters)

    async def action_quit(self) -> None:
        """Leave. What should not be cut off is stopped first, as long as that is not asked for twice."""
        self._once_stopped("q", "leaves", self.exit)

    def _once_stopped(self, key: str, does: str, then: Callable[[], object]) -> None:
        """Do what would cut off what runs once that has been stopped; at once, if it is asked for again."""
        panes = () if self._asked_for == key else self._main.query(Pane)
        waits_for = next(filter(None, (pane.stop(then) for pane in panes)), "")
        self._asked_for = key
        if waits_for:
            self.notify(f"{waits_for}; {key} again {does} at once", timeout=60, markup=False)
        else:
            then()

    def action_connections(self) -> None:
        """Choose another database."""
        from esx.tui.widgets.picker import ConnectionPicker

        picker = ConnectionPicker(self._connections.choices, self._choice, self._state())
        self.push_screen(picker, self._picked)

    def _picked(self, choice: Choice | None) -> None:
        if choice is not None and choice is not self._choice:
            # In a turn of its own: what has been stopped may be part of what then goes.
            show = partial(self.call_later, self._replace, choice)
            self._once_stopped("ctrl+o", f"shows {visible(choice.name, limit=60)}", show)

    async def _replace(self, choice: Choice) -> None:
        """Show another database in place of the one that is shown."""
        self._asked_for = ""
        self.link.leave()
        for group in ("link", "follow"):
            cancel(self, group)
        self._main.show(None)
        if self._wanted == _TRAIL:
            self._wanted = self._under_trail
        await self._main.query(Pane).remove()
        self._connect(choice)
        self._link_changed()
        start(self, self._run_link, "link")

    def _link_changed(self) -> None:
        if not self._is_up:
            return
        link = self.link
        self._write_status()
        banner = self._main.query_one("#banner", Static)
        lost = link.state is LinkState.LOST
        banner.set_class(lost, "-shown")
        if lost:
            banner.update(Content(f"reconnecting · r tries now · {visible(link.reason, limit=500)}"))
        notice = self._main.query_one(Notice)
        if link.state is LinkState.CONNECTING:
            notice.say("connecting …", self._where, "", error=False)
        elif link.state is LinkState.UNREACHABLE:
            notice.say("No connection", link.reason, self._offered(_UNREACHABLE), error=True)
        elif link.state is LinkState.NOT_ALLOWED:
            notice.say("This user may not read the events", link.reason, self._offered(_NOT_ALLOWED), error=True)
        elif link.state is LinkState.NOT_TRUSTED:
            remedy = "" if self.permissions.served else self._offered(_NOT_TRUSTED)
            notice.say("Reading this store runs code of its owner", link.reason, remedy, error=True)
        elif link.state is LinkState.NO_SCHEMA:
            if link.reason:
                remedy = self._offered(_ELSEWHERE)
                notice.say("The event store of this database is elsewhere", link.reason, remedy, error=False)
            else:
                notice.say("No event store in this database yet", self._where, self._offered(_NO_SCHEMA), error=False)
        if link.state is LinkState.CONNECTED:
            self.set_timer(_FOLLOW_AFTER, self._follow)
            for pane in self._main.query(Pane):
                if pane.ready:
                    pane.connected()
        self.call_later(self._show_wanted)

    def _offered(self, remedy: str) -> str:
        return remedy if self.permissions.connections else remedy.replace(_OTHERS, "")

    @on(PagedList.Moved)
    def _follow(self) -> None:
        """Begin to follow the feed: what is to be seen first comes first."""
        if self.link.state is LinkState.CONNECTED and not self._followed:
            self._followed = True
            start(self, self.follower.run, "follow")

    def _watch(self) -> None:
        """Take note that the feed has lost its connection or found it again, or has begun or ceased to listen."""
        if self.follower.problem:
            self.link.report(StoreUnavailable(self.follower.problem))
        if self._is_up:
            self._write_status()

    def _state(self) -> tuple[str, str]:
        """Return how the connection is, and its colour."""
        link = self.link
        state, colour = link.state.value, "$text-warning"
        if link.state is LinkState.CONNECTED:
            if self.follower.ended:
                state, colour = "connected, feed ended", "$text-error"
            elif not self.follower.started:
                state, colour = "connected", "$text-success"
            elif self.follower.listening:
                state, colour = "connected, live", "$text-success"
            else:
                state, colour = "connected, polling", "$text-warning"
        elif link.state in (LinkState.UNREACHABLE, LinkState.LOST, LinkState.NOT_ALLOWED, LinkState.NOT_TRUSTED):
            colour = "$text-error"
        return state, colour

    def _write_status(self) -> None:
        choice = self._choice
        shorter = ["embedded PostgreSQL 18", "embedded PG 18"] if choice.embedded else [choice.name]
        names = [self._where, *shorter]
        if choice.store is not None:
            names = [*(f"{choice.store} in {name}" for name in names), choice.store]
        self._main.query_one(StatusBar).say(names, *self._state())

    @property
    def _where(self) -> str:
        choice = self._choice
        if choice.configured:
            return f"{choice.name} ({choice.where})"
        known = "embedded PostgreSQL 18"
        return choice.where if not choice.embedded or known in choice.where else f"{choice.where} · {known}"

    # -- screens ------------------------------------------------------------------------------------------------

    async def action_screen(self, screen_id: str) -> None:
        """Go to a screen."""
        trails = self._main.query(f"#{_TRAIL}")
        self._wanted = screen_id
        self._main.query_one(StatusBar).mark(screen_id)
        await self._show_wanted()
        await trails.remove()

    @on(ScreenTab.Clicked)
    async def _tab_clicked(self, message: ScreenTab.Clicked) -> None:
        await self.action_screen(message.screen_id)

    async def _show_wanted(self) -> None:
        """Show the screen that is wanted, or the notice while there is nothing to show on it."""
        if self.link.store is None:
            self._main.show(None)
            return
        wanted = self._wanted
        if self._pane is None or self._pane.id != wanted:
            await self._mount(wanted)
            self._main.show(self._main.query_one(f"#{wanted}", Pane))

    async def _mount(self, screen_id: str) -> None:
        """Lay a screen out, unless it is there; nothing of it is seen yet."""
        async with self._mounting:
            if not self._main.query(f"#{screen_id}"):
                await self._mount_behind(self._make(screen_id))

    async def _mount_behind(self, pane: Pane) -> None:
        pane.display = False
        await self._main.query_one(ContentSwitcher).mount(pane)

    @on(Pane.TrailWanted)
    async def _open_trail(self, message: Pane.TrailWanted) -> None:
        """Show the trail of an event over the screen one is on; `_close_trail` comes back to it."""
        from esx.tui.screens.trail import TrailPane

        if not message.pane.shown:
            return
        await self._close_trail()
        await self._mount_behind(TrailPane(self.link, message.global_seq, fields=self.config.fields, id=_TRAIL))
        self._under_trail, self._wanted = self._wanted, _TRAIL
        await self._show_wanted()

    async def _close_trail(self) -> None:
        if self._wanted == _TRAIL:
            self._wanted = self._under_trail
            await self._show_wanted()
        await self._main.query(f"#{_TRAIL}").remove()

    async def go_back(self) -> None:
        """Leave the trail for the screen one came from."""
        await self._close_trail()

    @on(Pane.EventWanted)
    async def _go_to_event(self, message: Pane.EventWanted) -> None:
        """Show an event in its stream, on the screen Streams."""
        if message.pane.shown:
            await self.action_screen("streams-screen")
            for pane in self._main.query(StreamsPane):
                pane.go_to(message.stream_id, message.stream_seq)

    def _make(self, screen_id: str) -> Pane:
        # Screens that are not looked at need not be imported.
        if screen_id == "feed-screen":
            from esx.tui.screens.feed import FeedPane

            return FeedPane(self.link, self.follower, id=screen_id)
        if screen_id == "load-screen":
            from esx.tui.screens.load import LoadPane

            database = self.link.database
            run_load = None if database is not None and database.read_only else self._run_load
            if not self.permissions.load:
                return LoadPane(self.link, None, database=self._where, why_not=_NO_LOAD, id=screen_id)
            return LoadPane(self.link, run_load, database=self._where, id=screen_id)
        if screen_id == "health-screen":
            from esx.tui.screens.health import HealthPane

            return HealthPane(self.link, self.follower, id=screen_id)
        return StreamsPane(self.link, self.follower, id=screen_id)

    # -- keys -----------------------------------------------------------------------------------------------

    @property
    def _pane(self) -> Pane | None:
        """The screen that is shown."""
        return cast("Pane | None", self._main.scene)

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Run an action, unless it belongs to a screen that is not shown, as one chosen in the palette may by then."""
        behind = "" if default_namespace is None else from_behind(default_namespace)
        if behind:
            self.notify(f"{behind} is no longer shown: nothing was done", severity="warning")
            return False
        return await super().run_action(action, default_namespace, namespaces)

    def action_copy_as(self) -> None:
        """Choose how to copy what is shown."""
        from esx.tui.widgets.copyas import CopyAs

        pane, store = self._pane, self.link.store
        view = None if pane is None else pane.view()
        if pane is None or store is None or view is None:
            self.notify("there is nothing here to copy", severity="warning")
            return

        def chosen(copied: tuple[str, str] | None) -> None:
            if copied is not None:
                title, text = copied
                self.copy_to_clipboard(text)
                self.notify(f"{title} copied, {size_of(len(text.encode()))}", markup=False)

        # At once, and filled when all is read: one that opened later might open over something else.
        reads = partial(self._ways_to_copy, store, view, pane.event_at_hand())
        self.push_screen(CopyAs(reads, self.link.report), chosen)

    async def _ways_to_copy(self, store: EventStore, view: View, number: int | None) -> list[tuple[str, str]]:
        """Return the texts that stand for what is shown, each with its title. Raises EsxError."""
        from esx.tui.copying import command_of

        limit = None if isinstance(view, FeedView | TrailView) else _COPIED_ROWS
        query = await store.sql(view, limit=limit)
        event = None if number is None else await store.event(number)
        choices = [("esx command", command_of(view, self.link.database, limit)), ("SQL for psql", query)]
        return choices if event is None else [*choices, (f"event {event.global_seq} as JSON", event.to_json())]

    def action_export(self) -> None:
        """Write what is shown to a file."""
        from esx.tui.exporting import whole
        from esx.tui.widgets.exportdialog import ExportDialog

        pane, store = self._pane, self.link.store
        view = None if pane is None else pane.view()
        if store is None or view is None:
            self.notify("there is nothing here to export", severity="warning")
            return

        def done(text: str | None) -> None:
            if text is not None:
                self.notify(visible(text, limit=300), timeout=8, markup=False)

        self.push_screen(ExportDialog(store, whole(view)), done)

    def action_retry(self) -> None:
        """Try to reach the database now."""
        self.link.retry()

    def action_trust(self) -> None:
        """Trust the owner of the store, where esx has asked."""
        if self.link.state is LinkState.NOT_TRUSTED and not self.link.trust():
            self._told("that could not be written down, so esx will ask again")

    def action_help(self) -> None:
        """Show the keys that work here."""
        self.push_screen(Help.of(self.screen))

    def action_help_quit(self) -> None:
        """Leave on ctrl+c as on q, as psql's neighbours do."""
        self.exit()

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        """Save the screen as SVG in the working directory, or hand it to the browser, and say where it is."""
        name = filename or f"esx-{datetime.now().astimezone():%Y%m%d-%H%M%S-%f}.svg"
        if self.is_web:
            self.deliver_screenshot(name)
            return
        try:
            saved = os.path.abspath(os.path.join(path or "", name))
            with new_file(Path(saved)) as file:
                file.write(self.export_screenshot().encode())
        except OSError as error:
            self.notify(f"no screenshot: {visible(str(error))}", severity="error", markup=False)
        else:
            self.notify(visible(saved), title="screenshot saved", timeout=8, markup=False)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Offer every action: of the focused part, of its screen, of the explorer, and Textual's own."""
        seen = set()
        offered = [(group.title, *each) for group in groups_of(screen) for each in group.bindings]
        # How to move about is known, or in the help.
        for part, binding, node in sorted(offered, key=lambda each: is_moving(each[1])):
            title = binding.tooltip or binding.description
            if title in seen:
                continue
            seen.add(title)
            run = partial(self.run_action, binding.action, node)
            yield SystemCommand(title, f"{part} · key {self.get_key_display(binding)}", run)
        if self.check_action("screenshot", ()):
            shoot = partial(self.set_timer, 0.1, partial(self.run_action, "screenshot"))
            yield SystemCommand("Screenshot", "Save the screen as SVG", shoot)
        for command in super().get_system_commands(screen):
            if command.title not in ("Quit", "Keys", "Screenshot"):
                yield command

    # -- trouble ------------------------------------------------------------------------------------------------

    @on(Worker.StateChanged)
    def _worker_changed(self, message: Worker.StateChanged) -> None:
        """Say so when work in the background fails in a way nobody foresaw, and go on."""
        error = message.worker.error
        if message.state is WorkerState.ERROR and error is not None:
            text = visible(f"{type(error).__name__}: {error}", limit=300)
            self.notify(text, title="something went wrong", severity="error", timeout=15, markup=False)
