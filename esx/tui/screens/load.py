"""Screen Load: set a load test up, run it against this database, watch it, and look at earlier ones."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Protocol

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.widgets import Button, ContentSwitcher, Static

from esx.errors import EsxError
from esx.load.archive import Archive, Entry, Test
from esx.load.errors import LoadFailed
from esx.load.model import LoadOptions, LoadSummary
from esx.load.sweep.sweep import Plan, Sweep, SweepRun, Sweeps
from esx.load.sweep.text import plan_words
from esx.text import visible
from esx.tui.dialogs.clean_runs import CleanRuns
from esx.tui.panels.load_compared import LoadCompared
from esx.tui.panels.load_form import BadField, LoadForm
from esx.tui.panels.load_runs import LoadRuns
from esx.tui.panels.load_sweep import LoadSweep
from esx.tui.panels.load_watch import LoadWatch
from esx.tui.panes import is_hidden, title_if_hidden
from esx.tui.screens.base import StorePane
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import cancel, start
from esx.tui.widgets.frame import Frame

_SETUP, _WATCH, _SWEEP, _COMPARED = "load-setup", "load-watch", "load-sweep", "load-compared"


class RunLoad(Protocol):
    """Makes a load test of a database; `sweep` is the id of the sweep that it is part of."""

    def __call__(self, dsn: str | None, options: LoadOptions, *, sweep: str | None = None) -> Test:
        """Return it; it has not begun."""
        ...


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
        files: bool,
        id: str,
    ) -> None:
        super().__init__(session, id=id)
        self._files = files
        self._run_load = run_load
        self._why_not = why_not
        if run_load is None:
            self.FIRST_FOCUS = "#load-runs"  # type: ignore[misc]
        self._database = database
        self._archive = Archive.of(os.environ)
        self.running = False
        self.summary: LoadSummary | None = None
        """The summary of the last test, None before the first and while one runs."""
        self._test: Test | SweepRun | None = None
        self._stopping = False
        self._then: Callable[[], object] | None = None
        self._last: str | None = None
        """The part that shows the last run or sweep, None before the first."""
        self._shown_name = ""
        """What that is, once it has ended: ``run ID`` or ``sweep ID``."""
        self._words: list[str] = []
        """The command that runs it again."""
        self._compared: list[str] = []
        self._cleaner = CleanRuns(self, session, database, self._note)

    def compose(self) -> ComposeResult:
        """Lay out the buttons, the form with the list, and the plots."""
        with Horizontal(id="load-buttons"):
            yield Button("Start", id="load-start", variant="success", compact=True)
            yield Button("Stop", id="load-stop", variant="error", compact=True, disabled=True)
            yield Static(id="load-note")
        with ContentSwitcher(initial=_SETUP):
            with Container(id=_SETUP):
                yield LoadForm(files=self._files, id="load-form")
                with Frame("earlier runs", id="load-runs-box"):
                    yield LoadRuns(id="load-runs")
            yield LoadWatch(self.session.typed, id=_WATCH)
            yield LoadSweep(id=_SWEEP)
            yield LoadCompared(id=_COMPARED)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done."""
        if action == "start":
            return not self.running and self._run_load is not None and super().check_action(action, parameters)
        if action == "stop":
            return self.running
        if action == "clean":
            able = self._run_load is not None and not self.running and bool(self._shown_name)
            return able and self._current == self._last and super().check_action(action, parameters)
        if action in ("edit", "runs"):
            return not self.running and (action == "runs" or self._last is not None)
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
        self.watch(self.app, "theme", self._draw, init=False)

    def entered(self) -> None:
        """Draw the progress since then, and list the runs: other sessions may have made some."""
        self._draw()
        start(self, self._list, "runs")

    def _draw(self) -> None:
        self.query_one(LoadWatch).seen()
        self.query_one(LoadSweep).seen()

    def command(self) -> list[str] | None:
        """Return the words of the command that does what is shown: the form, a run, a sweep or a comparison."""
        if self._current == _COMPARED:
            return ["load", "compare", *self._compared]
        words = self._words
        if self._current == _SETUP:
            try:
                words = plan_words(self.query_one(LoadForm).plan())
            except BadField as error:
                self.query_one(LoadForm).mark(error.field, str(error))
                return None
        database = self.session.database
        return [*words, *(database.options if database is not None else [])]

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
        self._compared = names
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
        self._last, self._shown_name, self._words = _WATCH, f"run {run.id}", plan_words(Plan(run.header.options, ()))
        started = f"{run.header.started_at:%Y-%m-%d %H:%M} UTC"
        self._note(f"{self.TITLE} › run {run.id} of {started}, {visible(run.header.database, limit=60)}")
        self._go(_WATCH)

    def action_edit(self) -> None:
        """Go to the form, or back to the run or sweep shown last."""
        self._go((self._last or _SETUP) if self._current == _SETUP else _SETUP)

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
            plan = form.plan()
        except BadField as error:
            self._go(_SETUP)
            form.mark(error.field, str(error))
            return
        self.summary = None
        self._test = None
        self._stopping = False
        self._shown_name, self._words = "", plan_words(plan)
        self._set_running(True)
        self._note(f"writes events to {visible(self._database, limit=200)}")
        if plan.vary:
            self._last = _SWEEP
            sweep = Sweeps.of(os.environ).new(plan, self._database)
            self.query_one(LoadSweep).begin(sweep)
            start(self, partial(self._run_sweep, self._run_load, sweep), "load")
        else:
            self._last = _WATCH
            self.query_one(LoadWatch).begin(plan.base)
            start(self, partial(self._run, self._run_load, plan.base), "load")
        self._go(self._last)

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

    def _stop(self, test: Test | SweepRun) -> None:
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
            self._focus(
                "#load-runs" if self._current == _SETUP else f"#{_SWEEP}" if self._last == _SWEEP else "#load-said"
            )

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
                    self.summary, self._shown_name = line, f"run {line.run}"
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
                if self.summary is None:
                    watch.say(problem or "ended without a summary")
                self._ended(problem, getattr(self._test, "problem", None))

    async def _run_sweep(self, run_load: RunLoad, sweep: Sweep) -> None:
        watch, sweeps = self.query_one(LoadSweep), Sweeps.of(os.environ)
        problem, not_saved = "", ""

        def save(sweep: Sweep) -> None:
            nonlocal not_saved
            try:
                sweeps.save(sweep)
            except OSError as error:
                not_saved = f"the sweep is not saved: {error}"

        test = self._test = SweepRun(sweep, partial(run_load, self.session.dsn, sweep=sweep.id), save)
        try:
            if self._stopping:
                test.stop()
            async with contextlib.aclosing(aiter(test)) as said:
                async for each in said:
                    watch.take(each)
        except EsxError as error:
            problem = visible(str(error), limit=1000)
        finally:
            if self.is_attached:
                whole = len(sweep.results) == len(sweep.plan.runs())
                self._shown_name = f"sweep {sweep.id}"
                watch.finish("done" if whole else "ended early", problem)
                self._ended(problem, not_saved)

    def _ended(self, problem: str, not_saved: str | None) -> None:
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

    def action_clean(self) -> None:
        """Delete the events of what is shown, a run or the runs of a sweep, after asking."""
        if self._shown_name:
            self._cleaner.ask(self._shown_name, self._runs_shown)

    def _runs_shown(self) -> list[str]:
        """Return the ids of the runs that are shown. It reads files."""
        kind, _, name = self._shown_name.partition(" ")
        if kind == "run":
            return [name]
        # Also the run during which it was stopped, which is no result.
        return self._archive.runs_of(name)

    def _set_running(self, running: bool) -> None:
        self.running = running
        self.query_one("#load-start", Button).disabled = running
        self.query_one("#load-stop", Button).disabled = not running
        self.action_leave_field()
        self.refresh_bindings()
