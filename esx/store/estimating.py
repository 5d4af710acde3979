"""How many events or streams there are, from a bounded number of them: counted, or estimated with its error.

PostgreSQL's statistics are no help: its number of distinct values is far too low where a few streams are huge and
many tiny, and both age. So up to a bound is counted along the index; beyond, events are drawn by chance from the list's
numbers, and an event of a stream of n events stands for the n-th part of a stream (the estimator of Horvitz and
Thompson). Where the error of that may be more than a factor of two, only what was counted is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from random import Random
from typing import TYPE_CHECKING

from esx.store.careful import as_bytes, fetch, fetchrow, fetchval
from esx.store.scope import Scope
from esx.text import round_estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import asyncpg

    from esx.store.layout import Layout

_LAST = 2**63 - 1
COUNTED = 10_000
"""Up to so many events are counted."""
COUNTED_STREAMS = 2_000
"""Up to so many streams are counted, by as many probes of their index."""
DRAWS = 1_000
"""So many events are drawn, by a probe each, and by another where streams are told."""
_SHORT = 10
"""The events of a stream are counted up to so many; of a longer one, its first event stands for it."""
_SURE = 2.6
"""So many standard errors on either side hold the truth in 99 of 100 cases."""
_UNSEEN = 5
"""What none of n draws has hit is less than this n-th part, in 99 of 100 cases."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number of events or streams: it is from `low` to `high`, and about `count`, or just that where they agree.

    A bound holds in 99 of 100 cases where it is not counted. `high` is None where nothing is known of it.
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
        """Whether `count` is off by no more than a factor of two, so that it may be shown; else only `low` may."""
        return self.high is not None and self.high <= 2 * self.count <= 4 * self.low

    @property
    def text(self) -> str:
        """What may be said of it: ``1,234``, ``~12,000`` or ``more than 10,000``."""
        if self.exact:
            return f"{self.count:,}"
        return f"~{round_estimate(self.count):,}" if self.known else f"more than {self.low - 1:,}"

    @classmethod
    def counted(cls, count: int) -> Estimate:
        """Return what was counted to the end."""
        return cls(count, count, count)

    @classmethod
    def at_least(cls, count: int) -> Estimate:
        """Return what was counted up to a bound."""
        return cls(count, count, None)


@dataclass(frozen=True, slots=True)
class Sample:
    """The events found at `draws` numbers, drawn by chance from a list whose numbers are `span` wide.

    Of each it has the stream, and the part of that stream which it stands for.
    """

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
        # What is left to chance is what was not looked at.
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
        # Of what is not known, only what was counted is told.
        return estimate if estimate.known else Estimate(at_least, at_least, most)


async def count_events(
    connection: asyncpg.Connection, layout: Layout, scope: Scope, first: int = 0, end: int = _LAST
) -> Estimate:
    """Return how many events the list has from the number `first` on and before `end`."""
    end = min(end, _LAST)
    counted: int = await fetchval(
        connection,
        f"SELECT count(*) FROM (SELECT FROM {layout.table} e WHERE {scope.condition(3)} AND e.{scope.key} >= $1 "
        f"AND e.{scope.key} < $2 ORDER BY e.{scope.key} LIMIT {COUNTED + 1}) counted",
        first,
        end,
        *scope.arguments,
    )
    if counted <= COUNTED:
        return Estimate.counted(counted)
    sample = await draw(connection, layout, scope, first=first, end=end)
    return sample.events(counted)


async def draw(
    connection: asyncpg.Connection,
    layout: Layout,
    scope: Scope,
    *,
    first: int = 0,
    end: int = _LAST,
    streams: bool = False,
) -> Sample:
    """Draw events of the list from the number `first` on and before `end`; with `streams`, look at theirs too.

    Always the same ones while the ends are the same, so that a figure that is shown again does not tremble.
    """
    end = min(end, _LAST)
    key, table = scope.key, layout.table
    within = f"FROM {table} e WHERE {scope.condition(3)} AND e.{key} >= $1 AND e.{key} < $2"
    ends = await fetchrow(
        connection,
        f"SELECT (SELECT e.{key} {within} ORDER BY e.{key} LIMIT 1), "
        f"(SELECT e.{key} {within} ORDER BY e.{key} DESC LIMIT 1)",
        first,
        end,
        *scope.arguments,
    )
    assert ends is not None
    if ends[0] is None:
        return Sample(0, 0, ())
    low, high = int(ends[0]), int(ends[1])
    draws = min(DRAWS, high - low + 1)
    rows = await fetch(
        connection,
        f"SELECT e.stream_id, {_share(layout) if streams else '1.0::float8'} "
        f"FROM {table} e WHERE {scope.condition(2)} AND e.{key} = ANY ($1)",
        places(low, high, draws),
        *scope.arguments,
    )
    return Sample(high - low + 1, draws, tuple((row[0], row[1]) for row in rows))


def places(low: int, high: int, draws: int) -> list[int]:
    """Return numbers from `low` to `high` by chance: one in each of as many equal parts."""
    chance = Random(0)  # noqa: S311 - nothing is kept secret
    ends = [low + part * (high - low + 1) // draws for part in range(draws + 1)]
    return [begin + int(chance.random() * (end - begin)) for begin, end in pairwise(ends)]


def _share(layout: Layout) -> str:
    """Return which part of its stream the event `e` stands for: of a long one, the first event for all of it."""
    return f"""
        (SELECT CASE WHEN count(*) <= {_SHORT} THEN 1.0 / count(*)
                     ELSE (e.stream_seq = min(s.stream_seq))::int END::float8
         FROM (SELECT s.stream_seq FROM {layout.table} s WHERE s.stream_id = e.stream_id
               ORDER BY s.stream_seq LIMIT {_SHORT + 1}) s)
    """


async def count_streams(connection: asyncpg.Connection, layout: Layout, prefix: str = "") -> Estimate:
    """Return how many streams there are whose id starts with `prefix`."""
    within = f"s.stream_id < $1 || {layout.last()}" if prefix and layout.byte_order else "$1::text IS NOT NULL"
    counted: int = await fetchval(
        connection,
        f"""
        WITH RECURSIVE ids (stream_id, n) AS (
            (SELECT s.stream_id, 1 FROM {layout.table} s
             WHERE s.stream_id >= $1 AND {within} ORDER BY s.stream_id LIMIT 1)
            UNION ALL
            SELECT f.stream_id, ids.n + 1 FROM ids CROSS JOIN LATERAL (
                SELECT s.stream_id FROM {layout.table} s
                WHERE s.stream_id > ids.stream_id AND {within} ORDER BY s.stream_id LIMIT 1) f
            WHERE ids.n <= {COUNTED_STREAMS}
        ) SELECT coalesce(max(n), 0) FROM ids
        """,
        prefix,
    )
    if counted <= COUNTED_STREAMS:
        return Estimate.counted(counted)
    sample = await draw(connection, layout, Scope(), streams=True)
    start = as_bytes(prefix)
    return sample.streams(counted, lambda name: as_bytes(name).startswith(start))
