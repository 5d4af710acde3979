"""Categories of streams: the part of a stream's id before its first ``-``.

They are found by skipping along the unique index from one to the next, two probes each, whatever their size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from esx.store.careful import fetch
from esx.store.errors import InvalidQuery
from esx.store.estimating import Estimate, draw
from esx.store.scope import Scope
from esx.text import encodable

if TYPE_CHECKING:
    import asyncpg

    from esx.store.estimating import Sample
    from esx.store.layout import Layout

COUNTED = 100
"""So many streams of a category are counted in any case; more only as far as `SHARED` goes."""
SHARED = 2000
"""Up to so many streams are counted in all, divided evenly among the categories of a page."""


class CategorySummary(NamedTuple):
    """A category at a glance. `streams` is how many it has: counted up to a bound, and estimated beyond."""

    category: str
    streams: Estimate
    dashed: bool
    """Whether it has streams whose ids go on behind the ``-``; else it is the one stream of that name."""

    @property
    def place(self) -> str:
        """Where it stands among the ids: the key to go on from."""
        return self.category + "-" if self.dashed else self.category

    def to_json(self) -> str:
        """Return the category as one line of NDJSON. `streams` is null where only `at_least` is known."""
        fields = {
            "category": self.category,
            "streams": self.streams.count if self.streams.known else None,
            "exact": self.streams.exact,
            "at_least": self.streams.low,
        }
        return encodable(json.dumps(fields, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class CategoryPage:
    """Categories in the order of their ids, and where the next page starts; None at the end."""

    categories: list[CategorySummary]
    next_after: str | None


class CategoryReader:
    """Reads pages of categories from one events table."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._queries = {backwards: _categories(layout, backwards=backwards) for backwards in (False, True)}

    async def page(
        self,
        connection: asyncpg.Connection,
        *,
        after: str | None,
        limit: int,
        backwards: bool,
        sample: Sample | None = None,
    ) -> CategoryPage:
        """Return up to `limit` categories after (backwards: before) the place `after`; None: from that end on.

        What cannot be counted is estimated by the `sample`, by one of its own if none is given.
        """
        start = None if backwards else ""
        if after is not None:
            start = after if backwards else _behind(after)
        return await self._read(connection, start, limit, backwards=backwards, sample=sample)

    async def one(self, connection: asyncpg.Connection, place: str) -> CategorySummary | None:
        """Return the category at `place`, None if it is not there."""
        page = await self._read(connection, place, 1, backwards=False, sample=None)
        return next((category for category in page.categories if category.place == place), None)

    async def _read(
        self, connection: asyncpg.Connection, start: str | None, limit: int, *, backwards: bool, sample: Sample | None
    ) -> CategoryPage:
        if not self._layout.byte_order:
            raise InvalidQuery(
                "streams can be listed by category only where ids sort by bytes: "
                'ALTER TABLE events ALTER COLUMN stream_id TYPE text COLLATE "C"'
            )
        rows = await fetch(connection, self._queries[backwards], start, limit, COUNTED, SHARED)
        if sample is None and any(emitted and streams > counted for _, _, emitted, streams, counted in rows):
            sample = await draw(connection, self._layout, Scope(), streams=True)
        found = [
            CategorySummary(category, _estimate(category, streams, counted, sample), dashed)
            for category, dashed, emitted, streams, counted in rows
            if emitted
        ]
        if len(rows) < limit:
            return CategoryPage(found, None)
        last = rows[-1]
        return CategoryPage(found, last[0] + ("-" if last[1] else ""))


def _estimate(category: str, streams: int, counted: int, sample: Sample | None) -> Estimate:
    """Return how many streams it has, of which up to `counted` were counted: `streams`."""
    if streams <= counted:
        return Estimate.counted(streams)
    assert sample is not None
    return sample.streams(streams, lambda name: name.partition("-")[0] == category)


def _behind(place: str) -> str:
    """Return the first id that can follow the streams of a category."""
    # "." comes right after "-", and nothing comes between a text and the same with U+0001 behind it.
    return place[:-1] + "." if place.endswith("-") else place + "\x01"


def _categories(layout: Layout, *, backwards: bool) -> str:
    """$1 where to start (NULL: at the end), $2 rows, $3 how many streams of each to count at least, $4 of all together.

    A stream named like a category, without a dash, belongs to it; it is a category of its own only where there is no
    other stream in it.
    """
    table = layout.table
    start = f"coalesce($1, {layout.last()})" if backwards else "$1"
    order, step = ("DESC", "<") if backwards else ("ASC", ">=")
    dashed = "strpos(s.stream_id, '-') > 0"
    onward = "'-' ELSE s.stream_id" if backwards else "'.' ELSE s.stream_id || chr(1)"
    next_id = f"""
        SELECT split_part(s.stream_id, '-', 1) AS category, {dashed} AS dashed,
               CASE WHEN {dashed} THEN split_part(s.stream_id, '-', 1) || {onward} END AS pos
        FROM {table} s WHERE s.stream_id {step} %s ORDER BY s.stream_id {order} LIMIT 1
    """
    return f"""
        WITH RECURSIVE walk (category, dashed, pos, n) AS (
            (SELECT f.*, 1 FROM ({next_id % start}) f)
            UNION ALL
            SELECT f.*, walk.n + 1 FROM walk CROSS JOIN LATERAL ({next_id % "walk.pos"}) f WHERE walk.n < $2
        ), share AS (SELECT greatest($3::bigint, $4::bigint / greatest(count(*), 1)) AS streams FROM walk)
        SELECT walk.category, walk.dashed, walk.dashed OR own.low IS NULL,
               counted.streams + named.streams, share.streams
        FROM walk CROSS JOIN share
        LEFT JOIN LATERAL (SELECT s.stream_id AS low FROM {table} s
                           WHERE NOT walk.dashed AND s.stream_id >= walk.category || '-'
                             AND s.stream_id < walk.category || '.'
                           ORDER BY s.stream_id LIMIT 1) own ON true
        CROSS JOIN LATERAL (
            WITH RECURSIVE ids (stream_id, n) AS (
                (SELECT s.stream_id, 1 FROM {table} s
                 WHERE walk.dashed AND s.stream_id >= walk.category || '-' AND s.stream_id < walk.category || '.'
                 ORDER BY s.stream_id LIMIT 1)
                UNION ALL
                SELECT f.stream_id, ids.n + 1 FROM ids CROSS JOIN LATERAL (
                    SELECT s.stream_id FROM {table} s
                    WHERE s.stream_id > ids.stream_id AND s.stream_id < walk.category || '.'
                    ORDER BY s.stream_id LIMIT 1) f
                WHERE ids.n <= share.streams
            ) SELECT coalesce(max(n), 0)::bigint AS streams FROM ids
        ) counted
        CROSS JOIN LATERAL (SELECT count(*) AS streams FROM (SELECT FROM {table} s WHERE s.stream_id = walk.category
                                                             LIMIT 1) one) named
        ORDER BY walk.n
    """
