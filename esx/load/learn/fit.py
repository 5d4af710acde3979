"""From a sample of a store's history to its traffic in figures."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from esx import __version__
from esx.load.learn.appends import SampledAppend, appends_of
from esx.load.learn.arrivals import fit_arrivals
from esx.load.learn.heat import fit_heat
from esx.load.learn.profile import FORMAT, QUANTILES, CategoryTraffic, TrafficProfile, TypeShare
from esx.store.traffic.sample import SLICE, TrafficSample

OTHERS = "(others)"
"""The name of the categories that are too rare to be told apart."""
UNNAMED = "(none)"
"""The name of the category of ids that name none, such as UUIDs."""
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
    slices = _slices(sample)
    appends = sum(map(len, slices))
    read = sum(map(len, sample.slices))
    density = read / max(sample.numbers, 1)
    per_append = sum(len(each.events) for one in slices for each in one) / max(appends, 1)
    inferred = dict(_INFERRED)
    return TrafficProfile(
        format=FORMAT,
        made_by=f"esx {__version__}",
        store=store,
        since=sample.since,
        until=sample.until,
        events=read if sample.whole else round((sample.last - sample.first + 1) * density),
        events_read=sample.events_read,
        arrivals=fit_arrivals(sample, slices, density / max(per_append, 1e-9), inferred),
        categories=tuple(_category(name, own, appends, sample) for name, own in _by_category(slices, sample)),
        inferred=inferred,
    )


def _slices(sample: TrafficSample) -> Slices:
    if not sample.whole:
        return [appends_of(events, sample.first_version, whole=False) for events in sample.slices]
    # What was read in pieces belongs together; bursts and births are looked at in short runs all the same.
    appends = appends_of([event for events in sample.slices for event in events], sample.first_version, whole=True)
    return [appends[begin : begin + SLICE] for begin in range(0, len(appends), SLICE)]


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
    sizes = {name: sum(map(len, own)) for name, own in found.items()}
    appends = sum(sizes.values())
    others: list[list[SampledAppend]] = []
    for place, name in enumerate(sorted(sizes, key=lambda each: (-sizes[each], each))):
        if place < _MOST_CATEGORIES and sizes[name] >= appends * _LEAST_SHARE:
            yield name, found[name]
        else:
            others += found[name]
    if others:
        yield OTHERS, others


def _category(name: str, slices: Slices, all_appends: int, sample: TrafficSample) -> CategoryTraffic:
    appends = [append for one in slices for append in one]
    sizes = Counter(min(len(append.events), _MOST_EVENTS) for append in appends)
    return CategoryTraffic(
        name,
        len(appends) / all_appends,
        sum(append.begins for append in appends) / len(appends),
        *fit_heat(slices, sample),
        tuple((size, count / len(appends)) for size, count in sorted(sizes.items())),
        tuple(_types(appends)),
    )


def _types(appends: Sequence[SampledAppend]) -> Iterator[TypeShare]:
    """Yield the types, the most frequent first, with the quantiles of their sizes."""
    events = [event for append in appends for event in append.events]
    counts = Counter(event.event_type for event in events)
    sizes: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event.size is not None:
            sizes[event.event_type].append(min(event.size, _LARGEST))
    for name, count in counts.most_common(_MOST_TYPES):
        yield TypeShare(name, count / len(events), _quantiles(sizes[name]))


def _quantiles(sizes: list[int]) -> tuple[int, ...]:
    """Return the smallest, the tenths, and the largest."""
    if not sizes:
        return ()
    sizes.sort()
    last = len(sizes) - 1
    return tuple(sizes[round(last * tenth / (QUANTILES - 1))] for tenth in range(QUANTILES))
