"""What one reader has proven spares others the wait: at old gaps no reader waits for a writer that came later."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import EventStore, NewEvent
from esx.store.feed.settings import FeedSettings
from tests.store.feed.test_feed import DEADLINE, INSERT, take
from tests.support.prepared import server_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.store.feed.feed import Feed

pytestmark = pytest.mark.slow


async def burn(dsn: str, times: int = 3) -> None:
    """Burn numbers between events, as conflicts do."""
    connection = await asyncpg.connect(dsn)
    for turn in range(times):
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetchval(INSERT, "lost", 0)
        await transaction.rollback()
        await connection.fetchval(INSERT, "won", turn)
    await connection.close()


@contextlib.asynccontextmanager
async def open_writer(sql: asyncpg.Connection) -> AsyncIterator[int]:
    """Keep a transaction open in which an event was inserted, and yield its number."""
    transaction = sql.transaction()
    await transaction.start()
    try:
        yield await sql.fetchval(INSERT, "open", 0)
    finally:
        await transaction.rollback()


async def reached(feed: Feed) -> tuple[int, int | None]:
    """Return the safe position, and the first number that holds the feed there."""
    gap = None
    async with asyncio.timeout(DEADLINE):
        async for batch in feed.to_safe_position(patience=0):
            gap = batch.gap
    return feed.position, None if gap is None else gap.first


@pytest.mark.parametrize("by", ["a feed that followed", "a call"])
async def test_a_writer_that_came_later_holds_no_reader_at_an_old_gap(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection, by: str
) -> None:
    await burn(dsn18)
    last = (await store18.append("last", [NewEvent("T")])).global_seq
    if by == "a call":
        assert await store18.keep_fence() == last
    else:
        following = asyncio.ensure_future(take(await store18.feed(), 5))
        async with asyncio.timeout(DEADLINE):
            while await sql18.fetchval("SELECT position FROM feed_fence") != last:
                await asyncio.sleep(0.01)
        following.cancel()
    async with open_writer(sql18) as number:
        behind = (await store18.append("behind", [NewEvent("T")])).global_seq
        async with EventStore.connect(dsn18, read_only=True) as fresh:
            assert await reached(await fresh.feed()) == (last, last + 1)
            export = await fresh.export(patience=0)
            assert export.until == last
            assert export.gap is not None
            assert export.gap.first <= number <= export.gap.last < behind
            state = await (await fresh.feed()).state()
            assert (state.safe, [gap.first for gap in state.gaps]) == (last, [last + 1])
    async with EventStore.connect(dsn18, read_only=True) as fresh:
        assert await reached(await fresh.feed()) == (behind, None)


async def test_no_fence_is_kept_above_a_number_that_an_open_writer_has_drawn(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    """The writer that did draw the old number is waited for, however many others have come and gone."""
    async with open_writer(sql) as number:
        await burn(dsn)
        feed = await store.feed()
        following = asyncio.ensure_future(take(feed, 10_000))
        async with asyncio.timeout(DEADLINE):
            while feed.gap is None:
                await asyncio.sleep(0)
        assert await store.keep_fence() is None
        async with EventStore.connect(dsn) as fresh:
            assert (await reached(await fresh.feed()))[1] == number
            assert (await fresh.export(patience=0)).until == number - 1
        following.cancel()


async def test_a_fence_kept_while_a_page_was_read_is_believed_only_of_what_is_read_again(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    """What was committed between the page and the fence is below the fence, and not in the page."""
    from esx.layouts.layout import Layout
    from esx.store.feed.gap_barrier import Barrier
    from tests.store.feed.test_gap_barrier import Hooked, numbers

    connection = await asyncpg.connect(dsn)
    hooked = Hooked(connection)
    transaction = sql.transaction()
    await transaction.start()
    await sql.fetchval(INSERT, "slow", 0)
    await store.append("quick", [NewEvent("T")])

    async def commit_and_keep() -> None:
        await transaction.commit()
        assert await store.keep_fence() == 2

    hooked.hooks["after read"] = commit_and_keep
    assert await numbers(Barrier(Layout()), hooked, 1) == [1, 2]
    await connection.close()


async def test_with_commit_timestamps_no_fence_is_needed() -> None:
    settings = FeedSettings(clock_step=timedelta(0))
    async with server_with(18, "track_commit_timestamp = on") as dsn, EventStore.connect(dsn) as store:
        sql = await asyncpg.connect(dsn)
        transaction = sql.transaction()
        await transaction.start()
        await sql.fetchval(INSERT, "undone", 0)
        await store.append("a", [NewEvent("T")])
        async with EventStore.connect(dsn) as fresh:
            fresh.feed_settings = settings
            # Whoever began before the event above the gap may have drawn it.
            assert await reached(await fresh.feed()) == (0, 1)
        await transaction.rollback()
        async with open_writer(sql) as number:
            behind = (await store.append("behind", [NewEvent("T")])).global_seq
            async with EventStore.connect(dsn) as fresh:
                fresh.feed_settings = settings
                assert await reached(await fresh.feed()) == (2, number)
                export = await fresh.export(patience=0)
                assert (export.until, export.gap and export.gap.last) == (2, behind - 1)
                assert [gap.first for gap in (await (await fresh.feed()).state()).gaps] == [number]
        await sql.close()
