"""Reading positions and times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esx import times
from esx.positions import Position, parse_moment, parse_position

NOW = datetime(2026, 8, 7, 12, 30, tzinfo=UTC)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.fixture(autouse=True)
def _in_vienna() -> object:
    times.show_times_in(ZoneInfo("Europe/Vienna"))
    yield
    times.show_times_in(None)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("1234", Position(number=1234)),
        ("1,234,567", Position(number=1234567)),
        ("#99", Position(global_seq=99)),
        (" 0 ", Position(number=0)),
        ("9223372036854775807", Position(number=2**63 - 1)),
        ("2026-08-07 14:00", Position(moment=datetime(2026, 8, 7, 12, tzinfo=UTC))),
        ("2026-01-07 14:00", Position(moment=datetime(2026, 1, 7, 13, tzinfo=UTC))),
        ("2026-08-07T14:00Z", Position(moment=datetime(2026, 8, 7, 14, tzinfo=UTC))),
        ("2026-08-07 14:00:05.25 +05:30", Position(moment=datetime(2026, 8, 7, 8, 30, 5, 250_000, tzinfo=UTC))),
        ("2026-08-07", Position(moment=datetime(2026, 8, 6, 22, tzinfo=UTC))),
        ("9:05", Position(moment=datetime(2026, 8, 7, 7, 5, tzinfo=UTC))),
        ("today", Position(moment=datetime(2026, 8, 6, 22, tzinfo=UTC))),
        ("yesterday 14:00", Position(moment=datetime(2026, 8, 6, 12, tzinfo=UTC))),
        ("now", Position(moment=NOW)),
        ("-2h", Position(moment=NOW - timedelta(hours=2))),
        ("-1d12h", Position(moment=NOW - timedelta(hours=36))),
        ("- 90 m", Position(moment=NOW - timedelta(minutes=90))),
    ],
)
def test_forms(text: str, position: Position) -> None:
    assert parse_position(text, now=NOW) == position


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "#", "-5", "12,34", "2026-8-7", "2026-02-30", "25:00", "2026-08-07 14", "tomorrow", "0001-01-01"),
        *("9223372036854775808", "9" * 5000, "-99999999w", "-" + "9" * 5000 + "d", "2026-08-07T14:00+99:00"),
        *("١٢", "\x1b[2J"),
    ],
)
def test_what_is_none_is_named_in_one_line(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_position(text, now=NOW)
    message = str(refused.value)
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 250
    assert repr(text)[:20] in message


@given(st.datetimes(datetime(1900, 1, 1), datetime(2900, 1, 1)), OFFSETS, st.sampled_from("T t "))
def test_a_time_with_its_offset_is_that_time_anywhere(naive: datetime, offset: timezone, between: str) -> None:
    moment = naive.replace(tzinfo=offset)
    assert parse_moment(moment.isoformat(between), now=NOW) == moment
    assert parse_moment(f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}Z") == moment


@given(st.text(alphabet="0123456789-:#smhdwzT+ ,.", max_size=24) | st.text(max_size=12))
def test_any_text_is_a_position_or_refused(text: str) -> None:
    try:
        position = parse_position(text, now=NOW)
    except ValueError:
        return
    given = [part for part in (position.number, position.global_seq, position.moment) if part is not None]
    assert len(given) == 1
    if position.moment is not None:
        assert position.moment.tzinfo is UTC
