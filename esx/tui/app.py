"""The explorer: one connection, four screens, and what stays true on all of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import ContentSwitcher, Footer, Static
from textual.worker import Worker, WorkerState

from esx.store.errors import StoreUnavailable
from esx.text import visible
from esx.tui.follower import Follower
from esx.tui.link import Link, LinkState
from esx.tui.screens.pane import Pane
from esx.tui.screens.streams import StreamsPane
from esx.tui.widgets.help import Help
from esx.tui.widgets.notice import Notice
from esx.tui.widgets.statusbar import ScreenTab, StatusBar
from esx.tui.work import start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from textual.app import ComposeResult
    from textual.screen import Screen

    from esx.tui.screens.load import RunLoad

_SCREENS = [
    ("1", "Streams", "streams-screen"),
    ("2", "Feed", "feed-screen"),
    ("3", "Load", "load-screen"),
    ("4", "Health", "health-screen"),
]
_TRAIL = "trail-screen"
_UNREACHABLE = (
    "Is the server running, and is this the right address? Give another with --dsn, ESX_DSN, DATABASE_URL or PG*.\n"
    "It is tried again every few seconds.   r  tries now   q  quits"
)
_NO_SCHEMA = (
    "Run  esx init  on this database to create it (with the same --dsn); this screen goes on by itself then.\n"
    "r  looks again now   q  quits"
)


class Explorer(App[None]):
    """Browse an event store, follow it live, load it, and see how it is.

    `label` names the database for people; `embedded` says that it is esx's own. `background` runs while the
    explorer is open. `run_load` runs a load test on the database of `dsn`; without it that screen says so.
    """

    TITLE = "esx"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "screen('streams-screen')", "Streams", show=False, tooltip="Screen Streams"),
        Binding("2", "screen('feed-screen')", "Feed", show=False, tooltip="Screen Feed"),
        Binding("3", "screen('load-screen')", "Load", show=False, tooltip="Screen Load"),
        Binding("4", "screen('health-screen')", "Health", show=False, tooltip="Screen Health"),
        Binding("r", "retry", "Retry", show=False, tooltip="Try to reach the database now"),
        Binding("question_mark", "help", "Help", key_display="?", tooltip="The keys that work here"),
        Binding("q", "quit", "Quit", tooltip="Leave"),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True, tooltip="Leave"),
    ]
    CSS = """
    ContentSwitcher { height: 1fr; }
    #banner {
        display: none; height: 1; padding: 0 1; background: $error 30%; text-wrap: nowrap; text-overflow: ellipsis;
    }
    #banner.-shown { display: block; }
    """

    def __init__(
        self,
        dsn: str | None,
        *,
        label: str,
        embedded: bool,
        background: Callable[[], Awaitable[None]] | None = None,
        run_load: RunLoad | None = None,
    ) -> None:
        super().__init__()
        self.link = Link(dsn, self._link_changed)
        self.follower = Follower(self.link)
        self._label = label
        self._embedded = embedded
        self._background = background
        self._run_load = run_load
        self._wanted = "streams-screen"
        self._under_trail = self._wanted

    def compose(self) -> ComposeResult:
        """Lay out the line at the top, the screens, and the keys at the bottom."""
        yield StatusBar(_SCREENS)
        yield Static(id="banner")
        with ContentSwitcher(initial="notice"):
            yield Notice(id="notice")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin to connect; the first frame does not wait for it."""
        self.query_one(StatusBar).mark(self._wanted)
        self._link_changed()
        self.set_interval(0.5, self._watch)
        start(self, self.link.run, "link")
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

    # -- connection -------------------------------------------------------------------------------------------

    def _link_changed(self) -> None:
        if not self.query(StatusBar):
            # Not begun yet, or taken down already.
            return
        link = self.link
        self._write_status()
        banner = self.query_one("#banner", Static)
        lost = link.state is LinkState.LOST
        banner.set_class(lost, "-shown")
        if lost:
            banner.update(Content(f"reconnecting · r tries now · {visible(link.reason, limit=500)}"))
        notice = self.query_one(Notice)
        if link.state is LinkState.CONNECTING:
            notice.say("connecting …", self._where, "", error=False)
        elif link.state is LinkState.UNREACHABLE:
            notice.say("No connection", link.reason, _UNREACHABLE, error=True)
        elif link.state is LinkState.NO_SCHEMA:
            notice.say("No event store in this database yet", self._where, _NO_SCHEMA, error=False)
        if link.state is LinkState.CONNECTED:
            if not any(worker.group == "follow" for worker in self.workers):
                start(self, self.follower.run, "follow")
            for pane in self.query(Pane):
                if pane.ready:
                    pane.connected()
        self.call_later(self._show_wanted)

    def _watch(self) -> None:
        """Notice what nobody tells: that the feed has lost its connection, or has begun to listen."""
        if not self.query(StatusBar):
            return
        if self.follower.problem:
            self.link.report(StoreUnavailable(self.follower.problem))
        self._write_status()

    def _write_status(self) -> None:
        link = self.link
        state, colour = link.state.value, "$text-warning"
        if link.state is LinkState.CONNECTED:
            if not self.follower.started:
                state, colour = "connected", "$text-success"
            elif self.follower.listening:
                state, colour = "connected, live", "$text-success"
            else:
                state, colour = "connected, polling", "$text-warning"
        elif link.state in (LinkState.UNREACHABLE, LinkState.LOST):
            colour = "$text-error"
        shorter = ["embedded PostgreSQL 18", "embedded PG 18"] if self._embedded else []
        self.query_one(StatusBar).say([self._where, *shorter], state, colour)

    @property
    def _where(self) -> str:
        if not self._embedded:
            return self._label
        known = "embedded PostgreSQL 18"
        return self._label if known in self._label else f"{self._label} · {known}"

    # -- screens ------------------------------------------------------------------------------------------------

    async def action_screen(self, screen_id: str) -> None:
        """Go to a screen."""
        trails = self.query(f"#{_TRAIL}")
        self._wanted = screen_id
        self.query_one(StatusBar).mark(screen_id)
        await self._show_wanted()
        await trails.remove()

    @on(ScreenTab.Clicked)
    async def _tab_clicked(self, message: ScreenTab.Clicked) -> None:
        await self.action_screen(message.screen_id)

    async def _show_wanted(self) -> None:
        """Show the screen that is wanted, or the notice while there is nothing to show on it."""
        switcher = self.query_one(ContentSwitcher)
        if self.link.store is None:
            if switcher.current != "notice":
                switcher.current = "notice"
            self.query_one(Notice).focus()
            return
        wanted = self._wanted
        if switcher.current == wanted:
            return
        if not switcher.query(f"#{wanted}"):
            await switcher.mount(self._make(wanted))
        switcher.current = wanted
        pane = switcher.query_one(f"#{wanted}", Pane)
        pane.entered()
        target = pane.last_focused
        if target is None or not target.is_attached:
            target = pane.query_one(pane.FIRST_FOCUS)
        target.focus()

    @on(Pane.TrailWanted)
    async def _open_trail(self, message: Pane.TrailWanted) -> None:
        """Show the trail of an event over the screen one is on; `_close_trail` comes back to it."""
        from esx.tui.screens.trail import TrailPane

        await self._close_trail()
        await self.query_one(ContentSwitcher).mount(TrailPane(self.link, message.global_seq, id=_TRAIL))
        self._under_trail, self._wanted = self._wanted, _TRAIL
        await self._show_wanted()

    async def _close_trail(self) -> None:
        switcher = self.query_one(ContentSwitcher)
        if self._wanted == _TRAIL:
            self._wanted = self._under_trail
            await self._show_wanted()
        await switcher.query(f"#{_TRAIL}").remove()

    async def go_back(self) -> None:
        """Leave the trail for the screen one came from."""
        await self._close_trail()

    async def go_to_event(self, stream_id: str, stream_seq: int) -> None:
        """Show an event in its stream, on the screen Streams."""
        await self.action_screen("streams-screen")
        panes = self.query(StreamsPane)
        if panes:
            panes.first().go_to(stream_id, stream_seq)

    def _make(self, screen_id: str) -> Pane:
        # Screens that are not looked at need not be imported.
        if screen_id == "feed-screen":
            from esx.tui.screens.feed import FeedPane

            return FeedPane(self.link, self.follower, id=screen_id)
        if screen_id == "load-screen":
            from esx.tui.screens.load import LoadPane

            return LoadPane(self.link, self._run_load, database=self._where, id=screen_id)
        if screen_id == "health-screen":
            from esx.tui.screens.health import HealthPane

            return HealthPane(self.link, self.follower, id=screen_id)
        return StreamsPane(self.link, self.follower, id=screen_id)

    # -- keys -----------------------------------------------------------------------------------------------

    def action_retry(self) -> None:
        """Try to reach the database now."""
        self.link.retry()

    def action_help(self) -> None:
        """Show the keys that work here."""
        self.push_screen(Help.of(self.screen))

    def action_help_quit(self) -> None:
        """Leave on ctrl+c as on q, as psql's neighbours do."""
        self.exit()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Offer every action that has a key here, and Textual's own commands."""
        seen = set()
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.system or not binding.description or not active.enabled or binding.action in seen:
                continue
            seen.add(binding.action)
            title = binding.tooltip or binding.description
            run = partial(self.run_action, binding.action, active.node)
            yield SystemCommand(title, f"key {self.get_key_display(binding)}", run)
        for command in super().get_system_commands(screen):
            if command.title not in ("Quit", "Keys"):
                yield command

    # -- trouble ------------------------------------------------------------------------------------------------

    @on(Worker.StateChanged)
    def _worker_changed(self, message: Worker.StateChanged) -> None:
        """Say so when work in the background fails in a way nobody foresaw, and go on."""
        error = message.worker.error
        if message.state is WorkerState.ERROR and error is not None:
            text = visible(f"{type(error).__name__}: {error}", limit=300)
            self.notify(text, title="something went wrong", severity="error", timeout=15, markup=False)
