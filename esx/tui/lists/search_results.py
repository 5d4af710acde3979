"""The events that pass a filter, searched as the list is scrolled. Plain asyncio code, no screen."""

from esx.eventstore import EventStore
from esx.store.search.plan import SearchPlan
from esx.store.search.slices import Pace
from esx.text import short_count
from esx.tui.lists.rows import EventRow
from esx.tui.lists.sources import Page
from esx.tui.lists.window import Window

_CHEAP = 20_000
"""Events looked at for a page that a list which follows may read again."""


class SearchResults:
    """The events that a search finds, in a stream or in all, oldest first or newest first."""

    ends_anywhere = True

    def __init__(self, store: EventStore, plan: SearchPlan, *, newest_first: bool) -> None:
        self._store = store
        self.plan = plan
        self.newest_first = newest_first
        self._pace = Pace(plan.limits.slice)
        self.top_cost: int | None = None
        """How many events were looked at for the first page of the list; None before it was read."""

    @property
    def cheap(self) -> bool:
        """Whether the first page was found so quickly that it can be read again and again."""
        return self.top_cost is not None and self.top_cost <= _CHEAP

    def progress(self, window: Window[EventRow, int], *, busy: bool, stopped: bool) -> str:
        """Return how many were found, and how far the search is, in a few words."""
        found = f"{window.found:,} found"
        if window.loaded and window.whole:
            return found
        most = self.plan.most
        of = f" of {'' if most.exact else '~'}{short_count(most.count)}" if most is not None and most.known else ""
        looked = f"{found} in {short_count(window.looked)}{of}"
        if stopped:
            return f"stopped: {looked} · r goes on"
        return f"{looked} · esc stops" if busy else f"{looked} so far"

    async def page(self, after: int | None, *, backwards: bool, limit: int) -> Page[EventRow, int]:
        """Return the events found in the next slice."""
        down = backwards != self.newest_first
        with self._pace:
            found = await self._store.search_previews(
                self.plan,
                after=None if down else after,
                before=after if down else None,
                limit=limit,
                scan=self._pace.scan,
                backwards=down,
            )
        if after is None and not backwards:
            self.top_cost = found.looked_at
        rows = list(map(EventRow.of_preview, found.events))
        return Page(rows[::-1] if backwards else rows, found.position, found.looked_at)

    async def measure(self) -> None:
        """Return nothing: only the search itself can tell how many events pass."""

    def key(self, row: EventRow) -> int:
        """Return the stream_seq or, of all streams, the global_seq."""
        return row.global_seq if self.plan.within.stream_id is None else row.stream_seq

    name_of = key
