"""Reading pages: events of a stream or of all streams, and the list of streams.

Every query here is a keyset query: it starts at a position of an index and touches a number of rows bounded by
the page, at any size of the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from esx.errors import InvalidQuery
from esx.filters import StreamFilter
from esx.glob import glob_to_regex
from esx.layouts.category import column_category
from esx.layouts.layout import Layout
from esx.model import Event, StreamSummary
from esx.postgres.values import fetch
from esx.store.read.event_list import EventList

_LAST_SEQ = 2**63 - 1
_DATA, _METADATA = map(Event._fields.index, ("data_json", "metadata_json"))
_CUT_BYTES = 4_000_000
"""A page is cut after the event with which its payloads, as stored in the table, exceed this."""


@dataclass(frozen=True, slots=True)
class StreamPage:
    """Streams in the order asked for, and where the next page starts.

    `next_after` is None at the end. A page can be short of `limit`, even empty, with more to come: the rows
    looked at are bounded, not the rows found.
    """

    streams: list[StreamSummary]
    next_after: StreamKey | None
    looked: int = 0
    """How many streams (by recent activity: events) were looked at."""


class StreamKey(NamedTuple):
    """A position in a list of streams: `stream_id` by name, `global_seq` by recent activity."""

    stream_id: str
    global_seq: int


class StoredId(NamedTuple):
    """The place and the id of an event. `event_id` is None in a table without such a column."""

    stream_id: str
    stream_seq: int
    global_seq: int
    event_id: UUID | None


def near_end(layout: Layout, *, backwards: bool) -> int:
    """Return the bound of the page at the near end of a list: no number of esx's own is below 0."""
    if backwards:
        return _LAST_SEQ
    return -1 if layout.foreign is None else -_LAST_SEQ


def starts_with(layout: Layout, alias: str) -> str:
    """Return the condition that ids start with $1. They are a range of the index only if ids sort by bytes."""
    return f"{layout.prefix_range(alias)} AND starts_with({alias}.stream_id::text, $1)"


def page_sql(layout: Layout, events: EventList, columns: str, *, backwards: bool) -> str:
    """Return the query for up to $2 events of a list after the number $1, or backwards up to it."""
    order, side = ("DESC", "<=") if backwards else ("ASC", ">")
    return (
        f"SELECT {columns} FROM {events.table(layout)} e WHERE {events.condition(layout, 3)} "
        f"AND e.{events.key} {side} $1::bigint ORDER BY e.{events.key} {order} LIMIT $2"
    )


def cut_page_sql(layout: Layout, events: EventList, *, backwards: bool) -> str:
    """Return the query of a page that ends after the event with which payloads reach a bound.

    PostgreSQL reads sizes without fetching what lies out of line. A page that `is_whole` was not cut.
    """
    order = f"ORDER BY e.{events.key}{' DESC' if backwards else ''}"
    # Only of the bytes: to look whether they are JSON may fail, where one is nested too deep.
    raw = "_raw" if layout.packed else ""
    size = f"coalesce(pg_column_size(e.data{raw}), 0) + coalesce(pg_column_size(e.metadata{raw}), 0)"
    return f"""
        SELECT {layout.columns()}
        FROM (SELECT e.*, sum({size}) OVER ({order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
              FROM ({page_sql(layout, events, "e.*", backwards=backwards)}) e) e
        WHERE coalesce(e.before, 0) < {_CUT_BYTES}
        {order}
    """


def is_whole(rows: Sequence[Sequence[Any]]) -> bool:
    """Return whether the payloads of a page are so small that `cut_page_sql` cannot have cut it.

    As jsonb, JSON takes up to some ten bytes for a character: in arrays of small numbers.
    """
    return sum(len(row[_DATA] or "") + len(row[_METADATA] or "") for row in rows) < _CUT_BYTES // 20


