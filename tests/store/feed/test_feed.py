"""The ordered feed: nothing lost, nothing twice, nothing out of order, in all that writers may do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import Event, EventStore, NewEvent, Notification, StoreUnavailable
from esx.errors import InvalidQuery, StoreClosed
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.postgres.connection import Connector
from esx.postgres.timings import Timings
from esx.store.feed.batch import Gap
from esx.store.feed.feed import Feed
from esx.store.feed.late_numbers import Missing
from esx.store.feed.settings import FeedSettings
from esx.store.feed.survey import find_end
from tests.support.connections import connected
from tests.support.feeds import feeds_of
from tests.support.proxy import proxied
from tests.support.stores import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.slow
INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, $2, 'T', '{}') RETURNING global_seq"
_ASKED_FOR_WRITERS = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%pg_locks%' "
    "AND datname = current_database())"
)
DEADLINE = 120.0


async def take(feed: Feed, count: int) -> list[Event]:
    """Follow until `count` events have come."""
    events: list[Event] = []
    async with asyncio.timeout(DEADLINE):
        async for batch in feed.follow():
            events.extend(batch.events)
            if len(events) >= count:
                break
    return events


async def gaps(feed: Feed) -> AsyncIterator[Gap | None]:
    async with asyncio.timeout(DEADLINE):
        async for batch in feed.follow():
            yield batch.gap


async def moody_writers(
    dsn: str, *, writers: int = 24, transactions: int = 12, keep_statements: bool = True
) -> set[int]:
    """Write from transactions that now and then pause before they commit or roll back; return what committed."""
    committed: set[int] = set()

    async def write(name: int) -> None:
        mood = random.Random(name)
        connection = await asyncpg.connect(dsn, statement_cache_size=100 if keep_statements else 0)
        try:
            for turn in range(transactions):
                transaction = connection.transaction()
                await transaction.start()
                numbers = [
                    await connection.fetchval(INSERT, f"s-{name}-{turn}", seq) for seq in range(mood.randint(1, 3))
                ]
                if mood.random() < 0.4:
                    await asyncio.sleep(mood.uniform(0, 0.05))
                if mood.random() < 0.3:
                    await transaction.rollback()
                else:
                    await transaction.commit()
                    committed.update(numbers)
        finally:
            await connection.close()

    await asyncio.gather(*(write(name) for name in range(writers)))
    return committed


async def read_behind_the_barrier(dsn: str, writing: Callable[[], bool]) -> list[int]:
    async with EventStore.connect(dsn) as store:
        feed = await store.feed(page=50)
        seen: list[int] = []
        while writing():
            async for batch in feed.to_safe_position(patience=0):
                seen += [event.global_seq for event in batch.events]
        async for batch in feed.to_safe_position():
            seen += [event.global_seq for event in batch.events]
        return seen


async def read_naively(dsn: str, writing: Callable[[], bool]) -> list[int]:
    """Do what so many do: remember the highest number seen, and ask for what is above it."""
    connection = await asyncpg.connect(dsn)
    try:
        seen: list[int] = []
        last_round = False
        while not last_round:
            last_round = not writing()
            rows = await connection.fetch(
                "SELECT global_seq FROM events WHERE global_seq > $1 ORDER BY global_seq LIMIT 50",
                seen[-1] if seen else 0,
            )
            seen += [row[0] for row in rows]
            last_round = last_round and not rows
        return seen
    finally:
        await connection.close()


async def losses(dsn: str, read: Callable[[str, Callable[[], bool]], Awaitable[list[int]]]) -> set[int]:
    """Return the committed numbers that the reader missed; all that it read is in order and there once."""
    writers = asyncio.create_task(moody_writers(dsn))
    async with asyncio.timeout(DEADLINE):
        seen = await read(dsn, lambda: not writers.done())
        committed = await writers
    assert seen == sorted(set(seen))
    assert set(seen) <= committed
    return committed - set(seen)


async def test_nothing_is_lost_under_pausing_and_rolling_back_writers(dsn: str) -> None:
    assert await losses(dsn, read_behind_the_barrier) == set()


async def test_a_naive_reader_loses_events_under_the_same_writers(dsn18: str) -> None:
    assert await losses(dsn18, read_naively) != set()


@pytest.mark.parametrize("grouping", [True, False], ids=["grouped", "each by itself"])
async def test_nothing_is_lost_beside_tasks_that_append_through_a_store(dsn18: str, grouping: bool) -> None:
    async with EventStore.connect(dsn18, grouping=grouping) as store:
        done: set[int] = set()

        async def append(name: int) -> None:
            mood = random.Random(name)
            for _ in range(12):
                done.add((await store.append(f"own-{mood.randrange(6)}", [NewEvent("T")])).global_seq)

        async def write() -> set[int]:
            appending = asyncio.gather(*(append(name) for name in range(24)))
            committed = await moody_writers(dsn18)
            await appending
            return committed

        writing = asyncio.create_task(write())
        async with asyncio.timeout(DEADLINE):
            seen = await read_behind_the_barrier(dsn18, lambda: not writing.done())
            committed = await writing
    assert seen == sorted(committed | done)


async def test_following_loses_nothing_either(dsn: str, store: EventStore) -> None:
    feed = await store.feed(page=50)
    seen: list[int] = []

    async def follow() -> None:
        async for batch in feed.follow():
            seen.extend(event.global_seq for event in batch.events)

    following = asyncio.create_task(follow())
    committed = await moody_writers(dsn)
    last = await store.append("last", [NewEvent("Last")])
    async with asyncio.timeout(DEADLINE):
        while last.global_seq not in seen:
            await asyncio.sleep(0.01)
    following.cancel()
    assert seen == [*sorted(committed), last.global_seq]
    assert feed.dead == feed.position - len(seen)


async def test_an_open_writer_holds_the_feed_and_is_named(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    open_writer = sql.transaction()
    await open_writer.start()
    await sql.fetchval(INSERT, "slow", 0)
    await store.append("quick", [NewEvent("T")])
    feed = await store.feed()
    held = gaps(feed)
    gap = await anext(held)
    assert gap is not None
    assert (gap.first, gap.last) == (1, 1)
    assert [writer.pid for writer in gap.writers] == [sql.get_server_pid()]
    assert gap.writers[0].state == "idle in transaction"
    assert feed.position == 0
    await open_writer.commit()
    await held.aclose()  # type: ignore[attr-defined]
    assert [event.stream_id for event in await take(feed, 2)] == ["slow", "quick"]


async def test_the_state_tells_gaps_from_dead_numbers(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    await store.append("a", [NewEvent("T")])  # 1
    open_writer = sql.transaction()
    await open_writer.start()
    await sql.fetchval(INSERT, "slow", 0)  # 2, pending
    await store.append("b", [NewEvent("T")])  # 3
    await sql.fetchval(INSERT, "slow", 1)  # 4, pending
    feed = await store.feed()
    async for _ in feed.to_safe_position(patience=0):
        pass
    state = await feed.state()
    assert (state.cursor, state.safe, state.head, state.dead) == (1, 1, 4, 0)
    assert [(gap.first, gap.last) for gap in state.gaps] == [(2, 2), (4, 4)]
    assert {writer.pid for gap in state.gaps for writer in gap.writers} == {sql.get_server_pid()}
    await open_writer.rollback()
    async for _ in feed.to_safe_position():
        pass
    state = await feed.state()
    assert (state.cursor, state.safe, state.head, state.dead, state.gaps) == (3, 4, 4, 1, ())


async def test_the_safe_position_is_no_higher_than_the_head(dsn18: str, store18: EventStore) -> None:
    """A writer is open that has drawn no number yet."""
    await store18.append("a", [NewEvent("T")])
    async with connected(dsn18) as writer, writer.transaction():
        await writer.execute("LOCK TABLE events IN ROW EXCLUSIVE MODE")
        state = await (await store18.feed()).state()
        assert (state.safe, state.head, state.looked, state.gaps) == (1, 1, 1, ())


async def test_a_rollback_frees_the_feed(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    open_writer = sql.transaction()
    await open_writer.start()
    await sql.fetchval(INSERT, "slow", 0)
    await store.append("quick", [NewEvent("T")])
    feed = await store.feed()
    async for batch in feed.to_safe_position(patience=0):
        assert batch.events == []
        assert batch.gap is not None
    await open_writer.rollback()
    assert [event.stream_id for event in await take(feed, 1)] == ["quick"]
    assert feed.dead == 1
    assert feed.gap is None


async def test_a_writer_elsewhere_never_holds_the_feed(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    await sql.execute("CREATE TABLE other (id bigserial)")
    await sql.execute("SELECT nextval('events_global_seq_seq')")
    elsewhere = sql.transaction()
    await elsewhere.start()
    await sql.execute("INSERT INTO other DEFAULT VALUES")
    await store.append("s", [NewEvent("T")])
    feed = await store.feed()
    assert len(await take(feed, 1)) == 1
    assert feed.gap is None
    await elsewhere.rollback()


async def test_from_the_end_means_everything_that_becomes_visible_from_now_on(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    await store.append("old", [NewEvent("T")])
    open_writer = sql.transaction()
    await open_writer.start()
    await sql.fetchval(INSERT, "late", 0)
    await store.append("old", [NewEvent("T")])
    feed = await store.feed_from_end()
    await open_writer.commit()
    await store.append("new", [NewEvent("T")])
    assert [event.stream_id for event in await take(feed, 2)] == ["late", "new"]


async def test_an_open_writer_far_behind_the_end_is_not_forgotten(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    open_writer = sql.transaction()
    await open_writer.start()
    await sql.fetchval(INSERT, "late", 0)
    await store.append("many", [NewEvent("T") for _ in range(6000)])
    feed = await store.feed_from_end()
    await open_writer.commit()
    await store.append("after", [NewEvent("T")])
    assert [event.stream_id for event in await take(feed, 2)] == ["late", "after"]


async def test_the_end_of_an_empty_store(store18: EventStore) -> None:
    feed = await store18.feed_from_end()
    await store18.append("first", [NewEvent("T")])
    assert [event.stream_id for event in await take(feed, 1)] == ["first"]


async def test_columns_of_the_users_own_do_not_get_into_the_way(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await sql18.execute("ALTER TABLE events ADD COLUMN hit int, ADD COLUMN version int, ADD COLUMN number int")
    await store18.append("s", [NewEvent("T"), NewEvent("U")])
    async with EventStore.connect(dsn18) as store:
        feed = await store.feed(where=Filter(event_type="U"))
        assert [event.stream_seq for event in await take(feed, 1)] == [1]
        assert (await store.search_slice(await store.plan_search(Filter(event_type="U")))).events[0].stream_seq == 1
        assert [(stream.stream_id, stream.version) async for stream in store.streams(recent=True)] == [("s", 1)]
        assert [(stream.stream_id, stream.version) async for stream in store.streams()] == [("s", 1)]
        assert (await store.append("s", [NewEvent("T")], expected=1)).version == 2


async def test_an_import_of_old_events_does_not_hide_an_open_writer(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    """When an event was created says nothing about when its number was drawn."""
    async with sql18.transaction():
        await sql18.fetchval(INSERT, "late", 0)
        other = await asyncpg.connect(dsn18)
        await other.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data, created_at) "
            "SELECT 'old', n, 'T', '{}', '2020-01-01' FROM generate_series(0, 7999) n"
        )
        await other.close()
        feed = await store18.feed_from_end()
    await store18.append("after", [NewEvent("T")])
    assert [event.stream_id for event in await take(feed, 2)] == ["late", "after"]


async def test_the_end_waits_for_writers_that_are_about_to_finish(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    await store.append("s", [NewEvent("T") for _ in range(3)])
    await sql.execute("DELETE FROM events WHERE global_seq = 2")
    open_writer = sql.transaction()
    await open_writer.start()
    await sql.fetchval(INSERT, "late", 0)
    async with connected(dsn) as connection, connected(dsn) as looking:
        finding = asyncio.create_task(find_end(connection, Layout(), FeedSettings(end_patience=DEADLINE)))
        while not await looking.fetchval(_ASKED_FOR_WRITERS):
            await asyncio.sleep(0)
        await open_writer.commit()
        end = await finding
    assert end.position == 3, "what is dead below is not looked at again"
    assert [number in end.seen for number in (1, 3, 4)] == [True, True, False]


async def test_the_look_back_for_the_end_is_bounded(sql18: asyncpg.Connection, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T") for _ in range(200)])
    await sql18.execute("DELETE FROM events WHERE global_seq IN (130, 170, 171, 180)")
    end = await find_end(sql18, Layout(standby=True), FeedSettings(look_back=50))
    assert end.position == 169
    assert [number for number in range(170, 210) if number not in end.seen] == [170, 171, 180, *range(201, 210)]
    assert [number for number in range(170, 210) if number in end.seen.below(175)] == [172, 173, 174]


async def test_a_plain_insert_wakes_the_feed(store: EventStore, sql: asyncpg.Connection) -> None:
    feed = await store.feed()
    following = feed.follow()
    waiting = asyncio.ensure_future(anext(following))
    while not feed.listening:
        await asyncio.sleep(0)
    await sql.fetchval(INSERT, "s", 0)
    async with asyncio.timeout(DEADLINE):
        assert [event.stream_id for event in (await waiting).events] == ["s"]
    await following.aclose()


async def test_filters_are_evaluated_by_postgresql(store: EventStore) -> None:
    await store.append("account-1", [NewEvent("Opened", {"n": 0, "flag": True}, {"user": "ann"})])
    await store.append("order-1", [NewEvent("Created", {"n": 1, "amount": 60, "flag": False})])
    await store.append("account-2", [NewEvent("Deposited", {"n": 2, "amount": 100, "flag": None})])
    await store.append("order-22", [NewEvent("Created", {"n": 3, "items": [{"qty": 2}]}, {"user": "ann"})])
    for where, expected in (
        (Filter(stream="account-*"), [0, 2]),
        (Filter(event_type="[CD]*ed"), [1, 2, 3]),
        (Filter(stream="order-?", event_type="Created"), [1]),
        (Filter(where="$.amount > 50"), [1, 2]),
        (Filter(where="$.items[*] ? (@.qty == 2)"), [3]),
        (Filter(where="$.flag"), [0]),
        (Filter(where='$metadata.user == "ann"'), [0, 3]),
        (Filter(), [0, 1, 2, 3]),
    ):
        feed = await store.feed(where=where)
        events = [event async for batch in feed.to_safe_position() for event in batch.events]
        assert [event.data["n"] for event in events] == expected, where
        assert feed.position == 4, where


async def test_a_filter_that_makes_no_sense_is_refused(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T")])
    for where in (Filter(stream="[a"), Filter(where="$.a >"), Filter(where="not a path")):
        with pytest.raises(InvalidQuery) as refused:
            feed = await store18.feed(where=where)
            async for _ in feed.to_safe_position():
                pass
        assert "\n" not in str(refused.value), where


async def test_a_killed_listener_and_killed_connections_lose_nothing(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    seen: list[int] = []

    async def follow() -> None:
        async for event in store18.subscribe():
            seen.append(event.data["n"])

    following = asyncio.create_task(follow())
    async with EventStore.connect(dsn18, application_name="writer") as writer:
        for n in range(60):
            await writer.append("s", [NewEvent("T", {"n": n})])
            if n % 20 == 10:
                async with asyncio.timeout(DEADLINE):
                    while not seen:  # what is lost before it has begun is told, not mended
                        await asyncio.sleep(0.01)
                await sql18.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name LIKE 'esx%'"
                )
    async with asyncio.timeout(DEADLINE):
        while len(seen) < 60 and not following.done():
            await asyncio.sleep(0.01)
    if following.done():
        await following
    following.cancel()
    assert seen == list(range(60))


@pytest.mark.parametrize("uses", [1, 2])
async def test_a_connection_lost_while_given_back_loses_no_batch(dsn18: str, store18: EventStore, uses: int) -> None:
    """The position has moved by then: what was read must still be delivered."""
    await store18.append("s", [NewEvent("T")])
    used = 0

    @contextlib.asynccontextmanager
    async def lend() -> AsyncIterator[asyncpg.Connection]:
        nonlocal used
        async with feeds.pool.lend() as connection:
            used += 1
            yield connection
        if used == uses:
            raise StoreUnavailable("lost while being given back")

    async with feeds_of(dsn18) as feeds:
        feed = feeds.feed(lend=lend)
        assert [event.stream_id for event in await take(feed, 1)] == ["s"]
        await store18.append("t", [NewEvent("T")])
        assert [event.stream_id for event in await take(feed, 1)] == ["t"]
    assert used >= uses


async def asleep(feed: Feed) -> None:
    """Wait until a feed has seen that there is nothing, and waits to be called."""
    async with asyncio.timeout(DEADLINE):
        while not feed.idle:
            await asyncio.sleep(0)


async def test_without_the_trigger_the_feed_polls_and_says_so(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("DROP TRIGGER events_doorbell ON events")
    async with await open_store(Connector(dsn, "test", timings=Timings(heartbeat=0.05))) as store:
        feed = await store.feed()
        assert not await feed.listen()
        assert feed.problem is not None
        assert "esx init" in feed.problem
        following = asyncio.create_task(take(feed, 1))
        await asleep(feed)
        await store.append("s", [NewEvent("T")])
        assert len(await following) == 1
        await store.init()
        async with asyncio.timeout(DEADLINE):
            while not feed.listening:
                await asyncio.sleep(0.01)
        assert feed.problem is None


async def test_a_notification_without_the_trigger_is_heard(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute("DROP TRIGGER events_doorbell ON events")
    feed = await store18.feed()
    assert not await feed.listen()
    await sql18.execute("NOTIFY new_events")
    async with asyncio.timeout(DEADLINE):
        while not feed.listening:
            await asyncio.sleep(0.01)


async def test_a_bell_ringer_that_rolls_back_delays_but_loses_nothing(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    feed = await store18.feed()
    assert await feed.listen()
    following = asyncio.create_task(take(feed, 1))
    await asleep(feed)
    ringer = sql18.transaction()
    await ringer.start()
    await sql18.fetchval(INSERT, "never", 0)
    await store18.append("s", [NewEvent("T")])  # finds the doorbell taken
    await ringer.rollback()
    assert [event.stream_id for event in await following] == ["s"]


async def test_once_woken_the_feed_reads_until_no_session_is_writing(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    """The second writer finds the doorbell taken, so nothing tells of it but that it was there."""
    store18.feed_settings = FeedSettings(poll=3600.0)
    feed = await store18.feed()
    assert await feed.listen()
    following = asyncio.create_task(take(feed, 2))
    await asleep(feed)
    second = await asyncpg.connect(dsn18)
    async with second.transaction():
        async with sql18.transaction():
            await sql18.fetchval(INSERT, "rings", 0)
            await second.fetchval(INSERT, "finds it taken", 0)
        async with asyncio.timeout(DEADLINE):
            while feed.position < 1:
                await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asleep(feed)
    assert [event.stream_id for event in await following] == ["rings", "finds it taken"]
    await second.close()


async def test_a_listening_connection_that_falls_silent_is_replaced(dsn18: str, store18: EventStore) -> None:
    timings = Timings(heartbeat=0.05, heartbeat_answer=1.0)
    with tempfile.TemporaryDirectory() as directory:
        async with (
            proxied(dsn18, Path(directory)) as (proxy, address),
            await open_store(Connector(address, "test", timings=timings)) as store,
            asyncio.timeout(DEADLINE),
        ):
            feed = await store.feed()
            seen: list[bool] = []
            feed.on_change = lambda: seen.append(feed.listening)
            following = asyncio.create_task(take(feed, 1))
            while not feed.listening:
                await asyncio.sleep(0.01)
            seen.clear()
            proxy.hush()
            while not (False in seen and feed.listening):
                await asyncio.sleep(0.01)
            await store18.append("s", [NewEvent("T")])
            assert len(await following) == 1


async def test_a_batch_rings_once(store18: EventStore, sql18: asyncpg.Connection) -> None:
    rung: list[object] = []
    await sql18.add_listener("new_events", lambda *call: rung.append(call[-1]))
    await store18.append("s", [NewEvent("T") for _ in range(500)])
    await store18.append("s", [NewEvent("T")])
    async with asyncio.timeout(DEADLINE):
        while '{"global_seq": 501}' not in rung:
            await sql18.execute("SELECT 1")
    assert len(rung) == 2


async def test_notification_can_be_chosen_for_comparison(dsn: str, sql: asyncpg.Connection) -> None:
    rung: list[object] = []
    await sql.add_listener("new_events", lambda *call: rung.append(call[-1]))
    for notification, rings in ((Notification.DOORBELL, 2), (Notification.EVERY, 5), (Notification.OFF, 0)):
        rung.clear()
        async with EventStore.connect(dsn, notification=notification) as store:
            await store.append("s", [NewEvent("T") for _ in range(4)])
            await store.append("s", [NewEvent("T")])
        await sql.execute("SELECT pg_notify('new_events', 'end')")
        async with asyncio.timeout(DEADLINE):
            while "end" not in rung:
                await sql.execute("SELECT 1")
        assert len(rung) == rings + 1, notification


async def test_closing_the_store_ends_its_feeds(dsn18: str) -> None:
    store = await EventStore.connect(dsn18)
    feed = await store.feed()
    following = asyncio.create_task(take(feed, 1))
    while not feed.listening:
        await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreClosed):
        await following


async def test_what_commits_after_its_successors_is_counted_as_late(dsn18: str, store18: EventStore) -> None:
    slow, slower = await asyncpg.connect(dsn18), await asyncpg.connect(dsn18)
    feed = await store18.feed()
    await store18.append("s", [NewEvent("T")])
    first, second = slow.transaction(), slower.transaction()
    await first.start()
    await slow.execute(INSERT, "slow", 0)
    await slow.execute(INSERT, "slow", 1)
    await second.start()
    await slower.execute(INSERT, "slower", 0)
    await store18.append("s", [NewEvent("T"), NewEvent("T")])
    late: dict[int, float] = {}
    delivered: list[int] = []
    async with asyncio.timeout(DEADLINE):
        async for batch in feed.follow():
            delivered += [event.global_seq for event in batch.events]
            late.update(batch.late)
            if batch.gap is not None and batch.gap.first == 2 and batch.gap.last == 4:
                # The later number first: it goes on waiting for the earlier ones.
                await second.commit()
            elif batch.gap is not None and batch.gap.last == 3:
                await asyncio.sleep(0.05)
                await first.rollback()
            if batch.position == 6:
                break
    assert delivered == [1, 4, 5, 6]
    assert (feed.late, feed.dead, feed.looked) == (1, 2, 4)
    assert set(late) == {4}
    assert 0 < late[4] < 0.05 + DEADLINE
    await slow.close()
    await slower.close()


def test_late_numbers_are_told_apart_from_dead_ones() -> None:
    def rows(*numbers: int) -> Any:
        return [(number,) for number in numbers]

    draw = random.Random(4)
    for _ in range(300):
        missing = Missing()
        hidden = {number for number in range(1, 40) if draw.random() < 0.5}
        expected: set[int] = set()
        horizon = 0
        while hidden or horizon < 40:
            horizon = min(horizon + draw.randint(1, 15), 40)
            missing.see(0, rows(*(number for number in range(1, horizon + 1) if number not in hidden)))
            coming = {number for number in hidden if draw.random() < 0.5}
            last_visible = max((number for number in range(1, horizon + 1) if number not in hidden), default=0)
            expected |= {number for number in coming if number < last_visible}
            hidden -= coming
        missing.see(0, rows(*range(1, 41)))
        assert set(missing.passed(40)) == expected
        assert not missing


async def test_pages_of_large_events_are_short(store18: EventStore) -> None:
    store18.feed_settings = FeedSettings(page_characters=50_000)
    await store18.append("small", [NewEvent("T") for _ in range(2000)])
    await store18.append("large", [NewEvent("T", {"text": "x" * 10_000}) for _ in range(1000)])
    await store18.append("small", [NewEvent("T") for _ in range(2000)])
    await store18.append("mixed", [NewEvent("T", {"text": "x" * 10_000 * (n % 10 == 0)}) for n in range(1500)])
    await store18.append("small", [NewEvent("T") for _ in range(2000)])
    feed = await store18.feed()
    batches = [batch async for batch in feed.to_safe_position()]
    assert [event.global_seq for batch in batches for event in batch.events] == list(range(1, 8501))
    lengths = [len(batch.events) for batch in batches]
    assert max(lengths) == 1000
    large = [len(batch.events) for batch in batches if batch.events[0].stream_id == "large"]
    # The first may come as a surprise.
    assert max(large[1:]) <= 10
    mixed = [len(batch.events) for batch in batches if batch.events[0].stream_id == "mixed"]
    assert max(mixed[1:]) <= 100
    assert max(lengths[-3:]) > 100


async def test_a_reader_that_stops_leaves_nothing_behind_of_what_it_read_ahead(dsn18: str) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with EventStore.connect(dsn18) as store:
        await store.append("s", [NewEvent("T") for _ in range(900)])
        for stop in (2, 3, 4, 5):
            feed = await store.feed(page=40)
            seen: list[int] = []
            async for batch in feed.to_safe_position():
                seen += [event.global_seq for event in batch.events]
                if len(seen) > stop * 100:
                    break
        feed = await store.feed(page=40)
        async for _ in feed.to_safe_position():
            pass
        assert feed.position == 900
    gc.collect()
    await asyncio.sleep(0)
    assert failures == []


async def test_a_reader_that_is_cancelled_at_any_moment_loses_nothing(dsn18: str) -> None:
    async with EventStore.connect(dsn18) as store:
        await store.append("s", [NewEvent("T") for _ in range(600)])
        feed = await store.feed(page=20)
        seen: list[int] = []
        # Long enough for the whole of a step, and for none of it.
        for patience in (turns for _ in range(100) for turns in (*range(12), 400)):
            reading = asyncio.create_task(anext(feed.to_safe_position()))
            for _ in range(patience):
                if reading.done():
                    break
                await asyncio.sleep(0)
            reading.cancel()
            [read] = await asyncio.gather(reading, return_exceptions=True)
            if not isinstance(read, BaseException):
                seen += [event.global_seq for event in read.events]
            elif not isinstance(read, asyncio.CancelledError):
                break
        assert seen == list(range(1, len(seen) + 1))
        assert feed.position == len(seen)
        assert len(seen) > 100
