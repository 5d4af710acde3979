"""Following the feed in the background, whichever screen is shown. Plain asyncio code, no screen."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING

from esx.store.barrier import Filter
from esx.store.errors import EsxError, NotAllowed, QueryTimeout, SchemaMissing, StoreUnavailable
from esx.tui.feedlog import HISTORY, FeedLog
from esx.tui.link import RETRY
from esx.tui.rows import EventRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from esx.store.barrier import Batch, Gap
    from esx.store.feed import Feed
    from esx.tui.link import Link

PAGE = 500
"""Events read at once: few enough not to keep keys and screen waiting."""
LOOKED_BACK = 5000
"""How far back, in numbers, a filter looks for events that were there already."""
_PASSING = (StoreUnavailable, SchemaMissing, NotAllowed, QueryTimeout)
"""What may be gone at the next attempt. Any other error ends the feed: it would come again, or something be skipped."""


class Follower:
    """Puts what the feed delivers into a `FeedLog`, beginning a little before the present.

    `changed` is called when the connection or the way of being notified may have changed, and when the feed fails.
    """

    def __init__(self, link: Link, changed: Callable[[], None] | None = None) -> None:
        self.log = FeedLog()
        self.where = Filter()
        """Which events are wanted."""
        self.began = 0
        """After which number the feed began, whose counts these are."""
        self._link = link
        self._changed = changed
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._history_to = 0
        self.failure: str | None = None
        """Why nothing is counted now, where that is not a lost connection; in one line."""
        self.ended = False
        """Whether the feed is over: nothing more is counted until `begin_anew`."""

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
    def late(self) -> int:
        """How many events were waited for, having become visible after their successors."""
        return 0 if self._feed is None else self._feed.late

    @property
    def looked(self) -> int:
        """How many events have been passed, wanted or not."""
        return 0 if self._feed is None else self._feed.looked

    @property
    def gap(self) -> Gap | None:
        """What holds the feed now."""
        return None if self._feed is None else self._feed.gap

    async def choose(self, where: Filter) -> None:
        """Follow only what passes a filter, beginning anew; raises InvalidQuery for one that makes no sense."""
        store = self._link.store
        if store is not None and where:
            await store.check_filter(where)
        self.where = where
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what came, and follow from a little before the present on."""
        self.log.clear()
        self._feed = None
        self.failure, self.ended = None, False
        self._hurry.set()
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._task = asyncio.create_task(self._follow(), name="esx-follow")
            try:
                await self._task
            except asyncio.CancelledError:
                # Not this, but what it waits for, where the feed begins anew.
                if (this := asyncio.current_task()) is None or this.cancelling():
                    raise
            except Exception as error:
                # Whatever it is, the screen says so, and the rest of the explorer goes on.
                self._fail(error if isinstance(error, EsxError) else EsxError(f"{type(error).__name__}: {error}"))
                self._hurry.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), None if self.ended else RETRY)

    def _fail(self, error: EsxError) -> None:
        self.ended = not isinstance(error, _PASSING)
        # What goes on failing is told once.
        if isinstance(error, StoreUnavailable):
            self._link.report(error)
        elif str(error) != self.failure:
            self.failure = str(error)
            self._link.report(error, of="Feed")
        if self._changed is not None:
            self._changed()

    async def _follow(self) -> None:
        store = self._link.store
        if store is None:
            await asyncio.sleep(RETRY)
            return
        if self._feed is not None:
            after = self._feed.position
        elif self.where:
            self._history_to = await store.head()
            after = max(self._history_to - LOOKED_BACK, 0)
        else:
            latest = await store.preview_all_page(limit=HISTORY, backwards=True)
            self._history_to = latest[0].global_seq if latest else 0
            # The feed itself delivers the last events that were there, so that they too come in order, and a gap
            # among them shows as what it is.
            after = latest[-1].global_seq - 1 if latest else 0
        if self.failure is not None:
            # Tried by itself, so that nothing says that it is over before it is.
            trial = await store.feed(after=after, where=self.where, page=1)
            async for _ in trial.to_safe_position(patience=0):
                break
            self.failure = None
        feed = await store.feed(after=after, where=self.where, page=PAGE)
        feed.on_change = self._changed
        self._feed = feed
        self.began = after
        if self._changed is not None:
            self._changed()
        async for batch in feed.follow():
            self._take(batch)
            # A store that never runs dry must not keep the screen from being drawn.
            await asyncio.sleep(0)

    def _take(self, batch: Batch) -> None:
        rows = list(map(EventRow.of, batch.events))
        old = sum(row.global_seq <= self._history_to for row in rows)
        now = monotonic()
        self.log.add(rows[:old], now, history=True)
        self.log.add(rows[old:], now)
        if batch.late:
            self.log.add_late(batch.late)
