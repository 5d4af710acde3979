"""Readers that follow all the time, and write down what they were given."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from esx import EsxError
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
    """One consumer. A subscription that ends is followed by another: from 0 if it says that the history has changed."""

    def __init__(self, name: str, store: EventStore, history: History, *, prefix: str = "", pause: float = 0) -> None:
        self.name = name
        self.prefix = prefix
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
            stream = f"{self.prefix}*" if self.prefix else None
            async with contextlib.aclosing(self._store.subscribe(after=after, stream=stream)) as events:
                async for event in events:
                    assert event.event_id is not None
                    reading.seen.append(Seen(event.global_seq, event.event_id))
                    reading.last_era = history.era
                    self._seen.add(event.event_id)
                    if self._pause and not len(reading.seen) % 50:
                        await asyncio.sleep(self._pause)
        except asyncio.CancelledError:
            reading.ended = STOPPED
            raise
        except EsxError as error:
            reading.ended, reading.error = type(error).__name__, str(error)
            history.errors[f"{self.name}: {reading.ended}"] += 1
            await asyncio.sleep(0.1)
        finally:
            reading.last_era = history.era


class Projector:
    """One instance of the projection, which writes down in a table what it is given."""

    def __init__(self, store: EventStore, history: History) -> None:
        self._store = store
        self._history = history

    async def run(self) -> None:
        while True:
            try:
                await self._store.project_batches(PROJECTION, write_down, batch=100)
            except EsxError as error:
                # None that a fault brings about: it would need a person to go on.
                self._history.surprises.append(f"projection: {type(error).__name__}: {error}")
                await asyncio.sleep(0.1)


async def write_down(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
    await connection.executemany(
        "INSERT INTO projected (global_seq, event_id) VALUES ($1, $2)",
        [(event.global_seq, event.event_id) for event in events],
    )


async def make_table(connection: asyncpg.Connection) -> None:
    await connection.execute(_PROJECTED)


async def projected(connection: asyncpg.Connection) -> list[Seen]:
    """Return what the projection has written, in the order in which it did."""
    rows = await connection.fetch("SELECT global_seq, event_id FROM projected ORDER BY place")
    return [Seen._make(row) for row in rows]
