"""Drawing appends like those of a store that was learned."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from esx.load.learn.profile import Arrivals, CategoryTraffic, TrafficProfile, TypeShare
from esx.loadtest.mix import BurstySchedule, Mix

BEGINS = datetime(2026, 8, 3, tzinfo=UTC)
LASTING = CategoryTraffic(
    "accounts", 0.6, 0.0, "popularity", 1.0, 100, 0.4, ((1, 1.0),), (TypeShare("Deposited", 1.0, (100, 200, 400)),)
)
PASSING = CategoryTraffic(
    "orders", 0.4, 0.25, "recency", 0.5, 20, 0.2, ((1, 0.5), (3, 0.5)), (TypeShare("A", 0.9), TypeShare("B", 0.1, (7,)))
)


def profile(*categories: CategoryTraffic, spread: float = 0.5, length: float = 1.0) -> TrafficProfile:
    ends = BEGINS + timedelta(hours=3)
    arrivals = Arrivals(BEGINS, ends, 3600.0, (3600.0, 7200.0, 3600.0), length, spread)
    return TrafficProfile(1, "esx", "shop", BEGINS, BEGINS, 1000, 1000, arrivals, categories or (LASTING, PASSING))


def test_draws_have_the_shares_of_the_profile() -> None:
    next_append = Mix(profile(), "m").drawer(random.Random(1))
    draws = [next_append() for _ in range(40_000)]
    close = pytest.approx
    lasting = [each for each in draws if each.stream < 100]
    assert len(lasting) / len(draws) == close(0.6, rel=0.03)
    heat = Counter(each.stream for each in lasting)
    assert heat[0] / len(lasting) == close(0.4, rel=0.05)
    # The others follow the law.
    assert heat[1] / heat[3] == close(2.0, rel=0.15)
    assert {name for each in lasting for name, _ in each.events} == {"Deposited"}
    sizes = sorted(size for each in lasting for _, size in each.events)
    assert (sizes[0], sizes[-1]) == (100, 400)
    assert sizes[len(sizes) // 2] == close(200, rel=0.03)
    passing = [each for each in draws if each.stream >= 100]
    assert sum(each.begins for each in passing) / len(passing) == close(0.25, rel=0.05)
    assert sum(len(each.events) for each in passing) / len(passing) == close(2.0, rel=0.03)
    types = Counter(name for each in passing for name, _ in each.events)
    assert types["B"] / types.total() == close(0.1, rel=0.1)
    assert {size for each in passing for name, size in each.events if name == "B"} == {7}


def test_young_streams_are_hot_and_old_ones_are_left() -> None:
    next_append = Mix(profile(PASSING), "m").drawer(random.Random(1))
    young: list[int] = []
    ranks: Counter[int] = Counter()
    others = 0
    for _ in range(40_000):
        draw = next_append()
        if draw.begins:
            assert draw.stream not in young
            young.append(draw.stream)
        elif draw.stream in young:
            ranks[len(young) - young.index(draw.stream)] += 1
        else:
            others += 1
        young = young[-20:]
    assert others < 200, "the streams that were there at the beginning have gone"
    assert max(ranks) == 20
    assert ranks[1] / ranks.total() == pytest.approx(0.2, rel=0.05)
    assert ranks[4] / ranks[16] == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
def test_bursts_vary_as_they_should_and_keep_the_rate(spread: float) -> None:
    mix = Mix(profile(spread=spread), "m", (0.0, 4000.0))
    schedule = BurstySchedule(20.0, 5_000, random.Random(2), mix.rate_at)
    counts = [0] * 4000
    while (at := (schedule.next() - 5_000) / 1e9) < 4000:
        counts[int(at)] += 1
    mean = sum(counts) / 4000
    assert mean == pytest.approx(20.0, rel=0.02)
    variance = sum((count - mean) ** 2 for count in counts) / 4000
    assert (variance - mean) / mean**2 == pytest.approx(spread, rel=0.15, abs=0.01)


def test_all_writers_meet_the_same_bursts_and_a_name_repeats_them() -> None:
    one, same, other = (Mix(profile(length=0.01), name, (1.0, 5.0)) for name in ("a", "a", "b"))
    times = [at / 7 for at in range(70)]
    assert [one.rate_at(at) for at in times] == [same.rate_at(at) for at in reversed(times)][::-1]
    assert [one.rate_at(at) for at in times] != [other.rate_at(at) for at in times]
    # Whatever the time, the next is later: else a writer would wait for ever.
    for number in range(100_000):
        at = number * 0.01
        assert one.rate_at(at)[1] > at


def test_odd_profiles_can_be_drawn_from() -> None:
    single = replace(LASTING, streams=1, hottest=1.0, zipf=0.0)
    births = replace(PASSING, births=1.0, streams=1)
    empty = replace(LASTING, types=(TypeShare("T", 1.0),), hottest=0.0)
    next_append = Mix(profile(single, births, empty, spread=0.0), "m").drawer(random.Random(3))
    draws = [next_append() for _ in range(1000)]
    assert {each.stream for each in draws if each.stream < 1} == {0}
    # A share of 0 is none: where the first stream gets no appends, they go to the others.
    assert {each.stream for each in draws if each.events[0][0] == "T"} <= set(range(3, 102))
    assert len({each.stream for each in draws if each.begins}) == sum(each.begins for each in draws)
