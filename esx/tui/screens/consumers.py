"""Screen Consumers: projections and relays, what each does, and what can be done to them."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content

from esx.errors import EsxError, OtherToolsConsumer, StoreUnavailable
from esx.eventstore import EventStore
from esx.store.consume.others import ConsumerStatus
from esx.store.consume.report import ConsumerReport
from esx.store.operate.effects import (
    delete_effects,
    named,
    pause_effects,
    reset_effects,
    resume_effects,
    retry_effects,
    skip_effects,
)
from esx.store.views import ConsumersView
from esx.text import visible
from esx.tui.dialogs.agree import Agree
from esx.tui.dialogs.consumer_actions import ConsumerActions
from esx.tui.dialogs.fields import Field, Fields
from esx.tui.panels.consumers import Consumer, ConsumerList, called, figures_of
from esx.tui.panes import title_if_hidden
from esx.tui.screens.base import StorePane
from esx.tui.session.operating import writable_store
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import start
from esx.tui.widgets.figures import Figures

Deed = Callable[[EventStore], Awaitable[str]]
"""Does what was agreed to, and says what was done."""


class ConsumersPane(StorePane):
    """Reads the consumers every two seconds while it is shown.

    The explorer's own sessions only read: what changes something is done in a new one, after the user has agreed.
    """

    TITLE = "Consumers"
    KEYMAP_PREFIX = "consumers"
    FIRST_FOCUS = "#consumer-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "refresh", "Refresh", tooltip="Read the consumers now"),
    ]
    DEFAULT_CSS = """
    ConsumersPane {
        layout: vertical;
        #consumer-list {
            height: 1fr; border: round $foreground 25%; border-title-color: $text-primary; border-title-style: bold;
            background: $surface; padding: 0 1;
            &:focus { border: round $primary; }
        }
        #consumer-about { height: auto; max-height: 50%; }
    }
    """

    def __init__(self, session: ExplorerSession, *, why_not: str = "", id: str) -> None:
        """Make the screen; `why_not` says why nothing can be changed from here."""
        super().__init__(session, id=id)
        self._why_not = why_not
        self.reports: list[Consumer] | None = None
        self._left_out: Sequence[str] = ()
        """Why some consumers of another tool cannot be shown, in a line each."""
        self._handlers: dict[str, dict[str, str]] = {}
        """What was typed to step through a projection, by its name."""

    def compose(self) -> ComposeResult:
        """Lay out the list, and what is known of the chosen one below."""
        consumers = ConsumerList(id="consumer-list")
        consumers.border_title = "consumers"
        yield consumers
        yield Figures("", id="consumer-about")

    @property
    def consumers(self) -> ConsumerList:
        """The list."""
        return self.query_one(ConsumerList)

    def on_mount(self) -> None:
        """Start the clock."""
        self.every(self.session.tuning.read_health, self._read_now, group="consumers")

    def connected(self) -> None:
        """Read at once."""
        self._read_now()

    def entered(self) -> None:
        """Read at once."""
        self._read_now()

    def view(self) -> ConsumersView | None:
        """Return the consumers as they were read last."""
        reports = self.reports
        if reports is None:
            return None
        others = any(isinstance(report, ConsumerStatus) for report in reports)
        return ConsumersView(tuple(report.to_json() for report in reports), others)

    def action_refresh(self) -> None:
        """Read the consumers now."""
        self.session.retry()
        self._read_now()

    def _read_now(self) -> None:
        store = self.session.store
        if store is not None:
            start(self, partial(self._read, store), "consumers")

    async def _read(self, store: EventStore) -> None:
        try:
            if store.foreign is not None:
                self.consumers.empty = "no consumers: none of which the store's own tool keeps how far it is"
            reports: list[Consumer] = list(await store.consumers())
            others = await store.other_consumers()
        except StoreUnavailable as error:
            self.session.report(error, of=title_if_hidden(self))
            return
        except EsxError as error:
            # In place of the rows: a notice every two seconds would cover the screen.
            self.consumers.put([])
            self.consumers.problem = str(error)
            return
        reports += others.consumers
        self.reports, self._left_out = reports, others.notes
        self.consumers.problem = ""
        self.consumers.put(reports)
        self.consumers.border_title = Content(f"consumers · {len(reports)}")
        self._write_about()

    @on(ConsumerList.Highlighted)
    def _write_about(self) -> None:
        box, report = self.query_one("#consumer-about", Figures), self.consumers.row
        box.display = report is not None or bool(self._left_out)
        lines = [] if report is None else figures_of(report)
        lines += [("left out", note, "$text-warning") for note in self._left_out]
        box.border_title = Content(self.TITLE if report is None else f"{self.TITLE} › {called(report)}")
        if lines:
            box.say(lines)

    # -- what can be done ----------------------------------------------------------------------------------------

    @on(ConsumerList.Chosen)
    def _operate(self) -> None:
        """Choose what to do to the consumer under the cursor."""
        report = self.consumers.row
        if report is None:
            self.notify("there is no consumer", severity="warning")
            return
        if isinstance(report, ConsumerStatus):
            store = self.session.store
            tool = "another tool" if store is None or store.foreign is None else store.foreign
            self.notify(str(OtherToolsConsumer(report.name, tool)), severity="warning", timeout=8)
            return
        if self._why_not:
            self.notify(self._why_not, severity="warning")
            return
        actions = [
            ("resume", "resume: let it go on") if report.paused else ("pause", "pause: let it stop after this batch"),
            *([("skip", "skip the event that stopped it")] if report.error_seq is not None else []),
            *([("retry", "try its parked events again")] if report.parked else []),
            ("reset", "reset to the start: let it handle all events again"),
            ("end", "reset to the end: let it skip all events that are there now"),
            ("delete", "delete: forget its position"),
        ]
        # Whoever names a handler runs code of this machine, which is not for a page in a browser.
        if report.kind == "projection" and not self.app.is_web:
            actions.append(("step", "step through its events: which rows each changes"))

        def chosen(action: str | None) -> None:
            if action == "step":
                self._ask_handler(report)
            elif action is not None:
                start(self, partial(self._ask, report, action), "ask")

        self.app.push_screen(ConsumerActions(named(report), actions), chosen)

    def _ask_handler(self, report: ConsumerReport) -> None:
        """Ask for the handler and the tables, and step through the projection's events."""
        known = self._handlers.get(report.name, {})
        fields = [
            Field("handler", "its handler", "billing.balances:handle", known.get("handler", ""), needed=True),
            Field(
                "tables", "the tables that it writes to", "balances, movements", known.get("tables", ""), needed=True
            ),
            Field("batch", "does it take batches of events?", "y, or nothing", known.get("batch", "")),
        ]
        note = (
            "The handler runs, in scratch tables, in a transaction that is rolled back. What it does elsewhere stays."
        )

        def chosen(found: dict[str, str] | None) -> None:
            if found is not None:
                self._handlers[report.name] = found
                self._step(report, found)

        self.app.push_screen(Fields(f"step through {named(report)}", fields, note), chosen)

    def _step(self, report: ConsumerReport, given: dict[str, str]) -> None:
        from esx.fold.named import load_handler
        from esx.tui.screens.step import StepScreen, StepSettings

        database, batches = self.session.database, given["batch"].lower().startswith("y")
        if database is None:
            return
        try:
            handler = load_handler(given["handler"], batch=batches)
        except EsxError as error:
            self.notify(visible(str(error), limit=300), severity="error", timeout=8)
            return
        tables = [part.strip() for part in given["tables"].split(",") if part.strip()]
        self.app.push_screen(StepScreen(database, StepSettings(report.name, handler, tables, batches)))

    async def _ask(self, report: ConsumerReport, action: str) -> None:
        """Say what will happen, and do it if the user agrees."""
        store = self.session.store
        if store is None:
            return
        try:
            effects, deed = await self._plan(store, report, action)
        except EsxError as error:
            self.notify(visible(str(error), limit=300), severity="error", timeout=8)
            return

        def agreed(yes: bool | None) -> None:
            if yes:
                start(self, partial(self._do, deed), "operate")

        self.app.push_screen(Agree(f"{named(report)}: what will happen", effects), agreed)

    async def _plan(self, store: EventStore, report: ConsumerReport, action: str) -> tuple[Sequence[str], Deed]:
        """Return what will happen, by the newest state, and what does it. Raises EsxError."""
        name = report.name
        report = await store.consumer(name)
        if action == "pause":
            return pause_effects(report), lambda writing: _said(writing.pause_consumer(name), "paused")
        if action == "resume":
            return resume_effects(report), lambda writing: _said(writing.resume_consumer(name), "resumed")
        if action == "delete":
            return delete_effects(report), lambda writing: _said(writing.delete_consumer(name), "deleted")
        if action == "skip":
            found = await store.skippable(name, report.error_seq)
            effects = skip_effects(report, found.global_seq, found.about, found.waiting)
            skipped = f"event {found.global_seq:,} skipped"
            return effects, lambda writing: _said(writing.skip_event(name, found.global_seq), skipped)
        if action == "retry":
            events = sum((await store.parked_streams(name)).values())
            return retry_effects(report, events), lambda writing: _said(writing.retry_events(name), "tries them again")
        to = 0 if action == "reset" else max((await store.feed_from_end()).position, 0)
        return reset_effects(report, to), lambda writing: _said(
            writing.reset_consumer(name, to=to), f"goes on after {to:,}"
        )

    async def _do(self, deed: Deed) -> None:
        database = self.session.database
        if database is None:
            return
        try:
            async with writable_store(database) as writing:
                done = await deed(writing)
        except EsxError as error:
            self.notify(visible(str(error), limit=300), severity="error", timeout=8)
        else:
            self.notify(done)
        self._read_now()


async def _said(doing: Awaitable[object], done: str) -> str:
    await doing
    return done
