"""Reading pages: events of a stream or of all streams, and the list of streams.

Every query here is a keyset query: it starts at a position of an index and touches a number of rows bounded by
the page, whatever the size of the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from esx.store.careful import CREATED_AT, fetch, fetchrow, fetchval
from esx.store.errors import InvalidQuery
from esx.store.glob import glob_to_regex
from esx.store.model import Event, EventPreview, StreamSummary
from esx.text import is_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    import asyncpg

    from esx.store.careful import Rows
    from esx.store.connection import Session
    from esx.store.layout import Layout

_LAST_SEQ = 2**63 - 1
# Where created_at is in a row, as `fetch` wants to know it.
_PART_AT = CREATED_AT - 1
_PREVIEW_AT = EventPreview._fields.index("created_at")
_PART_BYTES = 4_000_000
"""What the payloads of a part may take in the table; the one that goes beyond is its last."""


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
    """Where an event is stored, and which it is. `event_id` is None in a table without such a column."""

    stream_id: str
    stream_seq: int
    global_seq: int
    event_id: UUID | None


class Reader:
    """Reads pages from one events table. Holds statements only: share it between connections."""

    def __init__(self, layout: Layout) -> None:
        table = layout.table
        self._stream = {backwards: _stream(layout.columns(), table, backwards) for backwards in (False, True)}
        self._stream_previews = {backwards: _stream(layout.preview(), table, backwards) for backwards in (False, True)}
        self._all = {backwards: _all(layout.columns(), table, backwards) for backwards in (False, True)}
        self._all_previews = {backwards: _all(layout.preview(), table, backwards) for backwards in (False, True)}
        self._stream_parts = {backwards: _stream_part(layout, backwards) for backwards in (False, True)}
        self._all_parts = {backwards: _all_part(layout, backwards) for backwards in (False, True)}
        columns = layout.columns()
        self._previous = (
            f"SELECT {columns} FROM (SELECT * FROM {table} WHERE stream_id = $1 AND stream_seq < $2 "
            "ORDER BY stream_seq DESC LIMIT $4) e WHERE e.event_type = $3 ORDER BY e.stream_seq DESC LIMIT 1"
        )
        self._event = f"SELECT {columns} FROM {table} e WHERE e.global_seq = $1"
        self._events = f"SELECT {columns} FROM {table} e WHERE e.global_seq = ANY($1)"
        self._version = layout.version()
        self._by_name = {
            (backwards, resumed): _by_name(layout, backwards=backwards, resumed=resumed)
            for backwards in (False, True)
            for resumed in (False, True)
        }
        self._recent = _recent(layout)
        self._one_stream = _summary_of(layout)
        within = _with_prefix(layout, "e.stream_id")
        self._ids = (
            f"SELECT e.stream_id, e.stream_seq, e.global_seq, {layout.event_id or 'NULL::uuid'} FROM {table} e "
            f"WHERE {within} AND (e.stream_id, e.stream_seq) >= ($2, $3) "
            "AND (e.stream_id, e.stream_seq, e.global_seq) > ($2, $3, $4) "
            "ORDER BY e.stream_id, e.stream_seq, e.global_seq LIMIT $5"
        )
        self._outside = (
            f"(SELECT stream_id FROM {table} WHERE stream_id < $1 ORDER BY stream_id LIMIT 1) UNION ALL "
            f"(SELECT stream_id FROM {table} WHERE stream_id >= $1 || {layout.last()} ORDER BY stream_id LIMIT 1) "
            "LIMIT 1"
            if layout.byte_order
            else f"SELECT stream_id FROM {table} WHERE NOT starts_with(stream_id, $1) LIMIT 1"
        )
        self._count = f"SELECT count(*) FROM {table} e WHERE {within}"

    async def stream_page(
        self,
        connection: asyncpg.Connection,
        stream_id: str,
        start: int | None,
        limit: int,
        *,
        backwards: bool,
    ) -> list[Event]:
        """Return up to `limit` events of the stream from stream_seq `start` on (None: from the near end)."""
        start = _near_end(backwards) if start is None else start
        rows = await fetch(connection, self._stream[backwards], stream_id, start, limit, moment=CREATED_AT)
        return list(map(Event._make, rows))

    async def stream_previews(
        self,
        connection: asyncpg.Connection,
        stream_id: str,
        start: int | None,
        limit: int,
        *,
        backwards: bool,
    ) -> list[EventPreview]:
        """Return the page that `stream_page` returns, as previews."""
        start = _near_end(backwards) if start is None else start
        rows = await fetch(connection, self._stream_previews[backwards], stream_id, start, limit, moment=_PREVIEW_AT)
        return list(map(EventPreview._make, rows))

    async def all_page(
        self, connection: asyncpg.Connection, position: int | None, limit: int, *, backwards: bool
    ) -> list[Event]:
        """Return up to `limit` events after (backwards: before) global_seq `position`; None: the near end."""
        position = _beyond(position, backwards)
        rows = await fetch(connection, self._all[backwards], position, limit, moment=CREATED_AT)
        return list(map(Event._make, rows))

    async def all_previews(
        self, connection: asyncpg.Connection, position: int | None, limit: int, *, backwards: bool
    ) -> list[EventPreview]:
        """Return the page that `all_page` returns, as previews."""
        position = _beyond(position, backwards)
        rows = await fetch(connection, self._all_previews[backwards], position, limit, moment=_PREVIEW_AT)
        return list(map(EventPreview._make, rows))

    async def stream_part(
        self, connection: asyncpg.Connection, stream_id: str, start: int | None, limit: int, *, backwards: bool
    ) -> tuple[list[Event], bool]:
        """Return the page that `stream_page` returns, or, where payloads are large, its first events; and if so."""
        start = _near_end(backwards) if start is None else start
        return _part(await fetch(connection, self._stream_parts[backwards], stream_id, start, limit, moment=_PART_AT))

    async def all_part(
        self, connection: asyncpg.Connection, position: int | None, limit: int, *, backwards: bool
    ) -> tuple[list[Event], bool]:
        """Return the page that `all_page` returns, or, where payloads are large, its first events; and if so."""
        position = _beyond(position, backwards)
        return _part(await fetch(connection, self._all_parts[backwards], position, limit, moment=_PART_AT))

    async def previous(
        self, connection: asyncpg.Connection, stream_id: str, before: int, event_type: str, scan: int
    ) -> Event | None:
        """Return the last event of that type among the `scan` events of the stream before stream_seq `before`."""
        row = await fetchrow(connection, self._previous, stream_id, before, event_type, scan, moment=CREATED_AT)
        return None if row is None else Event._make(row)

    async def event(self, connection: asyncpg.Connection, global_seq: int) -> Event | None:
        """Return the event with that global_seq, or None."""
        row = await fetchrow(connection, self._event, global_seq, moment=CREATED_AT)
        return None if row is None else Event._make(row)

    async def events(self, connection: asyncpg.Connection, numbers: Sequence[int]) -> dict[int, Event]:
        """Return the events with these global_seq, as far as there are any."""
        rows = await fetch(connection, self._events, numbers, moment=CREATED_AT)
        return {row[0]: Event._make(row) for row in rows}

    async def version(self, connection: Session, stream_id: str) -> int:
        """Return the stream's version, -1 if it has no events."""
        if not is_text(stream_id):
            return int(await fetchval(connection, self._version, stream_id))
        row = await connection.repeat(self._version, stream_id)
        assert row is not None
        return int(row[0])

    async def summary(self, connection: asyncpg.Connection, stream_id: str) -> StreamSummary | None:
        """Return the stream at a glance, or None if it has no events."""
        row = await fetchrow(connection, self._one_stream, stream_id, moment=4)
        return None if row is None else StreamSummary._make(row)

    async def count_events(self, connection: asyncpg.Connection, prefix: str) -> int:
        """Return how many events the streams have whose id starts with `prefix`, by counting them."""
        return int(await fetchval(connection, self._count, prefix))

    async def ids_page(
        self, connection: asyncpg.Connection, prefix: str, after: StoredId | None, limit: int
    ) -> list[StoredId]:
        """Return up to `limit` events of the streams whose id starts with `prefix`, stream by stream in order."""
        key = ("", -1, -1) if after is None else (after.stream_id, after.stream_seq, after.global_seq)
        rows = await fetch(connection, self._ids, prefix, *key, limit)
        return list(map(StoredId._make, rows))

    async def stream_outside(self, connection: asyncpg.Connection, prefix: str) -> str | None:
        """Return the id of a stream that does not start with `prefix`, None if there is none."""
        found: str | None = await fetchval(connection, self._outside, prefix)
        return found

    async def streams_by_name(
        self,
        connection: asyncpg.Connection,
        *,
        after: str | None,
        prefix: str,
        match: str | None,
        limit: int,
        scan: int,
        backwards: bool,
    ) -> StreamPage:
        """Return up to `limit` streams whose id starts with `prefix`, in the order of their ids.

        `match` is a glob; ids that it does not match are passed over. No more than `scan` are looked at, so a page can
        come out empty.
        """
        rows = await fetch(
            connection,
            self._by_name[backwards, after is not None],
            prefix,
            limit,
            None if match is None else glob_to_regex(match),
            after,
            scan,
            moment=6,
        )
        if not rows:
            return StreamPage([], None)
        found = [StreamSummary(row[0], *row[3:]) for row in rows if row[1]]
        looked = rows[-1][2]
        more = len(found) >= limit or looked >= scan
        return StreamPage(found, StreamKey(rows[-1][0], 0) if more else None, looked)

    async def streams_by_recent(
        self,
        connection: asyncpg.Connection,
        *,
        before: int | None,
        prefix: str,
        match: str | None,
        limit: int,
        scan: int,
    ) -> StreamPage:
        """Return streams by their last event, newest first, looking at no more than `scan` events.

        It reads the events backwards and keeps those that are the last of their stream.
        """
        rows = await fetch(
            connection,
            self._recent.format(scan=scan),
            _beyond(before, backwards=True),
            prefix,
            None if match is None else glob_to_regex(match),
            limit,
            moment=4,
        )
        found = [StreamSummary._make(row[:6]) for row in rows if row[0] is not None]
        if not rows:
            return StreamPage([], None)
        last = rows[-1]
        if len(found) >= limit:
            return StreamPage(found, StreamKey(found[-1].stream_id, found[-1].last_global_seq), scan)
        # The closing row tells how far the scan came; None: it came to the start of the store.
        scanned_to = last[6]
        return StreamPage(found, None if scanned_to is None else StreamKey("", scanned_to), scan)


