"""Feeds that a test makes itself, of a source, a doorbell and connections."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from esx.layouts.detection import detect_layout
from esx.postgres.connection import Connector
from esx.postgres.listener import Doorbell
from esx.postgres.pool import Pool
from esx.store.feed.cursor import Cursor
from esx.store.feed.feed import Feed
from esx.store.feed.settings import DEFAULT, FeedSettings
from esx.store.feed.source import Lend, Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.layouts.layout import Layout
    from esx.store.feed.tail import Tails


class Feeds:
    """Makes feeds from the start of a store, which read with connections of one pool."""

    def __init__(self, pool: Pool, doorbell: Doorbell, layout: Layout, settings: FeedSettings) -> None:
        self.pool = pool
        self._layout = layout
        self._doorbell = doorbell
        self._settings = settings

    def feed(self, *, tails: Tails | None = None, lend: Lend | None = None) -> Feed:
        """Return a feed that shares what `tails` read, or reads alone; `lend` lends its connections."""
        source = Source(lend or self.pool.lend, self._doorbell, self._layout, Cursor(), settings=self._settings)
        return Feed(source, tails=tails)


@contextlib.asynccontextmanager
async def feeds_of(dsn: str, settings: FeedSettings = DEFAULT) -> AsyncIterator[Feeds]:
    """Yield what makes feeds of the store at `dsn`."""
    connector = Connector(dsn, "esx")
    pool, doorbell = Pool(connector.open, 10, connector.where), Doorbell(connector, "new_events")
    try:
        async with pool.lend() as connection:
            layout = await detect_layout(connection)
        yield Feeds(pool, doorbell, layout, settings)
    finally:
        await doorbell.close()
        await pool.settled()
        pool.terminate()
