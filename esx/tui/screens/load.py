"""Screen Load: run the load test against this database and watch it."""

from __future__ import annotations

import contextlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, VerticalScroll
from textual.content import Content
from textual.validation import Integer, Number
from textual.widgets import Button, Input, Label, Sparkline, Static

from esx.load.model import LoadOptions, LoadProgress, LoadSummary
from esx.store.errors import EsxError
from esx.text import visible
from esx.tui.cells import MUTED
from esx.tui.screens.pane import Pane
from esx.tui.work import start

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable
    from typing import TypeAlias

    from textual.app import ComposeResult
    from textual.validation import Validator

    from esx.tui.link import Link

    # What it returns may have `stop`, which makes it end early but with its summary, and `aclose`.
    RunLoad: TypeAlias = Callable[[str | None, LoadOptions], AsyncIterable[LoadProgress | LoadSummary]]

_LINES = 500
_FIELDS: list[tuple[str, str, str, Callable[[], Validator]]] = [
    ("users", "users", "10", lambda: Integer(minimum=1, maximum=10_000)),
    ("duration", "seconds", "30", lambda: Number(minimum=1, maximum=86_400)),
    ("streams", "streams", "100", lambda: Integer(minimum=1, maximum=10_000_000)),
    ("hot-streams", "hot streams", "0", lambda: Integer(minimum=0, maximum=10_000_000)),
    ("hot-share", "hot share 0-1", "0", lambda: Number(minimum=0, maximum=1)),
]


