"""A sample of a store's history, of a bounded size: where each hour begins, slices of the global order, births.

A slice is a run of events next to each other, as bursts and what one append stored show only there. The hours are found
by bisection along the index of global_seq, all at once. Nothing is written, and no query reads more than it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

from esx.layouts.layout import Layout
from esx.moment import FarTime
from esx.postgres.session import Session
from esx.postgres.values import fetch, fetchrow
from esx.store.read.event_list import EventList
from esx.store.read.locate import check_timed

SLICES = 80
SLICE = 2_000
"""So many slices, of so many events."""
MOST_BIRTHS = 20_000
"""Of how many streams the first event is looked up."""
_MOST_HOURS = 400
"""Windows of more hours are cut into longer parts."""
_SIZED = 8
"""The size of the data is measured of one event in so many: to read all of them would take longer than all else."""
_LOOKED_UP = 1_000
_LAST = 2**63 - 1
# Those that Python has too.
_KNOWN = "e.created_at > '0001-01-02 UTC' AND e.created_at < '9999-12-30 UTC'"


class SampledEvent(NamedTuple):
    """An event of a sample. `at` is when its transaction began, in seconds since 1970, None if that is not known.

    `transaction` is its transaction's number, None where the table does not tell; `size` the bytes of its data as text,
    None where they were not measured.
    """

    global_seq: int
    stream_id: str
    stream_seq: int
    event_type: str
    at: float | None
    transaction: int | None
    size: int | None


@dataclass(frozen=True, slots=True)
class TrafficSample:
    """What was read of the events from `since` on: those numbered `first` up to `last`.

    `parts` are the beginnings of parts of `part` seconds, an hour if there are not too many, each with the number that
    it begins at; the last is the end. `slices` are runs of events, one after the other if they are the `whole`. `spans`
    are the numbers, where some may be missing, of which each has all events: the first and the last. `births` has the
    number of the first event of streams that are in the slices. `first_version` is the number of a stream's first
    event. `events_read` is how many rows were read in all.
    """

    since: datetime
    until: datetime
    first: int
    last: int
    part: float
    parts: tuple[tuple[datetime, int], ...]
    slices: tuple[tuple[SampledEvent, ...], ...]
    spans: tuple[tuple[int, int], ...]
    whole: bool
    births: dict[str, int]
    first_version: int
    separator: str
    events_read: int

    @property
    def numbers(self) -> int:
        """How many numbers the slices have looked at."""
        return sum(end - begin + 1 for begin, end in self.spans)


async def read_traffic(
    connection: Session,
    layout: Layout,
    since: datetime | None,
    *,
    slices: int = SLICES,
    length: int = SLICE,
    on_progress: Callable[[str], None] | None = None,
) -> TrafficSample | None:
    """Return a sample of the events from `since` on (None: all), of `slices` times `length` events; None without any.

    Raises OrderUnknown without a global order, and InvalidQuery where created_at has no times.
    """
    return await _Reader(connection, layout, on_progress or (lambda _text: None)).read(since, slices, length)


class _Reader:
    def __init__(self, connection: Session, layout: Layout, tell: Callable[[str], None]) -> None:
        self._connection = connection
        self._layout = layout
        self._tell = tell
        self._rows = 0
        # Each sample is another one: a store is not the same for long.
        self._random = Random()  # noqa: S311 - draws places, keeps no secrets

    async def read(self, since: datetime | None, slices: int, length: int) -> TrafficSample | None:
        layout = self._layout
        layout.check_numbered()
        await check_timed(self._connection, layout, EventList())
        ends = await self._ends()
        if ends is None:
            return None
        low, high, begin, end = ends
        if since is not None and since > begin:
            begin = since
        if end <= begin:
            if since is not None and end < since:
                return None
            end = begin + timedelta(microseconds=1)
        part, moments = _parts(begin, end)
        self._tell("looking for where each hour begins")
        numbers = await self._reached([begin, *moments], low, high)
        first = numbers[0] if since is not None else low
        if first > high:
            return None
        parts = ((begin, first), *zip(moments, numbers[1:], strict=True))
        # To leave out a fifth would save little.
        whole = high - first + 1 <= slices * length * 5 // 4
        if whole:
            found, spans = await self._all(first, high, length), [(first, high)]
        else:
            found, spans = await self._slices(first, high, slices, length)
        births = await self._births(found)
        return TrafficSample(
            begin,
            end,
            first,
            high,
            part,
            tuple(parts),
            tuple(found),
            tuple(spans),
            whole,
            births,
            layout.first,
            layout.separator,
            self._rows,
        )

    async def _ends(self) -> tuple[int, int, datetime, datetime] | None:
        """Return the lowest and the highest number, and the times of the first and of the last event that has one."""
        table = self._layout.table
        near = f"SELECT e.created_at FROM {table} e ORDER BY e.global_seq"
        row = await fetchrow(
            self._connection,
            f"SELECT (SELECT e.global_seq FROM {table} e ORDER BY e.global_seq LIMIT 1), "
            f"(SELECT e.global_seq FROM {table} e ORDER BY e.global_seq DESC LIMIT 1), "
            f"(SELECT min(e.created_at) FROM ({near} LIMIT 100) e WHERE {_KNOWN}), "
            f"(SELECT max(e.created_at) FROM ({near} DESC LIMIT 100) e WHERE {_KNOWN})",
        )
        self._rows += 202
        if row is None or row[0] is None or row[2] is None or row[3] is None:
            return None
        begin, end = (_usual(each) for each in (row[2], row[3]))
        return None if begin is None or end is None else (int(row[0]), int(row[1]), begin, end)

    async def _reached(self, moments: Sequence[datetime], low: int, high: int) -> list[int]:
        """Return the lowest numbers from which on events have these times, all by one bisection."""
        lows = [low] * len(moments)
        highs = [high + 1] * len(moments)
        while open_ := [at for at, number in enumerate(lows) if number < highs[at]]:
            middles = {at: lows[at] + (highs[at] - lows[at]) // 2 for at in open_}
            asked = sorted(set(middles.values()))
            rows = await fetch(
                self._connection,
                "SELECT x.at, f.global_seq, f.created_at FROM unnest($1::bigint[]) x (at) LEFT JOIN LATERAL ("
                f"SELECT e.global_seq, e.created_at FROM {self._layout.table} e WHERE e.global_seq >= x.at "
                f"AND {_KNOWN} ORDER BY e.global_seq LIMIT 1) f ON true",
                asked,
            )
            self._rows += len(rows)
            found = {row[0]: (row[1], _usual(row[2])) for row in rows}
            for at, middle in middles.items():
                number, moment = found[middle]
                if number is None or moment is None or moment >= moments[at]:
                    highs[at] = middle
                else:
                    lows[at] = number + 1
        return [max(before, number) for before, number in zip([low, *lows], lows, strict=False)]

    async def _slices(
        self, first: int, last: int, slices: int, length: int
    ) -> tuple[list[tuple[SampledEvent, ...]], list[tuple[int, int]]]:
        """Return slices, and from where each was looked for up to which event."""
        spans = []
        step = (last - first + 1) / slices
        found = []
        before = first - 1
        for number in range(slices):
            self._tell(f"reading slice {number + 1} of {slices}")
            room = max(step - length, 0)
            at = max(int(first + number * step + self._random.random() * room), before + 1)
            events = await self._slice(at, last, length)
            if events:
                found.append(events)
                before = events[-1].global_seq
                spans.append((at, before))
        return found, spans

    async def _all(self, first: int, last: int, length: int) -> list[tuple[SampledEvent, ...]]:
        """Return all events, in slices that follow each other."""
        found: list[tuple[SampledEvent, ...]] = []
        at = first
        while events := await self._slice(at, last, length):
            self._tell(f"reading slice {len(found) + 1}")
            found.append(events)
            at = events[-1].global_seq + 1
        return found

    async def _slice(self, at: int, last: int, length: int) -> tuple[SampledEvent, ...]:
        layout = self._layout
        data = "e.data_raw" if layout.packed else f"{layout.data()}::text"
        # The system columns of a table: its partitions and views have other ones, or none.
        plain = layout.foreign is None and layout.kind == "r"
        stream, number, kind = layout.place("e")
        rows = await fetch(
            self._connection,
            f"SELECT e.global_seq, {stream}, {number}, {kind}, e.created_at, "
            f"{'e.xmin::text::bigint' if plain else 'NULL::bigint'}, "
            f"CASE WHEN hashint8(e.global_seq::bigint) & {_SIZED - 1} = 0 THEN octet_length({data}) END "
            f"FROM {layout.table} e WHERE e.global_seq >= $1::bigint AND e.global_seq <= $2::bigint "
            f"ORDER BY e.global_seq LIMIT {length}",
            at,
            last,
        )
        self._rows += len(rows)
        await asyncio.sleep(0)
        return tuple(_event(row) for row in rows)

    async def _births(self, slices: Sequence[Sequence[SampledEvent]]) -> dict[str, int]:
        first = self._layout.first
        births: dict[str, int] = {}
        streams: dict[str, None] = {}
        for events in slices:
            for event in events:
                if event.stream_seq == first:
                    births[event.stream_id] = event.global_seq
                else:
                    streams[event.stream_id] = None
        others = [stream for stream in streams if stream not in births]
        if len(others) > MOST_BIRTHS:
            others = self._random.sample(others, MOST_BIRTHS)
        layout = self._layout
        for begin in range(0, len(others), _LOOKED_UP):
            self._tell(f"looking for the first events of streams, {begin:,} of {len(others):,}")
            rows = await fetch(
                self._connection,
                # The queries of other stores have short names of their own.
                "SELECT sampled.name, f.global_seq FROM unnest($1::text[]) sampled (name) CROSS JOIN LATERAL ("
                f"SELECT e.global_seq FROM {layout.within_stream} e WHERE {layout.in_stream('sampled.name')} "
                "ORDER BY e.stream_seq LIMIT 1) f",
                others[begin : begin + _LOOKED_UP],
            )
            self._rows += len(rows)
            births.update((row[0], int(row[1])) for row in rows if row[1] is not None)
        return births


def _event(row: Sequence[Any]) -> SampledEvent:
    global_seq, stream_id, stream_seq, event_type, created_at, transaction, size = row
    moment = _usual(created_at)
    return SampledEvent(
        int(global_seq),
        stream_id,
        int(stream_seq),
        event_type,
        None if moment is None else moment.timestamp(),
        transaction,
        size,
    )


def _usual(moment: datetime | None) -> datetime | None:
    return None if moment is None or isinstance(moment, FarTime) else moment


def _parts(begin: datetime, end: datetime) -> tuple[float, list[datetime]]:
    """Return how many seconds the parts of this time have, and where all but the first begin; the last is the end."""
    hours = 1
    while (end - begin).total_seconds() / 3600 / hours > _MOST_HOURS:
        hours = {1: 2, 2: 6, 6: 24}.get(hours, hours * 7)
    part = timedelta(hours=hours)
    day = begin.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    at = day + part * ((begin - day) // part + 1)
    found = []
    while at <= end:
        found.append(at)
        at += part
    return part.total_seconds(), [*found, end + timedelta(microseconds=1)]
