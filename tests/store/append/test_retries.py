"""Appending through a lost connection, to several streams at once, and deciding again after a conflict."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendResult,
    Event,
    EventIdsReused,
    EventStore,
    InvalidEvent,
    NewEvent,
    OutcomeUnknown,
    StoreFailed,
    StreamAppend,
    WrongVersion,
)
from esx.errors import StoreClosed, StoreUnavailable
from esx.expected import ExpectedVersion
from esx.store.append.retries import backoff
from tests.store.append.test_append import LONG
from tests.support.proxy import Moment, Proxy, proxied
from tests.support.stores import store_and_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

MOMENTS: list[Moment] = ["before the request", "in flight", "before the reply"]


@pytest.fixture
async def front(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    with tempfile.TemporaryDirectory() as directory:
        async with proxied(dsn, Path(directory)) as front:
            yield front


@pytest.fixture
async def front18(dsn18: str) -> AsyncIterator[tuple[Proxy, str]]:
    with tempfile.TemporaryDirectory() as directory:
        async with proxied(dsn18, Path(directory)) as front:
            yield front


@contextlib.asynccontextmanager
async def warm(front: tuple[Proxy, str], case: str) -> AsyncIterator[tuple[Proxy, EventStore]]:
    """Yield the proxy, and a store behind it that has made the streams "warm" and "other" of the case."""
    proxy, address = front
    async with EventStore.connect(address) as store:
        # So that the statements are prepared, and the message to be lost is the one that executes.
        await store.append(f"warm {case}", [NewEvent("T")], expected=NO_STREAM)
        await store.append(f"other {case}", [NewEvent("T"), NewEvent("T")], expected=NO_STREAM)
        proxy.losses = 0
        yield proxy, store


async def test_a_lost_connection_neither_loses_nor_doubles_an_append(front: tuple[Proxy, str]) -> None:
    expectations: list[ExpectedVersion] = [NO_STREAM, 0]
    for moment, expected, count in product(MOMENTS, expectations, (1, 3)):
        case = f"{moment} {expected} {count}"
        async with warm(front, case) as (proxy, store):
            stream = f"{'new' if expected is NO_STREAM else 'warm'} {case}"
            proxy.cut = moment
            done = await store.append(stream, [NewEvent("T", {"n": n}) for n in range(count)], expected=expected)
            assert proxy.losses == 1, case
            before = -1 if expected is NO_STREAM else 0
            assert done.version == before + count, case
            events = [event async for event in store.read(stream, start=before + 1)]
            assert [event.data["n"] for event in events] == list(range(count)), case
            assert events[-1].global_seq == done.global_seq, case


async def test_any_is_not_repeated_blindly(front18: tuple[Proxy, str]) -> None:
    for moment in MOMENTS:
        async with warm(front18, moment) as (proxy, store):
            proxy.cut = moment
            with pytest.raises(OutcomeUnknown, match="not known"):
                await store.append(f"new {moment}", [NewEvent("T")], expected=ANY)
            assert proxy.losses == 1, moment


async def test_any_survives_where_event_ids_are_unique(front: tuple[Proxy, str], sql: asyncpg.Connection) -> None:
    await sql.execute("CREATE UNIQUE INDEX ids ON events (event_id)")
    proxy, address = front
    for losses, moment in enumerate(MOMENTS, 1):
        async with EventStore.connect(address) as store:
            await store.version(moment)
            proxy.cut = moment
            done = await store.append(moment, [NewEvent("A"), NewEvent("B")], expected=ANY)
            assert (proxy.losses, done.version) == (losses, 1), moment
            assert await store.count_events(moment) == 2, moment


async def test_a_conflict_after_a_lost_connection_is_still_a_conflict(front18: tuple[Proxy, str]) -> None:
    for moment in MOMENTS:
        async with warm(front18, moment) as (proxy, store):
            proxy.cut = moment
            with pytest.raises(WrongVersion) as caught:
                await store.append(f"warm {moment}", [NewEvent("T")], expected=NO_STREAM)
            assert (proxy.losses, caught.value.actual) == (1, 0), moment


async def test_what_is_lost_before_the_first_append_began_is_tried_again(dsn18: str) -> None:
    for moment in MOMENTS:
        with tempfile.TemporaryDirectory() as directory:
            async with proxied(dsn18, Path(directory)) as (proxy, address), EventStore.connect(address) as store:
                proxy.cut = moment
                assert (await store.append(moment, [NewEvent("T")], expected=ANY)).version == 0
                assert proxy.losses == 1
            async with proxied(dsn18, Path(directory)) as (proxy, address), EventStore.connect(address) as store:
                proxy.cut = moment
                [done] = await store.append_to_streams([StreamAppend(moment, [NewEvent("T")], ANY)])
                assert (proxy.losses, done.version) == (1, 1)


async def test_without_event_ids_nothing_is_repeated_blindly(dsn18: str, sql18: asyncpg.Connection) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with proxied(dsn18, Path(directory)) as (proxy, address), store_and_pool(address) as (store, pool):
            await sql18.execute("ALTER TABLE events DROP COLUMN event_id")
            part = StreamAppend("s", [NewEvent("T")], NO_STREAM)
            appends: tuple[Callable[[], Awaitable[object]], ...] = (
                lambda: store.append(part.stream_id, part.events, expected=part.expected),
                lambda: store.append_to_streams([part]),
            )
            for append in appends:
                assert await store.version("s") == -1
                async with pool.lend(), pool.lend(guarded=False):
                    pass  # so that there is a connection to be lost, of either kind
                proxy.cut = "before the reply"
                with pytest.raises(OutcomeUnknown):
                    await append()
            assert proxy.losses == 2


async def test_a_closed_store_is_not_waited_for(dsn18: str) -> None:
    store = await EventStore.connect(dsn18, retry_for=3600)
    await store.version("s")
    await store.close()
    async with asyncio.timeout(120):
        with pytest.raises(StoreClosed):
            await store.append("s", [NewEvent("T")], expected=NO_STREAM)


async def test_patience_ends(dsn18: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with (
            proxied(dsn18, Path(directory)) as (proxy, address),
            EventStore.connect(address, retry_for=0) as store,
        ):
            await store.append("warm", [NewEvent("T")], expected=NO_STREAM)
            proxy.cut = "before the reply"
            with pytest.raises(OutcomeUnknown) as lost:
                await store.append("s", [NewEvent("T")], expected=NO_STREAM)
            assert isinstance(lost.value, StoreUnavailable)
            assert await store.version("s") == 0


async def test_a_commit_that_is_lost_is_repeated_only_if_that_is_recognised(front18: tuple[Proxy, str]) -> None:
    expectations: list[ExpectedVersion] = [NO_STREAM, 0, ANY]
    for moment, expected in product(MOMENTS, expectations):
        case = f"{moment} {expected}"
        async with warm(front18, case) as (proxy, store):
            a, stream = f"a {case}", f"{'new' if expected is NO_STREAM else 'warm'} {case}"
            parts = [StreamAppend(a, [NewEvent("T")], NO_STREAM), StreamAppend(stream, [NewEvent("T")], expected)]
            proxy.cut, proxy.about = moment, b"COMMIT"
            if expected is ANY:
                with pytest.raises(OutcomeUnknown):
                    await store.append_to_streams(parts)
                stored = moment == "before the reply"
                if moment != "in flight":  # it may still be about to be done
                    assert (await store.count_events(a), await store.count_events(stream)) == (stored, 1 + stored), case
            else:
                before = -1 if expected is NO_STREAM else 0
                assert [done.version for done in await store.append_to_streams(parts)] == [0, before + 1], case
                assert (await store.count_events(a), await store.count_events(stream)) == (1, before + 2), case
            assert proxy.losses == 1, case
            proxy.about = b""


async def test_several_streams_at_once_or_none(store: EventStore) -> None:
    await store.append("from", [NewEvent("Opened")], expected=NO_STREAM)
    transfer = [
        StreamAppend("to", [NewEvent("Opened"), NewEvent("Received")], NO_STREAM),
        StreamAppend("from", [NewEvent("Sent")], 0),
    ]
    to, sender = await store.append_to_streams(transfer)
    assert (to, sender) == (AppendResult("to", 1, 3), AppendResult("from", 1, 4))
    assert await store.append_to_streams(transfer) == [to, sender]  # the same event ids: a repetition
    with pytest.raises(WrongVersion) as conflict:
        await store.append_to_streams(
            [StreamAppend("third", [NewEvent("Opened")], NO_STREAM), StreamAppend("from", [NewEvent("Sent")], 0)]
        )
    assert (conflict.value.stream_id, conflict.value.actual) == ("from", 1)
    assert await store.version("third") == -1


async def test_of_several_streams_what_cannot_be_stored_is_named_by_its_place(store18: EventStore) -> None:
    good = NewEvent("T")
    for stream, events, named in (
        ("s", [good, NewEvent("T", {"a": "\0"})], "event 1 .* stream s: data: .*u0000"),
        ("s", [good, NewEvent("a\ud800")], "event 1 .* stream s: type: .*surrogate"),
        ("s", [good, NewEvent("")], "event 1 .* stream s: the event type is empty"),
        ("a\0b", [good], "event 0 .* stream a.b: stream id: "),
        ("s", [good, NewEvent("T", metadata={"correlation_id": LONG})], "event 1 .* stream s: index row"),
    ):
        with pytest.raises(InvalidEvent, match=named):
            await store18.append_to_streams([StreamAppend("good", [good]), StreamAppend(stream, events)])
    assert await store18.head() == 0


async def test_of_several_streams_a_reused_id_is_no_lost_race(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute(
        "CREATE UNIQUE INDEX ids ON events (event_id); CREATE UNIQUE INDEX orders ON events ((data ->> 'order'))"
    )
    there, fresh = NewEvent("T", {"order": 1}), NewEvent("T")
    await store18.append("other", [there])
    for events, kind, named in (
        ([NewEvent("T"), NewEvent("T", event_id=there.event_id)], EventIdsReused, "stream b"),
        ([NewEvent("T"), fresh], InvalidEvent, "event 1 .* stream b: it has the id of another"),
        ([NewEvent("T", {"order": 1})], StoreFailed, '"orders"'),
    ):
        with pytest.raises(kind, match=named):
            await store18.append_to_streams([StreamAppend("a", [fresh]), StreamAppend("b", events)])
    assert await store18.head() < 10, "it is not tried again and again"
    assert await store18.version("a") == -1


async def test_several_streams_wait_for_the_writer_that_has_locked_one(store18: EventStore, dsn18: str) -> None:
    looking = await asyncpg.connect(dsn18)
    async with asyncio.timeout(120):
        async with store18.lock_stream("b") as held:
            await held.append([NewEvent("First")])
            parts = [StreamAppend(stream, [NewEvent("T")]) for stream in "ab"]
            waiting = asyncio.create_task(store18.append_to_streams(parts))
            while not await looking.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND query LIKE '%esx_lock_stream%'"
            ):
                assert not waiting.done()
                await asyncio.sleep(0.01)
        assert [done.version for done in await waiting] == [0, 1]
    await looking.close()


async def test_of_several_streams_one_that_lost_a_race_is_tried_again_with_the_others(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    """A transaction that has failed can be tried again as a whole only."""
    insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, 1, 'Faster', '{}')"
    expectations: list[ExpectedVersion] = [ANY, STREAM_EXISTS]
    for expected, count in product(expectations, (1, 3)):
        a, b = (f"{name} {expected} {count}" for name in "ab")
        await store18.append(b, [NewEvent("First")])
        transaction = sql18.transaction()
        await transaction.start()
        await sql18.execute(insert, b)
        first, second = ([NewEvent("T", {"n": n}) for n in range(count)] for _ in range(2))
        appending = asyncio.create_task(
            store18.append_to_streams([StreamAppend(a, first), StreamAppend(b, second, expected)])
        )
        async with asyncio.timeout(120):
            while not await sql18.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not appending.done()
                await asyncio.sleep(0.01)
        await transaction.commit()
        assert [done.version for done in await appending] == [count - 1, count + 1], b
        assert [event.event_type async for event in store18.read(b)] == ["First", "Faster"] + ["T"] * count, b
        assert await store18.count_events(a) == count, a


def test_pauses_grow_up_to_a_limit() -> None:
    for attempt, most in enumerate((0.5, 1.0, 2.0, 3.0, 3.0)):
        pauses = [backoff(attempt, 0.5, 3.0) for _ in range(200)]
        assert 0 <= min(pauses) < most * 0.2
        assert most * 0.8 < max(pauses) <= most


@pytest.mark.slow
async def test_crossing_appends_to_two_streams_neither_deadlock_nor_tear(store18: EventStore) -> None:
    async def transfers(name: int) -> int:
        done = 0
        for _ in range(10):
            versions = {stream: await store18.version(stream) for stream in "ab"}
            parts = [
                StreamAppend(stream, [NewEvent("T", {"by": name})], NO_STREAM if version < 0 else version)
                for stream, version in versions.items()
            ]
            try:
                await store18.append_to_streams(parts if name % 2 else parts[::-1])
            except WrongVersion:
                continue
            done += 1
        return done

    async def loner() -> int:
        done = 0
        for _ in range(20):
            await store18.append("a", [NewEvent("T", {"by": None})])
            done += 1
        return done

    together, alone = sum(await asyncio.gather(*(transfers(name) for name in range(12)))), await loner()
    a = [event.data["by"] async for event in store18.read("a")]
    b = [event.data["by"] async for event in store18.read("b")]
    assert len(b) == together
    assert len(a) == together + alone
    assert [by for by in a if by is not None] == b


async def test_deciding_again_after_conflicts_counts_everybody(store18: EventStore) -> None:
    def withdraw(history: list[Event]) -> Sequence[NewEvent]:
        balance = 20 - len(history)
        return [NewEvent("Withdrawn", {"left": balance - 1})] if balance > 0 else []

    results = await asyncio.gather(*(store18.decide("account", withdraw, attempts=100) for _ in range(25)))
    assert sum(result is None for result in results) == 5
    assert [event.data["left"] async for event in store18.read("account")] == list(range(19, -1, -1))


async def test_deciding_gives_up_with_the_conflict(store18: EventStore) -> None:
    asked = 0

    async def always_late(history: list[Event]) -> Sequence[NewEvent]:
        nonlocal asked
        asked += 1
        assert len(history) == asked - 1  # only what is new is read again
        await store18.append("s", [NewEvent("Faster")])
        return [NewEvent("T")]

    with pytest.raises(WrongVersion):
        await store18.decide("s", always_late, attempts=3)
    assert asked == 3
