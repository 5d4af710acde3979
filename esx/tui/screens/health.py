"""Screen Health: the state of the store in figures."""

from collections import deque
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content

from esx.doctor import Finding
from esx.doctor.finding import Severity
from esx.doctor.target import Thresholds
from esx.errors import EsxError, NotAllowed, SchemaMissing, StoreUnavailable
from esx.eventstore import EventStore
from esx.store.consume.others import ConsumerStatus, OtherConsumers
from esx.store.consume.report import ProjectionStatus
from esx.store.health import Health
from esx.text import ago, lapse, size_of, sparkline, visible
from esx.times import clock
from esx.tui.cells import MUTED, fit
from esx.tui.panels.feed_figures import missed_line, state_line, writer_text
from esx.tui.panes import title_if_hidden
from esx.tui.screens.base import StorePane
from esx.tui.session.follower import Follower
from esx.tui.session.session import ExplorerSession, SessionState
from esx.tui.tasks import start
from esx.tui.widgets.figures import Figures, Line

_GOOD = "$text-success"
_WARNING = "$text-warning"
_BAD = "$text-error"
_MOST_PROJECTIONS = 50


class HealthPane(StorePane):
    """Reads the figures every two seconds while it is shown.

    The doctor looks once a minute, and when a figure that it judges has changed.
    """

    TITLE = "Health"
    FIRST_FOCUS = "#health-scroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "refresh", "Refresh", tooltip="Read the figures and examine the store now"),
    ]
    DEFAULT_CSS = """
    HealthPane {
        #health-scroll { scrollbar-size-vertical: 1; }
        #health-grid { layout: grid; grid-size: 2; grid-columns: 1fr 1fr; grid-rows: auto; height: auto; }
        .-wide { column-span: 2; min-height: 3; }
    }
    """

    def __init__(self, session: ExplorerSession, follower: Follower, *, id: str) -> None:
        super().__init__(session, id=id)
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
        self._examining = False
        self._judged: object = None
        """The figures that the doctor judges, as they were when it looked."""

    def compose(self) -> ComposeResult:
        """Lay out the boxes."""
        with VerticalScroll(id="health-scroll"), Container(id="health-grid"):
            yield Figures("server", id="health-server")
            yield Figures("order", id="health-order")
            yield Figures("storage", id="health-storage")
            yield Figures("notification", id="health-notification")
            yield Figures("writers in flight", id="health-writers", classes="-wide")
            yield Figures("projections", id="health-projections", classes="-wide")
            yield Figures("doctor", id="health-doctor", classes="-wide")

    def on_mount(self) -> None:
        """Start the clock."""
        self.every(self.session.tuning.read_health, self._read_now)
        self._box("doctor").say([("", "examining …", MUTED)])

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
        if self._examined is None or monotonic() - self._examined >= self.session.tuning.examine:
            self._judged = None
            self._let_look(store)

    def _let_look(self, store: EventStore) -> None:
        self._examined = monotonic()
        self._examining = True
        start(self, partial(self._examine, store), "doctor")

    def action_refresh(self) -> None:
        """Read the figures and examine the store now."""
        self.session.retry()
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
            self._box("server").say([self._connection(), ("figures", str(error), _BAD)])
            return
        self._write(self.health, store.address)
        if self.health.kind is None:
            self._write_projections(self.projections)
        else:
            self._write_others(self.others)
        self._write_when()
        judged = self._what_is_judged(self.health)
        if self._judged is None:
            self._judged = judged
        elif judged != self._judged and not self._examining:
            self._judged = judged
            self._let_look(store)

    def _what_is_judged(self, health: Health) -> object:
        """Return what the figures say that the doctor has a finding for, to be compared."""
        limits = Thresholds()
        ages = {each.key: (health.at - each.since).total_seconds() for each in health.writers if each.since is not None}
        slow = {key: age >= limits.writer_error for key, age in sorted(ages.items()) if age >= limits.writer_warning}
        projections = self.projections
        if not isinstance(projections, str):
            projections = repr(
                [(each.name, each.active, each.paused, each.last_error, each.difference) for each in projections]
            )
        others = [(each.name, each.beyond, each.last_error) for each in self.others.consumers]
        return repr((slow, self.follower.counts.missed, health.doorbell, health.recovering, projections, others))

    @staticmethod
    async def _read_projections(store: EventStore) -> list[ProjectionStatus] | str:
        try:
            return await store.projections()
        except SchemaMissing:  # a store that esx did not make
            return "no table projections: esx init adds it"
        except NotAllowed as error:
            return str(error)

    async def _examine(self, store: EventStore) -> None:
        try:
            self.findings = await store.doctor()
        except EsxError as error:
            self._box("doctor").say([("", str(error), _BAD)])
            return
        finally:
            self._examining = False
        self._looked = self.session.tuning.clock()
        self._write_findings(self.findings)
        self._write_when()

    def _write_when(self) -> None:
        """Say when the doctor looked: its findings may be older than the figures above."""
        if self._looked is not None:
            seconds = self.session.tuning.clock() - self._looked
            when = "just now" if seconds < 3 else f"{int(seconds):,} s ago"
            self._box("doctor").border_subtitle = Content(f"looked {when}")

    def _connection(self) -> Line:
        state, reason = self.session.state, self.session.reason
        text = f"{state.value}: {reason}" if reason else state.value
        return "connection", text, _GOOD if state is SessionState.CONNECTED else _BAD

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
                ("connections", f"{health.connections} of {health.max_connections}", _grade(used, 0.7, 0.9)),
            ],
        )
        follower = self.follower
        lag = f"{max(health.head - follower.position, 0):,} numbers behind the head"
        self._box("order").say(
            [
                ("head", f"{health.head:,}", "")
                if health.head_exact
                else ("head", f"{health.head:,} or above: this user may not read the sequence", _WARNING),
                ("last visible", f"{health.last:,}", ""),
                ("no order", health.order_unknown, _BAD)
                if health.order_unknown
                else ("safe position", f"{follower.position:,}" if follower.started else "not known yet", ""),
                ("lag", lag if follower.started else "not known yet", ""),
                *([] if health.order_unknown else [("", *state_line(follower))]),
                *([("", missed_line(follower), _BAD)] if follower.missed else []),
                ("late, dead", f"{follower.counts.late:,} late, {follower.counts.dead:,} dead", ""),
                ("last event", _moment(health), ""),
            ],
        )
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
        bell = (health.doorbell_text, _GOOD if health.doorbell else MUTED if health.kind else _WARNING)
        lines: list[Line] = [
            ("doorbell", *bell),
            ("this session", *(("listening", _GOOD) if follower.listening else ("polling", _WARNING))),
        ]
        if follower.polls_because:
            lines.append(("because", follower.polls_because, _WARNING))
        lines.append(("queue used", f"{health.notify_queue:.1%}", _grade(health.notify_queue, 0.1, 0.5)))
        self._box("notification").say(lines)
        box = self._box("writers")
        box.border_title = Content(f"writers in flight · {len(health.writers)}")
        writers = [("", writer_text(writer), "") for writer in health.writers[:50]]
        box.say(writers or [("", "none at this moment", MUTED)])

    def _write_projections(self, projections: list[ProjectionStatus] | str) -> None:
        box = self._box("projections")
        if isinstance(projections, str):
            box.say([("", projections, MUTED)])
            return
        box.border_title = Content(f"projections · {len(projections)}")
        known = {projection.name for projection in projections}
        self._lags = {name: lags for name, lags in self._lags.items() if name in known}
        lines: list[Line] = []
        for projection in projections[:_MOST_PROJECTIONS]:
            lags = self._lags.setdefault(projection.name, deque(maxlen=60))
            lags.append(projection.lag)
            lines.append(("", _projection_line(projection, lags, max(box.content_size.width, 60)), _state(projection)))
            if projection.difference is not None:
                lines.append(("", f"  {projection.difference}", _BAD))
            elif projection.last_error:
                lines.append(
                    ("", f"  stopped at the event after {projection.position:,}: {projection.last_error}", _BAD)
                )
            lines += [
                ("", f"  may be held back by {writer_text(writer)}", _WARNING) for writer in projection.held_by[:3]
            ]
        if len(projections) > _MOST_PROJECTIONS:
            lines.append(("", f"and {len(projections) - _MOST_PROJECTIONS} more: esx health --json lists all", MUTED))
        box.say(lines or [("", "none", MUTED)], labelled=False)

    def _write_others(self, others: OtherConsumers) -> None:
        """Write the consumers of another tool's store in place of the projections."""
        box = self._box("projections")
        box.border_title = Content(f"consumers · {len(others.consumers)}")
        lines: list[Line] = []
        for status in others.consumers[:_MOST_PROJECTIONS]:
            lines.append(("", _consumer_line(status, max(box.content_size.width, 60)), _BAD if status.beyond else ""))
            if status.last_error:
                lines.append(("", f"  {status.last_error}", _BAD))
        if len(others.consumers) > _MOST_PROJECTIONS:
            more = len(others.consumers) - _MOST_PROJECTIONS
            lines.append(("", f"and {more} more: esx health --json lists all", MUTED))
        lines += [("", note, _WARNING) for note in others.notes]
        box.say(lines or [("", "none", MUTED)], labelled=False)

    def _write_findings(self, findings: list[Finding]) -> None:
        wrong = [finding for finding in findings if finding.severity.wrong]
        told = [finding for finding in findings if finding.severity is not Severity.OK]
        told.sort(key=lambda finding: list(Severity).index(finding.severity), reverse=True)
        passed = len({finding.check for finding in findings} - {finding.check for finding in wrong})
        box = self._box("doctor")
        box.border_title = Content(f"doctor · {len(wrong)} to mend, {passed} checks passed")
        lines: list[Line] = []
        for finding in told:
            style = {Severity.ERROR: _BAD, Severity.WARNING: _WARNING}.get(finding.severity, "")
            lines.append((str(finding.severity), f"{finding.check}: {finding.message}", style))
            lines += [("", f"→ {step}", MUTED) for step in finding.remedy]
        box.say(lines or [("", "nothing to mend", _GOOD)])


