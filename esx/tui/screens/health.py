"""Screen Health: the state of the store in figures."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from esx.store.doctor.finding import Severity
from esx.store.errors import EsxError, NotAllowed, SchemaMissing, StoreUnavailable
from esx.text import ago, lapse, visible
from esx.times import clock
from esx.tui.cells import MUTED, fit, size_of, spark, wrap_words
from esx.tui.link import LinkState
from esx.tui.parts.feedfigures import missed_line, state_line, writer_text
from esx.tui.screens.pane import Pane
from esx.tui.stage import from_behind
from esx.tui.work import start

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import ComposeResult

    from esx.store.doctor import Finding
    from esx.store.health import Health
    from esx.store.projection_table import ProjectionStatus
    from esx.store.store import EventStore
    from esx.tui.follower import Follower
    from esx.tui.link import Link

EVERY = 2.0
EXAMINED_EVERY = 60.0
_LABEL = 14
_GOOD = "$text-success"
_WARNING = "$text-warning"
_BAD = "$text-error"
_READINGS = 60
_MANY = 100
"""With fewer events, empty pages would count for more than what is in them."""
_MOST_PROJECTIONS = 50
_REMEDY = "→ "

Line = tuple[str, str, str]
"""A label, a value and the value's style."""


class Figures(Static):
    """A titled box of labels and values."""

    DEFAULT_CSS = """
    Figures {
        height: auto; min-height: 6; padding: 0 1;
        border: round $foreground 25%; border-title-color: $text-primary; border-title-style: bold;
        background: $surface; text-wrap: nowrap; text-overflow: ellipsis;
    }
    """

    def __init__(self, title: str, *, id: str, classes: str = "") -> None:
        super().__init__(id=id, classes=classes)
        self.border_title = title
        self._lines: list[Line] = []
        self._labelled = True

    def say(self, lines: list[Line], *, labelled: bool = True) -> None:
        """Show the figures, a label and a value a line; long values go on below themselves."""
        self._lines, self._labelled = lines, labelled
        beside = _LABEL if labelled and any(label for label, _, _ in lines) else 0
        room = max(self.content_size.width - beside, 10)
        parts: list[str | tuple[str, str]] = []
        for label, value, style in lines:
            for number, piece in enumerate(
                wrap_words(visible(value, limit=1000), room) if labelled else [visible(value, limit=1000)]
            ):
                parts += [((label if number == 0 else "").ljust(beside), MUTED), (piece, style), "\n"]
        self.update(Content.assemble(*parts[:-1]))

    def on_resize(self) -> None:
        """Wrap anew."""
        if self._lines:
            self.say(self._lines, labelled=self._labelled)


