"""A history with known parameters, made by code that shares nothing with what is to find them."""

from __future__ import annotations

import json
import random
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from esx.store.traffic.sample import SampledEvent, TrafficSample
from tests.support.connections import connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

BEGINS = datetime(2026, 8, 3, tzinfo=UTC)


@dataclass(frozen=True)
class Kind:
    """A category: its share of the appends, births per append, heat, and its events: sizes are bytes of data."""

    name: str
    share: float
    births: float
    recency: bool
    zipf: float
    streams: int
    events_per_append: Mapping[int, float]
    types: Mapping[str, tuple[float, int, int]]
    """By name: the share, the smallest and the largest size."""
    hottest: float | None = None
    """The share of the first stream where it stands out."""


HOURS = [2_000, 1_500, 1_500, 3_000, 6_000, 9_000, 12_000, 9_000, 6_000, 12_000, 15_000, 18_000, 9_000, 4_000]
"""Appends in each hour."""
SPREAD = 0.5
"""The squared coefficient of variation of the rate, from second to second."""
KINDS = (
    Kind(
        "accounts", 0.5, 0.0, False, 1.0, 400, {1: 1.0},
        {"Deposited": (0.7, 100, 300), "Withdrawn": (0.3, 60, 61)},
    ),
    Kind(
        "orders", 0.35, 0.2, True, 0.8, 300, {1: 0.6, 2: 0.3, 5: 0.1},
        {"OrderPlaced": (0.25, 400, 2_000), "ItemAdded": (0.75, 40, 90)},
    ),
    Kind("stock", 0.15, 0.0, False, 0.6, 150, {1: 1.0}, {"Reserved": (1.0, 50, 150)}, hottest=0.3),
)  # fmt: skip


class _Streams:
    def __init__(self, kind: Kind, source: random.Random) -> None:
        self._kind = kind
        self._random = source
        weights = [rank**-kind.zipf for rank in range(1, kind.streams + 1)]
        if kind.hottest is not None:
            weights[0] = kind.hottest / (1 - kind.hottest) * sum(weights[1:])
        self._weights = list(accumulate(weights))
        self.made = kind.streams
        self._youngest = list(range(kind.streams))

    def next(self) -> int:
        if self._random.random() < self._kind.births:
            self._youngest.append(self.made)
            self.made += 1
            return self.made - 1
        rank = bisect_left(self._weights, self._random.random() * self._weights[-1])
        return self._youngest[-1 - rank] if self._kind.recency else rank


def history(
    seed: int = 7, hours: Sequence[int] = HOURS, kinds: Sequence[Kind] = KINDS, spread: float = SPREAD
) -> Iterator[tuple[object, ...]]:
    """Yield events: stream, number, type, bytes of data, time, bits of the id."""
    source = random.Random(seed)
    streams = {kind.name: _Streams(kind, source) for kind in kinds}
    versions: dict[str, int] = {}
    shares = list(accumulate(kind.share for kind in kinds))
    sizes = {kind.name: ([*kind.events_per_append], [*accumulate(kind.events_per_append.values())]) for kind in kinds}
    types = {
        kind.name: ([*kind.types.items()], [*accumulate(share for share, _, _ in kind.types.values())])
        for kind in kinds
    }

    def events(kind: Kind, stream: int, at: datetime) -> Iterator[tuple[object, ...]]:
        stream_id = f"{kind.name}-{stream}"
        appends, weights = sizes[kind.name]
        [size] = source.choices(appends, cum_weights=weights)
        named, weights = types[kind.name]
        for _ in range(size):
            versions[stream_id] = number = versions.get(stream_id, -1) + 1
            [(name, (_, smallest, largest))] = source.choices(named, cum_weights=weights)
            yield stream_id, number, name, source.randint(smallest, largest), at, source.getrandbits(128)

    # All streams that last have begun a day before.
    for kind in kinds:
        for stream in range(kind.streams):
            yield from events(kind, stream, BEGINS - timedelta(days=1) + timedelta(milliseconds=stream))
    for second in range(len(hours) * 3600):
        rate = hours[second // 3600] / 3600 * (source.gammavariate(1 / spread, spread) if spread else 1.0)
        if rate < 1e-9:
            continue
        at = source.expovariate(rate)
        while at < 1:
            [kind] = source.choices(kinds, cum_weights=shares)
            moment = BEGINS + timedelta(seconds=second, microseconds=int(at * 1e6))
            yield from events(kind, streams[kind.name].next(), moment)
            at += source.expovariate(rate)


def sampled(
    rows: Iterable[tuple[object, ...]], *, slices: int, length: int, number: Callable[[int], int] = lambda at: at
) -> TrafficSample:
    """Return a sample of a history that is in no database: one slice of each part of it, and all births.

    `number` says which global number the n-th event has.
    """
    source = random.Random(3)
    versions: dict[tuple[object, object], int] = {}
    events = []
    for at, (stream, seq, name, _, moment, _) in enumerate(rows):
        transaction = versions.setdefault((stream, moment), at)
        seconds = cast(datetime, moment).timestamp()
        events.append(SampledEvent(number(at), str(stream), cast(int, seq), str(name), seconds, transaction, 100))
    begin = next(at for at, event in enumerate(events) if event.at is not None and event.at >= BEGINS.timestamp())
    first, last = events[begin].global_seq, events[-1].global_seq
    times, numbers = [event.at or 0.0 for event in events], [event.global_seq for event in events]
    parts = [(BEGINS, first)]
    while (moment := parts[-1][0] + timedelta(hours=1)).timestamp() <= (times[-1]):
        parts.append((moment, numbers[bisect_left(times, moment.timestamp())]))
    parts.append((datetime.fromtimestamp(times[-1], UTC), last + 1))
    step = (last - first + 1) / slices
    found, spans = [], []
    for place in range(slices):
        at = int(first + place * step + source.random() * (step - length))
        few = tuple(events[bisect_left(numbers, at) :][:length])
        found.append(few)
        spans.append((at, few[-1].global_seq))
    births = {event.stream_id: event.global_seq for event in reversed(events) if event.stream_seq == 0}
    until = parts[-1][0]
    return TrafficSample(BEGINS, until, first, last, 3600.0, (*parts,), (*found,), (*spans,), False, births, 0, "-", 0)


def _row(event: tuple[Any, ...]) -> tuple[object, ...]:
    stream, number, name, size, at, bits = event
    return stream, number, name, json.dumps({"pad": "x" * (size - len('{"pad": ""}'))}), at, UUID(int=bits, version=4)


async def fill_history(dsn: str, hours: Sequence[int] = HOURS) -> None:
    """Put the history into a database, with its table."""
    from esx import EventStore

    async with EventStore.connect(dsn) as store:
        await store.init()
    async with connected(dsn) as connection:
        await connection.execute("ALTER TABLE events DISABLE TRIGGER USER")
        columns = ["stream_id", "stream_seq", "event_type", "data", "created_at", "event_id"]
        await connection.copy_records_to_table("events", records=map(_row, history(hours=hours)), columns=columns)
        await connection.execute("ALTER TABLE events ENABLE TRIGGER USER")
        await connection.execute("ANALYZE events")
