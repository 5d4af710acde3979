"""The list of consumers, and what is known of one."""

from datetime import datetime
from typing import ClassVar

from textual.binding import Binding, BindingType

from esx.store.consume.others import ConsumerStatus
from esx.store.consume.report import ConsumerReport, ConsumerState
from esx.store.operate.effects import named
from esx.text import ago, short_count, visible
from esx.times import clock
from esx.tui.cells import Cell
from esx.tui.lists.column import ListColumn
from esx.tui.lists.rowtable import RowTable
from esx.tui.widgets.figures import Line

Consumer = ConsumerReport | ConsumerStatus
"""A consumer of esx, or one of the store's own tool."""
_BAD = "$text-error"
_WARNING = "$text-warning"
_STYLES = {ConsumerState.FAILED: _BAD, ConsumerState.ACTIVE: "$text-success"}


class ConsumerList(RowTable["Consumer"]):
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

    def put(self, reports: list[Consumer]) -> None:
        """Show these consumers; the cursor stays on its consumer."""
        at = next((at for at, each in enumerate(reports) if self.row is not None and each.name == self.row.name), None)
        self.set_rows(reports, cursor=self.cursor if at is None else at, offset=self.scroll_offset.y)


def called(consumer: Consumer) -> str:
    """Return a consumer's name with its kind, safe to show."""
    if isinstance(consumer, ConsumerReport):
        return named(consumer)
    return f"consumer {visible(consumer.name, limit=200)}"


def figures_of(consumer: Consumer) -> list[Line]:
    """Return what is known of a consumer, a line each."""
    if isinstance(consumer, ConsumerReport):
        return _of_report(consumer)
    lines: list[Line] = [("position", consumer.progress, _BAD if consumer.beyond else "")]
    if consumer.position is not None and consumer.at:
        lines.append(("keeps", consumer.at, ""))
    lines += [(name, text, "") for name, text in (("state", consumer.state), ("owner", consumer.owner)) if text]
    if consumer.updated_at is not None:
        lines.append(("noted", f"{clock(consumer.updated_at)}, {_ago(consumer.updated_at)}", ""))
    if consumer.last_error:
        lines.append(("last error", consumer.last_error, _BAD))
    return lines


def _of_report(report: ConsumerReport) -> list[Line]:
    state = str(report.state)
    if report.state is ConsumerState.WAITING:
        state += f": {report.waits_for}"
    lines: list[Line] = [
        ("state", state, _STYLES.get(report.state, _WARNING)),
        ("position", f"{report.position:,}, {report.lag_text}" + _age(report), _BAD if report.beyond else ""),
        ("moved", f"{clock(report.updated_at)}, {_ago(report.updated_at)}", ""),
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


def _ago(moment: datetime) -> str:
    when = ago(moment)
    return f"{when} ago" if when[0].isdigit() else when


def _age(report: ConsumerReport) -> str:
    return f" ({report.age_text})" if report.age_text else ""


def _state(report: Consumer) -> Cell:
    if isinstance(report, ConsumerStatus):
        return Cell(visible(report.state or "", limit=60), "problem" if report.last_error else "")
    return Cell(str(report.state), "problem" if report.state is ConsumerState.FAILED else "")


def _position(report: Consumer) -> Cell:
    if report.position is None:
        return Cell(visible(report.at or "-", limit=60), "number")
    return Cell(f"{report.position:,}", "number")


def _lag(report: Consumer) -> Cell:
    if report.beyond:
        return Cell(f"+{short_count(report.beyond)}", "problem")
    if isinstance(report, ConsumerStatus):
        if report.lag is None:
            return Cell("-", "number")
        return Cell(f"~{short_count(report.lag)}" if report.lag else "0", "" if report.lag else "number")
    return Cell(f"{'' if report.lag_exact else '~'}{short_count(report.lag)}", "" if report.lag else "number")


def _rate(report: Consumer) -> Cell:
    rate = report.rate if isinstance(report, ConsumerReport) else 0
    return Cell(f"{rate:,.0f}/s" if rate else "", "number")


def _run_by(report: Consumer) -> Cell:
    who = report.run_by if isinstance(report, ConsumerReport) else report.owner or "-"
    return Cell(visible(who, limit=200), "muted")


_COLUMNS: list[ListColumn[Consumer]] = [
    ListColumn("consumer", lambda each: Cell(visible(each.name, limit=200), "strong"), share=2),
    ListColumn("kind", lambda each: Cell(getattr(each, "kind", "other"), "muted"), 10, needs=70),
    ListColumn("state", _state, 7),
    ListColumn("position", _position, 13, right=True),
    ListColumn("lag", _lag, 8, right=True),
    ListColumn("age", lambda each: Cell(each.age_text), 11, right=True),
    ListColumn("rate", _rate, 9, right=True, needs=70),
    ListColumn("run by", _run_by, share=2, needs=100),
]