def _near_end(backwards: bool) -> int:
    return _LAST_SEQ if backwards else 0


def _beyond(position: int | None, backwards: bool) -> int:
    """Return the number that a page of all events is limited by: after it, or backwards up to it."""
    if position is None:
        return _near_end(backwards)
    # "Before" would leave out the largest number that there is.
    return position - 1 if backwards else position


def _with_prefix(layout: Layout, column: str) -> str:
    """Return the condition that ids start with $1. Only where they sort by bytes are those one range."""
    starts = f"starts_with({column}, $1)"
    return f"{column} >= $1 AND {column} < $1 || {layout.last()} AND {starts}" if layout.byte_order else starts


def _stream(columns: str, table: str, backwards: bool) -> str:
    order, side = ("DESC", "<=") if backwards else ("ASC", ">=")
    return (
        f"SELECT {columns} FROM {table} e WHERE e.stream_id = $1 AND e.stream_seq {side} $2 "
        f"ORDER BY e.stream_seq {order} LIMIT $3"
    )


def _all(columns: str, table: str, backwards: bool) -> str:
    order, side = ("DESC", "<=") if backwards else ("ASC", ">")
    return f"SELECT {columns} FROM {table} e WHERE e.global_seq {side} $1 ORDER BY e.global_seq {order} LIMIT $2"


