"""Following the global order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.store import locating
from esx.store.barrier import Barrier, Filter
from esx.store.facets.base import Base
from esx.store.feed import Feed, find_end
from esx.store.fence import advance_fence
from esx.store.history import history_at
from esx.store.relation import check_order
from esx.store.scope import Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from esx.store.connection import Session
    from esx.store.feed import End, Seen
    from esx.store.layout import Layout
    from esx.store.model import Event

_PAGE = 1000


class Feeds(Base):
    """Opens feeds, which share one listening connection and read together what they all want."""

    @property
    def listening(self) -> bool:
        """Whether notifications are being received. False until something subscribes."""
        return self._doorbell.listening

    async def check_filter(self, where: Filter) -> None:
        """Raise InvalidQuery for a filter that PostgreSQL does not take."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            await Barrier(layout, where=where).check_filter(connection)

    async def keep_fence(self) -> int | None:
        """Write down for all readers to come up to which global_seq nothing can appear any more, and return it.

        Readers that begin later need not wait at gaps below it, whoever is writing then. Feeds of a store that may
        write do this by themselves now and then; call it where much was appended and nothing follows. None if somebody
        has been writing for longer than a moment.
        """
        async with self._keeping() as connection:
            layout, _, _ = await self._tools(connection)
            end = await find_end(connection, layout)
            if not end.settled:
                return None
            await advance_fence(connection, layout, await history_at(connection, layout, end.position))
            return end.position

    async def feed(self, *, after: int = 0, where: Filter | None = None, page: int = _PAGE) -> Feed:
        """Return the ordered feed after global_seq `after`, for those who want batches and its state.

        Raises OrderUnknown where no position can be called safe.
        """
        layout = await self._insisting(self._ordered)
        return self._feed(layout, after=after, where=where, page=page)

    async def feed_from_end(self, *, where: Filter | None = None, page: int = _PAGE) -> Feed:
        """Return the ordered feed of everything that becomes visible from now on.

        That includes events whose number is below the current head because their transaction was still open. Raises
        OrderUnknown.
        """

        async def begin(connection: Session) -> tuple[Layout, End]:
            layout = await self._ordered(connection)
            return layout, await find_end(connection, layout)

        layout, end = await self._insisting(begin)
        return self._feed(layout, after=end.position, where=where, page=page, skip=end.seen, settled=end.settled)

    async def feed_from_time(self, moment: datetime, *, where: Filter | None = None, page: int = _PAGE) -> Feed:
        """Return the ordered feed of the events created from `moment` on, as far as `locate` finds where they begin.

        That includes every event that becomes visible from now on, also one whose number is lower. Raises OrderUnknown.
        """

        async def begin(connection: Session) -> tuple[Layout, End, int | None]:
            layout = await self._ordered(connection)
            # First: what becomes visible after this is given, wherever it is.
            end = await find_end(connection, layout)
            return layout, end, (await locating.place_of_moment(connection, layout, Scope(None), moment)).first

        layout, end, first = await self._insisting(begin)
        after, skip = end.position, end.seen
        if first is not None:
            after, skip = min(first - 1, after), skip.below(first)
        return self._feed(layout, after=after, where=where, page=page, skip=skip, settled=end.settled)

    async def _ordered(self, connection: Session) -> Layout:
        """Return the layout of a table with an order to follow; raises OrderUnknown."""
        layout, _, _ = await self._tools(connection)
        await check_order(connection, layout)
        return layout

    def _feed(
        self,
        layout: Layout,
        *,
        after: int,
        where: Filter | None,
        page: int,
        skip: Seen | None = None,
        settled: bool = False,
    ) -> Feed:
        return Feed(
            self._connection,
            self._doorbell,
            layout,
            after=after,
            where=where or None,
            page=page,
            skip=skip,
            tails=self._tails,
            settled=settled,
            keeps_fence=not self._read_only,
        )

    async def subscribe(
        self,
        *,
        after: int = 0,
        stream: str | None = None,
        event_type: str | None = None,
        where: str | None = None,
    ) -> AsyncIterator[Event]:
        """Yield every event after global_seq `after` once and in order: a catch-up subscription that goes on.

        `stream` and `event_type` are globs, `where` is a JSONPath over data (``$metadata`` is the metadata).
        Raises OrderUnknown where no position can be called safe.
        """
        feed = await self.feed(after=after, where=Filter(stream, event_type, where))
        async for batch in feed.follow():
            for event in batch.events:
                yield event
