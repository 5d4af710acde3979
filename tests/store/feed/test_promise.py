"""A feed checks its own promise: what appears below its position is told, and another history ends it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import EventStore, HistoryChanged, NewEvent
from esx.layouts.layout import Layout
from esx.store.feed.batch import Missed
from esx.store.feed.gap_barrier import Barrier
from esx.store.feed.settings import FeedSettings
from esx.store.feed.tail import Tails
from tests.store.feed.test_feed import DEADLINE, INSERT
from tests.store.feed.test_gap_barrier import Hooked
from tests.support.feeds import feeds_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.store.feed.batch import Batch
    from esx.store.feed.feed import Feed

pytestmark = pytest.mark.slow

OFTEN = FeedSettings(look_every=0.0, poll=0.01)
_BY_HAND = "INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data) VALUES ($1, $2, 0, 'Late', '{}')"


@pytest.fixture
def often(store18: EventStore) -> EventStore:
    """A store whose feeds count again all the time, and look for news as often."""
    store18.feed_settings = OFTEN
    return store18


@contextlib.asynccontextmanager
async def following(feed: Feed) -> AsyncIterator[AsyncIterator[Batch]]:
    async with asyncio.timeout(DEADLINE), contextlib.aclosing(feed.follow()) as batches:
        yield batches


async def until(batches: AsyncIterator[Batch], global_seq: int) -> list[int]:
    """Return the numbers that come, up to and with `global_seq`."""
    numbers: list[int] = []
    while global_seq not in numbers:
        numbers += [event.global_seq for event in (await anext(batches)).events]
    return numbers


async def drawn(sql: asyncpg.Connection) -> int:
    """Draw a number without writing."""
    number: int = await sql.fetchval("SELECT nextval(pg_get_serial_sequence('events', 'global_seq'))")
    return number


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
async def test_an_event_with_a_number_drawn_by_hand_is_told_as_missed(
    dsn: str, store: EventStore, sql: asyncpg.Connection, shared: bool
) -> None:
    await store.append("a", [NewEvent("T")])
    number = await drawn(sql)
    await store.append("b", [NewEvent("T")])
    async with (
        feeds_of(dsn, OFTEN) as feeds,
        following(feed := feeds.feed(tails=Tails() if shared else None)) as batches,
    ):
        assert await until(batches, 3) == [1, 3]
        await sql.execute(_BY_HAND, number, "by hand")
        batch = await anext(batches)
        assert batch.events == []
        assert batch.missed == (Missed(2, "by hand", "Late"),)
        assert feed.missed == 1
        done = await store.append("c", [NewEvent("T")])
        batch = await anext(batches)
        # Once told, it is known.
        assert ([event.global_seq for event in batch.events], batch.missed) == ([done.global_seq], ())
        assert feed.missed == 1


async def test_a_number_drawn_before_a_feed_began_at_the_end_is_told_as_missed(
    often: EventStore, sql18: asyncpg.Connection
) -> None:
    await often.append("a", [NewEvent("T")])
    number = await drawn(sql18)
    await often.append("b", [NewEvent("T")])
    feed = await often.feed_from_end()
    async with following(feed) as batches:
        done = await often.append("c", [NewEvent("T")])
        assert await until(batches, done.global_seq) == [done.global_seq]
        await sql18.execute(_BY_HAND, number, "by hand")
        assert (await anext(batches)).missed == (Missed(number, "by hand", "Late"),)


async def test_what_lies_below_a_start_that_was_given_was_never_promised(
    often: EventStore, sql18: asyncpg.Connection
) -> None:
    number = await drawn(sql18)
    first = await often.append("a", [NewEvent("T")])
    feed = await often.feed(after=first.global_seq)
    async with following(feed) as batches:
        done = await often.append("b", [NewEvent("T")])
        await until(batches, done.global_seq)
        await sql18.execute(_BY_HAND, number, "by hand")
        last = await often.append("c", [NewEvent("T")])
        await until(batches, last.global_seq)
    assert feed.missed == 0


async def test_a_truncated_and_restarted_table_ends_a_feed(often: EventStore, sql18: asyncpg.Connection) -> None:
    await often.append("a", [NewEvent("T") for _ in range(6)])
    feed = await often.feed()
    async with following(feed) as batches:
        assert await until(batches, 6) == [1, 2, 3, 4, 5, 6]
        await sql18.execute("TRUNCATE events RESTART IDENTITY")
        await often.append("b", [NewEvent("T")])
        with pytest.raises(HistoryChanged) as told:
            await anext(batches)
    assert (told.value.position, told.value.head) == (6, 1)


async def test_another_history_that_has_come_further_ends_a_feed(often: EventStore, sql18: asyncpg.Connection) -> None:
    """The head tells nothing then, but the events that were handed out do."""
    await often.append("a", [NewEvent("T") for _ in range(6)])
    feed = await often.feed()
    async with following(feed) as batches:
        await until(batches, 6)
        async with sql18.transaction():
            await sql18.execute("TRUNCATE events RESTART IDENTITY")
            for seq in range(9):
                await sql18.fetchval(INSERT, "b", seq)
        # The connection that it reads on is lost: on the next one it looks first.
        await sql18.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'esx%' "
            "AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        with pytest.raises(HistoryChanged) as told:
            await until(batches, 9)
    assert told.value.position == 6


async def test_a_start_beyond_the_head_is_no_silence(often: EventStore) -> None:
    await often.append("a", [NewEvent("T") for _ in range(6)])
    feed = await often.feed(after=100)
    with pytest.raises(HistoryChanged) as told:
        await anext(feed.follow())
    assert (told.value.position, told.value.head) == (100, 6)
    with pytest.raises(HistoryChanged):
        async for _ in (await often.feed(after=100)).to_safe_position():
            pass
    with pytest.raises(HistoryChanged):
        await often.export(after=100)
    assert (await often.export(after=6)).until == 6


async def test_events_that_are_deleted_while_the_server_runs_end_no_feed(
    often: EventStore, sql18: asyncpg.Connection
) -> None:
    await often.append("a", [NewEvent("T") for _ in range(6)])
    feed = await often.feed()
    async with following(feed) as batches:
        await until(batches, 6)
        await sql18.execute("DELETE FROM events WHERE global_seq IN (2, 6)")
        while not feed.erased:
            done = await often.append("b", [NewEvent("T")])
            await until(batches, done.global_seq)
        assert feed.erased == 2
        assert feed.missed == 0


async def test_a_connection_that_is_lost_while_counting_costs_no_event(dsn18: str, often: EventStore) -> None:
    """What was read must not be gone with the look that comes in the same step."""
    await often.append("a", [NewEvent("T") for _ in range(3)])
    connection = await asyncpg.connect(dsn18)
    hooked: Any = Hooked(connection)
    barrier = Barrier(Layout(), settings=OFTEN)

    async def lose() -> None:
        raise ConnectionResetError("lost")

    hooked.hooks["before count"] = lose
    with pytest.raises(ConnectionResetError):
        await barrier.step(hooked, 100)
    assert [event.global_seq for event in (await barrier.step(hooked, 100)).events] == [1, 2, 3]
    await connection.close()


async def test_what_was_missed_is_told_also_where_nothing_else_comes(
    often: EventStore, sql18: asyncpg.Connection
) -> None:
    await often.append("a", [NewEvent("T")])
    number = await drawn(sql18)
    await often.append("b", [NewEvent("T")])
    feed = await often.feed()
    assert [event.global_seq async for batch in feed.to_safe_position() for event in batch.events] == [1, 3]
    await sql18.execute(_BY_HAND, number, "by hand")
    told = [batch.missed async for batch in feed.to_safe_position()]
    assert told == [(Missed(number, "by hand", "Late"),)]
