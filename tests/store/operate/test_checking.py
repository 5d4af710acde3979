"""What monitoring is told of consumers, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from esx import CheckLimits, CheckVerdict, ConsumerReport, ConsumerStatus, Runner, Writer
from esx.store.consume.others import OtherConsumers
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
    return judge(reports, OtherConsumers(others), writers, NOW, CheckLimits())


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
    other = ConsumerStatus("theirs", 1, None, 1002, lag_seconds=1.0)
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


def test_what_is_not_known_is_unknown_and_never_zero() -> None:
    theirs = ConsumerStatus("limits", None, "5 of 32 in account-1000", 426)
    verdict = judged(GOOD, others=(theirs,))
    assert verdict.level is CheckLevel.UNKNOWN
    line = verdict.line(CheckLimits())
    assert line.startswith("ESX UNKNOWN - how far limits is behind is not known (--max-lag none leaves that out); how")
    assert line.endswith("| max_lag=U;1000;10000;0 max_age=U;30;300;0 max_held=0.000s;10;100;0")
    without_times = replace(GOOD, lag=1, lag_seconds=None)
    assert (judged(without_times).level, judged(without_times).age) == (CheckLevel.UNKNOWN, None)
    assert judged(replace(without_times, lag=0)).level is CheckLevel.OK
    assert judged(replace(GOOD, parked=None)).level is CheckLevel.UNKNOWN
    hidden = WRITER._replace(since=None)
    assert judged(writers=(hidden,)).held is None
    on_standby = judge([GOOD], OtherConsumers(), None, NOW, CheckLimits())
    assert (on_standby.level, on_standby.held) == (CheckLevel.UNKNOWN, None)
    not_read = judge([], OtherConsumers((), ("this user may not read t",)), (), NOW, CheckLimits())
    assert (not_read.level, not_read.lag, not_read.age) == (CheckLevel.UNKNOWN, None, None)


def test_what_is_known_to_be_bad_counts_for_more_than_what_is_not_known() -> None:
    theirs = ConsumerStatus("theirs", 1, None, 9, lag_seconds=31.0)
    assert judged(others=(theirs,)).problems == ("theirs is about 8 behind (31.0 s)",)
    verdict = judged(others=(theirs, replace(theirs, name="limits", position=None, lag_seconds=None)))
    assert (verdict.level, verdict.age) == (CheckLevel.WARNING, None)
    assert judged(others=(replace(theirs, lag_seconds=301.0),)).level is CheckLevel.CRITICAL


def test_without_a_limit_what_is_not_known_is_not_judged() -> None:
    limits = CheckLimits(lag=None, age=None, held=None)
    theirs = ConsumerStatus("limits", None, "5 of 32 in account-1000", 426)
    verdict = judge([GOOD], OtherConsumers((theirs,)), None, NOW, limits)
    assert (
        verdict.line(limits) == "ESX OK - 2 consumers, how far not known | max_lag=U;;;0 max_age=U;;;0 max_held=U;;;0"
    )
    known = judge([replace(GOOD, lag=10**6, lag_seconds=1e6)], OtherConsumers(), (WRITER,), NOW, limits)
    assert (known.level, known.lag, known.age) == (CheckLevel.OK, 10**6, 1e6)


def test_what_cannot_be_behind_this_store_is_not_judged() -> None:
    apart = ConsumerStatus("accounting: Other", None, "7", 9, apart=True)
    verdict = judged(GOOD, others=(apart,))
    assert (verdict.level, verdict.consumers, verdict.lag, verdict.age) == (CheckLevel.OK, 1, 0, 0.0)
