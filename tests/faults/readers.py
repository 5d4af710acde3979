"""Readers that follow all the time, and write down what they were given."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from esx import EsxError, StoreUnavailable
from esx.filters import Filter
from tests.faults.cluster import Patience
from tests.faults.history import CHANGED, STOPPED, Seen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    import asyncpg

    from esx import Event, EventStore
    from tests.faults.history import History, Reading

PROJECTION = "faults"
_PROJECTED = "CREATE TABLE projected (place bigserial PRIMARY KEY, global_seq bigint NOT NULL, event_id uuid NOT NULL)"


class Reader:
    """One consumer. A subscription that ends is followed by another: from 0 if it says that the history has changed.

    With `batches` it takes a feed, which tells its safe position too.
    """

    def __init__(
        self,
        name: str,
        store: EventStore,
        history: History,
        *,
        prefix: str = "",
        pause: float = 0,
        batches: bool = False,
    ) -> None:
        self.name = name
        self.prefix = prefix
        self._batches = batches
        self._store = store
        self._history = history
        self._pause = pause
        self._reading: Reading | None = None
        self._seen: set[UUID] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        return len(self._seen)

    @property
    def slow(self) -> bool:
        return self._pause > 0

    def has(self, event_id: UUID) -> bool:
        """Whether the subscription that goes on has given this event."""
        return event_id in self._seen

    def hurry(self) -> None:
        """Pause no more."""
        self._pause = 0

    async def run(self) -> None:
        try:
            while True:
                self._task = asyncio.create_task(self._subscribe())
                await asyncio.wait({self._task})
                if not self._task.cancelled():  # as `restart` does
                    self._task.result()
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)

    def restart(self) -> None:
        """End the subscription, and let another go on from where it was."""
        if self._task is not None:
            self._task.cancel()

    async def _subscribe(self) -> None:
        history, before = self._history, self._reading
        after = 0
        if before is None or before.ended == CHANGED:
            self._seen.clear()
        else:
            after = before.seen[-1].global_seq if before.seen else before.after
        self._reading = reading = history.read(self.name, after, self.prefix)
        try:
            if self._batches:
                await self._follow(after, reading)
            else:
                async for event in self._store.subscribe(after=after, stream=self._stream):
                    await self._take(event, reading)
        except asyncio.CancelledError:
            reading.ended = STOPPED
            raise
        except EsxError as error:
            reading.ended, reading.error = type(error).__name__, str(error)
            history.errors[f"{self.name}: {reading.ended}"] += 1
            if isinstance(error, StoreUnavailable) and not reading.seen:
                # It never began: that takes the database.
                history.readings.remove(reading)
                self._reading = before
            await asyncio.sleep(0.05)
        finally:
            reading.last_era = history.era

    @property
    def _stream(self) -> str | None:
        return f"{self.prefix}*" if self.prefix else None

    async def _follow(self, after: int, reading: Reading) -> None:
        feed = await self._store.feed(after=after, where=Filter(stream=self._stream))
        safe = after
        async with contextlib.aclosing(feed.follow()) as batches:
            async for batch in batches:
                for event in batch.events:
                    if not safe < event.global_seq <= batch.position:
                        where = f"between the positions {safe} and {batch.position}"
                        self._history.surprises.append(f"{self.name} was given {event.global_seq} {where}")
                    await self._take(event, reading)
                safe = batch.position

    async def _take(self, event: Event, reading: Reading) -> None:
        assert event.event_id is not None
        reading.seen.append(Seen(event.global_seq, event.event_id))
        reading.last_era = self._history.era
        self._seen.add(event.event_id)
        if self._pause and not len(reading.seen) % 50:
            await asyncio.sleep(self._pause)


class Projector:
    """One instance of the projection, which writes down in a table what it is given."""

    def __init__(self, store: EventStore, history: History) -> None:
        self._store = store
        self._history = history

    async def run(self) -> None:
        while True:
            try:
                await self._store.project_batches(PROJECTION, write_down, batch=100)
            except StoreUnavailable:
                await asyncio.sleep(0.05)  # it never began
            except EsxError as error:
                # No fault may end it: somebody would have to start it again.
                said = f"{type(error).__name__}: {error}"
                self._history.errors[f"projection: {type(error).__name__}"] += 1
                self._history.ended.append(f"projection: {said}")
                await asyncio.sleep(0.05)


async def write_down(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
    await connection.executemany(
        "INSERT INTO projected (global_seq, event_id) VALUES ($1, $2)",
        [(event.global_seq, event.event_id) for event in events],
    )


async def make_table(connection: asyncpg.Connection) -> None:
    await connection.execute(_PROJECTED)


async def await_projected(connection: asyncpg.Connection, event_id: UUID) -> None:
    """Wait until the projection has handled an event."""
    patience = Patience()
    while not await connection.fetchval("SELECT EXISTS (SELECT FROM projected WHERE event_id = $1)", event_id):
        await patience.moment(await connection.fetchval("SELECT count(*) FROM projected"), "the projection")


async def projected(connection: asyncpg.Connection) -> list[Seen]:
    """Return what the projection has written, in the order in which it did."""
    rows = await connection.fetch("SELECT global_seq, event_id FROM projected ORDER BY place")
    return [Seen._make(row) for row in rows]