def _projection_line(projection: ProjectionStatus, lags: Iterable[int], width: int) -> str:
    """Return a projection's name, lag, age of the lag, history of the lag, and state, in columns."""
    room = max(width - 78, 0)
    name = fit(visible(projection.name, limit=200), 20 + room // 3)
    late = f"{'' if projection.lag_exact else '~'}{projection.lag:,} behind"
    if projection.beyond:
        late = f"{projection.beyond:,} beyond head"
    age = lapse(projection.lag_seconds) if projection.lag else ""
    doing = "paused" if projection.paused else "running" if projection.active else "not running"
    if projection.owner is not None:
        doing += f", pid {projection.owner.pid}"
    bars = sparkline(lags, 10 + room // 3)
    return f"{name} {fit(late, 14, right=True)} {fit(age, 10, right=True)} {bars}  {doing}"


def _consumer_line(status: ConsumerStatus, width: int) -> str:
    """Return a consumer's name, how far it is, and what its tool keeps beside."""
    name = fit(visible(status.name, limit=200), 20 + max(width - 78, 0) // 3)
    return f"{name} {visible(status.text, limit=400)}"


def _state(projection: ProjectionStatus) -> str:
    if projection.last_error or projection.difference is not None:
        return _BAD
    return "" if projection.active and not projection.paused else _WARNING


def _moment(health: Health) -> str:
    if health.last_created_at is None:
        return "none yet"
    return f"{clock(health.last_created_at)}, {ago(health.last_created_at, health.at)}"


def _grade(value: float, warn: float, bad: float) -> str:
    if value >= bad:
        return _BAD
    return _WARNING if value >= warn else ""
