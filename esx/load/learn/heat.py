"""Which streams appends go to: the most popular of lasting ones, or the youngest of those that pass by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from esx.load.learn.appends import SampledAppend
from esx.load.learn.profile import MOST_STREAMS
from esx.load.learn.zipf import fit_counts, fit_ranks
from esx.store.traffic.sample import TrafficSample

_STEADY = 0.005
"""With fewer births per append, streams are taken for lasting ones."""


class FittedHeat(NamedTuple):
    """The fields of `CategoryTraffic` of these names."""

    heat: str
    zipf: float
    streams: int
    hottest: float


def fit_heat(slices: Sequence[Sequence[SampledAppend]], sample: TrafficSample) -> FittedHeat:
    """Return where the appends of a category that begin no stream go."""
    births = sum(append.begins for one in slices for append in one)
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

    Births in the same slice are counted, others estimated: there are so many `per_number`.
    """
    found: list[int] = []
    for appends in slices:
        begun: dict[str, int] = {}
        for append in appends:
            if append.begins:
                begun[append.stream_id] = len(begun)
            elif append.stream_id in begun:
                found.append(len(begun) - begun[append.stream_id])
            else:
                born = sample.births.get(append.stream_id)
                if born is not None and born >= sample.first:
                    before = round(max(appends[0].global_seq - born, 0) * per_number)
                    found.append(before + len(begun) + 1)
    return found


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
