"""Screen Load: set a load test up, run it against this database, watch it, and look at earlier ones."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterable, Callable
from functools import partial
from typing import ClassVar, TypeAlias

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.widgets import Button, ContentSwitcher, Static

from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.load.archive import Archive, Entry
from esx.load.errors import LoadFailed
from esx.load.model import LoadOptions, LoadProgress, LoadSummary, run_prefix
from esx.store.bulk.erase import Mark
from esx.text import counted, visible
from esx.tui.dialogs.agree import Agree
from esx.tui.panels.load_compared import LoadCompared
from esx.tui.panels.load_form import BadField, LoadForm
from esx.tui.panels.load_runs import LoadRuns
from esx.tui.panels.load_watch import LoadWatch
from esx.tui.panes import is_hidden, title_if_hidden
from esx.tui.screens.base import StorePane
from esx.tui.session.operating import writable_store
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import cancel, start
from esx.tui.widgets.frame import Frame

# The result may have `stop`, which ends it early but with its summary, and `aclose`.
RunLoad: TypeAlias = Callable[[str | None, LoadOptions], AsyncIterable[LoadProgress | LoadSummary]]

_SETUP, _WATCH, _COMPARED = "load-setup", "load-watch", "load-compared"


class LoadPane(StorePane):
    """A form above the list of earlier runs; in their place, once a test has started, its plots and figures."""

    TITLE = "Load"
    FIRST_FOCUS = "#load-start"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "start", "Start", tooltip="Start the load test that the form describes"),
        Binding("S,ctrl+x", "stop", "Stop", tooltip="Stop the load test; a second time: at once"),
        Binding("u", "edit", "Set up", tooltip="Go to the form, or back to the plots of the run shown last"),
        Binding("R", "runs", "Runs", tooltip="Go to the list of earlier runs"),
        Binding("D", "clean", "Clean up", tooltip="Delete the events of the run that is shown, after asking"),
        Binding("down", "form", "To the form", show=False),
        Binding("escape", "leave_field", "Leave the field", show=False),
    ]
    DEFAULT_CSS = """
    LoadPane {
        layout: vertical;
        #load-buttons { height: 1; padding: 0 1; }
        #load-buttons Button { margin-right: 2; min-width: 11; }
        #load-note { width: 1fr; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
        ContentSwitcher { height: 1fr; }
        #load-setup { height: 1fr; layout: vertical; }
        #load-runs { height: 1fr; }
    }
    """

    def __init__(
        self,
        session: ExplorerSession,
        run_load: RunLoad | None,
        *,
        database: str,
        why_not: str,
        id: str,
    ) -> None:
        super().__init__(session, id=id)
        self._run_load = run_load
        self._why_not = why_not
        if run_load is None:
            self.FIRST_FOCUS = "#load-runs"  # type: ignore[misc]
        self._database = database
        self._archive = Archive.of(os.environ)
        self.running = False
        self.summary: LoadSummary | None = None
        """The summary of the last test, None before the first and while one runs."""
        self._test: AsyncIterable[LoadProgress | LoadSummary] | None = None
        self._stopping = False
        self._then: Callable[[], object] | None = None
        self._shown = False
        """Whether the plots show a run."""
        self._run_shown: str | None = None
        """The id of the run that the plots show, once it has ended."""
        self._cleaning = False

    def compose(self) -> ComposeResult:
        """Lay out the buttons, the form with the list, and the plots."""
        with Horizontal(id="load-buttons"):
            yield Button("Start", id="load-start", variant="success", compact=True)
            yield Button("Stop", id="load-stop", variant="error", compact=True, disabled=True)
            yield Static(id="load-note")
        with ContentSwitcher(initial=_SETUP):
            with Container(id=_SETUP):
                yield LoadForm(id="load-form")
                with Frame("earlier runs", id="load-runs-box"):
                    yield LoadRuns(id="load-runs")
            yield LoadWatch(id=_WATCH)
            yield LoadCompared(id=_COMPARED)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done."""
        if action == "start":
            return not self.running and self._run_load is not None and super().check_action(action, parameters)
        if action == "stop":
            return self.running
        if action == "clean":
            able = self._run_load is not None and not self.running and self._run_shown is not None
            return able and self._current == _WATCH and super().check_action(action, parameters)
        if action in ("edit", "runs"):
            return not self.running and (action == "runs" or self._shown)
        if action == "form":
            return self._current == _SETUP
        return super().check_action(action, parameters)

    @property
    def _current(self) -> str:
        found = self.query(ContentSwitcher)
        return (found.first().current or _SETUP) if found else _SETUP

    def on_mount(self) -> None:
        """Say which database it would write to."""
        self.query_one("#load-start", Button).disabled = self._run_load is None
        self._note(self._why_not or f"writes events to {visible(self._database, limit=200)}")
        self.watch(self.app, "theme", lambda: self.query_one(LoadWatch).seen(), init=False)

    def entered(self) -> None:
        """Draw the progress since then, and list the runs: other sessions may have made some."""
        self.query_one(LoadWatch).seen()
        start(self, self._list, "runs")

    async def _list(self) -> None:
        entries = await asyncio.to_thread(self._archive.entries)
        if self.is_attached:
            self.query_one(LoadRuns).put(entries)

    @on(LoadRuns.Chosen, "#load-runs")
    def _chosen(self, message: LoadRuns.Chosen) -> None:
        if not self.running:
            start(self, partial(self._open, message.row), "open")

    @on(LoadRuns.Compare)
    def _compare(self, message: LoadRuns.Compare) -> None:
        if not self.running:
            start(self, partial(self._put_side_by_side, message.runs), "open")

    async def _put_side_by_side(self, names: list[str]) -> None:
        try:
            runs = await asyncio.to_thread(lambda: [self._archive.load(name) for name in names])
            if self.running or not self.is_attached:
                return
            self.query_one(LoadCompared).show(runs)
        except EsxError as error:
            self.notify(visible(str(error), limit=500), title=title_if_hidden(self), severity="error")
            return
        self._note(f"esx load compare {' '.join(names)}")
        self._go(_COMPARED)

    async def _open(self, entry: Entry) -> None:
        try:
            run = await asyncio.to_thread(self._archive.load, entry.id)
        except LoadFailed as error:
            self.notify(visible(str(error), limit=500), title=title_if_hidden(self), severity="error")
            return
        if self.running or not self.is_attached:
            return
        self.query_one(LoadForm).fill(run.header.options)
        self.query_one(LoadWatch).show(run.header.options, run.series, run.summary)
        self._shown, self._run_shown = True, run.id
        started = f"{run.header.started_at:%Y-%m-%d %H:%M} UTC"
        self._note(f"{self.TITLE} › run {run.id} of {started}, {visible(run.header.database, limit=60)}")
        self._go(_WATCH)

    def action_edit(self) -> None:
        """Go to the form, or back to the plots of the run shown last."""
        self._go(_WATCH if self._current == _SETUP else _SETUP)

    def action_form(self) -> None:
        """Go from the buttons to the first field."""
        self._focus("#load-preset")

    def action_runs(self) -> None:
        """Go to the list of earlier runs."""
        self._go(_SETUP)
        self._focus("#load-runs")

    def _go(self, part: str) -> None:
        self.query_one(ContentSwitcher).current = part
        self.action_leave_field()
        self.refresh_bindings()

    def _note(self, text: str) -> None:
        self.query_one("#load-note", Static).update(Content(text))

    @on(Button.Pressed, "#load-start")
    def action_start(self) -> None:
        """Start the test that the form describes."""
        # The message of a pressed button may come when another screen is shown already.
        if self.running or self._run_load is None or is_hidden(self):
            return
        database = self.session.database
        if database is not None and database.store is not None:
            to = visible(database.store, limit=200)
            self.notify(f"a load test goes to the table events, not to {to}", severity="error")
            return
        form = self.query_one(LoadForm)
        try:
            options = form.options()
        except BadField as error:
            self._go(_SETUP)
            form.mark(error.field, str(error))
            return
        self.summary = None
        self._test = None
        self._stopping = False
        self._shown, self._run_shown = True, None
        self._set_running(True)
        self.query_one(LoadWatch).begin(options)
        self._note(f"writes events to {visible(self._database, limit=200)}")
        self._go(_WATCH)
        start(self, partial(self._run, self._run_load, options), "load")

    @on(Button.Pressed, "#load-stop")
    def action_stop(self) -> None:
        """Stop the running test: the first time so that it still gives its summary, the second time at once."""
        if not self.running:
            return
        if self._stopping:
            cancel(self, "load")
            return
        self._stopping = True
        self._note("stopping …")
        if self._test is not None:
            self._stop(self._test)

    def _stop(self, test: AsyncIterable[LoadProgress | LoadSummary]) -> None:
        stop = getattr(test, "stop", None)
        if stop is None:
            cancel(self, "load")
        else:
            stop()

    def stop(self, then: Callable[[], object]) -> str:
        """Stop the running test so that it still gives its summary."""
        if not self.running:
            return ""
        self._then = then
        if not self._stopping:
            self.action_stop()
        return "stopping the load test, which then tells its summary"

    def action_leave_field(self) -> None:
        """Go from a field back to the buttons, where the keys of the screens work."""
        if self._current == _COMPARED:
            self._focus("#load-compared")
        elif self._run_load is not None:
            self._focus("#load-stop" if self.running else "#load-start")
        else:
            self._focus("#load-runs" if self._current == _SETUP else "#load-said")

    def _focus(self, selector: str) -> None:
        # Not `focus`, which takes effect later: keys that were typed ahead must not go to the old widget.
        self.screen.set_focus(self.query_one(selector))

    async def _run(self, run_load: RunLoad, options: LoadOptions) -> None:
        watch = self.query_one(LoadWatch)
        problem = ""
        try:
            self._test = run_load(self.session.dsn, options)
            if self._stopping:
                self._stop(self._test)
            async for line in self._test:
                if isinstance(line, LoadSummary):
                    self.summary, self._run_shown = line, line.run
                    watch.finish(line)
                else:
                    watch.add(line)
        except EsxError as error:
            problem = visible(str(error), limit=1000)
        finally:
            close = getattr(self._test, "aclose", None)
            if close is not None:
                with contextlib.suppress(EsxError):
                    await close()
            if self.is_attached:
                self._ended(problem)

    def _ended(self, problem: str) -> None:
        if self.summary is None:
            self.query_one(LoadWatch).say(problem or "ended without a summary")
        not_saved = getattr(self._test, "problem", None)
        if "--yes-write-to" in problem:
            note = "u goes to the form; yes, write to  is the last field below  where"
        else:
            note = "ctrl+s runs it again, u goes to the form, D cleans up"
        self._note(visible(not_saved, limit=300) if not_saved else note)
        self._set_running(False)
        if self._then is not None:
            self._then()
            return
        start(self, self._list, "runs")

    # -- cleaning up -----------------------------------------------------------------------------------------------

    def action_clean(self) -> None:
        """Delete the events of the run that is shown, after asking."""
        store, run = self.session.store, self._run_shown
        if self._cleaning:
            self.notify("the events of a run are being deleted", severity="warning")
        elif store is not None and run is not None:
            start(self, partial(self._ask_to_clean, store, run), "clean")

    async def _ask_to_clean(self, store: EventStore, run: str) -> None:
        shown = visible(run, limit=40)
        self._note(f"looking for the events of run {shown} …")
        try:
            found = await store.marked(run_prefix(run), Mark("run_id", run))
        except EsxError as error:
            self._note("")
            self.notify(visible(str(error), limit=500), title=title_if_hidden(self), severity="error")
            return
        if not found.events:
            self._note(f"run {shown} has no events in this database")
            return
        what = f"{counted(found.events, 'event')} in {counted(found.streams, 'stream')} of run {shown}"
        self._note(what)

        def agreed(yes: bool | None) -> None:
            if yes:
                start(self, partial(self._clean, run, found.events), "clean")

        effects = [
            f"deletes {what} from {self._database}",
            "nothing else: only events that carry the run's id in their metadata",
            "their numbers stay as gaps, which readers pass; what a projection made of them stays too",
            "the saved run stays, and can be opened again",
        ]
        self.app.push_screen(Agree(f"run {shown}: what will happen", effects), agreed)

    async def _clean(self, run: str, events: int) -> None:
        database = self.session.database
        if database is None:
            return
        self._cleaning = True
        try:
            async with writable_store(database) as store:
                done = await store.delete_marked(
                    run_prefix(run), Mark("run_id", run), lambda so_far: self._note(f"deleted {so_far:,} of {events:,}")
                )
        except EsxError as error:
            self.notify(visible(str(error), limit=500), title=title_if_hidden(self), severity="error")
        else:
            self._note(f"deleted {counted(done, 'event')} of run {visible(run, limit=40)}")
        finally:
            self._cleaning = False

    def _set_running(self, running: bool) -> None:
        self.running = running
        self.query_one("#load-start", Button).disabled = running
        self.query_one("#load-stop", Button).disabled = not running
        self.action_leave_field()
        self.refresh_bindings()
