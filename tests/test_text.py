from __future__ import annotations

from esx.load.verdict import Delivery, Findings, conclude
from esx.text import change_text, counted, rate_text


def test_one_is_no_plural() -> None:
    assert [counted(number, "stream") for number in (0, 1, 2_000)] == ["0 streams", "1 stream", "2,000 streams"]
    assert [counted(number, "event has", "events have") for number in (1, 3)] == ["1 event has", "3 events have"]


def test_a_verdict_on_one_event_is_in_the_singular() -> None:
    found = Findings(stored=1, streams=1, acknowledged=1)
    assert conclude(found, [Delivery(delivered=1, reached=True)]).evidence == (
        "1 event acknowledged, 1 stored: every acknowledged event exactly once, and no other",
        "versions are contiguous from 0 in 1 stream",
        "the feed gave 1 subscriber 1 event, each once and in order",
    )


def test_changes_and_rates_in_words() -> None:
    changes = [change_text(*pair) for pair in ((3, 3), (3, 0), (0, 3), (3, 2), (30, 3))]
    assert changes == ["=", "new", "none now", "+50%", "x10"]
    rates = [rate_text(rate) for rate in (None, 0.0, 12.3, 1 / 30, 1 / 7200, 1e-9)]
    assert rates == ["-", "0", "12/s", "2.0/min", "12/d", "<1/d"]