def _stream_part(layout: Layout, backwards: bool) -> str:
    page = _stream("e.*", layout.table, backwards)
    return _cut(layout, page, "stream_seq", backwards)


def _all_part(layout: Layout, backwards: bool) -> str:
    page = _all("e.*", layout.table, backwards)
    return _cut(layout, page, "global_seq", backwards)


def _cut(layout: Layout, page: str, key: str, backwards: bool) -> str:
    """End a page after the event with which payloads reach the bound; last in each row, how long the page was.

    PostgreSQL reads sizes without fetching what lies out of line.
    """
    order = f"ORDER BY e.{key}{' DESC' if backwards else ''}"
    size = "pg_column_size(e.data) + coalesce(pg_column_size(e.metadata), 0)"
    return f"""
        SELECT {layout.columns()}, e.page_rows
        FROM (SELECT e.*, count(*) OVER () AS page_rows,
                     sum({size}) OVER ({order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
              FROM ({page}) e) e
        WHERE coalesce(e.before, 0) < {_PART_BYTES}
        {order}
    """


def _part(rows: Rows) -> tuple[list[Event], bool]:
    return [Event._make(row[:-1]) for row in rows], bool(rows) and len(rows) < rows[0][-1]


def _by_name(layout: Layout, *, backwards: bool, resumed: bool) -> str:
    """Skip from stream to stream along the unique index: one probe for the next id, and one per end of it.

    $1 prefix, $2 rows to find, $3 regular expression, $4 the id to go on from, $5 ids to look at. Besides what was
    found, the last id looked at is returned.
    """
    table = layout.table
    order, step = ("DESC", "<") if backwards else ("ASC", ">")
    # Only where ids sort by bytes are those with a prefix one range.
    within = f"s.stream_id >= $1 AND s.stream_id < $1 || {layout.last()}" if layout.byte_order else "true"
    first = f"s.stream_id {step} $4" if resumed else "$4::text IS NULL"
    next_id = f"""
        SELECT s.stream_id, starts_with(s.stream_id, $1) AND ($3::text IS NULL OR s.stream_id ~ $3::text) AS hit
        FROM {table} s WHERE {within} AND %s ORDER BY s.stream_id {order} LIMIT 1
    """
    return f"""
        WITH RECURSIVE ids (stream_id, hit, n, hits) AS (
            (SELECT f.*, 1, f.hit::int FROM ({next_id % first}) f)
            UNION ALL
            SELECT f.*, ids.n + 1, ids.hits + f.hit::int
            FROM ids CROSS JOIN LATERAL ({next_id % f"s.stream_id {step} ids.stream_id"}) f
            WHERE ids.n < $5 AND ids.hits < $2
        )
        SELECT ids.stream_id, ids.hit, ids.n, last.stream_seq, {_events("last.stream_seq", "first.stream_seq")},
               last.event_type, last.created_at, last.global_seq
        FROM (SELECT *, max(n) OVER () AS looked FROM ids) ids
        LEFT JOIN LATERAL (SELECT e.stream_seq, e.event_type, e.created_at, e.global_seq FROM {table} e
                           WHERE ids.hit AND e.stream_id = ids.stream_id
                           ORDER BY e.stream_seq DESC LIMIT 1) last ON true
        LEFT JOIN LATERAL (SELECT e.stream_seq FROM {table} e
                           WHERE ids.hit AND e.stream_id = ids.stream_id
                           ORDER BY e.stream_seq LIMIT 1) first ON true
        WHERE ids.hit OR ids.n = ids.looked
        ORDER BY ids.n
    """


