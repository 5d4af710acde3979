"""Fitting other traffic than that of the one history: few young streams, large appends, jobs at night, odd numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from esx.load.learn.fit import fit
from esx.load.learn.profile import MOST_STREAMS_IN_ALL, profile_text, read_profile
from esx.load.learn.zipf import fit_counts
from esx.store.traffic.sample import SampledEvent
from tests.load.learn.traffic import Kind, history, sampled

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

_TYPE = {"T": (1.0, 50, 150)}


def kind(name: str, share: float = 1.0, **changes: object) -> Kind:
    one = Kind(name, share, 0.0, recency=False, zipf=0.5, streams=40, events_per_append={1: 1.0}, types=_TYPE)
    return replace(one, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("births", "streams", "zipf"), [(0.1, 20, 0.5), (0.1, 20, 1.2), (0.5, 20, 1.2), (0.5, 200, 0.5)]
)
def test_few_young_streams_are_told_from_many(births: float, streams: int, zipf: float) -> None:
    carts = kind("carts", births=births, streams=streams, zipf=zipf, recency=True)
    sample = sampled(history(hours=[6_000] * 8, kinds=[carts]), slices=20, length=2000)
    [found] = fit(sample, "s").categories
    assert found.heat == "recency"
    assert found.births == pytest.approx(births, rel=0.1)
    assert found.zipf == pytest.approx(zipf, rel=0.12)
    assert found.streams == pytest.approx(streams, rel=0.12)
    weights = [rank**-zipf for rank in range(1, streams + 1)]
    assert found.hottest == pytest.approx(weights[0] / sum(weights), rel=0.1)


def test_large_appends_are_not_overlooked_because_slices_cut_them() -> None:
    kinds = [kind("clicks", 0.9), kind("imports", 0.1, events_per_append={200: 1.0})]
    hours = [1_500] * 8
    sample = sampled(history(hours=hours, kinds=kinds), slices=40, length=1000)
    profile = fit(sample, "s")
    assert sum(profile.arrivals.appends[: len(hours)]) == pytest.approx(sum(hours), rel=0.1)
    assert {each.name: each.share for each in profile.categories} == pytest.approx(
        {"clicks": 0.9, "imports": 0.1}, rel=0.1
    )
    assert dict(profile.categories[1].events_per_append) == {200: 1.0}


def test_a_nightly_job_is_not_taken_for_the_busiest_hour() -> None:
    clicks = list(history(hours=[3_000] * 10, kinds=[kind("clicks")]))
    job = history(hours=[0] * 5 + [300] + [0] * 4, kinds=[kind("job", events_per_append={200: 1.0})])
    rows = sorted([*clicks, *job], key=lambda row: row[4])  # type: ignore[arg-type, return-value]
    appends = fit(sampled(rows, slices=50, length=500), "s").arrivals.appends
    assert max(appends) == pytest.approx(3_300, rel=0.4)


def test_how_the_rate_goes_through_the_day_is_no_burst() -> None:
    day = [40 * (1 + hour % 12) for hour in range(120)]
    sample = sampled(history(hours=day, kinds=[kind("clicks")], spread=0.0), slices=10, length=2000)
    assert fit(sample, "s").arrivals.burst_spread < 0.06


def test_numbers_may_be_missing_here_and_not_there() -> None:
    rows = list(history(hours=[3_000] * 10, kinds=[kind("clicks")]))
    half = len(rows) // 2
    sample = sampled(rows, slices=20, length=500, number=lambda at: at if at < half else half + (at - half) * 9)
    appends = fit(sample, "s").arrivals.appends
    # In the hour in which that changes it is only known from where on to a slice.
    assert [*appends[:5], *appends[6:10]] == pytest.approx([3_000] * 9, rel=0.1)
    assert appends[5] == pytest.approx(3_000, rel=0.3)


def test_what_is_learned_can_be_sent(tmp_path: Path) -> None:
    """Whatever is in a store, `--like` takes the file."""
    rows = list(history(hours=[100], kinds=[kind("a")]))
    sample = sampled(rows, slices=10, length=100)
    nameless = tuple(tuple(event._replace(event_type="") for event in events) for events in sample.slices)
    path = tmp_path / "odd.toml"
    path.write_text(profile_text(fit(replace(sample, slices=nameless), "s")))
    assert read_profile(path).categories[0].types[0].name == "(none)"


def test_a_file_has_no_more_streams_than_a_load_test_takes() -> None:
    # Of three categories nearly each stream was seen once: as far as that tells, there may be any number of them.
    rows = list(history(hours=[100], kinds=[kind("a")]))
    events = [
        SampledEvent(at, f"{'abc'[at % 3]}-{at - 3 * (at % 3000 < 3)}", 9, "T", float(at), at, 1)
        for at in range(60_000)
    ]
    sample = replace(sampled(rows, slices=10, length=100), slices=(tuple(events),), spans=((0, 59_999),), births={})
    streams = [each.streams for each in fit(sample, "s").categories]
    assert sum(streams) <= MOST_STREAMS_IN_ALL
    assert min(streams) > MOST_STREAMS_IN_ALL / 4


def test_a_steep_law_has_no_more_streams_than_are_due_to_be_hit() -> None:
    exponent, streams = fit_counts(30_000, 200, 0.6)
    assert exponent > 2
    assert streams < 2_000
