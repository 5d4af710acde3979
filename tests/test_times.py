from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from esx.times import clock, in_zone, iso, show_times_in

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _machine_zone() -> Iterator[None]:
    yield
    show_times_in(None)


def test_times_are_shown_and_read_in_one_zone() -> None:
    moment = datetime(2026, 8, 7, 23, 0, 0, 123456, tzinfo=UTC)
    show_times_in(ZoneInfo("Asia/Kolkata"))
    assert clock(moment) == "2026-08-08 04:30:00"
    assert iso(moment) == "2026-08-08T04:30:00.123456+05:30"
    assert in_zone(datetime(2026, 8, 8, 4, 30)) == datetime(2026, 8, 7, 23, 0, tzinfo=UTC)
    show_times_in(UTC)
    assert iso(moment) == "2026-08-07T23:00:00.123456Z"
    assert (clock(None), iso(None)) == ("-", "-")


def test_the_ends_of_time_have_a_time_in_every_zone() -> None:
    for name in ("Asia/Tokyo", "America/Los_Angeles"):
        show_times_in(ZoneInfo(name))
        for end in (datetime.min, datetime.max):
            assert clock(end.replace(tzinfo=UTC))[:4] == f"{end.year:04d}"
