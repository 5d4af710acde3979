"""Feeds: reading the global order, and following it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from functools import cached_property

from esx.filters import Filter
from esx.layouts.detection import check_order
from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.session import Session
from esx.store.base import Facet
from esx.store.feed.cursor import Cursor
from esx.store.feed.feed import Feed
from esx.store.feed.fence import advance_fence
from esx.store.feed.gap_barrier import Barrier
from esx.store.feed.history import history_at
from esx.store.feed.settings import DEFAULT
from esx.store.feed.source import Source
from esx.store.feed.survey import End, Seen, find_end
from esx.store.feed.tail import Tails
from esx.store.read import locate
from esx.store.read.event_list import EventList

_PAGE = 1000


class Feeds(Facet):
    """Opens feeds. They share one listening connection, and those that want the same events share a reader."""

    feed_settings = DEFAULT
    """The settings of the feeds that are opened from now on."""

    @cached_property
    def _tails(self) -> Tails:
        return Tails()

    @property
    def listening(self) -> bool:
        """Whether the store receives notifications; false until a feed follows."""
        return self._doorbell.listening

    async def check_filter(self, where: Filter) -> None:
        """Raise InvalidQuery for a filter that PostgreSQL does not accept."""
        async with self._reading() as (connection, layout):
            await Barrier(layout, where=where).check_filter(connection)

    async def keep_fence(self) -> int | None:
        """Store, for later readers, the global_seq up to which no event can appear any more, and return it.

        Later readers need not wait for open writers at gaps below it. Feeds do this by themselves, now and then, unless
        the store is read-only; call it after many appends if no feed follows. None, and nothing is stored, if a writer
        stays open for longer than `feed_settings.end_patience`.
        """
        async with self._keeping() as (connection, layout):
            end = await find_end(connection, layout, self.feed_settings)
            if not end.settled:
                return None
            await advance_fence(connection, layout, await history_at(connection, layout, end.position))
            return end.position

    async def feed(self, *, after: int = -1, where: Filter | None = None, page: int = _PAGE) -> Feed:
        """Return the ordered feed of the events after global_seq `after`, as batches; see also `subscribe`.

        `page` is the highest number of events in a batch. Raises OrderUnknown where no position is safe.
        """
        layout = await self._insist(_ordered)
        after = max(after, layout.before_first)
        return self._feed(layout, after=after, where=where, page=page)

    async def feed_from_end(self, *, where: Filter | None = None, page: int = _PAGE) -> Feed:
        """Return the ordered feed of all events that become visible from now on.

        Their numbers may be below the current head, if their transactions are open now. Raises OrderUnknown.
        """

        async def begin(connection: Session, layout: Layout) -> tuple[Layout, End]:
            return await _ordered(connection, layout), await find_end(connection, layout, self.feed_settings)

        layout, end = await self._insist(begin)
        return self._feed(layout, after=end.position, where=where, page=page, skip=end.seen, settled=end.settled)

    async def feed_from_time(self, moment: datetime, *, where: Filter | None = None, page: int = _PAGE) -> Feed:
        """Return the ordered feed of the events from the first one created at or after `moment`, as `locate` finds it.

        All events that become visible from now on are in it, also with lower numbers. Raises OrderUnknown.
        """

        async def begin(connection: Session, layout: Layout) -> tuple[Layout, End, int | None]:
            await _ordered(connection, layout)
            # First: all events that become visible after this are handed out.
            end = await find_end(connection, layout, self.feed_settings)
            return layout, end, (await locate.place_of_moment(connection, layout, EventList(None), moment)).first

        layout, end, first = await self._insist(begin)
        after, skip = end.position, end.seen
        if first is not None:
            after, skip = min(first - 1, after), skip.below(first)
        return self._feed(layout, after=after, where=where, page=page, skip=skip, settled=end.settled)

    def _feed(
        self,
        layout: Layout,
        *,
        after: int,
        where: Filter | None,
        page: int,
        before: Callable[[], Awaitable[None]] | None = None,
        skip: Seen | None = None,
        settled: bool = False,
    ) -> Feed:
        """Return a feed; one with something to do `before` each step shares no reader."""
        source = Source(
            self._connection,
            self._doorbell,
            layout,
            Cursor(after, settled=settled),
            where=where or None,
            page=page,
            keeps_fence=not self._read_only,
            settings=self.feed_settings,
            before=before,
        )
        return Feed(source, skip=skip, tails=self._tails if before is None else None)

    async def subscribe(
        self,
        *,
        after: int = -1,
        stream: str | None = None,
        event_type: str | None = None,
        where: str | None = None,
    ) -> AsyncIterator[Event]:
        """Yield every event after global_seq `after` once and in order, without end: a catch-up subscription.

        `stream` and `event_type` are globs, `where` is a JSONPath over data (``$metadata`` is the metadata).
        Raises OrderUnknown where no position is safe.
        """
        feed = await self.feed(after=after, where=Filter(stream, event_type, where))
        async for batch in feed.follow():
            for event in batch.events:
                yield event


async def _ordered(connection: Session, layout: Layout) -> Layout:
    """Return the layout; raises OrderUnknown."""
    await check_order(connection, layout)
    return layout
