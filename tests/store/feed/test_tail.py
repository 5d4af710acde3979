"""Feeds that want the same events share one reader at the end, and none of them loses anything by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import EventStore, NewEvent
from esx.errors import StoreClosed
from esx.filters import Filter
from esx.store.feed.feed import Feed
from esx.store.feed.gap_barrier import Barrier
from esx.store.feed.settings import FeedSettings
from esx.store.feed.tail import Tails
from tests.store.feed.test_feed import DEADLINE, INSERT, moody_writers, take
from tests.support.feeds import feeds_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Follower:
    """Follows in the background, and waits for `gate` after each batch."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.seen: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.news = asyncio.Event()
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for batch in self.feed.follow():
            self.seen += [event.global_seq for event in batch.events]
            self.news.set()
            await self.gate.wait()

    async def reach(self, global_seq: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while global_seq not in self.seen[-1:]:
                self.news.clear()
                await self.news.wait()


@contextlib.asynccontextmanager
async def following(*feeds: Feed) -> AsyncIterator[list[Follower]]:
    followers = [Follower(feed) for feed in feeds]
    try:
        yield followers
    finally:
        for follower in followers:
            follower.task.cancel()
        await asyncio.gather(*(follower.task for follower in followers), return_exceptions=True)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Counter[Barrier]:
    """Count the reads of each barrier."""
    counted: Counter[Barrier] = Counter()
    step = Barrier.step

    async def counting(self: Barrier, connection: asyncpg.Connection, limit: int, until: int | None = None) -> object:
        counted[self] += 1
        return await step(self, connection, limit, until)

    monkeypatch.setattr(Barrier, "step", counting)
    return counted


async def test_five_subscribers_read_as_one(store18: EventStore, steps: Counter[Barrier]) -> None:
    await store18.append("s", [NewEvent("T") for _ in range(10)])
    async with following(*[await store18.feed() for _ in range(5)]) as followers:
        for each in followers:
            await each.reach(10)
        # All are members once an event has come to all.
        done = await store18.append("s", [NewEvent("T")])
        for each in followers:
            await each.reach(done.global_seq)
        steps.clear()
        for _ in range(20):
            done = await store18.append("s", [NewEvent("T")])
            for each in followers:
                await each.reach(done.global_seq)
        assert len(steps) == 1
        assert [each.seen for each in followers] == [list(range(1, 32))] * 5
        assert {each.feed.counts for each in followers} == {(31, 0, 0, 31, 0, 0)}


@pytest.mark.slow
async def test_nothing_is_lost_whenever_one_joins_or_leaves(dsn18: str, store18: EventStore) -> None:
    writing = asyncio.create_task(moody_writers(dsn18, transactions=18))
    feeds = [await store18.feed(page=20) for _ in range(4)]
    async with following(*feeds) as followers:
        latecomers: list[Feed] = []
        while not writing.done():
            # Each comes while the others are under way, at another place, and goes again.
            feed = await store18.feed(after=followers[0].feed.position // 2, page=20)
            latecomers.append(feed)
            await take(feed, 10)
        committed = sorted(await writing)
        last = (await store18.append("last", [NewEvent("Last")])).global_seq
        for each in followers:
            await each.reach(last)
            assert each.seen == [*committed, last]
            assert each.feed.looked == len(each.seen)
            assert each.feed.dead == each.feed.position - len(each.seen) == last - len(committed) - 1
        assert latecomers


@pytest.mark.parametrize("large", ["data", "metadata"])
async def test_a_slow_subscriber_holds_no_other_back_and_catches_up(
    dsn18: str, store18: EventStore, large: str
) -> None:
    tails = Tails()
    async with (
        feeds_of(dsn18, FeedSettings(shared_characters=100_000)) as feeds,
        following(feeds.feed(tails=tails), feeds.feed(tails=tails)) as (slow, quick),
    ):
        first = (await store18.append("s", [NewEvent("T")])).global_seq
        await slow.reach(first)
        slow.gate.clear()
        await store18.append("s", [NewEvent("T")])
        for _ in range(30):
            text = {"text": "x" * 10_000}
            event = NewEvent("T", text) if large == "data" else NewEvent("T", metadata=text)
            done = await store18.append("s", [event])
            await quick.reach(done.global_seq)
        [tail] = tails
        assert tail.end - tail.first < 15
        slow.gate.set()
        await slow.reach(done.global_seq)
        assert slow.seen == quick.seen == list(range(1, 33))
        assert slow.feed.counts == quick.feed.counts


async def test_a_feed_that_begins_above_a_gap_is_not_held_by_it(store18: EventStore, sql18: asyncpg.Connection) -> None:
    async with following(await store18.feed()) as [held]:
        await held.reach((await store18.append("s", [NewEvent("T")])).global_seq)
        open_writer = sql18.transaction()
        await open_writer.start()
        pending = await sql18.fetchval(INSERT, "slow", 0)
        above = (await store18.append("s", [NewEvent("T")])).global_seq
        async with asyncio.timeout(DEADLINE):
            while held.feed.gap is None:
                held.news.clear()
                await held.news.wait()
        async with following(await store18.feed(after=above)) as [free]:
            for _ in range(3):
                await free.reach((await store18.append("s", [NewEvent("T")])).global_seq)
            assert held.seen == [1]
            await open_writer.commit()
            last = (await store18.append("s", [NewEvent("T")])).global_seq
            await held.reach(last)
            await free.reach(last)
            assert held.seen == list(range(1, last + 1))
            assert pending not in free.seen
            assert free.seen == list(range(above + 1, last + 1))


async def test_a_feed_that_is_held_by_a_gap_does_not_follow_those_above_it(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await store18.append("s", [NewEvent("T")])
    open_writer = sql18.transaction()
    await open_writer.start()
    await sql18.fetchval(INSERT, "slow", 0)
    above = (await store18.append("s", [NewEvent("T")])).global_seq
    async with following(await store18.feed(after=above)) as [free]:
        await free.reach((await store18.append("s", [NewEvent("T")])).global_seq)
        async with following(await store18.feed()) as [held]:
            await held.reach(1)
            await free.reach((await store18.append("s", [NewEvent("T")])).global_seq)
            assert held.seen == [1]
            await open_writer.commit()
            last = (await store18.append("s", [NewEvent("T")])).global_seq
            await held.reach(last)
            assert held.seen == list(range(1, last + 1))


async def test_a_feed_that_meets_a_gap_on_its_way_to_the_others_waits_there(
    store18: EventStore, sql18: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a feed alone does: it does not read again and again without a pause."""
    bounds: defaultdict[Barrier, list[int | None]] = defaultdict(list)
    step = Barrier.step

    async def noting(self: Barrier, connection: asyncpg.Connection, limit: int, until: int | None = None) -> object:
        bounds[self].append(until)
        return await step(self, connection, limit, until)

    monkeypatch.setattr(Barrier, "step", noting)
    await store18.append("s", [NewEvent("T")])
    async with following(await store18.feed()) as [held], sql18.transaction():
        held.gate.clear()
        await held.reach(1)
        # While its subscriber has the first event, a gap appears, and others go on above it.
        await sql18.fetchval(INSERT, "slow", 0)
        above = (await store18.append("s", [NewEvent("T")])).global_seq
        async with following(await store18.feed(after=above)) as [free], asyncio.timeout(DEADLINE):
            while not free.feed.shared:
                await asyncio.sleep(0.01)
            held.gate.set()
            while not (alone := [until for until in bounds.values() if until[-1] is None and until.count(above)]):
                await asyncio.sleep(0.01)
    assert alone[0].count(above) == 1
    assert held.seen == [1]


async def test_a_start_beyond_the_end_misleads_nobody(store18: EventStore) -> None:
    async with following(await store18.feed(after=1000)) as [ahead]:
        while not ahead.feed.listening:
            await asyncio.sleep(0)
        async with following(await store18.feed()) as [other]:
            for _ in range(3):
                await other.reach((await store18.append("s", [NewEvent("T")])).global_seq)
            assert other.seen == [1, 2, 3]
            assert ahead.seen == []


async def test_each_gets_what_its_filter_wants(store: EventStore) -> None:
    wanted = [Filter("a*"), Filter("a*"), Filter(event_type="U"), None]
    async with following(*[await store.feed(where=where) for where in wanted]) as followers:
        for stream, event_type in (("a", "T"), ("b", "U"), ("b", "T"), ("a", "U")):
            last = (await store.append(stream, [NewEvent(event_type)])).global_seq
        for each in followers:
            await each.reach(last)
        assert [each.seen for each in followers] == [[1, 4], [1, 4], [2, 4], [1, 2, 3, 4]]
        assert [each.feed.looked for each in followers] == [4, 4, 4, 4]


async def test_closing_the_store_ends_all_feeds_that_share(dsn18: str) -> None:
    store = await EventStore.connect(dsn18)
    await store.init()
    async with following(await store.feed(), await store.feed()) as followers:
        done = await store.append("s", [NewEvent("T")])
        for each in followers:
            await each.reach(done.global_seq)
        await store.close()
        for each in followers:
            with pytest.raises(StoreClosed):
                async with asyncio.timeout(DEADLINE):
                    await each.task


async def test_a_subscriber_that_stops_goes_on_where_it_was(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T") for _ in range(3)])
    feed = await store18.feed()
    first = await take(feed, 3)
    await store18.append("s", [NewEvent("T")])
    first += await take(feed, 1)
    assert feed.counts == (4, 0, 0, 4, 0, 0)
    rest = [event async for batch in feed.to_safe_position() for event in batch.events]
    await store18.append("s", [NewEvent("T") for _ in range(2)])
    rest += await take(feed, 2)
    assert [event.global_seq for event in first + rest] == [1, 2, 3, 4, 5, 6]
    assert feed.counts == (6, 0, 0, 6, 0, 0)


async def test_what_one_subscriber_does_wrong_is_nothing_to_another(
    store18: EventStore, dsn18: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, right = await store18.feed(), await store18.feed()

    def fail() -> None:
        raise ZeroDivisionError

    async def drain() -> None:
        async for _ in wrong.follow():
            pass

    wrong.on_change = fail
    async with following(right) as [follower]:
        draining = asyncio.create_task(drain())
        await follower.reach((await store18.append("s", [NewEvent("T")])).global_seq)
        await store18.append("s", [NewEvent("T")])
        sql = await asyncpg.connect(dsn18)
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'esx%'"
        )
        await sql.close()
        for version in (1, 2, 3):
            # Exact, so that what is lost with its connection is repeated.
            last = (await store18.append("s", [NewEvent("T")], expected=version)).global_seq
        await follower.reach(last)
        assert follower.seen == list(range(1, last + 1))
        assert not draining.done()
        draining.cancel()
    assert "on_change failed" in caplog.text


async def test_nothing_is_read_for_a_subscriber_that_does_not_pull(
    dsn18: str, store18: EventStore, steps: Counter[Barrier]
) -> None:
    tails = Tails()
    async with feeds_of(dsn18) as feeds, following(feeds.feed(tails=tails)) as [follower]:
        await follower.reach((await store18.append("s", [NewEvent("T")])).global_seq)
        await follower.reach((await store18.append("s", [NewEvent("T")])).global_seq)
        follower.gate.clear()
        follower.news.clear()
        await store18.append("s", [NewEvent("T")])
        await follower.news.wait()
        [tail] = tails
        for _ in range(200):
            last = (await store18.append("s", [NewEvent("T")])).global_seq
        assert tail.end - tail.first <= 1
        steps.clear()
        for _ in range(50):
            last = (await store18.append("s", [NewEvent("T")])).global_seq
        assert not steps
        follower.gate.set()
        await follower.reach(last)
        assert follower.seen == list(range(1, last + 1))


async def test_a_feed_that_joins_a_held_tail_is_told_what_holds_it(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    async with following(await store18.feed()) as [first]:
        await first.reach((await store18.append("s", [NewEvent("T")])).global_seq)
        open_writer = sql18.transaction()
        await open_writer.start()
        pending = await sql18.fetchval(INSERT, "slow", 0)
        await store18.append("s", [NewEvent("T")])
        async with following(await store18.feed()) as [second]:
            async with asyncio.timeout(DEADLINE):
                for each in (first, second):
                    while each.feed.gap is None:
                        each.news.clear()
                        await each.news.wait()
            assert second.feed.gap is not None
            assert second.feed.gap.first == pending
            await open_writer.rollback()


async def test_a_feed_that_joins_while_the_reader_gives_its_connection_back_is_given_nothing_twice(
    dsn: str, store: EventStore
) -> None:
    """What is shared has been read by then, and is given to the members a moment later."""
    gate, held = asyncio.Event(), asyncio.Event()
    gate.set()

    @contextlib.asynccontextmanager
    async def slowly() -> AsyncIterator[asyncpg.Connection]:
        async with feeds.pool.lend() as connection:
            yield connection
        if not gate.is_set():
            held.set()
            await gate.wait()

    tails = Tails()
    await store.append("s", [NewEvent("T")])
    async with (
        asyncio.timeout(DEADLINE),
        feeds_of(dsn) as feeds,
        following(feeds.feed(lend=slowly, tails=tails)) as [first],
    ):
        while not (first.feed.shared and first.feed.idle):
            await asyncio.sleep(0)
        gate.clear()
        await store.append("s", [NewEvent("T")])
        await held.wait()
        async with following(feeds.feed(tails=tails)) as [second]:
            await second.reach(2)
            await asyncio.sleep(0.1)  # by now it would have joined
            gate.set()
            await store.append("s", [NewEvent("T")])
            for each in (first, second):
                await each.reach(3)
                assert each.seen == [1, 2, 3]
