"""The list of saved runs."""

from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from esx.load.archive import Entry
from esx.text import visible
from esx.times import clock
from esx.tui.cells import Cell
from esx.tui.lists.column import ListColumn
from esx.tui.lists.rowtable import RowTable


class LoadRuns(RowTable["Entry"]):
    """A line for each run, the newest first. Runs that are marked can be compared."""

    @dataclass
    class Compare(Message):
        """Runs are to be compared: their ids, that of the oldest first."""

        runs: list[str]

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("asterisk", "mark", "Mark", key_display="*", tooltip="Mark a run, to be compared with others"),
        Binding("equals_sign", "compare", "Compare", key_display="=", tooltip="Put the marked runs side by side"),
    ]

    def __init__(self, *, id: str) -> None:
        self.marked: set[str] = set()
        mark = ListColumn[Entry]("", lambda entry: Cell("*" if entry.id in self.marked else "", "strong"), 1)
        super().__init__([mark, *_COLUMNS], id=id, empty="none yet; each run is saved and can be opened here again")

    def action_mark(self) -> None:
        """Mark the run under the cursor, or take its mark away, and go to the next one."""
        if self.row is not None:
            self.marked ^= {self.row.id}
            self.make_room_for([self.row])  # the column of marks takes no room before there is one
            self.refresh()
            self.action_move(1)

    def action_compare(self) -> None:
        """Ask for the marked runs side by side; one that is marked alone, with the one under the cursor."""
        wanted = self.marked | ({self.row.id} if self.row is not None and len(self.marked) == 1 else set())
        # The list has the newest first.
        runs = [entry.id for entry in reversed(self.rows) if entry.id in wanted]
        if len(runs) < 2:
            self.notify("mark two runs or more with *, then = compares them", severity="warning")
        else:
            self.post_message(self.Compare(runs))

    def put(self, entries: list[Entry]) -> None:
        """Show these runs; the cursor stays on its run."""
        at = next((at for at, entry in enumerate(entries) if self.row is not None and entry.id == self.row.id), 0)
        self.set_rows(entries, cursor=at, offset=self.scroll_offset.y)


def _what(entry: Entry) -> Cell:
    options = entry.header.options
    heat = f"zipf {options.zipf:g}" if options.zipf else f"{options.hot_streams} hot" if options.hot_streams else "even"
    return Cell(f"{heat}, {options.strategy}, {visible(options.on_conflict, limit=20)}")


def _goodput(entry: Entry) -> Cell:
    return Cell("-" if entry.summary is None else f"{entry.summary.goodput:,.0f}/s", "strong")


def _conflicts(entry: Entry) -> Cell:
    return Cell("-" if entry.summary is None else f"{entry.summary.conflict_rate:.0%}")


def _verdict(entry: Entry) -> Cell:
    if entry.summary is None:
        return Cell("broken off", "problem")
    verdict = visible(entry.summary.verdict or "none", limit=10)
    return Cell(verdict, "muted" if verdict == "pass" else "problem")


_COLUMNS: list[ListColumn[Entry]] = [
    ListColumn("started", lambda entry: Cell(clock(entry.header.started_at)[5:16], "muted"), 11),
    ListColumn("users", lambda entry: Cell(f"{entry.header.options.users:,}", "number"), 5, right=True),
    ListColumn("workload", _what, needs=56),
    ListColumn("appends", _goodput, 9, right=True),
    ListColumn("conflicts", _conflicts, 9, right=True),
    ListColumn("verdict", _verdict, 10),
]
