"""Which types of events collide, on which streams, and when."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from esx.errors import EsxError
from esx.store.conflicts.conflict import ConflictPair, ConflictSurvey
from esx.text import ago, counted, sparkline, visible
from esx.times import clock
from esx.tui.cells import Cell, tint_of
from esx.tui.dialogs.dialog import Dialog
from esx.tui.lists.column import ListColumn
from esx.tui.lists.rowtable import RowTable
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import start
from esx.tui.widgets.figures import Figures, Line

_NONE = (
    "no conflict is recorded, nor one of a load test: EventStore.connect(record_conflicts=True) does so "
    "(docs/conflicts.md), and record conflicts in the Load form"
)
_WHEN = 12


class PairList(RowTable["ConflictPair"]):
    """A line for each pair of types, the most frequent first."""

    KEYMAP_PREFIX = "pair-list"
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, *, id: str) -> None:
        super().__init__(_COLUMNS, id=id, empty="reading …")


class ConflictsDialog(Dialog[None]):
    """Reads the pairs when it opens, and again with ``r``."""

    KEYMAP_PREFIX = "conflicts"
    AUTO_FOCUS = "#conflict-pairs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close"),
        Binding("r", "refresh", "Refresh", tooltip="Read the conflicts now"),
        Binding("q", "app.quit", "Quit", show=False),
    ]
    DEFAULT_CSS = """
    ConflictsDialog {
        align: center middle;
        & > Vertical {
            width: 95%; max-width: 130; height: 90%; max-height: 40;
            border: round $primary; border-title-color: $text-primary; background: $surface; padding: 0 1;
        }
        #conflict-pairs { height: 1fr; background: $surface; }
        #conflict-note { height: 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
        #conflict-about { max-height: 50%; }
    }
    """

    def __init__(self, session: ExplorerSession, rules: Sequence[tuple[str, str]]) -> None:
        """Make it; `rules` are the pairs of types that commute."""
        super().__init__()
        self._session = session
        self._rules = rules
        self.found: ConflictSurvey | None = None

    def compose(self) -> ComposeResult:
        """Lay out the pairs, and what is known of the chosen one below."""
        with Vertical() as box:
            box.border_title = "conflicts"
            box.border_subtitle = "r reads again · esc closes"
            yield Static(id="conflict-note")
            yield PairList(id="conflict-pairs")
            yield Figures("", id="conflict-about")

    def on_mount(self) -> None:
        """Read at once."""
        self.query_one("#conflict-about").display = False
        self.action_refresh()

    def action_refresh(self) -> None:
        """Read the conflicts now."""
        start(self, self._read, "conflicts")

    async def _read(self) -> None:
        pairs = self.query_one(PairList)
        store = self._session.store
        if store is None:
            pairs.problem = self._session.reason or "not connected"
            return
        try:
            found = await store.conflicts(commutes=self._rules)
        except EsxError as error:
            pairs.set_rows([], cursor=0, offset=0)
            pairs.problem = visible(str(error), limit=500)
            return
        self.found = found
        pairs.problem, pairs.empty = "", _NONE
        pairs.set_rows(list(found.pairs), cursor=pairs.cursor, offset=0)
        box = self.query_one(Vertical)
        box.border_title = Content(title_of(found))
        about = found.load_tests_text or "load tests count too, none is among these"
        self.query_one("#conflict-note", Static).update(Content(about if found.pairs else ""))
        self._write_about()

    @on(PairList.Highlighted)
    def _write_about(self) -> None:
        box, pair = self.query_one("#conflict-about", Figures), self.query_one(PairList).row
        box.display = pair is not None
        if pair is not None:
            box.border_title = Content(f"{visible(pair.lost, limit=60)} lost to {_won(pair)}")
            self.call_after_refresh(partial(box.say, figures_of(pair)))


def title_of(found: ConflictSurvey) -> str:
    """Return what was found in a few words."""
    if not found.pairs:
        return "conflicts"
    title = f"conflicts · {'' if found.exact else '~'}{found.conflicts:,} from {clock(found.first_at)}"
    if (commuting := found.commuting) is not None:
        title += f" · {commuting / max(found.conflicts, 1):.0%} commute"
    return title


def figures_of(pair: ConflictPair) -> list[Line]:
    """Return what is known of a pair, a line each."""
    lines: list[Line] = [
        ("when", f"{clock(pair.first_at)} to {clock(pair.last_at)}", ""),
        ("recorded", counted(pair.recorded, "row"), ""),
    ]
    if pair.commuting is not None:
        share = f"{pair.commuting:,} of {pair.conflicts:,} by your rules"
        lines.append(("commute", share, "$text-success" if pair.commuting else ""))
    more = pair.stream_count - len(pair.streams)
    lines.append(("streams", counted(pair.stream_count, "stream"), ""))
    lines += [
        ("", f"{'' if pair.exact else '~'}{count:,} on {visible(stream_id, limit=200)}", "")
        for stream_id, count in pair.streams
    ]
    if more > 0:
        lines.append(("", f"and {counted(more, 'more', 'more')}: esx conflicts --json", ""))
    return lines


def _won(pair: ConflictPair) -> str:
    return visible(pair.won, limit=60) if pair.won else "nothing"


def _type(name: str, pair: ConflictPair) -> Cell:
    stream_id = pair.streams[0][0] if pair.streams else ""
    if not name:
        return Cell("nothing", "muted")
    return Cell(visible(name, limit=120), "", tint_of(name, stream_id))


def _commutes(pair: ConflictPair) -> Cell:
    if pair.commuting is None:
        return Cell("")
    if pair.commutes is None:
        return Cell(f"{pair.commuting / max(pair.conflicts, 1):.0%}")
    return Cell("yes" if pair.commutes else "no", "" if pair.commutes else "muted")


_COLUMNS: list[ListColumn[ConflictPair]] = [
    ListColumn("lost", lambda pair: _type(pair.lost, pair), share=2),
    ListColumn("to", lambda pair: _type(pair.won, pair), share=2),
    ListColumn(
        "conflicts", lambda pair: Cell(f"{'' if pair.exact else '~'}{pair.conflicts:,}", "number"), 9, right=True
    ),
    ListColumn(
        "most on",
        lambda pair: Cell(visible(pair.streams[0][0], limit=200) if pair.streams else ""),
        share=2,
        middle=True,
        needs=60,
    ),
    ListColumn("when", lambda pair: Cell(sparkline(pair.times, _WHEN), "muted"), _WHEN, needs=90),
    ListColumn("last", lambda pair: Cell(ago(pair.last_at), "number"), 4, right=True, ages=True),
    ListColumn("commute", _commutes, 7, sparse=True),
]
