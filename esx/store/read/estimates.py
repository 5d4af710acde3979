"""How many events or streams there are, from a bounded number of them: counted, or estimated with an error.

PostgreSQL's statistics do not help: its number of distinct values is far too low where a few streams are huge and many
are tiny, and statistics become old. So up to a bound the index is counted. Above it, events are drawn at random from
the list's numbers, and an event of a stream of n events stands for the n-th part of a stream (the Horvitz-Thompson
estimator). If the error can be more than a factor of two, only the count is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from random import Random

import asyncpg

from esx.layouts.layout import Layout
from esx.postgres.values import as_bytes, fetch, fetchrow, fetchval
from esx.store.read.event_list import EventList
from esx.text import round_estimate

_LAST = 2**63 - 1
COUNTED = 10_000
"""How many events are counted at most."""
COUNTED_STREAMS = 2_000
"""How many streams are counted at most, with an index probe each."""
DRAWS = 1_000
"""How many events are drawn, with an index probe each, and another one if streams are counted."""
_SHORT = 10
"""How many events of a stream are counted at most; a longer one is represented by its first event."""
_SURE = 2.6
"""This many standard errors on either side contain the true value in 99 of 100 cases."""
_UNSEEN = 5
"""A part that none of n draws has hit is smaller than this / n, in 99 of 100 cases."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number of events or streams: about `count`, and between `low` and `high`; exactly `count` if these are equal.

    A bound that was not counted holds in 99 of 100 cases. `high` is None where it is not known.
    """

    count: int
    low: int
    high: int | None

    @property
    def exact(self) -> bool:
        """Whether it was counted."""
        return self.low == self.high

    @property
    def known(self) -> bool:
        """Whether `count` is right within a factor of two, so that it can be shown; else only `low` can be."""
        return self.high is not None and self.high <= 2 * self.count <= 4 * self.low

    @property
    def text(self) -> str:
        """The estimate as text: ``1,234``, ``~12,000`` or ``more than 10,000``."""
        if self.exact:
            return f"{self.count:,}"
        return f"~{round_estimate(self.count):,}" if self.known else f"more than {self.low - 1:,}"

    @classmethod
    def counted(cls, count: int) -> Estimate:
        """Return an exact count."""
        return cls(count, count, count)

    @classmethod
    def at_least(cls, count: int) -> Estimate:
        """Return a count that stopped at a bound."""
        return cls(count, count, None)


@dataclass(frozen=True, slots=True)
class Sample:
    """The events found at `draws` random numbers out of `span`: of each its stream, and the part that it stands for."""

    span: int
    draws: int
    found: tuple[tuple[str, float], ...]

    def events(self, at_least: int) -> Estimate:
        """Return how many events there are; `at_least` of them were counted."""
        return self._estimate([1.0] * len(self.found), at_least)

    def streams(self, at_least: int, chosen: Callable[[str], bool] = lambda _: True) -> Estimate:
        """Return how many streams there are whose id is `chosen`; `at_least` of them were counted."""
        return self._estimate([part for stream, part in self.found if chosen(stream)], at_least)

    def _estimate(self, parts: Sequence[float], at_least: int) -> Estimate:
        # A number without an event, or with one that is not chosen, counts for nothing.
        if not self.draws:
            return Estimate.at_least(at_least)
        mean = sum(parts) / self.draws
        variance = max(sum(part * part for part in parts) / self.draws - mean * mean, 0.0)
        # Only the part that was not looked at is uncertain.
        rest = 1 - self.draws / self.span
        error = _SURE * sqrt(variance / self.draws * rest)
        unseen = _UNSEEN / self.draws * rest
        count = max(round(mean * self.span), at_least)
        if not rest:
            return Estimate.counted(count)
        low = (mean - error) * (1 - unseen) * self.span
        high = min(mean + error + unseen, 1.0) * self.span
        most = max(int(high), count + 1)
        estimate = Estimate(count, max(int(low), at_least), most)
        # If the error is too large, keep only what was counted.
        return estimate if estimate.known else Estimate(at_least, at_least, most)


async def count_events(
    connection: asyncpg.Connection, layout: Layout, events: EventList, first: int = 0, end: int = _LAST
) -> Estimate:
    """Return how many events the list has from the number `first` on and before `end`."""
    end = min(end, _LAST)
    counted: int = await fetchval(
        connection,
        f"SELECT count(*) FROM (SELECT FROM {events.table(layout)} e WHERE {events.condition(layout, 3)} "
        f"AND e.{events.key} >= $1::bigint AND e.{events.key} < $2::bigint "
        f"ORDER BY e.{events.key} LIMIT {COUNTED + 1}) counted",
        first,
        end,
        *events.arguments,
    )
    if counted <= COUNTED:
        return Estimate.counted(counted)
    sample = await draw(connection, layout, events, first=first, end=end)
    return sample.events(counted)


async def count_all(connection: asyncpg.Connection, layout: Layout) -> Estimate:
    """Return how many events there are."""
    if layout.numbered:
        return await count_events(connection, layout, EventList())
    counted: int = await fetchval(
        connection, f"SELECT count(*) FROM (SELECT FROM {layout.table} e LIMIT {COUNTED + 1}) counted"
    )
    return Estimate.counted(counted) if counted <= COUNTED else Estimate.at_least(counted)


async def draw(
    connection: asyncpg.Connection,
    layout: Layout,
    events: EventList,
    *,
    first: int = 0,
    end: int = _LAST,
    streams: bool = False,
) -> Sample:
    """Draw events of the list from the number `first` on and before `end`; with `streams`, look at their streams too.

    The same events are drawn while the ends are the same, so that a figure does not change each time it is shown.
    """
    end = min(end, _LAST)
    key, table = events.key, events.table(layout)
    within = f"FROM {table} e WHERE {events.condition(layout, 3)} AND e.{key} >= $1::bigint AND e.{key} < $2::bigint"
    ends = await fetchrow(
        connection,
        f"SELECT (SELECT e.{key} {within} ORDER BY e.{key} LIMIT 1), "
        f"(SELECT e.{key} {within} ORDER BY e.{key} DESC LIMIT 1)",
        first,
        end,
        *events.arguments,
    )
    assert ends is not None
    if ends[0] is None:
        return Sample(0, 0, ())
    low, high = int(ends[0]), int(ends[1])
    draws = min(DRAWS, high - low + 1)
    rows = await fetch(
        connection,
        f"SELECT e.stream_id::text, {_share(layout) if streams else '1.0::float8'} "
        f"FROM {table} e WHERE {events.condition(layout, 2)} AND e.{key} = ANY ($1::bigint[])"
        f"{' AND e.stream_id IS NOT NULL' if streams else ''}",
        places(low, high, draws),
        *events.arguments,
    )
    return Sample(high - low + 1, draws, tuple((row[0], row[1]) for row in rows))


async def draw_streams(connection: asyncpg.Connection, layout: Layout) -> Sample | None:
    """Draw events of all streams, and look at their streams; None without a global order, by which events are drawn."""
    return await draw(connection, layout, EventList(), streams=True) if layout.numbered else None


def places(low: int, high: int, draws: int) -> list[int]:
    """Return random numbers from `low` to `high`: one in each of `draws` equal parts."""
    chance = Random(0)  # noqa: S311 - nothing is kept secret
    ends = [low + part * (high - low + 1) // draws for part in range(draws + 1)]
    return [begin + int(chance.random() * (end - begin)) for begin, end in pairwise(ends)]


def _share(layout: Layout) -> str:
    """Return the part of its stream that the event `e` stands for: all of it for the first event of a long one."""
    return f"""
        (SELECT CASE WHEN count(*) <= {_SHORT} THEN 1.0 / count(*)
                     ELSE (e.stream_seq = min(s.stream_seq))::int END::float8
         FROM (SELECT s.stream_seq FROM {layout.within_stream} s WHERE {layout.in_stream("e.stream_id", "s")}
               ORDER BY s.stream_seq LIMIT {_SHORT + 1}) s)
    """


async def count_streams(connection: asyncpg.Connection, layout: Layout, prefix: str = "") -> Estimate:
    """Return how many streams there are whose id starts with `prefix`."""
    within = f"{layout.prefix_range() if prefix else '$1::text IS NOT NULL'} AND {layout.name_there()}"
    listed = layout.listed("s.stream_id")
    row = await fetchrow(
        connection,
        f"""
        WITH RECURSIVE ids (stream_id, n, streams) AS (
            (SELECT s.stream_id, 1, ({listed})::int FROM {layout.names} s
             WHERE {within} ORDER BY {layout.name_order("ASC")} LIMIT 1)
            UNION ALL
            SELECT f.stream_id, ids.n + 1, ids.streams + f.listed FROM ids CROSS JOIN LATERAL (
                SELECT s.stream_id, ({listed})::int AS listed FROM {layout.names} s
                WHERE {layout.name_compared(">", "ids.stream_id")} AND {within}
                ORDER BY {layout.name_order("ASC")} LIMIT 1) f
            WHERE ids.n <= {COUNTED_STREAMS}
        ) SELECT coalesce(max(n), 0), coalesce(max(streams), 0) FROM ids
        """,
        prefix,
    )
    assert row is not None
    looked, counted = row
    if looked <= COUNTED_STREAMS:
        return Estimate.counted(counted)
    sample = await draw_streams(connection, layout)
    if sample is None:
        return Estimate.at_least(counted)
    start = as_bytes(prefix)
    return sample.streams(counted, lambda name: as_bytes(name).startswith(start))
