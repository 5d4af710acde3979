"""Opens a capsule as a store that can be shown, on the embedded server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

from esx.capsule.loading import loaded
from esx.capsule.player import Player
from esx.capsule.reading import Capsule
from esx.capsule.store import RecordedStore
from esx.embedded import EmbeddedServer
from esx.store.recorded.tables import move_clock
from esx.text import visible


class Recording:
    """A capsule that is open: `player` is its clock, `dsn` the address of its store for a user who can only read it."""

    def __init__(self, dsn: str, player: Player) -> None:
        self.dsn = dsn
        self.player = player

    async def connect(self, dsn: str | None = None, **options: Any) -> RecordedStore:
        """Connect to the store, as `EventStore.connect` does; it shows what the clock says."""
        options["read_only"] = True
        store = await RecordedStore.connect(dsn or self.dsn, **options)
        assert isinstance(store, RecordedStore)
        store.timeline, store.now, store.moved = self.player.timeline, self.player.now, self.player.moved
        return store


@contextlib.asynccontextmanager
async def opened_recording(
    capsule: Capsule,
    server: EmbeddedServer,
    *,
    on_progress: Callable[[int], None] | None = None,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Recording]:
    """Put a capsule into the embedded server for as long as the block lasts. Raises BadCapsule and StoreUnavailable."""
    async with loaded(capsule, server.dsn_for, on_progress=on_progress) as found:
        one = asyncio.Lock()

        async def move(at: datetime, head: int) -> None:
            async with one:
                await move_clock(found.owner, at, head)

        name = visible(capsule.path.name, limit=60)
        player = Player(found.timeline, move, name=name, **({} if clock is None else {"clock": clock}))
        await player.jump(player.at)
        yield Recording(_as_reader(server, found.database, found.reader), player)


def _as_reader(server: EmbeddedServer, database: str, reader: str) -> str:
    # No variable of the environment changes where this address leads.
    address = server.dsn_for(database)
    return f"{address.replace('//postgres@', f'//{quote(reader)}@', 1)}&hostaddr=&service="
