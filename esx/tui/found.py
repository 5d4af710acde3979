"""The events that pass a filter, as a list that is found as it is looked at. Plain asyncio code, no screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.store.search import Pace
from esx.tui.cells import count_of
from esx.tui.rows import EventRow
from esx.tui.sources import Page

if TYPE_CHECKING:
    from esx.store.search import SearchPlan
    from esx.store.store import EventStore
    from esx.tui.window import Window


class FoundEvents:
    """The events that a search finds, in a stream or in all, oldest first or newest first."""

    ends_anywhere = True

    def __init__(self, store: EventStore, plan: SearchPlan, *, newest_first: bool) -> None:
        self._store = store
        self.plan = plan
        self.newest_first = newest_first
        self._pace = Pace()

    def progress(self, window: Window[EventRow, int], *, busy: bool, stopped: bool) -> str:
        """Return how many were found, and how far the search has come, in few words."""
        found = f"{window.found:,} found"
        if window.loaded and window.whole:
            return found
        most = self.plan.most
        of = f" of {'' if most.exact else '~'}{count_of(most.count)}" if most is not None and most.known else ""
        looked = f"{found} in {count_of(window.looked)}{of}"
        if stopped:
            return f"stopped: {looked} · r goes on"
        return f"{looked} · esc stops" if busy else f"{looked} so far"

    async def page(self, after: int | None, *, backwards: bool, limit: int) -> Page[EventRow, int]:
        """Return what is found in the next slice, by stream_seq or, of all, by global_seq."""
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
        rows = list(map(EventRow.of_preview, found.events))
        return Page(rows[::-1] if backwards else rows, found.position, found.looked_at)

    async def measure(self) -> None:
        """Return nothing: how many events pass only looking at them can tell."""

    def key(self, row: EventRow) -> int:
        """Return the number in the list."""
        return row.global_seq if self.plan.scope.stream_id is None else row.stream_seq
