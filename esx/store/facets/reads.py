"""Reading events, and listing streams and categories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.store.categories import CategoryReader
from esx.store.errors import InvalidQuery
from esx.store.estimating import count_streams, draw
from esx.store.facets.base import Base
from esx.store.glob import glob_containing, glob_prefix
from esx.store.reading import StreamKey, StreamPage, check_limit
from esx.store.scale import name_scale
from esx.store.scope import Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from esx.store.categories import CategoryPage, CategorySummary
    from esx.store.estimating import Estimate
    from esx.store.model import Event, EventPreview, StreamSummary
    from esx.store.scale import NameScale

_PAGE = 1000
_STREAM_PAGE = 200
_RECENT_SCAN = 1000
_SEARCH_SCAN = 5000
"""How many ids (by recent activity: events) a page looks at for those that match."""
_CATEGORY_PAGE = 100


class Reads(Base):
    """Reads pages of lists, and whole lists page by page."""

    async def version(self, stream_id: str) -> int:
        """Return the version of a stream: its highest stream_seq, -1 if it has no events."""
        _, _, reader = self._parts or await self._load()
        loan = self._pool.idle(guarded=True)
        if loan is not None:
            with loan as connection:
                return await reader.version(connection, stream_id)
        async with self._connection() as connection:
            return await reader.version(connection, stream_id)

    async def event(self, global_seq: int) -> Event | None:
        """Return the event with that global_seq, or None."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.event(connection, global_seq)

    async def events(self, numbers: Sequence[int]) -> dict[int, Event]:
        """Return the events with these global_seq, as far as there are any."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.events(connection, numbers)

    async def previous_event(
        self, stream_id: str, before: int, *, event_type: str | None = None, scan: int = 5000
    ) -> Event | None:
        """Return the event of a stream before stream_seq `before`, with `event_type` the last one of that type.

        None if there is none, or none of that type among the `scan` events looked at: the look back is bounded.
        """
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            if event_type is not None:
                return await reader.previous(connection, stream_id, before, event_type, scan)
            page = await reader.stream_page(connection, stream_id, before - 1, 1, backwards=True)
            return page[0] if page else None

    async def summary(self, stream_id: str) -> StreamSummary | None:
        """Return one stream at a glance, or None if it has no events."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.summary(connection, stream_id)

    async def read_page(
        self, stream_id: str, *, start: int | None = None, limit: int = _PAGE, backwards: bool = False
    ) -> list[Event]:
        """Return up to `limit` events of a stream, from stream_seq `start` on, included.

        `start` None means from the first event, or backwards from the last.
        """
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.stream_page(connection, stream_id, start, limit, backwards=backwards)

    async def read_all_page(
        self, *, position: int | None = None, limit: int = _PAGE, backwards: bool = False
    ) -> list[Event]:
        """Return up to `limit` events of all streams after global_seq `position`, or before it if backwards.

        This is what is visible now, which is right for looking at the store. To process every event exactly in
        order use `subscribe` or `feed`: an event with a lower number may become visible later.
        """
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.all_page(connection, position, limit, backwards=backwards)

    async def preview_page(
        self, stream_id: str, *, start: int | None = None, limit: int = _STREAM_PAGE, backwards: bool = False
    ) -> list[EventPreview]:
        """Return the page that `read_page` returns, without whole payloads: for lists."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.stream_previews(connection, stream_id, start, limit, backwards=backwards)

    async def preview_all_page(
        self, *, position: int | None = None, limit: int = _STREAM_PAGE, backwards: bool = False
    ) -> list[EventPreview]:
        """Return the page that `read_all_page` returns, without whole payloads: for lists."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.all_previews(connection, position, limit, backwards=backwards)

    async def read(
        self, stream_id: str, *, start: int | None = None, limit: int | None = None, backwards: bool = False
    ) -> AsyncIterator[Event]:
        """Yield the events of a stream from stream_seq `start` on, at most `limit`.

        They are fetched some at a time: as many as a thousand, of large ones only a few.
        """
        check_limit(limit)
        while limit is None or limit > 0:
            size = _PAGE if limit is None else min(_PAGE, limit)
            async with self._connection() as connection:
                _, _, reader = await self._tools(connection)
                part, cut = await reader.stream_part(connection, stream_id, start, size, backwards=backwards)
            for event in part:
                yield event
            if len(part) < size and not cut:
                return
            start = part[-1].stream_seq + (-1 if backwards else 1)
            limit = None if limit is None else limit - len(part)

    async def read_all(
        self, *, after: int = 0, before: int | None = None, limit: int | None = None, backwards: bool = False
    ) -> AsyncIterator[Event]:
        """Yield the events of all streams with a global_seq above `after` and, if given, below `before`.

        What it says of order holds for what is visible when it reads; see `read_all_page`.
        """
        check_limit(limit)
        position: int | None = before if backwards else after
        while limit is None or limit > 0:
            size = _PAGE if limit is None else min(_PAGE, limit)
            async with self._connection() as connection:
                _, _, reader = await self._tools(connection)
                part, cut = await reader.all_part(connection, position, size, backwards=backwards)
            for event in part:
                if event.global_seq <= after or (before is not None and event.global_seq >= before):
                    return
                yield event
            if len(part) < size and not cut:
                return
            position = part[-1].global_seq
            limit = None if limit is None else limit - len(part)

    async def head(self) -> int:
        """Return the highest global_seq that is visible now, 0 if there are no events."""
        page = await self.preview_all_page(limit=1, backwards=True)
        return page[0].global_seq if page else 0

    async def streams_page(
        self,
        *,
        after: StreamKey | None = None,
        prefix: str = "",
        match: str | None = None,
        contains: str | None = None,
        recent: bool = False,
        limit: int = _STREAM_PAGE,
        backwards: bool = False,
    ) -> StreamPage:
        """Return a page of streams, by name or by `recent` activity, from the key `after` on.

        `prefix`, the glob `match`, or the text that an id `contains` choose by id. By name, `backwards` reads towards
        the start. A page costs the same at any size of the store; it may hold fewer streams than `limit`, even none,
        although more follow.
        """
        if recent and backwards:
            raise InvalidQuery("streams by recent activity are listed from the newest only")
        if contains is not None:
            if match is not None:
                raise InvalidQuery("choose streams by a glob or by what their ids contain, not by both")
            match = glob_containing(contains)
        if match is not None and glob_prefix(match).startswith(prefix):
            prefix = glob_prefix(match)
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            if recent:
                return await reader.streams_by_recent(
                    connection,
                    before=None if after is None else after.global_seq,
                    prefix=prefix,
                    match=match,
                    limit=limit,
                    scan=_RECENT_SCAN if match is None else _SEARCH_SCAN,
                )
            return await reader.streams_by_name(
                connection,
                after=None if after is None else after.stream_id,
                prefix=prefix,
                match=match,
                limit=limit,
                scan=limit if match is None else max(_SEARCH_SCAN, limit),
                backwards=backwards,
            )

    async def streams(
        self,
        *,
        prefix: str = "",
        match: str | None = None,
        contains: str | None = None,
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
                after=after, prefix=prefix, match=match, contains=contains, recent=recent, limit=size
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

        Up to 2,000 streams are counted, divided evenly among the categories of the page, but 100 of each in any case;
        more are estimated, see `Estimate`. A page costs the same at any size of the store.
        """
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await CategoryReader(layout).page(connection, after=after, limit=limit, backwards=backwards)

    async def category(self, place: str) -> CategorySummary | None:
        """Return the category at a place, None if there is none."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await CategoryReader(layout).one(connection, place)

    async def categories(self) -> AsyncIterator[CategorySummary]:
        """Yield all categories, in the order of their ids."""
        after: str | None = None
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            sample = await draw(connection, layout, Scope(), streams=True)
        while True:
            async with self._connection() as connection:
                layout, _, _ = await self._tools(connection)
                page = await CategoryReader(layout).page(
                    connection, after=after, limit=_CATEGORY_PAGE, backwards=False, sample=sample
                )
            for category in page.categories:
                yield category
            if page.next_after is None:
                return
            after = page.next_after

    async def count_streams(self, *, prefix: str = "") -> Estimate:
        """Return how many streams there are whose id starts with `prefix`: counted up to 2,000, estimated beyond.

        Takes some 4,000 probes of indexes at most. Raises InvalidQuery for a prefix where ids do not sort by bytes.
        """
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            if prefix and not layout.byte_order:
                raise InvalidQuery("streams with a prefix can be counted only where ids sort by bytes")
            return await count_streams(connection, layout, prefix)

    async def name_scale(self) -> NameScale | None:
        """Return about where ids lie among all stream ids; None while PostgreSQL has no statistics of them."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await name_scale(connection, layout)