async def streams_by_name(
    connection: asyncpg.Connection,
    layout: Layout,
    where: StreamFilter,
    *,
    after: str | None,
    limit: int,
    scan: int,
    backwards: bool,
) -> StreamPage:
    """Return up to `limit` streams in the order of their ids.

    No more than `scan` ids are looked at, so a page can come out empty.
    """
    rows = await fetch(
        connection,
        by_name_sql(layout, backwards=backwards, resumed=after is not None, of_category=where.category is not None),
        where.start,
        limit,
        _regex(where),
        after,
        scan,
        *(() if where.category is None else (where.category,)),
        moment=6,
    )
    if not rows:
        return StreamPage([], None)
    found = [StreamSummary(row[0], *row[3:]) for row in rows if row[1]]
    looked = rows[-1][2]
    more = len(found) >= limit or looked >= scan
    return StreamPage(found, StreamKey(rows[-1][0], 0) if more else None, looked)


async def streams_by_recent(
    connection: asyncpg.Connection,
    layout: Layout,
    where: StreamFilter,
    *,
    before: int | None,
    limit: int,
    scan: int,
) -> StreamPage:
    """Return streams by their last event, newest first, looking at no more than `scan` events.

    It reads the events backwards and keeps those that are the last of their stream.
    """
    newest = _LAST_SEQ if before is None else before - 1
    query = recent_sql(layout, scan)
    rows = await fetch(connection, query, newest, where.start, _regex(where), limit, moment=4)
    found = [StreamSummary._make(row[:6]) for row in rows if row[0] is not None]
    if not rows:
        return StreamPage([], None)
    last = rows[-1]
    if len(found) >= limit:
        return StreamPage(found, StreamKey(found[-1].stream_id, found[-1].last_global_seq), scan)
    # The closing row tells how far the scan came; None: it came to the start of the store.
    scanned_to = last[6]
    return StreamPage(found, None if scanned_to is None else StreamKey("", scanned_to), scan)


def _regex(where: StreamFilter) -> str | None:
    return None if where.glob is None else glob_to_regex(where.glob)


def by_name_sql(layout: Layout, *, backwards: bool, resumed: bool, of_category: bool = False) -> str:
    """Skip from stream to stream along the unique index: one probe for the next id, and one per end of it.

    $1 prefix, $2 rows to find, $3 regular expression, $4 the id to go on from, $5 ids to look at, $6 the category if it
    is one `of_category`. Besides what was found, the last id looked at is returned.
    """
    category = f"AND {column_category(layout, 's.stream_id')} = $6::text" if of_category else ""
    table = layout.within_stream
    order, step = ("DESC", "<") if backwards else ("ASC", ">")
    # Only where ids sort by bytes are those with a prefix one range.
    within = f"{layout.prefix_range()} AND {layout.name_there()}"
    first = layout.name_compared(step, "$4") if resumed else "$4::text IS NULL"

    def next_id(condition: str) -> str:
        return f"""
            SELECT s.stream_id,
                   starts_with(s.stream_id::text, $1) AND ($3::text IS NULL OR s.stream_id::text ~ $3::text)
                   AND {layout.listed("s.stream_id")} {category} AS hit
            FROM {layout.names} s WHERE {within} AND {condition} ORDER BY {layout.name_order(order)} LIMIT 1
        """

    return f"""
        WITH RECURSIVE ids (stream_id, hit, n, hits) AS (
            (SELECT f.*, 1, f.hit::int FROM ({next_id(first)}) f)
            UNION ALL
            SELECT f.*, ids.n + 1, ids.hits + f.hit::int
            FROM ids CROSS JOIN LATERAL ({next_id(layout.name_compared(step, "ids.stream_id"))}) f
            WHERE ids.n < $5 AND ids.hits < $2
        )
        SELECT ids.stream_id::text, ids.hit, ids.n, last.stream_seq, {_events("last.stream_seq", "first.stream_seq")},
               last.event_type, last.created_at, last.global_seq
        FROM (SELECT *, max(n) OVER () AS looked FROM ids) ids
        LEFT JOIN LATERAL (SELECT e.stream_seq, e.event_type, e.created_at, e.global_seq FROM {table} e
                           WHERE ids.hit AND {layout.in_stream("ids.stream_id")}{layout.numbered_in_stream()}
                           ORDER BY e.stream_seq DESC LIMIT 1) last ON true
        LEFT JOIN LATERAL (SELECT e.stream_seq FROM {table} e
                           WHERE ids.hit AND {layout.in_stream("ids.stream_id")}
                           ORDER BY e.stream_seq LIMIT 1) first ON true
        WHERE ids.hit OR ids.n = ids.looked
        ORDER BY ids.n
    """


