"""The file of learned traffic: written, changed by people, and read again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from esx.load.errors import InvalidOptions
from esx.load.learn.profile import Arrivals, BadProfile, profile_text, read_profile
from esx.load.learn.rate import as_learned
from esx.load.learn.scaling import LoadBounds, Multiple, passed, scaling_lines
from esx.load.model import LoadOptions
from esx.load.options import validate
from tests.loadtest.test_mix import profile

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(profile_text(profile()))
    assert read_profile(path) == profile()
    for word in ("Inferred", "# inferred", "[inferred]"):
        assert word in path.read_text()
    assert as_learned(LoadOptions(like=str(path), times=3)).rate == pytest.approx(6.0)
    assert as_learned(LoadOptions(like=str(path), rate=7)).rate == 7
    assert as_learned(LoadOptions()).rate is None


def test_the_busiest_part_may_be_cut() -> None:
    at = datetime(2026, 8, 3, 10, 30, tzinfo=UTC)

    def busiest(minutes: float, *appends: float, part: float = 3600.0) -> float:
        return Arrivals(at, at + timedelta(minutes=minutes), part, appends, 1.0, 0.0).busiest

    assert busiest(120, 1800, 1800, 900) == pytest.approx(1.0)  # half an hour, an hour, half an hour
    assert busiest(35, 1800, 3000) == pytest.approx(1.0)  # five minutes say little of an hour
    assert busiest(10, 600) == pytest.approx(1.0)
    assert busiest(120, 0, 0, 0) == 0
    assert busiest(0, 500) == 500  # all at one time: not 500 million


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "has no format = 1"),
        ("format = 1", "format = ", "is not TOML"),
        ('heat = "recency"', 'heat = "warm"', "use recency or popularity"),
        ("share = 0.4", "share = 1.5", r"categories\[1\].share is 1.5"),
        ("share = 0.4", "share = nan", r"categories\[1\].share is nan"),
        ("share = 0.4", 'share = "0.4"', r"Expected `float`, got `str` - at `\$.categories\[1\].share`"),
        ("streams = 100", "streams = 99999999", "from 1 to 1,000,000"),
        ("events_per_append = [[1, 1]]", "events_per_append = []", "events_per_append is empty"),
        ("events_per_append = [[1, 1]]", "events_per_append = [[0, 1]]", "from 1 to 1,000"),
        ("bytes = [100, 200, 400]", "bytes = [100, 50]", "must rise"),
        ("bytes = [100, 200, 400]", "bytes = [100, 5000000]", "from 0 to 1,000,000"),
        ('name = "Deposited"', 'name = ""', "a type without a name"),
        ("    3600, 7200, 3600,", "    0, 0, 0,", "nothing but zeros"),
        ("burst_seconds = 1", "burst_seconds = 0", "burst_seconds is 0"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    text = profile_text(profile())
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BadProfile, match=message) as caught:
        read_profile(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadProfile, match="cannot be read"):
        read_profile(tmp_path / "none.toml")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(BadProfile, match="is not TOML"):
        read_profile(tmp_path / "bytes")
    (tmp_path / "large").write_bytes(b"# " + b"x" * 10_000_001)
    with pytest.raises(BadProfile, match="too large"):
        read_profile(tmp_path / "large")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (LoadOptions(like="f", streams=7), "--streams and --like exclude"),
        (LoadOptions(like="f", zipf=1), "--zipf and --like exclude"),
        (LoadOptions(like="f", payload_bytes=1), "--payload-bytes and --like exclude"),
        (LoadOptions(like="f", expected="none"), "use exact or any"),
        (LoadOptions(like="f", processes=2), "share streams: use 1"),
        (LoadOptions(like="f", times=0), "--times is 0"),
        (LoadOptions(like="f", replay="c"), "--like and --replay exclude"),
        (LoadOptions(replay="c", hot_streams=1, hot_share=1), "--hot-streams and --replay exclude"),
        (LoadOptions(replay="c", processes=2), "share streams: use 1"),
        (LoadOptions(like="f", think_time=1), "--think-time and --like exclude"),
        (LoadOptions(times=2), "add --like FILE"),
    ],
)
def test_options_that_the_file_decides_are_refused(options: LoadOptions, message: str) -> None:
    with pytest.raises(InvalidOptions, match=message):
        validate(options)


def test_it_says_at_which_multiple_a_bound_is_passed() -> None:
    runs = [
        Multiple(1, 10.0, 0.01, 5.0, behind=False, saturated=False, appends=99),
        Multiple(2, 20.0, 0.06, 50.0, behind=False, saturated=False, appends=500),
        Multiple(4, 30.0, 0.2, 250.0, behind=True, saturated=True, appends=900),
    ]
    assert passed(runs, LoadBounds()) == {"conflicts": 2, "latency": 4, "rate": 4}
    assert passed(runs[:1], LoadBounds()) == {"conflicts": None, "latency": None, "rate": None}
    text = "\n".join(scaling_lines(runs, LoadBounds()))
    assert "conflicts pass 5.0% of attempts at 2 times the traffic" in text
    assert "latency passes 100.0 ms for 99 of 100 commands at 4 times the traffic" in text
    assert "from 4 times on not all appends" in text
    assert "at 1 times fewer than 100 appends were made" in text
    kept = "\n".join(scaling_lines(runs[:2], LoadBounds(0.1, 60.0)))
    assert "conflicts stay within 10.0% of attempts up to 2 times" in kept
    assert "latency stays within 60.00 ms" in kept
