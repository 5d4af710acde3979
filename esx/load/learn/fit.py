"""From a sample of a store's history to its traffic in figures."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from esx import __version__
from esx.load.learn.appends import AppendRun, SampledAppend, appends_of
from esx.load.learn.arrivals import fit_arrivals
from esx.load.learn.heat import fit_heat
from esx.load.learn.profile import (
    FORMAT,
    MOST_STREAMS_IN_ALL,
    QUANTILES,
    CategoryTraffic,
    TrafficProfile,
    TypeShare,
)
from esx.store.traffic.sample import SLICE, TrafficSample

OTHERS = "(others)"
"""The name of the categories that are too rare to be told apart."""
UNNAMED = "(none)"
"""The name of the category of ids that name none, such as UUIDs; and of a type that has none."""
_OPAQUE = re.compile(r"[0-9a-f]{8,}|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]+", re.IGNORECASE)
_MOST_CATEGORIES = 30
_LEAST_SHARE = 0.005
_MOST_TYPES = 100
_LARGEST = 1_000_000
_MOST_EVENTS = 1_000
_INFERRED = {
    "categories": "the part of an id before the first separator; rare ones are put together, as are ids such as UUIDs",
    "events_per_append": "events of one stream and one transaction (xmin), or where that is not known one created_at",
    "heat": "recency if most appends go to streams that began in this time, else popularity",
    "streams": "from how often a sample hits the same streams; with recency, from how far back appends reach",
    "expected": "assumed: an append that begins a stream expects none, all others the version that was read",
    "burst_spread": "from the appends of short runs of the global order",
}

Slices = Sequence[Sequence[SampledAppend]]


def fit(sample: TrafficSample, store: str) -> TrafficProfile:
    """Return the traffic of a sample; `store` is where it was read, without a password."""
    runs = _runs(sample)
    slices = [run.appends for run in runs]
    appends = _total(slices)
    read = sum(map(len, sample.slices))
    density = read / max(sample.numbers, 1)
    inferred = dict(_INFERRED)
    return TrafficProfile(
        format=FORMAT,
        made_by=f"esx {__version__}",
        store=store,
        since=sample.since,
        until=sample.until,
        events=read if sample.whole else round((sample.last - sample.first + 1) * density),
        events_read=sample.events_read,
        arrivals=fit_arrivals(sample, runs, inferred),
        categories=_bounded([_category(name, own, appends, sample) for name, own in _by_category(slices, sample)]),
        inferred=inferred,
    )


def _runs(sample: TrafficSample) -> list[AppendRun]:
    if not sample.whole:
        return [appends_of(events, sample.first_version, whole=False) for events in sample.slices]
    # What was read in pieces belongs together; bursts and births are looked at in short runs all the same.
    together = appends_of([event for events in sample.slices for event in events], sample.first_version, whole=True)
    found = [together.appends[begin : begin + SLICE] for begin in range(0, len(together.appends), SLICE)]
    return [AppendRun(few, sum(len(append.events) for append in few)) for few in found]


def _by_category(slices: Slices, sample: TrafficSample) -> Iterator[tuple[str, Slices]]:
    """Yield the categories, the largest first, and the rare ones as one, each with its part of the slices."""
    found: dict[str, list[list[SampledAppend]]] = defaultdict(list)
    for one in slices:
        here: dict[str, list[SampledAppend]] = defaultdict(list)
        for append in one:
            name = append.stream_id.partition(sample.separator)[0]
            here[UNNAMED if _OPAQUE.fullmatch(name) else name].append(append)
        for name, own in here.items():
            found[name].append(own)
    sizes = {name: _total(own) for name, own in found.items()}
    appends = sum(sizes.values())
    others: list[list[SampledAppend]] = []
    for place, name in enumerate(sorted(sizes, key=lambda each: (-sizes[each], each))):
        if place < _MOST_CATEGORIES and sizes[name] >= appends * _LEAST_SHARE:
            yield name, found[name]
        else:
            others += found[name]
    if others:
        yield OTHERS, others


def _total(slices: Slices) -> float:
    return sum(append.weight for one in slices for append in one)


def _bounded(categories: Sequence[CategoryTraffic]) -> tuple[CategoryTraffic, ...]:
    """Return them with no more streams than a load test takes."""
    part = min(MOST_STREAMS_IN_ALL / max(sum(each.streams for each in categories), 1), 1.0)
    return tuple(replace(each, streams=max(int(each.streams * part), 1)) for each in categories)


def _category(name: str, slices: Slices, all_appends: float, sample: TrafficSample) -> CategoryTraffic:
    total = _total(slices)
    sizes: dict[int, float] = defaultdict(float)
    for append in (append for one in slices for append in one):
        sizes[min(len(append.events), _MOST_EVENTS)] += append.weight
    return CategoryTraffic(
        name,
        total / all_appends,
        sum(append.weight for one in slices for append in one if append.begins) / total,
        *fit_heat(slices, sample),
        tuple((size, weight / total) for size, weight in sorted(sizes.items())),
        tuple(_types(slices)),
    )


def _types(slices: Slices) -> Iterator[TypeShare]:
    """Yield the types, the most frequent first, with the quantiles of their sizes."""
    weights: dict[str, float] = defaultdict(float)
    sizes: dict[str, list[int]] = defaultdict(list)
    for append in (append for one in slices for append in one):
        for event in append.events:
            weights[event.event_type] += append.weight
            if event.size is not None:
                sizes[event.event_type].append(min(event.size, _LARGEST))
    total = sum(weights.values())
    for name in sorted(weights, key=lambda each: (-weights[each], each))[:_MOST_TYPES]:
        yield TypeShare(name or UNNAMED, weights[name] / total, _quantiles(sizes[name]))


def _quantiles(sizes: list[int]) -> tuple[int, ...]:
    """Return the smallest, the tenths, and the largest."""
    if not sizes:
        return ()
    sizes.sort()
    last = len(sizes) - 1
    return tuple(sizes[round(last * tenth / (QUANTILES - 1))] for tenth in range(QUANTILES))