def _recent(layout: Layout) -> str:
    table = layout.table
    # Lazily: what comes after the last stream that is wanted is not looked at. As a subquery in a row's own condition,
    # because a join would look at all of them. How many it looks at stands in the text: PostgreSQL would take a
    # parameter for a tenth of the table, and plan such a statement anew for each page.
    return f"""
        WITH found AS MATERIALIZED (
            SELECT s.*
            FROM (SELECT e.global_seq, e.stream_id, e.stream_seq, e.event_type, e.created_at
                  FROM {table} e WHERE e.global_seq <= $1 ORDER BY e.global_seq DESC LIMIT {{scan}}) s
            WHERE starts_with(s.stream_id, $2) AND ($3::text IS NULL OR s.stream_id ~ $3::text)
              AND (SELECT n.stream_seq FROM {table} n
                   WHERE n.stream_id = s.stream_id AND n.stream_seq > s.stream_seq
                   ORDER BY n.stream_seq LIMIT 1) IS NULL
            ORDER BY s.global_seq DESC LIMIT $4
        )
        SELECT f.stream_id, f.stream_seq,
               {_events("f.stream_seq", f"(SELECT min(e.stream_seq) FROM {table} e WHERE e.stream_id = f.stream_id)")},
               f.event_type, f.created_at, f.global_seq, NULL::bigint
        FROM found f
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, NULL, NULL,
               CASE WHEN (SELECT count(*) FROM found) < $4 THEN
                   (SELECT e.global_seq FROM {table} e WHERE e.global_seq <= $1
                    ORDER BY e.global_seq DESC OFFSET {{scan}} - 1 LIMIT 1) END
        ORDER BY 6 DESC NULLS LAST
    """


def _events(last: str, first: str) -> str:
    """Return how many events there are between two numbers of a stream; those of a strange one may be far apart."""
    return f"least({last}::numeric - {first} + 1, {_LAST_SEQ})::bigint"


def _summary_of(layout: Layout) -> str:
    return f"""
        SELECT e.stream_id, e.stream_seq,
               {_events("e.stream_seq", f"(SELECT min(f.stream_seq) FROM {layout.table} f WHERE f.stream_id = $1)")},
               e.event_type, e.created_at, e.global_seq
        FROM {layout.table} e WHERE e.stream_id = $1 ORDER BY e.stream_seq DESC LIMIT 1
    """


def check_limit(limit: int | None) -> None:
    """Raise InvalidQuery for a limit below zero."""
    if limit is not None and limit < 0:
        raise InvalidQuery(f"a limit of {limit} makes no sense: use a number from 0")
