"""The explorer: its six screens, its keys, and what can be done on all of them."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.actions import ActionParseResult
from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Static
from textual.worker import Worker, WorkerState

from esx.bookmarks import connection_of
from esx.config import BadConfig, Config
from esx.database_choice import Database
from esx.files import new_file
from esx.fold.reducer import MERGE, Reducer
from esx.payloads.decoder import Decoder
from esx.permissions import Permissions
from esx.store.conflicts.commuting import parse_rule
from esx.text import size_of, visible
from esx.tui import keymap
from esx.tui.cells import tell_failures_by
from esx.tui.dialogs.help import Help
from esx.tui.palette import Actions, Palette, commands_of
from esx.tui.panes import title_if_hidden
from esx.tui.recorded import RecordedApp
from esx.tui.screens.base import StorePane
from esx.tui.screens.main import NOTICE, STREAMS, ExplorerScreen
from esx.tui.screens.streams import StreamsPane
from esx.tui.tasks import start
from esx.tui.tuning import Tuning
from esx.tui.widgets.keyfooter import KeyFooter
from esx.tui.widgets.notice import Notice
from esx.tui.widgets.statusbar import ScreenTab, StatusBar

if TYPE_CHECKING:  # the load test's screen is loaded when it is shown
    from esx.capsule.opening import Recording
    from esx.tui.screens.load import RunLoad

_SCREENS = [
    ("1", "Streams", STREAMS),
    ("2", "Feed", "feed-screen"),
    ("3", "Load", "load-screen"),
    ("4", "Health", "health-screen"),
    ("5", "Consumers", "consumers-screen"),
    ("6", "Types", "types-screen"),
]


class Explorer(RecordedApp):
    """Browse an event store, follow it live, load-test it, and see its health.

    It opens on `database`. `background` runs while it is open. `run_load` runs a load test on the database that is
    shown; without it that screen says so. `reducer` folds streams, `decoder` decodes payloads that are no JSON.
    `permissions` limit an explorer in a browser; without them everything is allowed.

    If the collection of garbage is disabled when it opens, it decides on that while it is open, as it suits its frames.

    Raises BadConfig if the keymap of `config` names an unknown action, or its theme is unknown.
    """

    TITLE = "esx"
    KEYMAP_PREFIX = "app"
    ENABLE_COMMAND_PALETTE = True
    NOTIFICATION_TIMEOUT = 3
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {Actions}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(key, f"screen({screen_id!r})", name, show=False, tooltip=f"Screen {name}")
            for key, name, screen_id in _SCREENS
        ),
        Binding("r", "retry", "Retry", show=False, tooltip="Try to reach the database now"),
        Binding(
            "T", "trust", "Trust the owner", show=False, tooltip="Read a store although its owner's code runs then"
        ),
        Binding("ctrl+o", "connections", "Connections", show=False, tooltip="Show another database"),
        Binding("x", "copy_as", "Copy as", show=False, tooltip="Copy what is shown as an esx command or as SQL"),
        Binding("e", "export", "Export", show=False, tooltip="Export what is shown to a file, as NDJSON"),
        Binding("M", "bookmark", "Bookmark", show=False, tooltip="Keep the event or stream at hand, with a note"),
        Binding(
            "apostrophe", "bookmarks", "Bookmarks", show=False, key_display="'", tooltip="The places that you kept"
        ),
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
    VerticalScroll, OptionList, LoadForm {
        scrollbar-color: $foreground 25%; scrollbar-background: $surface; scrollbar-background-hover: $surface;
    }
    /* A notice of one line covers only the bottom border of the parts. */
    Toast { width: auto; max-width: 90%; padding: 0 1; margin: 0; }
    """

    def __init__(
        self,
        database: Database,
        *,
        config: Config | None = None,
        background: Callable[[], Awaitable[None]] | None = None,
        run_load: RunLoad | None = None,
        reducer: Reducer = MERGE,
        decoder: Decoder | None = None,
        permissions: Permissions | None = None,
        tuning: Tuning | None = None,
        at: tuple[str | None, int | None] | None = None,
        recording: Recording | None = None,
    ) -> None:
        """Show the database, at first the place `at`: a stream (None: all), and the number of an event there.

        A `recording` is shown in place of a store, and `database` says where it is.
        """
        super().__init__(
            database,
            config or Config(),
            reducer=reducer,
            decoder=decoder,
            permissions=permissions or Permissions(),
            tuning=tuning or Tuning(),
            recording=recording,
        )
        self._configure()
        self._background = background
        self._run_load = run_load
        self._begin_at = at
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
        tell_failures_by(config.failure_words)

    def compose(self) -> ComposeResult:
        """Lay out the line at the top, the screens, and the keys at the bottom."""
        yield StatusBar(_SCREENS)
        yield from self.compose_recording()
        yield Static(id="banner")
        with ContentSwitcher(initial=NOTICE):
            yield Notice(id=NOTICE)
        yield KeyFooter()

    def get_default_screen(self) -> ExplorerScreen:
        """Return what lies below every dialog."""
        return ExplorerScreen(self._make, lambda: self.session.store is not None)

    def on_mount(self) -> None:
        """Begin to connect; the first frame does not wait for it."""
        self.main.query_one(StatusBar).mark(STREAMS)
        self.begin_recording()
        if not gc.isenabled():
            self._take_over_garbage()
        self.connect()
        # How long something has lasted grows.
        self.set_interval(1, self.tell_state)
        # While it connects, so that its rows can be read at once then.
        self.call_after_refresh(self.main.lay_out)
        if self._background is not None:
            start(self, partial(self._run_background, self._background), "background")

    def _take_over_garbage(self) -> None:
        # What exists by the first frame stays: a search for garbage in it stops everything for a twentieth of a second,
        # again and again. And each frame makes thousands of objects that last until the next.
        self.call_after_refresh(gc.freeze)
        self._thresholds = gc.get_threshold()
        gc.set_threshold(5000, 20, 10)
        gc.enable()

    async def _run_background(self, background: Callable[[], Awaitable[None]]) -> None:
        try:
            await background()
        except Exception as error:
            # The explorer goes on without it.
            text = str(error) or type(error).__name__
            self.notify(visible(text, limit=300), title="background work stopped", severity="error", timeout=15)

    async def on_unmount(self) -> None:
        """Disconnect, and collect garbage as before, but for what was disabled."""
        self.end_recording()
        if self._thresholds is not None:
            gc.unfreeze()
            gc.set_threshold(*self._thresholds)
        await self.disconnect()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to suspend only where a shell can resume the explorer: not in a browser."""
        if action == "suspend_process":
            return not self.is_web and self._driver is not None and self._driver.can_suspend
        return super().check_action(action, parameters)

    async def action_quit(self) -> None:
        """Leave; the first time, a load test that runs is stopped first."""
        self._once_stopped("q", "leaves", self.exit)

    async def action_screen(self, screen_id: str) -> None:
        """Go to a screen."""
        await self.main.go(screen_id)

    @on(ScreenTab.Clicked)
    async def _tab_clicked(self, message: ScreenTab.Clicked) -> None:
        await self.main.go(message.screen_id)

    def _make(self, screen_id: str) -> StorePane:
        # A screen is imported when it is first shown.
        if screen_id == "feed-screen":
            from esx.tui.screens.feed import FeedPane

            return FeedPane(self.session, self.follower, id=screen_id)
        if screen_id == "load-screen":
            from esx.tui.screens.load import LoadPane

            database, run_load, why_not = self.session.database, self._run_load, ""
            if self.recording is not None:
                why_not = "this is a recording: no load test here"
            elif not self.permissions.load:
                why_not = "no load test here: `esx serve --allow-load` would let this page run one"
            elif run_load is None or (database is not None and database.read_only):
                why_not = "no load test here: this connection only reads"
            if why_not:
                run_load = None
            return LoadPane(
                self.session,
                run_load,
                database=self._choice.full_name,
                why_not=why_not,
                files=not self.permissions.served,
                id=screen_id,
            )
        if screen_id == "health-screen":
            from esx.tui.screens.health import HealthPane

            rules = [parse_rule(text) for text in self.config.commutes]
            return HealthPane(self.session, self.follower, commuting=rules, id=screen_id)
        if screen_id == "consumers-screen":
            from esx.tui.screens.consumers import ConsumersPane

            why_not, shown = "", self.session.database
            if self.recording is not None:
                why_not = "this is a recording: what was is not changed"
            elif not self.permissions.load:
                why_not = "this page only reads: use esx consumers at a terminal"
            elif shown is not None and shown.read_only:
                why_not = "this connection only reads"
            return ConsumersPane(self.session, why_not=why_not, id=screen_id)
        if screen_id == "types-screen":
            from esx.tui.screens.types import TypesPane

            return TypesPane(self.session, self.follower, id=screen_id)
        return StreamsPane(self.session, self.follower, id=screen_id, at=self._begin_at)

    def left_database(self) -> None:
        """Show another database from its beginning: the place that was asked for is in the one that is left."""
        self._begin_at = None

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Run an action, unless its screen is no longer shown: the palette stays open while screens change."""
        behind = "" if default_namespace is None else title_if_hidden(default_namespace)
        if behind:
            self.notify(f"{behind} is no longer shown: nothing was done", severity="warning")
            return False
        return await super().run_action(action, default_namespace, namespaces)

    def action_copy_as(self) -> None:
        """Choose how to copy what is shown."""
        from esx.tui.dialogs.copy_as import CopyAs

        pane, store = self.main.shown_pane, self.session.store
        view = None if pane is None else pane.view()
        shown = view if pane is None or view is not None else pane.command()
        if pane is None or store is None or shown is None:
            self.notify("there is nothing here to copy", severity="warning")
            return
        database = self.session.database

        def chosen(copied: tuple[str, str] | None) -> None:
            if copied is not None:
                title, text = copied
                self.copy_to_clipboard(text)
                self.notify(f"{title} copied, {size_of(len(text.encode()))}")

        options = [] if database is None else database.options
        connection = None if database is None else connection_of(database)
        self.push_screen(CopyAs(store, shown, pane.event_at_hand(), options, connection, self.session.report), chosen)

    def action_export(self) -> None:
        """Write what is shown to a file."""
        from esx.tui.dialogs.export import ExportDialog

        pane, store = self.main.shown_pane, self.session.store
        view = None if pane is None else pane.view()
        if store is None or view is None:
            self.notify("there is nothing here to export", severity="warning")
            return

        def done(text: str | None) -> None:
            if text is not None:
                self.notify(visible(text, limit=300), timeout=8)

        self.push_screen(ExportDialog(store, view.whole), done)

    def action_help(self) -> None:
        """Show the keys that work here."""
        self.push_screen(Help.of(self.screen))

    def action_command_palette(self) -> None:
        """Show the palette."""
        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def action_help_quit(self) -> None:
        """Leave on ctrl+c too, as terminal tools do; Textual only explains how to leave."""
        self.exit()

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        """Save the screen as SVG, in the working directory or through the browser, and say where it is."""
        name = filename or f"esx-{datetime.now().astimezone():%Y%m%d-%H%M%S-%f}.svg"
        if self.is_web:
            self.deliver_screenshot(name)
            return
        try:
            saved = os.path.abspath(os.path.join(path or "", name))
            with new_file(Path(saved)) as file:
                file.write(self.export_screenshot().encode())
        except OSError as error:
            self.notify(f"no screenshot: {visible(str(error))}", severity="error")
        else:
            self.notify(visible(saved), title="screenshot saved", timeout=8)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Offer every action: of the focused part, of its screen, of the explorer, and Textual's own."""
        yield from commands_of(self, screen)
        if self.check_action("screenshot", ()):
            shoot = partial(self.set_timer, 0.1, partial(self.run_action, "screenshot"))
            yield SystemCommand("Screenshot", "Save the screen as SVG", shoot)
        for command in super().get_system_commands(screen):
            if command.title not in ("Quit", "Keys", "Screenshot"):
                yield command

    @on(Worker.StateChanged)
    def _worker_changed(self, message: Worker.StateChanged) -> None:
        """Show an unexpected error of a background task, and go on."""
        error = message.worker.error
        if message.state is WorkerState.ERROR and error is not None:
            text = visible(f"{type(error).__name__}: {error}", limit=300)
            self.notify(text, title="something went wrong", severity="error", timeout=15)
