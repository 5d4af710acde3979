"""What monitoring is told of consumers, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from esx import CheckLimits, CheckVerdict, ConsumerReport, ConsumerStatus, Runner, Writer
from esx.store.operate.checking import CheckLevel, judge

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
GOOD = ConsumerReport(
    name="p",
    position=5,
    head=5,
    lag=0,
    lag_seconds=0.0,
    paused=False,
    owner=None,
    held_by=(),
    last_error=None,
    updated_at=NOW,
    runner=Runner("h", 1, NOW, 2),
)
WRITER = Writer("x", 42, NOW - timedelta(seconds=20), "idle in transaction", "import")


def judged(
    *reports: ConsumerReport, others: tuple[ConsumerStatus, ...] = (), writers: tuple[Writer, ...] = ()
) -> CheckVerdict:
    return judge(reports, others, writers, NOW, CheckLimits())


def test_nothing_is_wrong_with_what_keeps_up() -> None:
    verdict = judged(GOOD, replace(GOOD, name="q", lag=1000, lag_seconds=30.0))
    assert (verdict.level, verdict.problems, verdict.lag) == (CheckLevel.OK, (), 1000)
    assert verdict.line(CheckLimits()) == (
        "ESX OK - 2 consumers, at most 1,000 events behind | "
        "max_lag=1000;1000;10000;0 max_age=30.000s;30;300;0 max_held=0.000s;10;100;0"
    )


def test_a_limit_warns_and_ten_times_as_much_is_critical() -> None:
    assert judged(replace(GOOD, lag=1001)).level is CheckLevel.WARNING
    assert judged(replace(GOOD, lag=10_001)).level is CheckLevel.CRITICAL
    assert judged(replace(GOOD, lag=1, lag_seconds=31.0)).level is CheckLevel.WARNING
    assert judged(replace(GOOD, lag=1, lag_seconds=301.0)).level is CheckLevel.CRITICAL
    other = ConsumerStatus("theirs", 1, None, 1002)
    assert judged(others=(other,)).level is CheckLevel.WARNING
    assert judged(others=(replace(other, head=10_002),)).level is CheckLevel.CRITICAL


def test_what_is_paused_or_held_is_no_more_than_a_warning() -> None:
    for excused in (replace(GOOD, paused=True), replace(GOOD, held_by=(WRITER,))):
        assert judged(replace(excused, lag=99_999)).level is CheckLevel.WARNING
    assert "no program runs it" in judged(replace(GOOD, runner=None, lag=99_999)).problems[0]


def test_what_failed_is_critical_and_comes_first() -> None:
    failed = replace(GOOD, name="f", runner=None, last_error="no | disk\x1b", error_seq=6)
    verdict = judged(replace(GOOD, parked=2), failed)
    assert verdict.problems == ("projection f failed: at event 6: no | disk␛", "projection p has 2 parked events")
    line = verdict.line(CheckLimits())
    assert line.startswith("ESX CRITICAL - projection f failed: at event 6: no / disk␛; projection p")
    assert line.count("|") == 1


def test_an_open_writer_holds_the_feed() -> None:
    assert judged(writers=(WRITER,)).problems == ("pid 42 may hold the feed, and has been writing for 20.0 s",)
    hidden = WRITER._replace(since=None)
    assert judged(writers=(hidden,)).level is CheckLevel.UNKNOWN
    assert judged(writers=(hidden, WRITER)).level is CheckLevel.WARNING


def test_many_problems_are_counted() -> None:
    verdict = judged(*(replace(GOOD, name=f"p{n}", parked=1) for n in range(5)))
    assert "; and 2 more problems |" in verdict.line(CheckLimits())
