"""Which streams appends go to: the most popular of lasting ones, or the youngest of those that pass by."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from esx.load.learn.appends import SampledAppend
from esx.load.learn.profile import MOST_STREAMS
from esx.load.learn.zipf import fit_counts, fit_ranks
from esx.store.traffic.sample import TrafficSample

_STEADY = 0.005
"""With fewer births per append, streams are taken for lasting ones."""
_YOUNGEST = 4.0
"""How many births the youngest class of ages has; each older one has twice as many."""
_MANY_MISSED = 2.0
"""Of so many streams, one was seen."""


class FittedHeat(NamedTuple):
    """The fields of `CategoryTraffic` of these names."""

    heat: str
    zipf: float
    streams: int
    hottest: float


def fit_heat(slices: Sequence[Sequence[SampledAppend]], sample: TrafficSample) -> FittedHeat:
    """Return where the appends of a category that begin no stream go."""
    births = sum(append.weight for one in slices for append in one if append.begins)
    later = [append for one in slices for append in one if not append.begins]
    appends = births + len(later)
    known = sum(append.stream_id in sample.births for append in later)
    if births >= appends * _STEADY:
        ranks = _ranks(slices, births / max(sample.numbers, 1), sample)
        if len(ranks) > known / 2:
            hottest = ranks.count(1) / len(ranks)
            return FittedHeat("recency", *_bounded(*fit_ranks([rank for rank in ranks if rank > 1], first=2)), hottest)
    return _popularity(later)


def _ranks(slices: Sequence[Sequence[SampledAppend]], per_number: float, sample: TrafficSample) -> list[int]:
    """Return, of appends to streams that began in the time of the sample, which youngest stream they went to, from 1.

    Births in the same slice are counted, and so are earlier streams that it has appends to. Where it misses many of an
    age, their rank is estimated, as there are so many births `per_number`: for low ranks that would be a bad guess.
    """
    older = [_older(appends, sample) for appends in slices]
    hits: dict[int, Counter[int]] = defaultdict(Counter)
    for appends, born in zip(slices, older, strict=True):
        for stream_id, times in Counter(append.stream_id for append in appends).items():
            if stream_id in born:
                hits[_age(appends[0].global_seq - born[stream_id], per_number)][times] += 1
    stands_for = {age: _stands_for(times) for age, times in hits.items()}
    found: list[int] = []
    for appends, born in zip(slices, older, strict=True):
        before: dict[str, int] = {}
        rank = 1.0
        for stream_id in sorted(born, key=lambda each: -born[each]):
            since = max(appends[0].global_seq - born[stream_id], 0)
            each = stands_for[_age(since, per_number)]
            before[stream_id] = round(rank if each < _MANY_MISSED else since * per_number + 1)
            rank += each
        begun: dict[str, int] = {}
        for append in appends:
            if append.begins:
                begun[append.stream_id] = len(begun)
            elif append.stream_id in begun:
                found.append(len(begun) - begun[append.stream_id])
            elif append.stream_id in before:
                found.append(before[append.stream_id] + len(begun))
    return found


def _older(appends: Sequence[SampledAppend], sample: TrafficSample) -> dict[str, int]:
    """Return the streams that these went to and that began before them in the time of the sample: with the number."""
    begun = {append.stream_id for append in appends if append.begins}
    streams = {append.stream_id for append in appends} - begun
    return {each: born for each in streams if (born := sample.births.get(each)) is not None and born >= sample.first}


def _age(numbers: int, per_number: float) -> int:
    """Return the class of a stream's age: how often the births since then double `_YOUNGEST`."""
    births = numbers * per_number
    return 0 if births < _YOUNGEST else int(math.log2(births / _YOUNGEST)) + 1


def _stands_for(times: Counter[int]) -> float:
    """Return how many streams each one that was hit stands for, of which so many were hit so many times.

    How many were missed follows from how many were hit once and twice (Chao's estimate).
    """
    return 1 + times[1] * (times[1] - 1) / (2 * (times[2] + 1)) / times.total()


def _popularity(appends: Sequence[SampledAppend]) -> FittedHeat:
    counts = Counter(append.stream_id for append in appends)
    if not counts:
        return FittedHeat("popularity", 0.0, 1, 0.0)
    draws = len(appends)
    [(hot, highest)] = counts.most_common(1)
    # The hottest has a share of its own, as it often stands out.
    rest = draws - highest
    if rest < 2:
        return FittedHeat("popularity", 0.0, len(counts), highest / draws)
    repeats = sum(count * (count - 1) for stream, count in counts.items() if stream != hot) / (rest * (rest - 1))
    fitted = fit_counts(rest, len(counts) - 1, repeats, first=2, most=MOST_STREAMS)
    return FittedHeat("popularity", *_bounded(*fitted), highest / draws)


def _bounded(zipf: float, streams: int) -> tuple[float, int]:
    return zipf, min(max(streams, 1), MOST_STREAMS)
