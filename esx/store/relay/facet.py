"""Relays: the feed, handed to a target outside of the database."""

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from esx.errors import InvalidQuery, StoreFailed
from esx.filters import Filter
from esx.layouts.detection import check_order
from esx.layouts.layout import Layout
from esx.postgres.session import Session
from esx.store.consume.checkpoints import CheckpointRow, usable_table
from esx.store.consume.consumer import as_json
from esx.store.feed.batch import Gap
from esx.store.feed.facet import Feeds
from esx.store.feed.survey import find_end
from esx.store.read import locate
from esx.store.read.event_list import EventList
from esx.store.relay.relay import EXACT_WINDOW, SECONDS, WINDOW, Relay, RelayOnError, RelayProgress
from esx.store.relay.target import RelayTarget

_PAGE = 1000


class Relays(Feeds):
    """Runs relays."""

    async def relay(
        self,
        name: str,
        target: RelayTarget,
        *,
        stream: str | None = None,
        event_type: str | None = None,
        where: str | None = None,
        start: int | datetime | Literal["start", "end"] | None = None,
        once: bool = False,
        on_error: RelayOnError = "stop",
        window: int | None = None,
        seconds: float = SECONDS,
        on_progress: Callable[[RelayProgress], object] | None = None,
    ) -> Gap | None:
        """Send the events of all streams to `target`, in order for each stream, until cancelled.

        One instance per name is active, in all processes; others wait and take over when it ends. The checkpoint is in
        the table consumers. If the target keeps the position with the events, each event arrives exactly once;
        otherwise the events of an interrupted commit arrive again, at most `window`. The relay commits when there is no
        more to read, after `window` events (10,000; 50,000 for a target that keeps the position), or after `seconds`.
        While the target or the database cannot be reached, it tries again with growing pauses. An event that the target
        refuses stops it, after all events before it were sent; with `on_error` "park" it is put aside with the later
        events of its stream, and the rest goes on (`put_aside`, `retry_events` and `skip_event`).

        A relay begins at `start` when it runs for the first time, later at its checkpoint: after a global_seq, at a
        time, at the ``"end"`` of what can be told to be complete now; without it at the start of the store. The filter
        is that of `subscribe`. With `once` it ends at the safe position, and returns the gap that it ends before, or
        None. `on_progress` is called after each commit.

        Raises RelayFailed, HistoryChanged if the store no longer holds the events that were sent, OrderUnknown where
        no position is safe, InvalidQuery for a wrong filter, name, start or window, StoreFailed on a hot standby, and
        StoreUnavailable if the store is closed or cannot be reached at the start.
        """
        if not name:
            raise InvalidQuery("a relay needs a name")
        if window is None:
            window = EXACT_WINDOW if target.keeps_position else WINDOW
        if window < 1:
            raise InvalidQuery(f"a window of {window} events makes no sense: use a number from 1")
        if isinstance(start, int) and not 0 <= start < 2**63:
            raise InvalidQuery(f"{start} is not a position: use a global_seq, or 0 for the start")
        chosen = Filter(stream, event_type, where)
        self._check_writable()

        async def begin(connection: Session, layout: Layout) -> Layout:
            if layout.foreign is not None:
                layout.check_appends()
            if not layout.own:
                raise StoreFailed(
                    f"a relay keeps its position beside the table events of search_path, not {layout.called}: name its "
                    "schema in the address instead: ?search_path=..."
                )
            if layout.standby:
                raise StoreFailed(
                    "this is a hot standby, where a relay cannot keep its position: use the address of the primary"
                )
            await check_order(connection, layout)
            row = CheckpointRow(layout, name, "relay")
            with usable_table():
                known = await row.load(connection)
            if known is None:
                await row.register(connection, await self._start(connection, layout, start))
            return layout

        layout = await self._insist(begin)
        page = min(_PAGE, window)
        return await Relay(
            CheckpointRow(layout, name, "relay"),
            target,
            start_given=start is not None,
            once=once,
            on_error=on_error,
            window=window,
            seconds=seconds,
            page=page,
            on_progress=on_progress,
            connector=self._connector,
            layout=layout,
            watchdog=self._watchdog,
            make_feed=lambda before, after: self._feed(layout, after=after, where=chosen, page=page, before=before),
            lend=self._connection,
            closed=lambda: self._closed,
            wants=as_json(chosen),
        ).run_to_end()

    async def _start(self, connection: Session, layout: Layout, start: int | datetime | str | None) -> int:
        """Return the position after which a new relay begins."""
        if start is None or start == "start":
            return 0
        if isinstance(start, int):
            return start
        end = await find_end(connection, layout, self.feed_settings)
        if isinstance(start, str):
            return max(end.position, 0)
        first = (await locate.place_of_moment(connection, layout, EventList(None), start)).first
        return max(end.position if first is None else min(first - 1, end.position), 0)
