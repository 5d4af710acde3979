"""Finds events: by a filter, by position, by correlation."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime

from esx.filters import Filter
from esx.model import Event, EventPreview
from esx.positions import Position
from esx.store.base import Facet
from esx.store.read import locate
from esx.store.read.event_list import EventList
from esx.store.read.pages import check_limit
from esx.store.search import indexes
from esx.store.search.plan import SearchLimits, SearchPlan, plan_search
from esx.store.search.slices import Pace, Slice, read_slice
from esx.store.trail.trail import COMMON_FIELDS, FieldNames, Trail

_FOUND = 200
_FOUND_AT_FIRST = 50
_FOUND_AT_MOST = 1000
_LARGE_SLICE = 8_000_000
"""After a slice with more characters of payload than this, the next one finds fewer events."""
_TRAIL = 10_000
_TRAIL_SCAN = 1_000_000


class Searches(Facet):
    """Finds events in a stream or in all streams. `search_limits` says what that may cost."""

    search_limits = SearchLimits()

    async def plan_search(
        self,
        where: Filter,
        *,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        wanted: int | None = None,
    ) -> SearchPlan:
        """Return how to search a stream (None: all streams) for events that pass `where`, and what that costs.

        Only events created at or after `since` and before `until` are looked at. `wanted` is how many matches are
        wanted, None for all. Nothing is searched yet: pass the plan to `search` or `search_slice`. Raises InvalidQuery.
        """
        limits = self.search_limits
        return await self._read(
            plan_search, EventList(stream), where, since=since, until=until, wanted=wanted, limits=limits
        )

    async def search_slice(
        self,
        plan: SearchPlan,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = _FOUND,
        scan: int = 10_000,
        backwards: bool = False,
    ) -> Slice[Event]:
        """Return up to `limit` matches among the next `scan` events after, or backwards before, a number of the list.

        Its numbers are stream_seq in a stream and global_seq in all streams. Cancelling it ends the query as well.
        """
        return await self._read(
            read_slice, plan, Event, after=after, before=before, limit=limit, scan=scan, backwards=backwards
        )

    async def search_previews(
        self,
        plan: SearchPlan,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = _FOUND,
        scan: int = 10_000,
        backwards: bool = False,
    ) -> Slice[EventPreview]:
        """Return the slice that `search_slice` returns, as previews without whole payloads."""
        return await self._read(
            read_slice, plan, EventPreview, after=after, before=before, limit=limit, scan=scan, backwards=backwards
        )

    async def search(
        self,
        plan: SearchPlan,
        *,
        start: int | None = None,
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncIterator[Slice[Event]]:
        """Yield slices of the search from the number `start` on, included, with at most `limit` events in all.

        Each slice takes a fraction of a second, so that the caller can show progress and stop. Raises InvalidQuery.
        """
        check_limit(limit)
        pace = Pace(plan.limits.slice)
        position = None if start is None else start + (1 if backwards else -1)
        # Matches are fetched whole, so fewer after large ones.
        most = _FOUND_AT_FIRST
        while limit is None or limit > 0:
            with pace:
                part = await self.search_slice(
                    plan,
                    **{"before" if backwards else "after": position},
                    limit=most if limit is None else min(most, limit),
                    scan=pace.scan,
                    backwards=backwards,
                )
            yield part
            if part.position is None:
                return
            size = sum(len(event.data_json) for event in part.events)
            most = max(most // 4, 1) if size > _LARGE_SLICE else min(most * 2, _FOUND_AT_MOST)
            position = part.position
            limit = None if limit is None else limit - len(part.events)

    async def common_types(self) -> list[str]:
        """Return the most common event types, by PostgreSQL's statistics: quick at any size, but not all of them."""
        return await self._read(indexes.common_types)

    async def known_types(self) -> list[str]:
        """Return the common event types and those of the newest events: quick at any size, but maybe not all."""
        common = await self.common_types()
        if (await self._load()).layout.unnumbered is not None:
            return common
        newest = await self._read(indexes.newest_types)
        return list(dict.fromkeys([*common, *newest]))

    async def locate(self, position: Position, *, stream: str | None = None) -> locate.Place:
        """Return where a position is in the list of a stream (None: of all streams), by the list's own numbers.

        Its `first` is the event at the position or the next one, None at the end of the list; for a point in time it is
        the first event created at or after it. That is found by bisection, and what a bisection can miss is looked
        through only if that is cheap: else the place has a `doubt`, see `Place`. Raises InvalidQuery.
        """
        events, look = EventList(stream), self.search_limits.look
        if position.moment is not None:
            return await self._read(locate.place_of_moment, events, position.moment, look=look)
        if position.global_seq is not None:
            return await self._read(locate.place_of_global_seq, events, position.global_seq, look=look)
        number = position.number or 0
        return locate.Place(await self._read(locate.place_of_number, events, number), number)

    async def trail(
        self,
        of: int | str,
        *,
        fields: FieldNames = COMMON_FIELDS,
        limit: int = _TRAIL,
        scan: int | None = _TRAIL_SCAN,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Trail:
        """Return the trail of an event: the events with its correlation id, in order, and which caused which.

        `of` is a global_seq, or as text the id of an event or a correlation id. At most the first `limit` events are
        returned. If no index finds them (`Trail.scan` says so), at most `scan` events are looked at,
        None for all, and `on_progress` gets the number of events looked at and found. The trail of an event without a
        correlation id has its causes and its effects. Raises NotFound and InvalidQuery.
        """
        from esx.store.trail.ids import find_ids
        from esx.store.trail.reader import TrailReader, not_found

        check_limit(limit)
        check_limit(scan)
        async with self._reading() as (connection, layout):
            layout.check_numbered()
            ids = await find_ids(connection, layout, fields)
            reader = TrailReader(connection, layout, ids, limit=limit, scan=scan, on_progress=on_progress)
            trail = await (reader.of_event(of) if isinstance(of, int) else reader.of_id(of))
        if trail is None:
            raise not_found(of, reader.scanned)
        return trail
