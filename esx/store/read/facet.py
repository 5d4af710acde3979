"""Reads events, and lists streams and categories."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import TypeVar

from esx.errors import InvalidQuery
from esx.filters import Filter, StreamFilter
from esx.model import MOST_WITHOUT_NUMBER, Event, EventPreview, StreamSummary
from esx.payload import Undecoded
from esx.postgres.values import CREATED_AT, fetch, fetchrow, fetchval
from esx.store.base import Facet
from esx.store.read.ahead import read_ahead
from esx.store.read.categories import CategoryPage, CategorySummary, behind, read_categories
from esx.store.read.estimates import Estimate, count_streams, draw_streams
from esx.store.read.event_list import EventList
from esx.store.read.pages import (
    StreamKey,
    StreamPage,
    check_category,
    check_limit,
    cut_page_sql,
    event_sql,
    is_whole,
    near_end,
    page_sql,
    streams_by_name,
    streams_by_recent,
    summary_sql,
)
from esx.store.read.scale import NameScale, name_scale
from esx.store.rows import events_of
from esx.store.stream_ids import as_stored, filter_as_stored
from esx.text import is_text

_PAGE = 1000
_STREAM_PAGE = 200
_RECENT_SCAN = 1000
_SEARCH_SCAN = 5000
"""How many ids (by recent activity: events) a page looks at to find those that match."""
_CATEGORY_PAGE = 100
_SAMPLE = 20
"""How many events are looked at for payloads that are no JSON."""
# Where created_at is in a row, as `fetch` wants to know it.
_PREVIEW_AT = EventPreview._fields.index("created_at")
_SUMMARY_AT = StreamSummary._fields.index("last_created_at")

Found = TypeVar("Found", Event, EventPreview)


class Reads(Facet):
    """Reads pages of lists, and whole lists page by page."""

    # -- events ------------------------------------------------------------------------------------------------

    async def without_number(self, stream_id: str) -> int:
        """Return how many events of a stream have no number in it, up to 1,000: they are in no page of the stream.

        Some other tools' stores have such events. Those are read among the events of all streams.
        """
        async with self._reading() as (connection, layout):
            query = layout.without_number(MOST_WITHOUT_NUMBER)
            return 0 if query is None else int(await fetchval(connection, query, stream_id))

    async def unlisted_streams(self) -> str | None:
        """Return why no streams are listed though they can be read by their names; None if they are listed."""
        return (await self._load()).layout.unlisted

    async def passes_over(self, chosen: Filter, stream: str | None = None) -> bool:
        """Return whether the conditions of a filter miss something: payloads that they look into, and that are no JSON.

        It looks at the twenty newest events, of a stream or of all; only stores of other tools have such payloads.
        """
        data = bool(chosen.paths or chosen.mentions)
        metadata = bool(chosen.members or chosen.mentions)
        if not (data or metadata):
            return False
        layout = (await self._load()).layout
        if not layout.packed:
            return False
        # Where there is no global order there is no list of all to look at: any of them may be so.
        if stream is None and layout.unnumbered is not None:
            return True
        events = (
            self.read_all(limit=_SAMPLE, backwards=True)
            if stream is None
            else self.read(stream, limit=_SAMPLE, backwards=True)
        )
        async for event in events:
            parts = (event.data_json if data else None, event.metadata_json if metadata else None)
            if any(isinstance(part, Undecoded) for part in parts):
                return True
        return False

    async def version(self, stream_id: str) -> int:
        """Return the version of a stream: its highest stream_seq, -1 if it has no events."""
        layout = (self._table or await self._load()).layout
        if layout.parts:  # the stream may be in a new table
            async with self._reading() as (connection, layout):
                return int(await fetchval(connection, layout.version(), stream_id))
        query = layout.version()
        loan = self._pool.idle(guarded=True) if is_text(stream_id) else None
        if loan is None:
            async with self._connection() as connection:
                return int(await fetchval(connection, query, stream_id))
        with loan as connection:
            rows = await connection.repeat(query, stream_id)
        return int(rows[0][0])

    async def first_version(self) -> int:
        """Return the number of a stream's first event: 0, in the stores of some other tools 1."""
        return (self._table or await self._load()).layout.first

    async def event(self, global_seq: int) -> Event | None:
        """Return the event with that global_seq, or None."""
        async with self._reading() as (connection, layout):
            row = await fetchrow(connection, event_sql(layout), global_seq, moment=CREATED_AT)
        return None if row is None else next(events_of(layout)([row]))

    async def event_in(self, stream_id: str, stream_seq: int) -> Event | None:
        """Return the event with that stream_seq of a stream, or None."""
        page = await self.read_page(stream_id, start=stream_seq, limit=1)
        return page[0] if page and page[0].stream_seq == stream_seq else None

    async def events(self, numbers: Sequence[int]) -> dict[int, Event]:
        """Return the events with these global_seq, by number; numbers without an event are left out."""
        async with self._reading() as (connection, layout):
            layout.check_numbered()
            query = f"SELECT {layout.columns()} FROM {layout.table} e WHERE e.global_seq = ANY($1::bigint[])"
            rows = await fetch(connection, query, numbers, moment=CREATED_AT)
        return {event.global_seq: event for event in events_of(layout)(rows)}

    async def previous_event(
        self, stream_id: str, before: int, *, event_type: str | None = None, scan: int = 5000
    ) -> Event | None:
        """Return the last event of a stream before stream_seq `before`, with `event_type` the last of that type.

        None if there is none, or with `event_type` if none of the `scan` events before is of that type.
        """
        async with self._reading() as (connection, layout):
            row = await fetchrow(
                connection,
                f"SELECT {layout.columns()} FROM (SELECT * FROM {layout.within_stream} e "
                f"WHERE {layout.in_stream('$1')} AND e.stream_seq < $2::bigint ORDER BY e.stream_seq DESC LIMIT $3) e "
                "WHERE $4::text IS NULL OR e.event_type = $4 ORDER BY e.stream_seq DESC LIMIT 1",
                stream_id,
                before,
                1 if event_type is None else scan,
                event_type,
                moment=CREATED_AT,
            )
        return None if row is None else next(events_of(layout)([row]))

    async def read_page(
        self, stream_id: str, *, start: int | None = None, limit: int = _PAGE, backwards: bool = False
    ) -> list[Event]:
        """Return up to `limit` events of a stream, from stream_seq `start` on, included.

        `start` None means from the first event, or backwards from the last.
        """
        return await self._page(Event, EventList(stream_id), _after(start, backwards), limit, backwards=backwards)

    async def read_all_page(
        self, *, position: int | None = None, limit: int = _PAGE, backwards: bool = False
    ) -> list[Event]:
        """Return up to `limit` events of all streams after global_seq `position`, or before it if backwards.

        It returns what is visible now; an event with a lower number may become visible later. To process every event in
        order, use `subscribe` or `feed`.
        """
        return await self._page(Event, EventList(), _up_to(position, backwards), limit, backwards=backwards)

    async def preview_page(
        self, stream_id: str, *, start: int | None = None, limit: int = _STREAM_PAGE, backwards: bool = False
    ) -> list[EventPreview]:
        """Return the page that `read_page` returns, without whole payloads: for lists."""
        return await self._page(
            EventPreview, EventList(stream_id), _after(start, backwards), limit, backwards=backwards
        )

    async def preview_all_page(
        self, *, position: int | None = None, limit: int = _STREAM_PAGE, backwards: bool = False
    ) -> list[EventPreview]:
        """Return the page that `read_all_page` returns, without whole payloads: for lists."""
        return await self._page(EventPreview, EventList(), _up_to(position, backwards), limit, backwards=backwards)

    async def _page(
        self, kind: type[Found], events: EventList, bound: int | None, limit: int, *, backwards: bool
    ) -> list[Found]:
        """Return a page of a list: after the number `bound`, or backwards up to it; None is the near end."""
        previews = kind is EventPreview
        async with self._reading() as (connection, layout):
            query = page_sql(layout, events, layout.preview() if previews else layout.columns(), backwards=backwards)
            bound = near_end(layout, backwards=backwards) if bound is None else bound
            moment = _PREVIEW_AT if previews else CREATED_AT
            rows = await fetch(connection, query, bound, limit, *events.arguments, moment=moment)
        return list(events_of(layout, kind)(rows))

    async def read(
        self, stream_id: str, *, start: int | None = None, limit: int | None = None, backwards: bool = False
    ) -> AsyncIterator[Event]:
        """Yield the events of a stream from stream_seq `start` on, included, at most `limit`.

        They are fetched up to a thousand at a time, fewer where they are large.
        """
        parts = self._parts(EventList(stream_id), _after(start, backwards), limit, backwards=backwards)
        async with contextlib.aclosing(read_ahead(parts)) as pages:
            async for part in pages:
                for event in part:
                    yield event

    async def read_all(
        self, *, after: int | None = None, before: int | None = None, limit: int | None = None, backwards: bool = False
    ) -> AsyncIterator[Event]:
        """Yield the events of all streams with a global_seq above `after` and below `before`, where these are given.

        They are in order as far as they are visible when it reads them; see `read_all_page`.
        """
        after = near_end((await self._load()).layout, backwards=False) if after is None else after
        bound = _up_to(before, backwards) if backwards else after
        async with contextlib.aclosing(
            read_ahead(self._parts(EventList(), bound, limit, backwards=backwards))
        ) as pages:
            async for part in pages:
                if not backwards and before is None:
                    for event in part:
                        yield event
                    continue
                for event in part:
                    number = event.global_seq
                    if number <= after or (before is not None and number >= before):
                        return
                    yield event

    async def _parts(
        self, events: EventList, bound: int | None, limit: int | None, *, backwards: bool
    ) -> AsyncGenerator[Iterator[Event], None]:
        """Yield what `_page` returns page by page, each cut short where payloads are large."""
        key = Event._fields.index(events.key)
        check_limit(limit)
        while limit is None or limit > 0:
            size = _PAGE if limit is None else min(_PAGE, limit)
            async with self._reading() as (connection, layout):
                bound = near_end(layout, backwards=backwards) if bound is None else bound
                query = cut_page_sql(layout, events, backwards=backwards)
                rows = await fetch(connection, query, bound, size, *events.arguments, moment=CREATED_AT)
            ended = not rows or (len(rows) < size and is_whole(rows))
            yield events_of(layout)(rows)
            if ended:
                return
            last: int = rows[-1][key]
            bound = last - 1 if backwards else last
            limit = None if limit is None else limit - len(rows)

    async def head(self) -> int:
        """Return the highest global_seq that is visible now; 0 if there are no events, or no global order."""
        if (await self._load()).layout.unnumbered is not None:
            await self.streams_page(limit=1)  # raises where the user may not read
            return 0
        page = await self.preview_all_page(limit=1, backwards=True)
        return page[0].global_seq if page else 0

    # -- streams -----------------------------------------------------------------------------------------------

    async def summary(self, stream_id: str) -> StreamSummary | None:
        """Return one stream at a glance, or None if it has no events."""
        async with self._reading() as (connection, layout):
            row = await fetchrow(connection, summary_sql(layout), stream_id, moment=_SUMMARY_AT)
        return None if row is None else StreamSummary._make(row)

    async def streams_page(
        self,
        *,
        after: StreamKey | None = None,
        prefix: str = "",
        match: str | None = None,
        contains: str | None = None,
        category: str | None = None,
        recent: bool = False,
        limit: int = _STREAM_PAGE,
        backwards: bool = False,
    ) -> StreamPage:
        """Return a page of streams, by name or by `recent` activity, from the key `after` on.

        `prefix` and either the glob `match` or the text `contains` choose by id; `category` is for stores that keep it
        in a column. By name, `backwards` reads towards the start. A page costs the same at any size of the store; it
        may have fewer streams than `limit`, even none, although more follow. Raises InvalidQuery.
        """
        if recent and backwards:
            raise InvalidQuery("streams by recent activity are listed from the newest only")
        where = StreamFilter(prefix, match, contains, category)
        any_id = where.glob is None and category is None
        async with self._reading() as (connection, layout):
            check_category(layout, where, recent=recent)
            where = filter_as_stored(layout, where)
            if recent:
                before = None if after is None else after.global_seq
                scan = _RECENT_SCAN if any_id else _SEARCH_SCAN
                return await streams_by_recent(connection, layout, where, before=before, limit=limit, scan=scan)
            start = None if after is None else after.stream_id
            all_fit = any_id and (not prefix or layout.prefix_range() != "true")
            scan = limit if all_fit else max(_SEARCH_SCAN, limit)
            return await streams_by_name(
                connection, layout, where, after=start, limit=limit, scan=scan, backwards=backwards
            )

    async def streams(
        self,
        *,
        prefix: str = "",
        match: str | None = None,
        contains: str | None = None,
        category: str | None = None,
        recent: bool = False,
        limit: int | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> AsyncIterator[StreamSummary]:
        """Yield streams, by name or by `recent` activity, at most `limit`; see `streams_page` for how to choose.

        `on_progress` is told how many streams (by recent activity: events) have been looked at.
        """
        check_limit(limit)
        looked = 0
        after: StreamKey | None = None
        left = limit
        while left is None or left > 0:
            size = _STREAM_PAGE if left is None else min(_STREAM_PAGE, left)
            page = await self.streams_page(
                after=after,
                prefix=prefix,
                match=match,
                contains=contains,
                category=category,
                recent=recent,
                limit=size,
            )
            looked += page.looked
            if on_progress is not None:
                on_progress(looked)
            for stream in page.streams[:left]:
                yield stream
            if page.next_after is None:
                return
            after = page.next_after
            left = None if left is None else left - len(page.streams)

    async def categories_page(
        self, *, after: str | None = None, limit: int = _CATEGORY_PAGE, backwards: bool = False
    ) -> CategoryPage:
        """Return a page of categories (the part of a stream's id before the first ``-``) after the place `after`.

        Up to 2,000 streams are counted for a page, divided evenly among its categories, but at least 100 of each; more
        are estimated, see `Estimate`. A page costs the same at any size of the store.
        """
        start = None if backwards else ""
        if after is not None:
            start = after if backwards else behind(after, (await self._load()).layout)
        return await self._read(read_categories, start, limit, backwards=backwards)

    async def category(self, place: str) -> CategorySummary | None:
        """Return the category at a place, None if there is none."""
        page = await self._read(read_categories, place, 1)
        return next((category for category in page.categories if category.place == place), None)

    async def categories(self) -> AsyncIterator[CategorySummary]:
        """Yield all categories, in the order of their ids."""
        start = ""
        sample = await self._read(draw_streams)
        while True:
            page = await self._read(read_categories, start, _CATEGORY_PAGE, sample=sample)
            for category in page.categories:
                yield category
            if page.next_after is None:
                return
            start = behind(page.next_after, (await self._load()).layout)

    async def count_streams(self, *, prefix: str = "") -> Estimate:
        """Return how many streams there are whose id starts with `prefix`: counted up to 2,000, estimated beyond.

        It takes at most some 4,000 index probes. Raises InvalidQuery for a prefix where ids with one are no range
        of the index: these are texts that do not sort by bytes.
        """
        async with self._reading() as (connection, layout):
            if prefix and layout.prefix_range() == "true":
                raise InvalidQuery("streams with a prefix can be counted only where they are a range of the index")
            return await count_streams(connection, layout, as_stored(layout, prefix))

    async def name_scale(self) -> NameScale | None:
        """Return a scale that estimates where an id is among all stream ids; None without statistics of them."""
        return await self._read(name_scale)


def _after(start: int | None, backwards: bool) -> int | None:
    """Return the bound of a page that begins with the number `start`."""
    return start if start is None or backwards else start - 1


def _up_to(position: int | None, backwards: bool) -> int | None:
    """Return the bound of a page that begins next to the number `position`."""
    return position - 1 if position is not None and backwards else position
