from __future__ import annotations

from datetime import UTC, datetime

from esx.tui.lists.rows import EventRow
from esx.tui.session.feedlog import OTHERS, FeedLog, Rates, current


def rows(first: int, count: int) -> list[EventRow]:
    return [EventRow(number, "s", number, "T", datetime.now(UTC), "{}") for number in range(first, first + count)]


def test_counts_add_up_when_rows_are_dropped() -> None:
    log = FeedLog(kept=10)
    log.add(rows(1, 8), 0.0)
    assert log.flush() == 0
    log.add(rows(9, 7), 0.1)
    assert log.flush() == 5
    assert [row.global_seq for row in log.rows] == list(range(6, 16))
    log.add(rows(16, 35), 0.2)
    log.flush()
    assert log.received == 50 == len(log.rows) + log.gone


def test_a_pause_keeps_counting() -> None:
    log = FeedLog(kept=10)
    log.add(rows(1, 3), 0.0)
    log.flush()
    log.paused = True
    log.add(rows(4, 132), 0.1)
    assert log.flush() is None
    assert log.waiting == 132
    assert [row.global_seq for row in log.rows] == [1, 2, 3]
    log.paused = False
    log.flush()
    assert [row.global_seq for row in log.rows] == list(range(126, 136))
    assert log.received == 135 == len(log.rows) + log.gone


def test_the_latest_are_known_as_far_back_as_they_are_kept() -> None:
    log = FeedLog(kept=10)
    log.add(rows(1, 8), 0.0)
    log.flush()
    log.add(rows(9, 4), 0.1)
    # Waiting or shown, the newest first.
    latest = log.latest(6)
    assert latest is not None
    assert [row.global_seq for row in latest] == [12, 11, 10, 9, 8, 7]
    assert log.latest(12) == []
    log.flush()
    assert log.latest(2) is None, "3 is no longer kept"


def test_rate_by_the_second() -> None:
    rates = Rates(seconds=4)
    rates.add(["A", "B"] * 5, 100.2)
    rates.add(["A"] * 20, 101.9)
    assert rates.series(102.0) == [10, 20]
    assert current(rates.series(104.0)) == 20 / 3
    assert rates.series(200.0) == [0, 0, 0, 0]


def test_what_was_there_before_counts_as_far_back_as_it_is_known() -> None:
    rates = Rates(seconds=10, known=4.6)
    rates.add(["A"] * 3, 100.5, age=2.0)
    rates.add(["A"], 100.5, age=9.0)
    assert (rates.known(100.5), rates.series(100.5)) == (4, [0, 0, 3, 0])
    rates.add(["B"], 101.5)
    assert (rates.known(102.0), rates.series(102.0)) == (6, [0, 0, 3, 0, 0, 1])
    assert [(rate.name, rate.events) for rate in rates.top(5, 102.0)] == [("A", 3), ("B", 1)]
    assert Rates(seconds=10, known=float("inf")).series(7.0) == [0] * 10


def test_types_are_counted_for_a_minute_and_their_number_is_bounded() -> None:
    rates = Rates(seconds=3)
    rates.add(["A"] * 6 + ["B"], 10.5)
    rates.add(["B"] * 2, 11.5)
    assert [(rate.name, rate.events, rate.series) for rate in rates.top(5, 12.0)] == [
        ("A", 6, [6, 0]),
        ("B", 3, [1, 2]),
    ]
    assert rates.top(5, 12.0)[0].current == 3
    assert [rate.name for rate in rates.top(5, 14.0)] == ["B"]
    assert rates.top(5, 99.0) == []
    rates.add((f"T{number}" for number in range(10_000)), 99.5)
    top = rates.top(1, 100.0)[0]
    assert (top.name, top.events) == (OTHERS, 9_500)
