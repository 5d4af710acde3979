"""Categories of streams: the part of a stream's id before its first separator, in esx's own table ``-``.

They are found by skipping along the unique index from one to the next, two probes each, at any size. Some other tools
keep categories in a column: see `column_categories`.
"""

import json
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from esx.errors import InvalidQuery
from esx.layouts.layout import Layout
from esx.layouts.stream_keys import Joined
from esx.postgres.literals import literal
from esx.postgres.values import as_bytes, fetch
from esx.store.read.column_categories import column_categories
from esx.store.read.estimates import Estimate, Sample, draw_streams
from esx.text import encodable

COUNTED = 100
"""How many streams of a category are counted in any case; `SHARED` may allow more."""
SHARED = 2000
"""How many streams are counted for a page, divided evenly among its categories."""


class CategorySummary(NamedTuple):
    """A category at a glance. `streams` is how many it has: counted up to a bound, and estimated beyond.

    `place` is its place among the ids, from which a page can go on: where ids of its streams go on after the separator,
    it ends with that; else it is the one stream of that name.
    """

    category: str
    streams: Estimate
    place: str

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
    """Categories in the order of their ids, and where the next page starts; None at the end.

    `looked` is at how many streams it looked, where others may have other categories; None where none is missing.
    """

    categories: list[CategorySummary]
    next_after: str | None
    looked: int | None = None


async def read_categories(
    connection: asyncpg.Connection,
    layout: Layout,
    start: str | None,
    limit: int,
    *,
    backwards: bool = False,
    sample: Sample | None = None,
) -> CategoryPage:
    """Return up to `limit` categories from the id `start` on (backwards: before it; None: from the end).

    What cannot be counted is estimated by the `sample`, by one of its own if none is given.
    """
    if layout.category is not None:
        return await _of_column(connection, layout, start, limit, backwards=backwards, sample=sample)
    joined = layout.joined_names
    if not layout.has_categories:
        if layout.foreign is not None:
            title = layout.foreign.kind.title
            raise InvalidQuery(f"the ids of streams in this store of {title} have no categories that esx could list")
        raise InvalidQuery(
            "streams can be listed by category only where ids sort by bytes: "
            'ALTER TABLE events ALTER COLUMN stream_id TYPE text COLLATE "C"'
        )
    query = _categories(layout, backwards=backwards)
    if joined is not None:
        query = _joined_categories(layout, joined, backwards=backwards)
    rows = await fetch(connection, query, start, limit, COUNTED, SHARED)
    uncounted = any(emitted and streams > counted for _, _, emitted, streams, counted in rows)
    if sample is None and uncounted:
        sample = await draw_streams(connection, layout)
    separator = layout.separator
    found = [
        CategorySummary(
            category, _estimate(category, streams, counted, sample, separator), category + separator * dashed
        )
        for category, dashed, emitted, streams, counted in rows
        if emitted
    ]
    if len(rows) < limit:
        return CategoryPage(found, None)
    last = rows[-1]
    return CategoryPage(found, last[0] + separator * last[1])


async def _of_column(
    connection: asyncpg.Connection,
    layout: Layout,
    start: str | None,
    limit: int,
    *,
    backwards: bool,
    sample: Sample | None,
) -> CategoryPage:
    every, looked = await column_categories(connection, layout, sample)
    found = [CategorySummary(name, streams, name) for name, streams in every.items()]
    if backwards:
        found = [each for each in reversed(found) if start is None or as_bytes(each.place) < as_bytes(start)]
    elif start:
        found = [each for each in found if as_bytes(each.place) >= as_bytes(start)]
    more = len(found) > limit
    return CategoryPage(found[:limit], found[limit - 1].place if more else None, looked)


def behind(place: str, layout: Layout) -> str:
    """Return the first id that can come after the streams of the category at `place`."""
    if layout.category is not None:
        return place + "\x01"
    separator = layout.separator
    if layout.joined_names is not None:  # whose categories are a column, in its own order
        return place.removesuffix(separator) + "\x01"
    # Nothing comes between a text and the same with U+0001 behind it.
    return place[:-1] + chr(ord(separator) + 1) if place.endswith(separator) else place + "\x01"


def _estimate(category: str, streams: int, counted: int, sample: Sample | None, separator: str) -> Estimate:
    """Return how many streams it has, of which up to `counted` were counted: `streams`."""
    if streams <= counted:
        return Estimate.counted(streams)
    if sample is None:  # a store without a global order, by which events are drawn
        return Estimate.at_least(streams)
    return sample.streams(streams, lambda name: name.partition(separator)[0] == category)


