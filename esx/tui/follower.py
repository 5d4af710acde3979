"""Following the feed in the background, whichever screen is shown. Plain asyncio code, no screen."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from esx.store.errors import EsxError
from esx.tui.feedlog import HISTORY, FeedLog
from esx.tui.link import RETRY
from esx.tui.rows import EventRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.store.barrier import Gap
    from esx.store.feed import Feed
    from esx.store.model import Event
    from esx.tui.link import Link


class Follower:
    """Puts what the feed delivers into a `FeedLog`, beginning a little before the present."""

    def __init__(self, link: Link) -> None:
        self.log = FeedLog()
        self._link = link
        self._feed: Feed | None = None
        self._history_to = 0

    @property
    def started(self) -> bool:
        """Whether there is a feed yet."""
        return self._feed is not None

    @property
    def listening(self) -> bool:
        """Whether notifications wake the feed; if not, it polls."""
        return self._feed is not None and self._feed.listening

    @property
    def problem(self) -> str | None:
        """Why nothing comes, if the connection is lost."""
        return None if self._feed is None else self._feed.lost

    @property
    def polls_because(self) -> str | None:
        """Why the feed polls, where it does and that is known."""
        return None if self._feed is None or self._feed.listening else self._feed.problem

    @property
    def position(self) -> int:
        """The safe position: nothing can appear at or below it any more."""
        return 0 if self._feed is None else self._feed.position

    @property
    def dead(self) -> int:
        """How many numbers were passed because no event has them."""
        return 0 if self._feed is None else self._feed.dead

    @property
    def gap(self) -> Gap | None:
        """What holds the feed now."""
        return None if self._feed is None else self._feed.gap

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._follow()
            except EsxError as error:
                self._link.report(error)
                await asyncio.sleep(RETRY)

    async def _follow(self) -> None:
        store = self._link.store
        if store is None:
            await asyncio.sleep(RETRY)
            return
        if self._feed is None:
            latest = await store.read_all_page(limit=HISTORY, backwards=True)
            self._history_to = latest[0].global_seq if latest else 0
            # The feed itself delivers the last events that were there, so that they too come in order, and a gap
            # among them shows as what it is.
            after = latest[-1].global_seq - 1 if latest else 0
        else:
            after = self._feed.position
        self._feed = await store.feed(after=after)
        async for batch in self._feed.follow():
            self._take(batch.events)
            # A store that never runs dry must not keep the screen from being drawn.
            await asyncio.sleep(0)

    def _take(self, events: Sequence[Event]) -> None:
        rows = list(map(EventRow.of, events))
        old = sum(row.global_seq <= self._history_to for row in rows)
        now = monotonic()
        self.log.add(rows[:old], now, history=True)
        self.log.add(rows[old:], now)
