"""Finding events: by a filter, by position, by correlation; and any view as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.store import locating, search
from esx.store.errors import NotFound
from esx.store.facets.base import Base
from esx.store.model import Event, EventPreview
from esx.store.reading import check_limit
from esx.store.scope import Scope
from esx.store.trail import COMMON_FIELDS
from esx.store.trail_reading import TrailReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from esx.positions import Position
    from esx.store.barrier import Filter
    from esx.store.trail import FieldNames, Trail
    from esx.store.views import View

_FOUND = 200
_FOUND_AT_FIRST = 50
_FOUND_AT_MOST = 1000
_LARGE_SLICE = 8_000_000
"""Characters of payload in a slice of a search beyond which the next one is to hold fewer events."""
_TRAIL = 10_000
_TRAIL_SCAN = 1_000_000


class Searches(Base):
    """Finds events in a stream or in all of them."""

    async def plan_search(
        self,
        where: Filter,
        *,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        wanted: int | None = None,
    ) -> search.SearchPlan:
        """Return how to search a stream (None: all streams) for events that pass `where`, and what that costs.

        Only events created from `since` on and before `until` are looked at. `wanted` says how many are wanted, None
        all. Nothing is searched yet: pass the plan to `search` or `search_slice`. Raises InvalidQuery.
        """
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await search.plan_search(
                connection, layout, Scope(stream), where, since=since, until=until, wanted=wanted
            )

    async def search_slice(
        self,
        plan: search.SearchPlan,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = _FOUND,
        scan: int = 10_000,
        backwards: bool = False,
    ) -> search.Slice[Event]:
        """Return up to `limit` matches among the next `scan` events after, or backwards before, a number of the list.

        Its numbers are stream_seq in a stream and global_seq in all streams. Cancelling it ends the query as well.
        """
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await search.read_slice(
                connection, layout, plan, Event, after=after, before=before, limit=limit, scan=scan, backwards=backwards
            )

    async def search_previews(
        self,
        plan: search.SearchPlan,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = _FOUND,
        scan: int = 10_000,
        backwards: bool = False,
    ) -> search.Slice[EventPreview]:
        """Return the slice that `search_slice` returns, without whole payloads: for lists."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await search.read_slice(
                connection,
                layout,
                plan,
                EventPreview,
                after=after,
                before=before,
                limit=limit,
                scan=scan,
                backwards=backwards,
            )

    async def search(
        self,
        plan: search.SearchPlan,
        *,
        start: int | None = None,
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncIterator[search.Slice[Event]]:
        """Yield slices of the search from the number `start` on, included, with at most `limit` events in all.

        Each looks at as many events as take a fraction of a second, so that one can follow it and stop it.
        """
        check_limit(limit)
        pace = search.Pace()
        position = None if start is None else start + (1 if backwards else -1)
        # What is found is fetched whole, so after large events fewer are.
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
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await search.common_types(connection, layout)

    async def locate(self, position: Position, *, stream: str | None = None) -> locating.Place:
        """Return where a position is in the list of a stream (None: of all streams), by the list's own numbers.

        Its `first` is the event there, where there is none the next one; None: the list ends before. For a point in
        time it is the first event created at or after it. Its `doubt` is None where that is certain: it is found by
        bisection, and what a bisection can miss is looked through only where that is cheap; see `Place`.
        """
        scope = Scope(stream)
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            if position.moment is not None:
                return await locating.place_of_moment(connection, layout, scope, position.moment)
            if position.global_seq is not None:
                return await locating.place_of_global_seq(connection, layout, scope, position.global_seq)
            number = position.number or 0
            return locating.Place(await locating.place_of_number(connection, layout, scope, number), number)

    async def trail(
        self,
        of: int | str,
        *,
        fields: FieldNames = COMMON_FIELDS,
        limit: int = _TRAIL,
        scan: int | None = _TRAIL_SCAN,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Trail:
        """Return the trail of an event: what shares its correlation id, in order, and what caused what.

        `of` is a global_seq, or as text the id of an event or a correlation id. At most `limit` events are returned,
        the first ones. Where no index finds them (`Trail.scan` says which would) at most `scan` events are looked at,
        None for all, and `on_progress` is told how many have been and how many belong to it. An event without a
        correlation id has a trail of its causes and of what it caused. Raises NotFound.
        """
        check_limit(limit)
        check_limit(scan)
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            reader = TrailReader(connection, layout, fields, limit=limit, scan=scan, on_progress=on_progress)
            trail = await (reader.of_event(of) if isinstance(of, int) else reader.of_id(of))
        if trail is None:
            raise NotFound.trail(of, reader.scanned)
        return trail

    async def sql(self, view: View, *, limit: int | None = None) -> str:
        """Return the query whose rows are those of `view`, at most `limit`, to be run with psql as it stands."""
        from esx.store.viewsql import sql_of

        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
        return sql_of(view, layout, limit)
