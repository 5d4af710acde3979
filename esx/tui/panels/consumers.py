"""The list of consumers, and what is known of one."""

from typing import ClassVar

from textual.binding import Binding, BindingType

from esx.store.consume.report import ConsumerReport, ConsumerState
from esx.text import ago, short_count, visible
from esx.times import clock
from esx.tui.cells import Cell
from esx.tui.lists.column import ListColumn
from esx.tui.lists.rowtable import RowTable
from esx.tui.widgets.figures import Line

_BAD = "$text-error"
_WARNING = "$text-warning"
_STYLES = {ConsumerState.FAILED: _BAD, ConsumerState.ACTIVE: "$text-success"}


class ConsumerList(RowTable["ConsumerReport"]):
    """A line for each consumer, by name."""

    KEYMAP_PREFIX = "consumer-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter",
            "choose",
            "Pause, skip …",
            key_display="enter",
            tooltip="Pause, resume, reset, skip, retry or delete it",
        ),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(_COLUMNS, id=id, empty="no consumers: a projection or a relay is listed from its first run on")

    def put(self, reports: list[ConsumerReport]) -> None:
        """Show these consumers; the cursor stays on its consumer."""
        at = next((at for at, each in enumerate(reports) if self.row is not None and each.name == self.row.name), None)
        self.set_rows(reports, cursor=self.cursor if at is None else at, offset=self.scroll_offset.y)


def figures_of(report: ConsumerReport) -> list[Line]:
    """Return what is known of a consumer, a line each."""
    state = str(report.state)
    if report.state is ConsumerState.WAITING:
        state += f": {report.waits_for}"
    lines: list[Line] = [
        ("state", state, _STYLES.get(report.state, _WARNING)),
        ("position", f"{report.position:,}, {report.lag_text}" + _age(report), _BAD if report.beyond else ""),
        ("moved", f"{clock(report.updated_at)}, {_ago(report)}", ""),
        ("run by", report.run_by, ""),
    ]
    if report.difference is not None:
        lines.append(("history", str(report.difference), _BAD))
    if report.last_error is not None:
        at = "" if report.error_seq is None else f"at event {report.error_seq:,}: "
        lines.append(("last error", f"{at}{report.last_error}", _BAD))
    if report.parked is None:
        lines.append(("parked", "not shown to this user", _WARNING))
    elif report.parked or report.skipped:
        parked = f"{report.parked:,} parked, {report.skipped:,} skipped: esx consumers parked lists them"
        lines.append(("put aside", parked, _WARNING if report.parked else ""))
    return lines


def _ago(report: ConsumerReport) -> str:
    when = ago(report.updated_at)
    return f"{when} ago" if when[0].isdigit() else when


def _age(report: ConsumerReport) -> str:
    return f" ({report.age_text})" if report.age_text else ""


def _state(report: ConsumerReport) -> Cell:
    return Cell(str(report.state), "problem" if report.state is ConsumerState.FAILED else "")


def _lag(report: ConsumerReport) -> Cell:
    if report.beyond:
        return Cell(f"+{short_count(report.beyond)}", "problem")
    return Cell(f"{'' if report.lag_exact else '~'}{short_count(report.lag)}", "" if report.lag else "number")


_COLUMNS: list[ListColumn[ConsumerReport]] = [
    ListColumn("consumer", lambda each: Cell(visible(each.name, limit=200), "strong"), share=2),
    ListColumn("kind", lambda each: Cell(each.kind, "muted"), 10, needs=70),
    ListColumn("state", _state, 7),
    ListColumn("position", lambda each: Cell(f"{each.position:,}", "number"), 13, right=True),
    ListColumn("lag", _lag, 8, right=True),
    ListColumn("age", lambda each: Cell(each.age_text), 11, right=True),
    ListColumn(
        "rate", lambda each: Cell(f"{each.rate:,.0f}/s" if each.rate else "", "number"), 9, right=True, needs=70
    ),
    ListColumn("run by", lambda each: Cell(visible(each.run_by, limit=200), "muted"), share=2, needs=100),
]
