"""Deciding under a lock: what is raised inside is told as it is, and undoes the appends."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import asyncpg
import pytest

from esx import EventIdsReused, EventStore, InvalidEvent, NewEvent, OutcomeUnknown, StoreFailed, WrongVersion
from tests.store.append.test_append import LONG
from tests.support.proxy import proxied


async def test_what_the_users_code_raises_is_the_users(store18: EventStore) -> None:
    for error in (FileNotFoundError("prices.json"), asyncpg.ConnectionDoesNotExistError("of another database")):
        with pytest.raises(type(error)) as caught:
            async with store18.lock_stream("s") as stream:
                await stream.append([NewEvent("T")])
                raise error
        assert caught.value is error
    with pytest.raises(TimeoutError):
        async with store18.lock_stream("s") as stream:
            await stream.append([NewEvent("T")])
            async with asyncio.timeout(0):
                await asyncio.sleep(1)
    assert await store18.version("s") == -1


async def test_the_users_error_is_told_even_where_the_connection_was_lost(dsn18: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with proxied(dsn18, Path(directory)) as (proxy, address), EventStore.connect(address) as store:
            with pytest.raises(ZeroDivisionError):
                async with store.lock_stream("s") as stream:
                    await stream.append([NewEvent("T")])
                    proxy.cut = "before the request"
                    raise ZeroDivisionError
            assert proxy.losses == 1
            with pytest.raises(OutcomeUnknown):
                async with store.lock_stream("s") as stream:
                    await stream.append([NewEvent("T")])
                    proxy.cut = "before the reply"
            assert await store.version("s") == 0


async def test_a_batch_that_cannot_be_stored_is_named_by_its_place(store18: EventStore) -> None:
    with pytest.raises(InvalidEvent, match=r"data: .*u0000") as caught:
        async with store18.lock_stream("s") as stream:
            await stream.append([NewEvent("T"), NewEvent("T", {"a": "\0"})])
    assert caught.value.index == 1


async def test_an_append_that_failed_is_never_told_as_stored(store18: EventStore) -> None:
    with pytest.raises(StoreFailed, match="nothing was stored"):
        async with store18.lock_stream("s") as stream:
            await stream.append([NewEvent("T")])
            with pytest.raises(InvalidEvent):
                await stream.append([NewEvent("T", {"a": "\0"})])
    assert await store18.version("s") == -1
    async with store18.lock_stream("s") as stream:
        with pytest.raises(InvalidEvent, match="type is empty"):
            await stream.append([NewEvent("")])
        await stream.append([NewEvent("T")])
    assert await store18.version("s") == 0, "what PostgreSQL never saw undoes nothing"


async def test_a_writer_that_takes_no_lock_may_be_faster(store18: EventStore) -> None:
    with pytest.raises(WrongVersion) as conflict:
        async with store18.lock_stream("s") as stream:
            await store18.append("s", [NewEvent("T")])
            await stream.append([NewEvent("T")])
    assert conflict.value.actual == 0


async def test_a_violation_that_is_no_lost_race_is_not_told_as_one(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await sql18.execute(
        "CREATE UNIQUE INDEX ids ON events (event_id); CREATE UNIQUE INDEX orders ON events ((data ->> 'order'))"
    )
    there, fresh = NewEvent("T", {"order": 1}), NewEvent("T")
    await store18.append("other", [there])

    async def append(*batches: list[NewEvent]) -> None:
        async with store18.lock_stream("s") as stream:
            for batch in batches:
                await stream.append(batch)

    with pytest.raises(EventIdsReused):
        await append([NewEvent("T", event_id=there.event_id)])
    with pytest.raises(InvalidEvent, match=r"event 1 .* id of another"):
        await append([fresh, fresh])
    with pytest.raises(InvalidEvent, match=r"event 1 .* id of another"):
        await append([fresh], [NewEvent("T"), fresh])
    with pytest.raises(StoreFailed, match='"orders"'):
        await append([NewEvent("T", {"order": 1})])
    assert await store18.version("s") == -1


async def test_what_is_too_long_for_an_index_is_named_by_its_place(store18: EventStore) -> None:
    long = NewEvent("T", metadata={"correlation_id": LONG})
    for batch in ([long], [NewEvent("T"), long, long]):
        with pytest.raises(InvalidEvent, match="index row") as caught:
            async with store18.lock_stream("s") as stream:
                await stream.append(batch)
        assert caught.value.index == batch.index(long)
