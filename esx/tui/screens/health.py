"""Screen Health: the state of the store in figures."""

from collections import deque
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.widgets import Static

from esx.doctor import Finding
from esx.doctor.finding import Severity
from esx.errors import EsxError, NotAllowed, SchemaMissing, StoreUnavailable
from esx.eventstore import EventStore
from esx.store.consume.others import OtherConsumers
from esx.store.consume.report import ProjectionStatus
from esx.store.health import Health
from esx.text import size_of, visible
from esx.times import clock
from esx.tui.cells import MUTED
from esx.tui.panels.condition import BAD, GOOD, WARNING, Condition, condition
from esx.tui.panels.feed_figures import writer_text
from esx.tui.panels.health_lines import (
    consumer_line,
    grade,
    order_lines,
    projection_line,
    state_style,
    what_is_judged,
)
from esx.tui.panes import title_if_hidden
from esx.tui.screens.base import StorePane
from esx.tui.session.follower import Follower
from esx.tui.session.session import ExplorerSession, SessionState
from esx.tui.tasks import start
from esx.tui.widgets.figures import Figures, Line

_OFTEN_EMPTY = ("doctor", "writers", "projections")
_STEP = 5
"""Seconds by which it is told when the doctor looked."""
_MOST_PROJECTIONS = 50


