"""Judging consumers for monitoring: whether each moves, and whether the feed is held."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import TypeVar

from esx.store.consume.others import ConsumerStatus, OtherConsumers
from esx.store.consume.report import ConsumerReport, ConsumerState
from esx.store.feed.batch import Writer
from esx.text import counted, lapse, visible

_CRITICAL = 10
"""How many times a limit is exceeded where that is critical."""
_NAMED = 3
N = TypeVar("N", int, float)


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

    Ages are in seconds. Above a limit is a warning, above ten times as much is critical. A limit of None is not judged;
    one that cannot be judged is unknown.
    """

    lag: int | None = 1000
    age: float | None = 30.0
    held: float | None = 10.0


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """The worst level, the problems from the worst on, and the figures that were judged; ages are in seconds.

    `lag` and `age` are those of the consumer that is furthest behind, None where those of a consumer are not known.
    `held` is None where the writers are not known.
    """

    level: CheckLevel
    problems: tuple[str, ...]
    consumers: int
    lag: int | None
    age: float | None
    held: float | None

    def line(self, limits: CheckLimits) -> str:
        """Return the line of a monitoring plugin, with its performance data."""
        said = "; ".join(self.problems[:_NAMED])
        if len(self.problems) > _NAMED:
            said += f"; and {counted(len(self.problems) - _NAMED, 'more problem')}"
        behind = "how far not known" if self.lag is None else f"at most {counted(self.lag, 'event')} behind"
        said = said or f"{counted(self.consumers, 'consumer')}, {behind}"
        figures = (
            ("max_lag", "U" if self.lag is None else f"{self.lag}", limits.lag),
            ("max_age", "U" if self.age is None else f"{self.age:.3f}s", limits.age),
            ("max_held", "U" if self.held is None else f"{self.held:.3f}s", limits.held),
        )
        data = " ".join(f"{name}={value};{_bounds(limit)};0" for name, value, limit in figures)
        return f"ESX {self.level.name} - {visible(said).replace('|', '/')} | {data}"


def _bounds(limit: float | None) -> str:
    return ";" if limit is None else f"{limit:g};{limit * _CRITICAL:g}"


def judge(
    reports: Sequence[ConsumerReport],
    others: OtherConsumers,
    writers: Sequence[Writer] | None,
    now: datetime,
    limits: CheckLimits,
) -> CheckVerdict:
    """Judge the consumers of a store, those of another tool's store, and its open `writers`; None: they are not known.

    A consumer that failed is critical, one that has parked events is a warning. One that is paused, or that an open
    writer holds, is judged by its lag like others, though never as critical. What has a limit and is not known is
    unknown; consumers of another tool that cannot be behind this store are not judged.
    """
    behind = [each for each in others.consumers if not each.apart]
    found: list[tuple[CheckLevel, str]] = [(CheckLevel.UNKNOWN, note) for note in others.notes]
    for report in reports:
        found += _problems(report, limits)
    for other in behind:
        found += _others_problems(other, limits)
    found += _held(writers, now, limits)
    found.sort(key=lambda each: _WORST_FIRST.index(each[0]))
    lags = [*(each.lag for each in reports), *(each.lag for each in behind)]
    ages = [*(each.lag_seconds if each.lag else 0.0 for each in reports), *(each.lag_seconds for each in behind)]
    return CheckVerdict(
        level=found[0][0] if found else CheckLevel.OK,
        problems=tuple(text for _, text in found),
        consumers=len(reports) + len(behind),
        lag=None if others.notes else _highest(lags, 0),
        age=None if others.notes else _highest(ages, 0.0),
        held=None if writers is None else _highest([_open_for(each, now) for each in writers], 0.0),
    )


def _highest(values: Sequence[N | None], least: N) -> N | None:
    """Return the highest value, `least` if there is none; None if one is not known."""
    known = [value for value in values if value is not None]
    return max(known, default=least) if len(known) == len(values) else None


def _open_for(writer: Writer, now: datetime) -> float | None:
    return None if writer.since is None else max((now - writer.since).total_seconds(), 0.0)


def _held(writers: Sequence[Writer] | None, now: datetime, limits: CheckLimits) -> Iterator[tuple[CheckLevel, str]]:
    if limits.held is None:
        return
    if writers is None:
        yield CheckLevel.UNKNOWN, f"who writes on the primary is not known on a standby{_unless('held')}"
    for writer in writers or ():
        open_for = _open_for(writer, now)
        if open_for is None:
            yield CheckLevel.UNKNOWN, f"since when {writer.who} has been writing is not shown to this user"
        elif open_for > limits.held:
            level = CheckLevel.CRITICAL if open_for > limits.held * _CRITICAL else CheckLevel.WARNING
            yield level, f"{writer.who} may hold the feed, and has been writing for {lapse(open_for)}"


def _excess(lag: int | None, age: float | None, limits: CheckLimits) -> float:
    """Return how many times the limits are exceeded by what is known."""
    by_lag = 0.0 if lag is None or limits.lag is None else lag / max(limits.lag, 0.5)
    by_age = 0.0 if not lag or age is None or limits.age is None else age / max(limits.age, 0.001)
    return max(by_lag, by_age)


def _unless(option: str) -> str:
    return f" (--max-{option} none leaves that out)"


def _others_problems(other: ConsumerStatus, limits: CheckLimits) -> Iterator[tuple[CheckLevel, str]]:
    name = visible(other.name, limit=60)
    excess = _excess(other.lag, other.lag_seconds, limits)
    if excess > 1:
        level = CheckLevel.CRITICAL if excess > _CRITICAL else CheckLevel.WARNING
        age = f" ({other.age_text})" if other.age_text else ""
        yield level, f"{name} is about {other.lag:,} behind{age}"
    if other.lag is None and limits.lag is not None:
        yield CheckLevel.UNKNOWN, f"how far {name} is behind is not known{_unless('lag')}"
    if other.lag_seconds is None and limits.age is not None:
        yield (
            CheckLevel.UNKNOWN,
            f"how old the oldest event is that {name} has not handled is not known{_unless('age')}",
        )


def _problems(report: ConsumerReport, limits: CheckLimits) -> Iterator[tuple[CheckLevel, str]]:
    name = f"{report.kind} {visible(report.name, limit=60)}"
    if report.state is ConsumerState.FAILED:
        yield CheckLevel.CRITICAL, f"{name} failed: {visible(report.about, limit=160)}"
    excess = _excess(report.lag, report.lag_seconds, limits)
    if excess > 1 and report.state is not ConsumerState.FAILED:
        excused = report.paused or bool(report.held_by)
        level = CheckLevel.CRITICAL if excess > _CRITICAL and not excused else CheckLevel.WARNING
        state = "is " if report.state is ConsumerState.ACTIVE else f"is {report.state}, and "
        age = f" ({report.age_text})" if report.age_text else ""
        why = f": {report.waits_for}" if report.state is ConsumerState.WAITING and report.waits_for else ""
        yield level, f"{name} {state}{report.lag_text}{age}{visible(why, limit=100)}"
    if report.lag and report.lag_seconds is None and limits.age is not None:
        yield (
            CheckLevel.UNKNOWN,
            f"how old the oldest event is that {name} has not handled is not known{_unless('age')}",
        )
    if report.parked is None:
        yield CheckLevel.UNKNOWN, f"whether {name} has parked events is not shown to this user"
    elif report.parked:
        yield CheckLevel.WARNING, f"{name} has {counted(report.parked, 'parked event')}"