def _categories(layout: Layout, *, backwards: bool) -> str:
    """$1 where to start (NULL: at the end), $2 rows, $3 how many streams of each to count at least, $4 of all together.

    A stream named like a category, without the separator, belongs to it; it is a category of its own only where there
    is no other stream in it.
    """
    table = layout.names
    start = f"coalesce($1, {layout.last()})" if backwards else "$1"
    order, step = ("DESC", "<") if backwards else ("ASC", ">=")
    separator, after = literal(layout.separator), literal(chr(ord(layout.separator) + 1))
    dashed = f"strpos(s.stream_id, {separator}) > 0"
    onward = f"{separator} ELSE s.stream_id" if backwards else f"{after} ELSE s.stream_id || chr(1)"

    shown = layout.listed("s.stream_id")
    some = "" if layout.name_table is None else " AND counted.streams + named.streams > 0"

    def next_id(start: str) -> str:
        return f"""
            SELECT split_part(s.stream_id, {separator}, 1) AS category, {dashed} AS dashed,
                   CASE WHEN {dashed} THEN split_part(s.stream_id, {separator}, 1) || {onward} END AS pos
            FROM {table} s WHERE s.stream_id {step} {start} ORDER BY s.stream_id {order} LIMIT 1
        """

    return f"""
        WITH RECURSIVE walk (category, dashed, pos, n) AS (
            (SELECT f.*, 1 FROM ({next_id(start)}) f)
            UNION ALL
            SELECT f.*, walk.n + 1 FROM walk CROSS JOIN LATERAL ({next_id("walk.pos")}) f WHERE walk.n < $2
        ), share AS (SELECT greatest($3::bigint, $4::bigint / greatest(count(*), 1)) AS streams FROM walk)
        SELECT walk.category, walk.dashed::int, (walk.dashed OR own.low IS NULL){some},
               counted.streams + named.streams, share.streams
        FROM walk CROSS JOIN share
        LEFT JOIN LATERAL (SELECT s.stream_id AS low FROM {table} s
                           WHERE NOT walk.dashed AND s.stream_id >= walk.category || {separator}
                             AND s.stream_id < walk.category || {after}
                           ORDER BY s.stream_id LIMIT 1) own ON true
        CROSS JOIN LATERAL (
            WITH RECURSIVE ids (stream_id, n, streams) AS (
                (SELECT s.stream_id, 1, ({shown})::int FROM {table} s
                 WHERE walk.dashed AND s.stream_id >= walk.category || {separator}
                   AND s.stream_id < walk.category || {after}
                 ORDER BY s.stream_id LIMIT 1)
                UNION ALL
                SELECT f.stream_id, ids.n + 1, ids.streams + f.shown FROM ids CROSS JOIN LATERAL (
                    SELECT s.stream_id, ({shown})::int AS shown FROM {table} s
                    WHERE {layout.name_compared(">", "ids.stream_id")} AND s.stream_id < walk.category || {after}
                    ORDER BY s.stream_id LIMIT 1) f
                WHERE ids.n <= share.streams
            ) SELECT coalesce(max(streams), 0)::bigint AS streams FROM ids
        ) counted
        -- By its place, not by its name: for any row of a name that many rows are believed to have, PostgreSQL looks
        -- through the table.
        CROSS JOIN LATERAL (SELECT count(*) AS streams
                            FROM (SELECT s.stream_id FROM {table} s WHERE s.stream_id >= walk.category
                                  ORDER BY s.stream_id LIMIT 1) one
                            WHERE one.stream_id = walk.category AND {layout.listed("one.stream_id")}) named
        ORDER BY walk.n
    """


def _joined_categories(layout: Layout, keys: Joined, *, backwards: bool) -> str:
    """Do as `_categories` where the first of several columns is the category."""
    first, *others = keys.named("s")
    there = layout.name_there()
    order, step, onward = ("DESC", "<", "<") if backwards else ("ASC", ">=", ">")
    others_of_ids = ", ".join(other.replace("s.", "ids.") for other in others)

    def next_category(condition: str) -> str:
        named = f"FROM {layout.names} s WHERE {condition} AND {there} ORDER BY {first} {order} LIMIT 1"
        return f"SELECT {first} AS category {named}"

    within = f"SELECT {', '.join(others)} FROM {layout.names} s WHERE {first} = walk.category AND {there}"
    start = f"($1::text IS NULL OR {first}::text {step} {keys.category_from('$1::text')})"
    in_order = f"ORDER BY {', '.join(others)} LIMIT 1"
    return f"""
        WITH RECURSIVE walk (category, n) AS (
            (SELECT f.category, 1 FROM ({next_category(start)}) f)
            UNION ALL
            SELECT f.category, walk.n + 1
            FROM walk CROSS JOIN LATERAL ({next_category(f"{first} {onward} walk.category")}) f WHERE walk.n < $2
        ), share AS (SELECT greatest($3::bigint, $4::bigint / greatest(count(*), 1)) AS streams FROM walk)
        SELECT {keys.category("walk.category")}, 1, true, counted.streams, share.streams FROM walk CROSS JOIN share
        CROSS JOIN LATERAL (
            WITH RECURSIVE ids ({others_of_ids.replace("ids.", "")}, n) AS (
                (SELECT f.*, 1 FROM ({within} {in_order}) f)
                UNION ALL
                SELECT f.*, ids.n + 1 FROM ids CROSS JOIN LATERAL (
                    {within} AND ({", ".join(others)}) > ({others_of_ids}) {in_order}) f
                WHERE ids.n <= share.streams
            ) SELECT coalesce(max(n), 0)::bigint AS streams FROM ids
        ) counted
        ORDER BY walk.n
    """