class LoadPane(Pane):
    """A form, two buttons, and what the test says of itself, second by second."""

    FIRST_FOCUS = "#load-start"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s,ctrl+s", "start", "Start", tooltip="Start the load test"),
        Binding("escape", "leave_field", "Leave the field", show=False),
        Binding("x,ctrl+x", "stop", "Stop", tooltip="Stop the load test"),
    ]
    DEFAULT_CSS = """
    LoadPane {
        layout: vertical;
        #load-form { height: auto; layout: horizontal; padding: 0 1; }
        .field { width: 1fr; height: 3; border: none; padding: 0 1 0 0; }
        .field Label { color: $text-muted; }
        .field Input { height: 1; border: none; padding: 0 1; background: $boost; }
        .field Input:focus { background: $primary 25%; }
        .field Input.-invalid { background: $error 30%; }
        #load-buttons { height: 1; padding: 0 1; }
        #load-buttons Button { margin-right: 2; min-width: 11; }
        #load-warning { width: 1fr; color: $text-warning; }
        #load-charts { height: 5; layout: horizontal; margin-top: 1; }
        .chart {
            width: 1fr; height: 5; padding: 0 1;
            border: round $foreground 25%; border-title-color: $text-muted; border-subtitle-color: $text-muted;
            background: $surface;
        }
        .chart Sparkline { height: 3; }
        #load-conflicts .sparkline--max-color { color: $error; }
        #load-conflicts .sparkline--min-color { color: $error 40%; }
        #load-out {
            height: 1fr; padding: 0 1;
            border: round $foreground 25%; border-title-color: $text-muted; background: $surface;
        }
    }
    """

    def __init__(self, link: Link, run_load: RunLoad | None, *, database: str, id: str) -> None:
        super().__init__(link, id=id)
        self._run_load = run_load
        self._database = database
        self.running = False
        self.summary: LoadSummary | None = None
        self._test: AsyncIterable[LoadProgress | LoadSummary] | None = None
        self._stopping = False
        self._goodput: deque[float] = deque(maxlen=300)
        self._conflicts: deque[float] = deque(maxlen=300)
        self._lines: deque[Content] = deque(maxlen=_LINES)

    def compose(self) -> ComposeResult:
        """Lay out the form above the charts above the lines."""
        with Container(id="load-form"):
            for name, label, value, validator in _FIELDS:
                with Container(classes="field"):
                    yield Label(label)
                    yield Input(value, id=f"load-{name}", validators=[validator()], compact=True)
        with Horizontal(id="load-buttons"):
            yield Button("Start", id="load-start", variant="success", compact=True)
            yield Button("Stop", id="load-stop", variant="error", compact=True, disabled=True)
            yield Static(id="load-warning")
        with Container(id="load-charts"):
            with Container(classes="chart", id="load-goodput-box") as box:
                box.border_title = "goodput, appends/s"
                yield Sparkline([], id="load-goodput")
            with Container(classes="chart", id="load-conflicts-box") as box:
                box.border_title = "conflicts, % of attempts"
                yield Sparkline([], id="load-conflicts")
        with VerticalScroll(id="load-out") as out:
            out.border_title = "output"
            yield Static("s starts. Tab goes through the fields, esc comes back.", id="load-lines")

    def check_action(self, action: str, _parameters: tuple[object, ...]) -> bool | None:
        """Offer Start or Stop, whichever can be done."""
        if action == "start":
            return not self.running and self._run_load is not None
        return self.running if action == "stop" else True

    def on_mount(self) -> None:
        """Say which database it would write to."""
        self.query_one("#load-warning", Static).update(
            Content.assemble("writes events to ", visible(self._database, limit=200))
        )
        if self._run_load is None:
            self.query_one("#load-start", Button).disabled = True
            self._say(Content("The load test is not available here."))

    def options(self) -> LoadOptions | None:
        """Return what the form asks for, or None after saying which field is wrong."""
        values: dict[str, float] = {}
        for name, label, _, _ in _FIELDS:
            line = self.query_one(f"#load-{name}", Input)
            checked = line.validate(line.value)
            if checked is not None and not checked.is_valid:
                why = "; ".join(checked.failure_descriptions)
                self.notify(f"{label}: {why}", severity="error", markup=False)
                line.focus()
                return None
            values[name] = float(line.value)
        return LoadOptions(
            users=int(values["users"]),
            duration=values["duration"],
            streams=int(values["streams"]),
            hot_streams=int(values["hot-streams"]),
            hot_share=values["hot-share"],
        )

    # -- running ------------------------------------------------------------------------------------------------

    @on(Button.Pressed, "#load-start")
    def action_start(self) -> None:
        """Start the test that the form describes."""
        if self.running or self._run_load is None:
            return
        options = self.options()
        if options is None:
            return
        self.summary = None
        self._goodput.clear()
        self._conflicts.clear()
        self._lines.clear()
        self._draw()
        self._say(Content.styled("starting …", MUTED))
        self._set_running(True)
        start(self, partial(self._run, self._run_load, options), "load")

    @on(Button.Pressed, "#load-stop")
    def action_stop(self) -> None:
        """Stop the test that runs: at first so that it still tells its summary, the second time at once."""
        if not self.running:
            return
        stop = getattr(self._test, "stop", None)
        if stop is None or self._stopping:
            self.workers.cancel_group(self, "load")
            return
        self._stopping = True
        self._say(Content.styled("stopping …", MUTED))
        stop()

    def action_leave_field(self) -> None:
        """Go from a field back to the buttons, where the keys of the screens work."""
        self.query_one("#load-stop" if self.running else "#load-start", Button).focus()

    async def _run(self, run_load: RunLoad, options: LoadOptions) -> None:
        self._stopping = False
        try:
            self._test = run_load(self.link.dsn, options)
            async for line in self._test:
                if isinstance(line, LoadSummary):
                    self._finish(line)
                else:
                    self._progress(line)
        except EsxError as error:
            self._say(Content.styled(visible(str(error), limit=1000), "$text-error"))
        finally:
            close = getattr(self._test, "aclose", None)
            if close is not None:
                with contextlib.suppress(EsxError):
                    await close()
            if self.is_attached:
                if self.summary is None:
                    self._say(Content.styled("ended without a summary", "$text-warning"))
                self._set_running(False)

    def _progress(self, line: LoadProgress) -> None:
        self._goodput.append(line.goodput)
        self._conflicts.append(line.conflict_rate * 100)
        self._draw()
        text = (
            f"{line.elapsed:6.0f} s  {line.users:>4} users  {line.goodput:>8,.0f}/s  "
            f"{line.conflict_rate:>6.1%} conflicts  p50 {line.p50_ms:>6.1f}  p95 {line.p95_ms:>6.1f}  "
            f"p99 {line.p99_ms:>6.1f} ms"
        )
        errors = line.total.errors + line.total.unknown
        shown = Content(text)
        if errors:
            shown = Content.assemble(shown, (f"  {errors:,} errors", "$text-error"))
        if line.last_error:
            shown = Content.assemble(shown, (f"  {visible(line.last_error, limit=200)}", "$text-error"))
        self._say(shown)

    def _finish(self, line: LoadSummary) -> None:
        self.summary = line
        total = line.total
        good = line.verdict == "pass"
        verdict = "no verdict" if line.verdict is None else line.verdict
        self._say(Content(""))
        self._say(
            Content.assemble(
                (f" {visible(verdict, limit=40).upper()} ", "bold $text-success" if good else "bold $text-error"),
                f" {line.elapsed:.1f} s, {line.users} users: ",
                (f"{line.goodput:,.0f} appends/s", "bold"),
                f", {line.conflict_rate:.1%} conflicts",
            )
        )
        stored = "not known" if line.stored is None else f"{line.stored:,}"
        self._say(
            Content(
                f" {total.attempts:,} attempts = {total.successes:,} appended + {total.conflicts:,} conflicts + "
                f"{total.errors:,} errors + {total.unknown:,} unknown; {stored} stored"
            )
        )
        self._say(Content(" " + "   ".join(f"{name} {value:,.1f} ms" for name, value in line.percentiles.items())))
        for why in line.evidence:
            self._say(Content.styled(f" {visible(why, limit=500)}", MUTED))
        if line.last_error:
            self._say(Content.styled(f" {visible(line.last_error, limit=500)}", "$text-error"))

    # -- drawing --------------------------------------------------------------------------------------------

    def _set_running(self, running: bool) -> None:
        self.running = running
        self.query_one("#load-start", Button).disabled = running
        self.query_one("#load-stop", Button).disabled = not running
        self.action_leave_field()
        self.refresh_bindings()

    def _draw(self) -> None:
        for name, values, unit in (("goodput", self._goodput, "/s"), ("conflicts", self._conflicts, "%")):
            spark = self.query_one(f"#load-{name}", Sparkline)
            width = max(spark.size.width, 1)
            shown = list(values)[-width:]
            spark.data = [0.0] * (width - len(shown)) + shown
            last = f"{values[-1]:,.1f}{unit}, most {max(values):,.1f}{unit}" if values else ""
            self.query_one(f"#load-{name}-box").border_subtitle = Content(last)

    def _say(self, line: Content) -> None:
        self._lines.append(line)
        self.query_one("#load-lines", Static).update(Content("\n").join(list(self._lines)))
        self.query_one("#load-out", VerticalScroll).scroll_end(animate=False)
