"""Streams by category: each open category is followed by its streams."""

from typing import NamedTuple

from esx.eventstore import EventStore
from esx.store.read.categories import CategoryPage
from esx.store.read.pages import StreamKey
from esx.tui.lists.rows import ALL_STREAMS, StreamRow
from esx.tui.lists.sources import Page


class TreeKey(NamedTuple):
    """A position: the heading of the category at `place`, or the stream `child` under it."""

    place: str
    child: str | None = None


# No id holds a NUL.
_TOP = TreeKey("\0")


class StreamsByCategory:
    """Categories in the order of their ids, those whose place is in `opened` with their streams by name."""

    ends_anywhere = True

    def __init__(self, store: EventStore, opened: set[str]) -> None:
        self._store = store
        self._with_all = store.unnumbered is None
        self.opened = opened
        self.looked: int | None = None
        """At how many streams it looked for their categories, if others may have others; None if none is missing."""

    def key(self, row: StreamRow) -> TreeKey:
        """Return the row's position."""
        if row.category is not None:
            return TreeKey(row.category.place)
        if row.summary is None or row.under is None:
            return _TOP
        return TreeKey(row.under, row.summary.stream_id)

    name_of = key

    async def measure(self) -> None:
        """Return nothing: how many rows follow depends on the open categories."""

    async def page(self, after: TreeKey | None, *, backwards: bool, limit: int) -> Page[StreamRow, TreeKey]:
        """Return headings and streams."""
        if backwards:
            return await self._above(after, limit)
        rows = [ALL_STREAMS] if after is None and self._with_all else []
        at = None if after in (None, _TOP) else after
        while len(rows) < limit:
            if at is not None and at.place in self.opened:
                streams, onward = await self._streams(at, limit - len(rows))
                rows += streams
                if onward is not None:
                    return Page(rows, onward)
            page = await self._categories(None if at is None else at.place)
            for category in page.categories:
                is_open = category.place in self.opened
                rows.append(StreamRow.heading(category, is_open=is_open))
                at = TreeKey(category.place)
                if is_open:
                    break
            else:
                if page.next_after is None:
                    return Page(rows, None)
                at = TreeKey(page.next_after)
        return Page(rows, _TOP if at is None else at)

    async def _categories(self, after: str | None, *, backwards: bool = False) -> CategoryPage:
        page = await self._store.categories_page(after=after, backwards=backwards)
        self.looked = page.looked
        return page

    async def _streams(self, at: TreeKey, limit: int) -> tuple[list[StreamRow], TreeKey | None]:
        """Return the streams of a category that come after `at`, and where more follow."""
        rows = []
        if self._store.has_category_column:
            return await self._of_category(at.place, at.child, limit)
        if at.child is None:
            # The stream with the name of the category comes first; in the order of ids it may be elsewhere.
            rows = await self._namesake(at.place)
        if not at.place.endswith(self._store.separator):
            return rows, None
        after = None if at.child is None or self._store.separator not in at.child else StreamKey(at.child, 0)
        page = await self._store.streams_page(after=after, prefix=at.place, limit=max(limit - len(rows), 1))
        rows += [StreamRow.within(stream, at.place) for stream in page.streams]
        return rows, None if page.next_after is None else self.key(rows[-1])

    async def _of_category(
        self, place: str, child: str | None, limit: int, *, backwards: bool = False
    ) -> tuple[list[StreamRow], TreeKey | None]:
        """Return the streams of a category that a column has, which may be none although more follow."""
        after = None if child is None else StreamKey(child, 0)
        page = await self._store.streams_page(after=after, category=place, limit=limit, backwards=backwards)
        onward = None if page.next_after is None else TreeKey(place, page.next_after.stream_id)
        return [StreamRow.within(stream, place) for stream in page.streams], onward

    async def _namesake(self, place: str) -> list[StreamRow]:
        stream = await self._store.summary(place.removesuffix(self._store.separator))
        return [] if stream is None else [StreamRow.within(stream, place)]

    async def _above(self, before: TreeKey | None, limit: int) -> Page[StreamRow, TreeKey]:
        if before == _TOP:
            return Page([], None)
        # From the bottom up.
        rows: list[StreamRow] = []
        if before is not None and before.child is not None:
            rows, onward = await self._streams_above(before.place, before.child, limit)
            if onward is not None:
                return Page(rows[::-1], onward)
            heading = await self._store.category(before.place)
            if heading is not None:
                rows.append(StreamRow.heading(heading, is_open=True))
        at = None if before is None else before.place
        while len(rows) < limit:
            page = await self._categories(at, backwards=True)
            for category in page.categories:
                is_open = category.place in self.opened
                if is_open:
                    streams, onward = await self._streams_above(category.place, None, max(limit - len(rows), 1))
                    rows += streams
                    if onward is not None:
                        return Page(rows[::-1], onward)
                rows.append(StreamRow.heading(category, is_open=is_open))
                at = category.place
                if len(rows) >= limit:
                    return Page(rows[::-1], TreeKey(at))
            if page.next_after is None:
                return Page([*([ALL_STREAMS] if self._with_all else []), *rows[::-1]], None)
            at = page.next_after
        return Page(rows[::-1], self.key(rows[-1]))

    async def _streams_above(self, place: str, child: str | None, limit: int) -> tuple[list[StreamRow], TreeKey | None]:
        """Return the streams of a category before `child` (None: all), from the last up, and where more follow."""
        if self._store.has_category_column:
            return await self._of_category(place, child, limit, backwards=True)
        rows: list[StreamRow] = []
        if child is not None and self._store.separator not in child:
            return rows, None
        if place.endswith(self._store.separator):
            after = None if child is None else StreamKey(child, 0)
            page = await self._store.streams_page(after=after, prefix=place, limit=limit, backwards=True)
            rows = [StreamRow.within(stream, place) for stream in page.streams]
            if page.next_after is not None:
                return rows, self.key(rows[-1])
        return rows + await self._namesake(place), None
