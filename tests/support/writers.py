"""The users of a load test, without Locust."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from esx.eventstore import EventStore
from esx.load.appending import open_appender
from esx.loadtest.outcomes import Outcomes
from esx.loadtest.writer import LoadWriter, Workshop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from esx.load.model import LoadOptions


@asynccontextmanager
async def workshop(dsn: str, options: LoadOptions, run: str = "w") -> AsyncIterator[Workshop]:
    grouping = options.grouping == "on"
    async with EventStore.connect(dsn, max_connections=20, store=options.where, grouping=grouping) as store:
        appender = await open_appender(store, options)
        yield Workshop(store, run, options, Outcomes(), options.max_appends, appender)


async def write(shop: Workshop, stopping: Callable[[], bool] = lambda: False) -> dict[str, list[int]]:
    """Let the users work until all appends are made; return the times by outcome."""

    async def live(number: int) -> None:
        writer = LoadWriter(shop, number, 1 / shop.options.users, stopping)
        while not stopping() and await writer.command(await writer.wait_until_due()):
            pass

    await asyncio.gather(*(live(number) for number in range(shop.options.users)))
    return shop.outcomes.drain().times