class HealthPane(StorePane):
    """Reads the figures every two seconds while it is shown.

    The doctor looks once a minute, and when a figure that it judges has changed.
    """

    TITLE = "Health"
    FIRST_FOCUS = "#health-scroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "refresh", "Refresh", tooltip="Read the figures and examine the store now"),
        Binding(
            "enter", "remedy", "What to do", key_display="enter", tooltip="What to do about the state of the store"
        ),
        Binding("C", "conflicts", "Conflicts", tooltip="Which types of events collide, on which streams, when"),
    ]
    DEFAULT_CSS = """
    HealthPane {
        #health-state { height: auto; padding: 0 1; text-style: bold; }
        #health-scroll { scrollbar-size-vertical: 1; }
        #health-columns { height: auto; layout: horizontal; }
        #health-columns > Vertical { height: auto; width: 1fr; }
    }
    HealthPane.-slim #health-columns { layout: vertical; }
    """

    def __init__(
        self, session: ExplorerSession, follower: Follower, *, commuting: Sequence[tuple[str, str]] = (), id: str
    ) -> None:
        """Make the screen; `commuting` are the pairs of types that commute."""
        super().__init__(session, id=id)
        self._commuting = commuting
        self.follower = follower
        self.health: Health | None = None
        self.projections: list[ProjectionStatus] | str = "not known yet"
        """The projections, or why they cannot be shown."""
        self.others = OtherConsumers()
        self.findings: list[Finding] | None = None
        self._lags: dict[str, deque[int]] = {}
        """The lag of each projection at each reading, oldest first."""
        self._examined: float | None = None
        self._looked: float | None = None
        """When the doctor looked last, by the clock of `Tuning`."""
        self._passed = 0
        self._state: Content | None = None
        self._offers = False
        self._judged: object = None
        """The figures that the doctor judges, as they were when it looked."""

    def compose(self) -> ComposeResult:
        """Lay out the state in one line, what is to be mended, and the boxes of figures."""
        yield Static(id="health-state")
        with VerticalScroll(id="health-scroll"):
            yield Figures("doctor", id="health-doctor")
            yield Figures("writers in flight", id="health-writers")
            yield Figures("projections", id="health-projections")
            with Container(id="health-columns"):
                with Vertical():
                    yield Figures("order", id="health-order")
                    yield Figures("notification", id="health-notification")
                with Vertical():
                    yield Figures("server", id="health-server")
                    yield Figures("storage", id="health-storage")

    def on_mount(self) -> None:
        """Start the clocks."""
        self.every(self.session.tuning.read_health, self._read_now, group="health")
        self.every(1, self._write_state)
        for name in _OFTEN_EMPTY:
            self._box(name).display = False
        self._write_state()

    def on_resize(self, event: Resize) -> None:
        """Put the boxes in two columns where there is room."""
        super().on_resize(event)
        self.set_class(event.size.width < 120, "-slim")

    @property
    def condition(self) -> Condition:
        """The state of the store."""
        return condition(self.session, self.follower, self.findings)

    def _write_state(self) -> None:
        """Write the first line: the state, and when the doctor looked, whose findings may be older than the figures."""
        found = self.condition
        more = "enter shows what to do" if found.steps else ""
        if self.session.unrecorded is not None:
            looked = ""
        elif self._looked is None:
            looked = "examining …"
        else:
            seconds = self.session.tuning.clock() - self._looked
            # In steps, as each other text is drawn, which for a screen that is left open is most of its cost.
            when = "just now" if seconds < _STEP else f"{int(seconds // _STEP) * _STEP:,} s ago"
            looked = f"{self._passed} checks passed, looked {when}"
        pieces = [visible(found.about, limit=200), more, looked]
        text = Content.assemble(
            (found.line, found.style), (f"  {' · '.join(filter(None, pieces))}", "not bold $foreground")
        )
        if text != self._state:
            # A new layout costs more than drawing; only another length can make it necessary.
            self.query_one("#health-state", Static).update(text, layout=len(text) != len(self._state or ""))
            self._state = text
        if bool(found.steps) != self._offers:
            self._offers = bool(found.steps)
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what to do where there is something."""
        if action == "remedy":
            return bool(self.condition.steps)
        return super().check_action(action, parameters)

    def action_remedy(self) -> None:
        """Show what to do about the state of the store."""
        from esx.tui.dialogs.remedy import Remedy

        def done(copied: str | None) -> None:
            if copied:
                self.app.copy_to_clipboard(copied)
                self.notify(visible(f"{copied} copied", limit=300))

        found = self.condition
        self.app.push_screen(Remedy(found.line, found.steps), done)

    def action_conflicts(self) -> None:
        """Show which types of events collide."""
        from esx.tui.dialogs.conflicts import ConflictsDialog

        self.app.push_screen(ConflictsDialog(self.session, self._commuting))

    def connected(self) -> None:
        """Read at once."""
        self.entered()

    def entered(self) -> None:
        """Read at once."""
        self._examined = None
        self._read_now()

    def _box(self, name: str) -> Figures:
        return self.query_one(f"#health-{name}", Figures)

    def _read_now(self) -> None:
        store = self.session.store
        if store is None:
            return
        start(self, partial(self._read, store), "health")
        rest = self.session.tuning.examine
        if self._examined is None or (monotonic() - self._examined >= rest and not self.runs("doctor")):
            self._judged = None
            self._let_look(store)

    def _let_look(self, store: EventStore) -> None:
        self._examined = monotonic()
        start(self, partial(self._examine, store), "doctor")

    def action_refresh(self) -> None:
        """Read the figures and examine the store now, and restart a feed that has ended."""
        self.session.retry()
        if self.follower.over:
            self.follower.restart()
        self._examined = None
        self._read_now()

    async def _read(self, store: EventStore) -> None:
        try:
            self.health = await store.health()
            self.projections = await self._read_projections(store)
            self.others = await store.other_consumers()
        except (StoreUnavailable, SchemaMissing) as error:
            self.session.report(error, of=title_if_hidden(self))
            if self.health is not None:
                self._write(self.health, self.session.address)
            return
        except EsxError as error:
            # In place of the figures: a notice every two seconds would cover the screen.
            if store.unrecorded is not None:
                self._write_unrecorded()
            else:
                self._box("server").say([self._connection(), ("figures", str(error), BAD)])
            return
        self._write(self.health, store.address)
        if self.health.kind is None:
            self._write_projections(self.projections)
        else:
            self._write_others(self.others)
        self._write_state()
        judged = what_is_judged(self.health, self.projections, self.others, self.follower.counts.missed)
        if self._judged is None:
            self._judged = judged
        elif judged != self._judged and not self.runs("doctor"):
            self._judged = judged
            self._let_look(store)

    @staticmethod
    async def _read_projections(store: EventStore) -> list[ProjectionStatus] | str:
        try:
            return await store.projections()
        except SchemaMissing:  # a store that esx did not make
            return "no table projections: esx init adds it"
        except NotAllowed as error:
            return str(error)

    def _write_unrecorded(self) -> None:
        """Say in each box that nothing is known, and show none that may be empty."""
        for box in self.query(Figures):
            box.display = box.id not in {f"health-{name}" for name in _OFTEN_EMPTY}
            box.say([("", "not recorded", WARNING)])
        self.findings, self._looked, self.session.to_mend = None, None, 0
        self._write_state()

    async def _examine(self, store: EventStore) -> None:
        try:
            self.findings = await store.doctor()
        except EsxError as error:
            if store.unrecorded is None:
                self._box("doctor").say([("", str(error), BAD)])
                self._box("doctor").display = True
            return
        self._looked = self.session.tuning.clock()
        self._write_findings(self.findings)
        self._write_state()

    def _connection(self) -> Line:
        state, reason = self.session.state, self.session.reason
        text = f"{state.value}: {reason}" if reason else state.value
        return "connection", text, GOOD if state is SessionState.CONNECTED else BAD

    def _write(self, health: Health, address: str) -> None:
        old = self.session.state is not SessionState.CONNECTED
        for name in ("server", "order", "storage", "notification", "writers", "projections"):
            self._box(name).border_subtitle = Content(f"as of {clock(health.at)}") if old else None
        store = self.session.store
        used = health.connections / health.max_connections if health.max_connections else 0
        self._box("server").say(
            [
                self._connection(),
                ("version", f"PostgreSQL {health.server_version}", ""),
                ("address", address, ""),
                *([("store", store.foreign, "")] if store is not None and store.foreign is not None else []),
                ("role", "standby, read only" if health.recovering else "primary", ""),
                ("connections", f"{health.connections} of {health.max_connections}", grade(used, 0.7, 0.9)),
            ],
        )
        follower = self.follower
        self._box("order").say(order_lines(health, follower))
        size = health.table_bytes + health.index_bytes
        events = health.events
        # With fewer events, empty pages would count for more than their contents.
        known = events.known and events.count >= 100
        self._box("storage").say(
            [
                ("events", events.text, ""),
                ("table", size_of(health.table_bytes), ""),
                ("indexes", size_of(health.index_bytes), ""),
                ("per event", f"~{size_of(size / events.count)}" if known else "not known yet", ""),
            ],
        )
        bell = (health.doorbell_text, GOOD if health.doorbell else MUTED if health.kind else WARNING)
        lines: list[Line] = [
            ("doorbell", *bell),
            ("this session", *_notified(follower)),
        ]
        if follower.polls_because:
            lines.append(("because", follower.polls_because, WARNING))
        lines.append(("queue used", f"{health.notify_queue:.1%}", grade(health.notify_queue, 0.1, 0.5)))
        self._box("notification").say(lines)
        box = self._box("writers")
        box.border_title = Content(f"writers in flight · {len(health.writers)}")
        writers = [("", writer_text(writer), "") for writer in health.writers[:50]]
        self._say(box, writers)

    def _write_projections(self, projections: list[ProjectionStatus] | str) -> None:
        box = self._box("projections")
        if isinstance(projections, str):
            self._say(box, [("", projections, MUTED)])
            return
        box.border_title = Content(f"projections · {len(projections)}")
        known = {projection.name for projection in projections}
        self._lags = {name: lags for name, lags in self._lags.items() if name in known}
        lines: list[Line] = []
        for projection in projections[:_MOST_PROJECTIONS]:
            lags = self._lags.setdefault(projection.name, deque(maxlen=60))
            lags.append(projection.lag)
            lines.append(
                ("", projection_line(projection, lags, max(box.content_size.width, 60)), state_style(projection))
            )
            if projection.difference is not None:
                lines.append(("", f"  {projection.difference}", BAD))
            elif projection.last_error:
                lines.append(
                    ("", f"  stopped at the event after {projection.position:,}: {projection.last_error}", BAD)
                )
            lines += [
                ("", f"  may be held back by {writer_text(writer)}", WARNING) for writer in projection.held_by[:3]
            ]
        if len(projections) > _MOST_PROJECTIONS:
            lines.append(("", f"and {len(projections) - _MOST_PROJECTIONS} more: esx health --json lists all", MUTED))
        self._say(box, lines, labelled=False)

    @staticmethod
    def _say(box: Figures, lines: list[Line], *, labelled: bool = True) -> None:
        """Show lines in a box; one that has nothing to say is not there."""
        box.display = bool(lines)
        if lines:
            box.say(lines, labelled=labelled)

    def _write_others(self, others: OtherConsumers) -> None:
        """Write the consumers of another tool's store in place of the projections."""
        box = self._box("projections")
        box.border_title = Content(f"consumers · {len(others.consumers)}")
        lines: list[Line] = []
        for status in others.consumers[:_MOST_PROJECTIONS]:
            lines.append(("", consumer_line(status, max(box.content_size.width, 60)), BAD if status.beyond else ""))
            if status.last_error:
                lines.append(("", f"  {status.last_error}", BAD))
        if len(others.consumers) > _MOST_PROJECTIONS:
            more = len(others.consumers) - _MOST_PROJECTIONS
            lines.append(("", f"and {more} more: esx health --json lists all", MUTED))
        lines += [("", note, WARNING) for note in others.notes]
        self._say(box, lines, labelled=False)

    def _write_findings(self, findings: list[Finding]) -> None:
        wrong = [finding for finding in findings if finding.severity.wrong]
        told = [finding for finding in findings if finding.severity is not Severity.OK]
        told.sort(key=lambda finding: list(Severity).index(finding.severity), reverse=True)
        passed = len({finding.check for finding in findings} - {finding.check for finding in wrong})
        self._passed = passed
        self.session.to_mend = len(wrong)
        box = self._box("doctor")
        box.border_title = Content(f"doctor · {len(wrong)} to mend")
        lines: list[Line] = []
        for finding in told:
            style = {Severity.ERROR: BAD, Severity.WARNING: WARNING}.get(finding.severity, "")
            lines.append((str(finding.severity), f"{finding.check}: {finding.message}", style))
            lines += [("", f"→ {step}", MUTED) for step in finding.remedy]
        self._say(box, lines)


def _notified(follower: Follower) -> tuple[str, str]:
    """Return how the feed learns of new events, and the style of that."""
    if follower.orderless is not None:
        return "no feed", MUTED
    return ("listening", GOOD) if follower.listening else ("polling", WARNING)