class HealthPane(Pane):
    """Reads the figures every two seconds while it is shown, and lets the doctor look once a minute."""

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

    def __init__(self, link: Link, follower: Follower, *, id: str) -> None:
        super().__init__(link, id=id)
        self.follower = follower
        self.health: Health | None = None
        self.projections: list[ProjectionStatus] | str = "not known yet"
        """The projections, or why they cannot be shown."""
        self.findings: list[Finding] | None = None
        self._lags: dict[str, deque[int]] = {}
        """The lag of each projection at each reading, oldest first."""
        self._examined: float | None = None

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
        """Read again every two seconds."""
        self.every(EVERY, self._read_now)
        self._box("doctor").say([("", "examining …", MUTED)])

    def connected(self) -> None:
        """Read at once, and let the doctor look."""
        self.entered()

    def entered(self) -> None:
        """Read at once, and let the doctor look."""
        self._examined = None
        self._read_now()

    def _box(self, name: str) -> Figures:
        return self.query_one(f"#health-{name}", Figures)

    def _read_now(self) -> None:
        start(self, self._read, "health")
        if self._examined is None or monotonic() - self._examined >= EXAMINED_EVERY:
            self._examined = monotonic()
            start(self, self._examine, "doctor")

    def action_refresh(self) -> None:
        """Read the figures and examine the store now."""
        self.link.retry()
        self._examined = None
        self._read_now()

    async def _read(self) -> None:
        store = self.link.store
        if store is None:
            return
        try:
            self.health = await store.health()
            self.projections = await self._read_projections(store)
        except (StoreUnavailable, SchemaMissing) as error:
            self.link.report(error, of=from_behind(self))
            self._write_connection()
            return
        except EsxError as error:
            # Every two seconds: said where the figures would be, instead of over what else is on the screen.
            self._box("server").say([self._connection(), ("figures", str(error), _BAD)])
            return
        self._write(self.health, store.address)
        self._write_projections(self.projections)

    @staticmethod
    async def _read_projections(store: EventStore) -> list[ProjectionStatus] | str:
        try:
            return await store.projections()
        except SchemaMissing:  # a store that esx did not make
            return "no table projections: esx init adds it"
        except NotAllowed as error:
            return str(error)

    async def _examine(self) -> None:
        store = self.link.store
        if store is None:
            return
        try:
            self.findings = await store.doctor()
        except EsxError as error:
            self._box("doctor").say([("", str(error), _BAD)])
            return
        self._write_findings(self.findings)

    # -- drawing ------------------------------------------------------------------------------------------------

    def _write_connection(self) -> None:
        if self.health is not None:
            self._write(self.health, self.link.address)

    def _connection(self) -> Line:
        link = self.link
        good = link.state is LinkState.CONNECTED
        return ("connection", f"{link.state.value}{f': {link.reason}' if link.reason else ''}", _GOOD if good else _BAD)

    def _write(self, health: Health, address: str) -> None:
        # Figures that cannot be read now are those of then.
        old = self.link.state is not LinkState.CONNECTED
        for name in ("server", "order", "storage", "notification", "writers", "projections"):
            self._box(name).border_subtitle = Content(f"as of {clock(health.at)}") if old else None
        used = health.connections / health.max_connections if health.max_connections else 0
        self._box("server").say(
            [
                self._connection(),
                ("version", f"PostgreSQL {health.server_version}", ""),
                ("address", address, ""),
                ("role", "standby, read only" if health.recovering else "primary", ""),
                ("connections", f"{health.connections} of {health.max_connections}", _grade(used, 0.7, 0.9)),
            ],
        )
        follower = self.follower
        behind = max(health.head - follower.position, 0)
        self._box("order").say(
            [
                ("head", f"{health.head:,}", "")
                if health.head_exact
                else ("head", f"{health.head:,} or above: this user may not read the sequence", _WARNING),
                ("last visible", f"{health.last:,}", ""),
                ("no order", health.order_unknown, _BAD)
                if health.order_unknown
                else ("safe position", f"{follower.position:,}" if follower.started else "not known yet", ""),
                ("lag", f"{behind:,} numbers behind the head" if follower.started else "not known yet", ""),
                ("", *state_line(follower)),
                *([("", missed_line(follower), _BAD)] if follower.missed else []),
                *([("", health.order_unknown, _BAD)] if health.order_unknown and follower.failure is None else []),
                ("late, dead", f"{follower.late:,} late, {follower.dead:,} dead", ""),
                ("last event", _moment(health), ""),
            ],
        )
        size = health.table_bytes + health.index_bytes
        events = health.events
        known = events.known and events.count >= _MANY
        self._box("storage").say(
            [
                ("events", events.text, ""),
                ("table", size_of(health.table_bytes), ""),
                ("indexes", size_of(health.index_bytes), ""),
                ("per event", f"~{size_of(size / events.count)}" if known else "not known yet", ""),
            ],
        )
        bell = ("trigger in place", _GOOD) if health.doorbell else ("no trigger: esx init adds it", _WARNING)
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
            lags = self._lags.setdefault(projection.name, deque(maxlen=_READINGS))
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
            lines += [("", f"{_REMEDY}{step}", MUTED) for step in finding.remedy]
        box.say(lines or [("", "nothing to mend", _GOOD)])


def _projection_line(projection: ProjectionStatus, lags: Iterable[int], width: int) -> str:
    """Return a projection's name, lag, age of its lag, bars of its lag, and what it does, in columns."""
    room = max(width - 78, 0)
    name = fit(visible(projection.name, limit=200), 20 + room // 3)
    late = f"{'' if projection.lag_exact else '~'}{projection.lag:,} behind"
    if projection.beyond:
        late = f"{projection.beyond:,} beyond head"
    age = lapse(projection.lag_seconds) if projection.lag else ""
    doing = "paused" if projection.paused else "running" if projection.active else "not running"
    if projection.owner is not None:
        doing += f", pid {projection.owner.pid}"
    bars = spark(lags, 10 + room // 3)
    return f"{name} {fit(late, 14, right=True)} {fit(age, 10, right=True)} {bars}  {doing}"


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
