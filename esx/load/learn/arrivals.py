"""When appends came: how many in each hour, and how much their rate varies within it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

from esx.load.learn.appends import SampledAppend
from esx.load.learn.profile import Arrivals
from esx.store.traffic.sample import TrafficSample

_LENGTHS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0)
_LEAST_PARTS = 12
_MOST_SPREAD = 100.0


def fit_arrivals(
    sample: TrafficSample, slices: Sequence[Sequence[SampledAppend]], per_number: float, inferred: dict[str, str]
) -> Arrivals:
    """Return when appends came, `per_number` for each number; what is not known is noted in `inferred`."""
    numbers = [number for _, number in sample.parts]
    appends = [max(after - before, 0) * per_number for before, after in pairwise(numbers)]
    part = sample.part
    if not _rises(slices):
        # A bisection along times that do not rise finds no places that mean anything.
        part = max((sample.until - sample.since).total_seconds(), 1.0)
        appends = [sum(appends)]
        inferred["appends"] = "created_at does not rise along the global order, so only the mean rate is known"
    return Arrivals(sample.since, sample.until, part, tuple(appends), *_bursts(slices))


def _rises(slices: Sequence[Sequence[SampledAppend]]) -> bool:
    """Return whether the times of the slices rise with their numbers, but for a few."""
    middles = [
        statistics.median(times) for one in slices if (times := [each.at for each in one if each.at is not None])
    ]
    return sum(after < before for before, after in pairwise(middles)) <= len(middles) * 0.02


def _bursts(slices: Sequence[Sequence[SampledAppend]]) -> tuple[float, float]:
    """Return for how long the rate of appends is taken to stay the same, and how much it varies.

    By chance alone the number of appends in a stretch varies as much as it is large; what it varies more is the rate.
    """
    times = [sorted(each.at for each in one if each.at is not None) for one in slices]
    times = [one for one in times if len(one) > 2 * _LEAST_PARTS and one[-1] > one[0]]
    if not times:
        return 1.0, 0.0
    span = statistics.median(one[-1] - one[0] for one in times)
    gap = statistics.median((one[-1] - one[0]) / len(one) for one in times)
    fitting = [length for length in _LENGTHS if span / length >= _LEAST_PARTS and length >= gap]
    length = min(fitting, key=lambda each: abs(each - 1.0)) if fitting else _LENGTHS[0]
    excess = squares = 0.0
    for one in times:
        # The stretches at both ends are cut.
        begin = (one[0] // length + 1) * length
        parts = int((one[-1] - begin) / length)
        if parts < 2:
            continue
        counts = [0] * parts
        for at in one:
            place = int((at - begin) // length)
            if 0 <= place < parts:
                counts[place] += 1
        mean = sum(counts) / parts
        variance = sum((count - mean) ** 2 for count in counts) / (parts - 1)
        excess += parts * (variance - mean)
        squares += parts * (mean * mean - variance / parts)
    return length, min(max(excess / squares, 0.0), _MOST_SPREAD) if squares > 0 else 0.0
