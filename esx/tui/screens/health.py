"""Screen Health: the state of the store in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from esx.store.errors import EsxError
from esx.text import ago, visible
from esx.times import clock
from esx.tui.cells import MUTED, size_of, wrap
from esx.tui.parts.feedfigures import gap_line, writer_text
from esx.tui.screens.pane import Pane
from esx.tui.work import start

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from esx.store.health import Health
    from esx.tui.follower import Follower
    from esx.tui.link import Link

EVERY = 2.0
_LABEL = 14
_GOOD = "$text-success"
_WARNING = "$text-warning"

Line = tuple[str, str, str]
"""A label, a value and the value's style."""


class Figures(Static):
    """A titled box of labels and values."""

    DEFAULT_CSS = """
    Figures {
        height: auto; min-height: 7; padding: 0 1;
        border: round $foreground 25%; border-title-color: $text-primary; border-title-style: bold;
        background: $surface;
    }
    """

    def __init__(self, title: str, *, id: str) -> None:
        super().__init__(id=id)
        self.border_title = title
        self._lines: list[Line] = []

    def say(self, lines: list[Line]) -> None:
        """Show the figures, a label and a value a line; long values go on below themselves."""
        self._lines = lines
        room = max(self.content_size.width - _LABEL, 10)
        parts: list[str | tuple[str, str]] = []
        for label, value, style in lines:
            for number, piece in enumerate(wrap(visible(value, limit=1000), room)):
                parts += [((label if number == 0 else "").ljust(_LABEL), MUTED), (piece, style), "\n"]
        self.update(Content.assemble(*parts[:-1]))

    def on_resize(self) -> None:
        """Wrap anew."""
        if self._lines:
            self.say(self._lines)


class HealthPane(Pane):
    """Reads the figures every two seconds while it is shown."""

    FIRST_FOCUS = "#health-scroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "refresh", "Refresh", tooltip="Read the figures now"),
    ]
    DEFAULT_CSS = """
    HealthPane {
        #health-grid { layout: grid; grid-size: 2; grid-columns: 1fr 1fr; grid-rows: auto; height: auto; }
        #health-writers { column-span: 2; min-height: 4; }
    }
    """

    def __init__(self, link: Link, follower: Follower, *, id: str) -> None:
        super().__init__(link, id=id)
        self.follower = follower
        self.health: Health | None = None

    def compose(self) -> ComposeResult:
        """Lay out the boxes."""
        with VerticalScroll(id="health-scroll"), Container(id="health-grid"):
            yield Figures("server", id="health-server")
            yield Figures("order", id="health-order")
            yield Figures("storage", id="health-storage")
            yield Figures("notification", id="health-notification")
            yield Figures("writers in flight", id="health-writers")

    def on_mount(self) -> None:
        """Read now, and again every two seconds."""
        self.set_interval(EVERY, self._read_if_shown)
        self.action_refresh()

    def connected(self) -> None:
        """Read at once."""
        self._read_if_shown()

    def entered(self) -> None:
        """Read at once."""
        self.action_refresh()

    def _read_if_shown(self) -> None:
        if self.display:
            self._read_now()

    def _read_now(self) -> None:
        start(self, self._read, "health")

    def action_refresh(self) -> None:
        """Read the figures now."""
        self.link.retry()
        self._read_now()

    async def _read(self) -> None:
        store = self.link.store
        if store is None:
            return
        try:
            self.health = await store.health()
        except EsxError as error:
            self.link.report(error)
            return
        self._write(self.health, store.address)

    def _write(self, health: Health, address: str) -> None:
        def say(name: str, lines: list[Line]) -> None:
            self.query_one(f"#health-{name}", Figures).say(lines)

        used = health.connections / health.max_connections if health.max_connections else 0
        say(
            "server",
            [
                ("version", f"PostgreSQL {health.server_version}", ""),
                ("database", health.database, ""),
                ("user", health.user, ""),
                ("address", address, ""),
                ("role", "standby, read only" if health.recovering else "primary", ""),
                ("connections", f"{health.connections} of {health.max_connections}", _grade(used, 0.7, 0.9)),
            ],
        )
        follower = self.follower
        say(
            "order",
            [
                ("head", f"{health.head:,}", ""),
                ("last visible", f"{health.last:,}", ""),
                ("safe", f"{follower.position:,}" if follower.started else "not known yet", ""),
                ("", *gap_line(follower.gap, started=follower.started)),
                ("last event", _moment(health), ""),
            ],
        )
        size = health.table_bytes + health.index_bytes
        about = health.estimated_events
        say(
            "storage",
            [
                ("events", "no estimate yet" if about < 0 else f"about {about:,}", ""),
                ("table", size_of(health.table_bytes), ""),
                ("indexes", size_of(health.index_bytes), ""),
                ("per event", f"about {size_of(size / about)}" if about > 0 else "not known yet", ""),
            ],
        )
        bell = ("trigger in place", _GOOD) if health.doorbell else ("no trigger: esx init adds it", _WARNING)
        say(
            "notification",
            [
                ("doorbell", *bell),
                ("this session", *(("listening", _GOOD) if follower.listening else ("polling", _WARNING))),
                *([("", because, MUTED)] if (because := follower.polls_because) else []),
                ("queue used", f"{health.notify_queue:.1%}", _grade(health.notify_queue, 0.1, 0.5)),
            ],
        )
        box = self.query_one("#health-writers", Figures)
        box.border_title = Content(f"writers in flight · {len(health.writers)}")
        writers = [("", writer_text(writer), "") for writer in health.writers[:50]]
        say("writers", writers or [("", "none at this moment", MUTED)])


def _moment(health: Health) -> str:
    if health.last_created_at is None:
        return "none yet"
    return f"{clock(health.last_created_at)}, {ago(health.last_created_at, health.at)}"


def _grade(value: float, warn: float, bad: float) -> str:
    if value >= bad:
        return "$text-error"
    return _WARNING if value >= warn else ""
