"""Judging consumers for monitoring: whether each moves, and whether the feed is held."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from esx.store.consume.others import ConsumerStatus
from esx.store.consume.report import ConsumerReport, ConsumerState
from esx.store.feed.batch import Writer
from esx.text import counted, lapse, visible

_CRITICAL = 10
"""How many times a limit is exceeded where that is critical."""
_NAMED = 3


class CheckLevel(IntEnum):
    """How bad it is, by the exit codes of monitoring plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


# What is known to be bad counts for more than what is not known.
_WORST_FIRST = (CheckLevel.CRITICAL, CheckLevel.WARNING, CheckLevel.UNKNOWN)


@dataclass(frozen=True, slots=True)
class CheckLimits:
    """What is still good: `lag` in events, `age` of the oldest event not handled and how long a writer may be open.

    Ages are in seconds. Above a limit is a warning, above ten times as much is critical.
    """

    lag: int = 1000
    age: float = 30.0
    held: float = 10.0


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """The worst level, the problems from the worst on, and the figures that were judged; ages are in seconds."""

    level: CheckLevel
    problems: tuple[str, ...]
    consumers: int
    lag: int
    age: float
    held: float

    def line(self, limits: CheckLimits) -> str:
        """Return the line of a monitoring plugin, with its performance data."""
        said = "; ".join(self.problems[:_NAMED])
        if len(self.problems) > _NAMED:
            said += f"; and {counted(len(self.problems) - _NAMED, 'more problem')}"
        said = said or f"{counted(self.consumers, 'consumer')}, at most {counted(self.lag, 'event')} behind"
        figures = (
            ("max_lag", f"{self.lag}", limits.lag),
            ("max_age", f"{self.age:.3f}s", limits.age),
            ("max_held", f"{self.held:.3f}s", limits.held),
        )
        data = " ".join(f"{name}={value};{limit:g};{limit * _CRITICAL:g};0" for name, value, limit in figures)
        return f"ESX {self.level.name} - {visible(said).replace('|', '/')} | {data}"


def judge(
    reports: Sequence[ConsumerReport],
    others: Sequence[ConsumerStatus],
    writers: Sequence[Writer],
    now: datetime,
    limits: CheckLimits,
) -> CheckVerdict:
    """Judge the consumers of a store, those of another tool's store, and its open `writers`.

    A consumer that failed is critical, one that has parked events is a warning. One that is paused, or that an open
    writer holds, is judged by its lag like others, though never as critical.
    """
    found: list[tuple[CheckLevel, str]] = []
    for report in reports:
        found += _problems(report, limits)
    for other in others:
        if other.lag is not None and other.lag > limits.lag:
            level = CheckLevel.CRITICAL if other.lag > limits.lag * _CRITICAL else CheckLevel.WARNING
            found.append((level, f"{visible(other.name, limit=60)} is about {other.lag:,} behind"))
    held = 0.0
    for writer in writers:
        if writer.since is None:
            found.append((CheckLevel.UNKNOWN, f"since when {writer.who} has been writing is not shown to this user"))
            continue
        open_for = (now - writer.since).total_seconds()
        held = max(held, open_for)
        if open_for > limits.held:
            level = CheckLevel.CRITICAL if open_for > limits.held * _CRITICAL else CheckLevel.WARNING
            found.append((level, f"{writer.who} may hold the feed, and has been writing for {lapse(open_for)}"))
    found.sort(key=lambda each: _WORST_FIRST.index(each[0]))
    return CheckVerdict(
        level=found[0][0] if found else CheckLevel.OK,
        problems=tuple(text for _, text in found),
        consumers=len(reports) + len(others),
        lag=max((lag for lag in (*(each.lag for each in reports), *(each.lag for each in others)) if lag), default=0),
        age=max((report.lag_seconds for report in reports), default=0.0),
        held=held,
    )


def _problems(report: ConsumerReport, limits: CheckLimits) -> Iterator[tuple[CheckLevel, str]]:
    name = f"{report.kind} {visible(report.name, limit=60)}"
    if report.state is ConsumerState.FAILED:
        yield CheckLevel.CRITICAL, f"{name} failed: {visible(report.about, limit=160)}"
    excess = max(report.lag / max(limits.lag, 0.5), report.lag_seconds / max(limits.age, 0.001) if report.lag else 0.0)
    if excess > 1 and report.state is not ConsumerState.FAILED:
        excused = report.paused or bool(report.held_by)
        level = CheckLevel.CRITICAL if excess > _CRITICAL and not excused else CheckLevel.WARNING
        state = "is " if report.state is ConsumerState.ACTIVE else f"is {report.state}, and "
        why = f": {report.waits_for}" if report.state is ConsumerState.WAITING and report.waits_for else ""
        yield level, f"{name} {state}{report.lag_text} ({lapse(report.lag_seconds)}){visible(why, limit=100)}"
    if report.parked:
        yield CheckLevel.WARNING, f"{name} has {counted(report.parked, 'parked event')}"
