"""Following the feed in the background, whichever screen is shown. Plain asyncio code, no screen."""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable

from esx.errors import EsxError, NotAllowed, OrderUnknown, QueryTimeout, SchemaMissing, StoreUnavailable
from esx.eventstore import EventStore
from esx.filters import Filter
from esx.model import EventPreview
from esx.store.feed.batch import Batch, Counts, Gap, Missed
from esx.store.feed.feed import Feed
from esx.text import age
from esx.tui.lists.rows import EventRow
from esx.tui.session.feedlog import HISTORY, FeedLog, Rates
from esx.tui.session.session import ExplorerSession

PAGE = 500
"""Events read at once: few enough not to delay keys and screen."""
LOOKED_BACK = 5000
"""How far back, in numbers, a filter looks for earlier events."""
_MOMENT = 2.0
"""Seconds that writers may take without a word: gaps come and go with every commit."""
_PASSING = (StoreUnavailable, SchemaMissing, NotAllowed, QueryTimeout)
"""What the next attempt may not meet again. Other errors end the feed: they would come again, or hide lost events."""


class Follower:
    """Puts the events of the feed into a `FeedLog`, beginning a little before the present.

    `changed` is called when the connection or the notification may have changed, and when the feed fails.
    """

    def __init__(self, session: ExplorerSession, changed: Callable[[], None] | None = None) -> None:
        self.log = FeedLog()
        self.where = Filter()
        """Which events are wanted."""
        self.missed: deque[Missed] = deque(maxlen=100)
        """The last events that appeared below the safe position, which the feed therefore missed."""
        self.began = 0
        """After which number the feed began."""
        self._session = session
        self._changed = changed
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._held: tuple[int, float] | None = None
        self._history_to = 0
        self.failure: str | None = None
        """Why the feed has failed, where that is not a lost connection; in one line."""
        self.ended = False
        """Whether the feed is over until `restart`."""
        self.orderless: str | None = None
        """Why this store has no feed, in one line: nothing is wrong with it. None while it may have one."""
        self.restarts = 0
        """How often it has begun anew."""

    @property
    def now(self) -> float:
        """The time by which rates are measured, in seconds."""
        return self._session.tuning.clock()

    @property
    def over(self) -> bool:
        """Whether nothing comes until `restart`."""
        return self.ended or self.orderless is not None

    @property
    def started(self) -> bool:
        """Whether there is a feed."""
        return self._feed is not None

    @property
    def listening(self) -> bool:
        """Whether notifications wake the feed; if not, it polls."""
        return self._feed is not None and self._feed.listening

    @property
    def problem(self) -> str | None:
        """Why the connection is lost, if it is."""
        return None if self._feed is None else self._feed.lost

    @property
    def polls_because(self) -> str | None:
        """Why the feed polls, where it does and that is known."""
        return None if self._feed is None or self._feed.listening else self._feed.problem

    @property
    def counts(self) -> Counts:
        """The position of the feed, and what it has counted since it began."""
        return Counts() if self._feed is None else self._feed.counts

    @property
    def position(self) -> int:
        """The safe position: no event can appear at or below it any more."""
        return self.counts.position

    @property
    def caution(self) -> str | None:
        """What is not certain of the store's order, in one line."""
        store = self._session.store
        return None if store is None else store.caution

    @property
    def unrecorded(self) -> str | None:
        """Why nothing is known of the feed now, in one line, as in a recording before it began."""
        return self._session.unrecorded

    @property
    def gap(self) -> Gap | None:
        """What holds the feed back now."""
        return None if self._feed is None else self._feed.gap

    def may_have(self, stream: str, *, after: int) -> bool:
        """Return whether events of a stream, named as in rows, may have come after a position."""
        if self.where:
            return True
        rows = self.log.latest(after)
        return rows is None or any(row.stream == stream for row in rows)

    def held(self) -> float | None:
        """Return for how many seconds a gap has held the feed back, None where that is no more than a moment."""
        gap = self.gap
        if gap is None:
            self._held = None
            return None
        if self._held is None or self._held[0] != gap.first:
            # In a recording it is known beforehand.
            since = None if self._feed is None else self._feed.held_since
            self._held = (gap.first, self.now if since is None else since)
        seconds = self.now - self._held[1]
        return seconds if seconds >= _MOMENT else None

    async def choose(self, where: Filter) -> None:
        """Restart with only the events that pass a filter; raises InvalidQuery for an invalid one."""
        store = self._session.store
        if store is not None and where:
            await store.check_filter(where)
        self.where = where
        self.restart()

    def restart(self) -> None:
        """Forget everything, and follow from a little before the present on."""
        self.log.clear()
        self.missed.clear()
        self._feed = None
        self.failure, self.ended = None, False
        self.restarts += 1
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
                # A restart cancels only the inner task.
                if (this := asyncio.current_task()) is None or this.cancelling():
                    raise
            except Exception as error:
                # The screen shows any error, and the rest of the explorer goes on.
                self._fail(error if isinstance(error, EsxError) else EsxError(f"{type(error).__name__}: {error}"))
                self._hurry.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), None if self.over else self._session.tuning.retry)

    def _fail(self, error: EsxError) -> None:
        if isinstance(error, OrderUnknown) and self._feed is None:
            self.orderless = str(error)
            if self._changed is not None:
                self._changed()
            return
        self.ended, self.orderless = not isinstance(error, _PASSING), None
        # The same failure is reported once.
        if isinstance(error, StoreUnavailable):
            self._session.report(error)
        elif str(error) != self.failure:
            self.failure = str(error)
            self._session.report(error, of="Feed")
        if self._changed is not None:
            self._changed()

    async def _follow(self) -> None:
        store = self._session.store
        if store is None:
            await asyncio.sleep(self._session.tuning.retry)
            return
        if self._feed is not None:
            after = self._feed.position
        else:
            after, oldest = await self._history(store)
            # Of what came before the oldest event of the history, the rates know nothing.
            known = math.inf if oldest is None else age(oldest.created_at)
            self.log.rates = Rates(known=max(known or 0.0, 0.0))
        if self.failure is not None:
            # A trial first, so that the failure is shown until it is really over.
            trial = await store.feed(after=after, where=self.where, page=1)
            async for _ in trial.to_safe_position(patience=0):
                break
            self.failure = None
        feed = await store.feed(after=after, where=self.where, page=PAGE)
        feed.on_change = self._changed
        self._feed, self.orderless = feed, None
        self.began = after
        if self._changed is not None:
            self._changed()
        async for batch in feed.follow():
            self._take(batch)
            # The screen must be drawn even if there are always more events.
            await asyncio.sleep(0)

    async def _history(self, store: EventStore) -> tuple[int, EventPreview | None]:
        """Return after which number the history begins, and its first event, None if nothing is left out before it."""
        if self.where:
            self._history_to = await store.head()
            after = max(self._history_to - LOOKED_BACK, store.before_first)
            first = await store.preview_all_page(position=after, limit=1) if after > store.before_first else []
            return after, first[0] if first else None
        latest = await store.preview_all_page(limit=HISTORY, backwards=True)
        self._history_to = latest[0].global_seq if latest else 0
        # The feed itself delivers these events, so that they too come in order, and a gap among them is shown.
        after = latest[-1].global_seq - 1 if latest else store.before_first
        return after, latest[-1] if len(latest) == HISTORY else None

    def _take(self, batch: Batch) -> None:
        rows = list(map(EventRow.of, batch.events))
        old = sum(row.global_seq <= self._history_to for row in rows)
        now = self.now
        self.log.add(rows[:old], now, history=True)
        self.log.add(rows[old:], now)
        if batch.late:
            self.log.add_late(batch.late)
        self.missed.extend(batch.missed)