def recent_sql(layout: Layout, scan: int) -> str:
    """Return the query for streams by their last event, among `scan` events up to the number $1."""
    table, streams = layout.table, layout.within_stream
    layout.check_numbered()
    first = _first_of(layout, "f.stream_id")
    # Nothing after the last wanted stream is looked at, because the condition is a subquery; a join would look at all.
    # The number to look at is in the text: PostgreSQL would take a parameter for a tenth of the table, and plan such a
    # statement again for each page.
    return f"""
        WITH found AS MATERIALIZED (
            SELECT s.*
            FROM (SELECT e.global_seq, e.stream_id, e.stream_seq, e.event_type, e.created_at
                  FROM {table} e WHERE e.global_seq <= $1::bigint ORDER BY e.global_seq DESC LIMIT {scan}) s
            WHERE starts_with(s.stream_id::text, $2) AND ($3::text IS NULL OR s.stream_id::text ~ $3::text)
              AND (SELECT n.stream_seq FROM {streams} n
                   WHERE {layout.in_stream("s.stream_id", "n")} AND n.stream_seq > s.stream_seq
                   ORDER BY n.stream_seq LIMIT 1) IS NULL
            ORDER BY s.global_seq DESC LIMIT $4
        )
        SELECT f.stream_id::text, f.stream_seq,
               {_events("f.stream_seq", first)},
               f.event_type, f.created_at, f.global_seq, NULL::bigint
        FROM found f
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, NULL, NULL,
               CASE WHEN (SELECT count(*) FROM found) < $4 THEN
                   (SELECT e.global_seq FROM {table} e WHERE e.global_seq <= $1::bigint
                    ORDER BY e.global_seq DESC OFFSET {scan} - 1 LIMIT 1) END
        ORDER BY 6 DESC NULLS LAST
    """


def _first_of(layout: Layout, stream: str) -> str:
    """Return the expression for the first stream_seq of a stream. Of joined tables min() would read all of it."""
    return (
        f"(SELECT a.stream_seq FROM {layout.within_stream} a WHERE {layout.in_stream(stream, 'a')} "
        "ORDER BY a.stream_seq LIMIT 1)"
    )


def _events(last: str, first: str) -> str:
    """Return the expression for the count of numbers from `first` to `last`, which can be above any bigint."""
    # A stream of another tool may have no number; least() would leave out the NULL.
    return f"CASE WHEN {last} IS NULL THEN 0 ELSE least({last}::numeric - {first} + 1, {_LAST_SEQ}) END::bigint"


def event_sql(layout: Layout) -> str:
    """Return the query for the event with the global_seq $1."""
    layout.check_numbered()
    return f"SELECT {layout.columns()} FROM {layout.table} e WHERE e.global_seq = $1::bigint"


def summary_sql(layout: Layout) -> str:
    """Return the query for the summary of stream $1."""
    table = layout.within_stream
    first = _first_of(layout, "$1")
    return f"""
        SELECT e.stream_id::text, e.stream_seq, {_events("e.stream_seq", first)},
               e.event_type, e.created_at, e.global_seq
        FROM {table} e WHERE {layout.in_stream("$1")}{layout.numbered_in_stream()} ORDER BY e.stream_seq DESC LIMIT 1
    """


def check_category(layout: Layout, where: StreamFilter, *, recent: bool) -> None:
    """Raise InvalidQuery for a category of streams that cannot be chosen."""
    if where.category is not None and layout.category is None:
        start = where.category + layout.separator
        raise InvalidQuery(f"categories are what ids begin with here: choose the streams whose ids start with {start}")
    if where.category is not None and recent:
        raise InvalidQuery("streams of a category are listed by name, not by recent activity")


def check_limit(limit: int | None) -> None:
    """Raise InvalidQuery for a limit below zero."""
    if limit is not None and limit < 0:
        raise InvalidQuery(f"a limit of {limit} makes no sense: use a number from 0")
