"""When appends came: how many in each hour, and how much their rate varies within it."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

from esx.load.learn.appends import AppendRun, SampledAppend
from esx.load.learn.profile import Arrivals
from esx.store.traffic.sample import TrafficSample

_LENGTHS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0)
_LEAST_PARTS = 12
_MOST_SPREAD = 100.0
_BY_CHANCE = 2.0
_FAR = 0.05


def fit_arrivals(sample: TrafficSample, runs: Sequence[AppendRun], inferred: dict[str, str]) -> Arrivals:
    """Return when appends came; what is not known is noted in `inferred`."""
    slices = [run.appends for run in runs]
    numbers = [number for _, number in sample.parts]
    part = sample.part
    if sample.whole:
        firsts = sorted(append.global_seq for one in slices for append in one)
        places = [bisect_left(firsts, number) for number in numbers]
        appends = [float(after - before) for before, after in pairwise(places)]
    else:
        appends = _appends(numbers, sample, runs)
        far = (sample.last - sample.first + 1) * _FAR
        if any(few[0].global_seq - begin > far for few, (begin, _) in zip(sample.slices, sample.spans, strict=True)):
            inferred["appends"] = "the numbers of the global order jump far, so parts of it are hardly in the sample"
    unknown = "no rate is known: give a load test its --rate"
    at_once = (sample.until - sample.since).total_seconds() < 1
    if not _rises(slices):
        # A bisection along times that do not rise finds no places that mean anything.
        part = max((sample.until - sample.since).total_seconds(), 1.0)
        appends = [sum(appends)]
        what = unknown if at_once else "only the mean rate is known"
        inferred["appends"] = f"created_at does not rise along the global order, so {what}"
    elif at_once:
        inferred["appends"] = f"all events have nearly one time, so {unknown}"
    bursts = _bursts(slices, [moment.timestamp() for moment, _ in sample.parts])
    if bursts is None:
        inferred["burst_spread"] = "not known, as too few appends lie near each other: the rate is taken for steady"
    return Arrivals(sample.since, sample.until, part, tuple(appends), *(bursts or (1.0, 0.0)))


def _appends(numbers: Sequence[int], sample: TrafficSample, runs: Sequence[AppendRun]) -> list[float]:
    """Return the appends between each two of the numbers, as dense as in the slices that are nearest."""
    density = [
        len(events) / max(end - begin + 1, 1) for events, (begin, end) in zip(sample.slices, sample.spans, strict=True)
    ]
    per_event = [each * ratio for each, ratio in zip(density, _per_event(runs), strict=True)]
    middles = [(begin + end) / 2 for begin, end in sample.spans]
    edges = [-math.inf, *[(one + other) / 2 for one, other in pairwise(middles)], math.inf]
    found = []
    for begin, end in pairwise(numbers):
        at = bisect_right(edges, begin) - 1
        total, place = 0.0, float(begin)
        while place < end:
            until = min(edges[at + 1], end)
            total += (until - place) * per_event[at]
            place, at = until, at + 1
        found.append(total)
    return found


def _per_event(runs: Sequence[AppendRun]) -> list[float]:
    """Return the appends per event of each slice; that of all, where they differ no more than by chance."""
    counts = [sum(append.weight for append in run.appends) for run in runs]
    events = sum(run.events for run in runs)
    ratio = sum(counts) / max(events, 1)
    sizes = [len(append.events) for run in runs for append in run.appends]
    if len(sizes) < 2 or not ratio:
        return [ratio] * len(runs)
    # That many appends of these sizes vary by so much, as renewals do.
    spread = statistics.pvariance(sizes) * ratio**3
    excess = [(count - ratio * run.events) ** 2 / run.events for count, run in zip(counts, runs, strict=True)]
    if statistics.fmean(excess) <= _BY_CHANCE * spread:
        return [ratio] * len(runs)
    return [count / run.events for count, run in zip(counts, runs, strict=True)]


def _rises(slices: Sequence[Sequence[SampledAppend]]) -> bool:
    """Return whether the times of the slices rise with their numbers, but for a few."""
    middles = [
        statistics.median(times) for one in slices if (times := [each.at for each in one if each.at is not None])
    ]
    return sum(after < before for before, after in pairwise(middles)) <= len(middles) * 0.02


def _bursts(slices: Sequence[Sequence[SampledAppend]], parts: Sequence[float]) -> tuple[float, float] | None:
    """Return for how long the rate of appends is taken to stay the same, and how much it varies; None if not known.

    By chance alone the number of appends in a stretch varies as much as it is large; what it varies more is the rate.
    How it varies from one of the `parts` to the next is no burst.
    """
    times = [
        near
        for one in slices
        for near in _by_part(sorted(each.at for each in one if each.at is not None), parts)
        if len(near) > 2 * _LEAST_PARTS and near[-1] > near[0]
    ]
    if not times:
        return None
    span = statistics.median(one[-1] - one[0] for one in times)
    gap = statistics.median((one[-1] - one[0]) / len(one) for one in times)
    fitting = [length for length in _LENGTHS if span / length >= _LEAST_PARTS and length >= gap]
    length = min(fitting, key=lambda each: abs(each - 1.0)) if fitting else _LENGTHS[0]
    excess = squares = 0.0
    for one in times:
        # The stretches at both ends are cut.
        begin = (one[0] // length + 1) * length
        stretches = int((one[-1] - begin) / length)
        if stretches < 2:
            continue
        counts = [0] * stretches
        for at in one:
            place = int((at - begin) // length)
            if 0 <= place < stretches:
                counts[place] += 1
        mean = sum(counts) / stretches
        variance = sum((count - mean) ** 2 for count in counts) / (stretches - 1)
        excess += stretches * (variance - mean)
        squares += stretches * (mean * mean - variance / stretches)
    return (length, min(max(excess / squares, 0.0), _MOST_SPREAD)) if squares > 0 else None


def _by_part(times: Sequence[float], parts: Sequence[float]) -> Iterator[Sequence[float]]:
    """Yield the times that lie in each of the parts."""
    begin = 0
    while begin < len(times):
        at = bisect_right(parts, times[begin])
        end = bisect_left(times, parts[at], begin) if at < len(parts) else len(times)
        yield times[begin:end]
        begin = end
