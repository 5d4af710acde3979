"""The states of one stream by version, some of them kept so that another version is found quickly."""

import asyncio
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from esx.fold.reducer import MERGE, Reducer
from esx.model import Event

PAGE = 500
_MOST_KEPT = 400
_MOST_BYTES = 16_000_000
_FIRST_PAGE = 32


class Pages(Protocol):
    """The source of events: an `EventStore`."""

    async def read_page(
        self, stream_id: str, *, start: int | None = None, limit: int = ..., backwards: bool = False
    ) -> list[Event]:
        """Return up to `limit` events of a stream from stream_seq `start` on."""
        ...


@dataclass(frozen=True, slots=True)
class State:
    """A stream's state after `event` as JSON text; `before` is the state before that event.

    `begins` is the stream_seq of the first event in it. If streams begin at a lower number, it lacks what was before.
    """

    event: Event
    text: str
    before: str
    begins: int = 0

    @property
    def version(self) -> int:
        """The stream_seq of the last event in it."""
        return self.event.stream_seq


class States:
    """Folds a stream, and keeps states at regular versions to start from later.

    At most a few hundred states are kept, further apart in longer streams.
    """

    def __init__(self, store: Pages, stream_id: str, reducer: Reducer = MERGE) -> None:
        self.stream_id = stream_id
        self.reducer = reducer
        self._store = store
        # Kept states: the stream_seq of the first event that is not in them, ascending, and the states.
        self._nexts = [0]
        self._kept = [reducer.start()]
        self._every = PAGE
        self._last_page: list[Event] = []
        self._limit = _FIRST_PAGE
        self._begins = 0

    async def at(self, version: int, on_progress: Callable[[int], None] | None = None) -> State | None:
        """Return the state at `version`, or at the last version before it; None if there is no event up to there.

        Folding happens in a thread, a page at a time, so it can be cancelled between pages; `on_progress` receives the
        last folded version. Raises ReducerFailed, and the store's errors.
        """
        place = bisect_right(self._nexts, version) - 1
        start, state = self._nexts[place], self.reducer.keep(self._kept[place])
        while True:
            page, is_full = await self._page(start, version)
            wanted = [event for event in page if event.stream_seq <= version]
            if not wanted:
                return await self._before(start)
            if not is_full or len(wanted) < len(page) or wanted[-1].stream_seq == version:
                return await asyncio.to_thread(self._fold_to_last, state, wanted)
            state = await asyncio.to_thread(self._fold, state, wanted)
            start = wanted[-1].stream_seq + 1
            self._keep(start, state)
            if on_progress is not None:
                on_progress(start - 1)

    async def _before(self, start: int) -> State | None:
        """Return the state of the last event before `start`."""
        if start == 0:
            return None
        last = await self._store.read_page(self.stream_id, start=start - 1, limit=1, backwards=True)
        return await self.at(last[0].stream_seq) if last else None

    async def _page(self, start: int, version: int) -> tuple[list[Event], bool]:
        """Return events from `start` on, and whether there may be more."""
        page, limit = self._last_page, self._limit
        if page and page[0].stream_seq == start and page[-1].stream_seq >= version:
            return page, True
        page = await self._store.read_page(self.stream_id, start=start, limit=limit)
        if start == 0 and page:
            self._begins = page[0].stream_seq
        size = sum(len(event.data_json) for event in page)
        self._limit = max(limit // 2, 1) if size > _MOST_BYTES else min(limit * 2, PAGE)
        # Kept for the next call, unless it is very large.
        self._last_page = page if size <= _MOST_BYTES else []
        return page, len(page) == limit

    def _fold(self, state: Any, events: list[Event]) -> Any:
        for event in events:
            state = self.reducer.apply(state, event)
        return state

    def _fold_to_last(self, state: Any, events: list[Event]) -> State:
        state = self._fold(state, events[:-1])
        event = events[-1]
        before = self.reducer.to_json(state, event)
        state = self.reducer.apply(state, event)
        return State(event, self.reducer.to_json(state, event), before, self._begins)

    def _keep(self, following: int, state: Any) -> None:
        if following - self._nexts[-1] < self._every:
            return
        self._nexts.append(following)
        self._kept.append(self.reducer.keep(state))
        if len(self._nexts) > _MOST_KEPT:
            del self._nexts[1::2], self._kept[1::2]
            self._every *= 2
