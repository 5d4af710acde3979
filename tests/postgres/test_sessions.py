"""What a session may do, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx.errors import QueryTimeout, StoreFailed, StoreUnavailable, WrongVersion
from esx.eventstore import EventStore
from esx.filters import Filter
from esx.model import NewEvent, StreamAppend
from esx.positions import Position
from esx.postgres import session
from tests.support.asyncpg_changed import change_asyncpg
from tests.support.stores import store_and_pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


async def test_a_read_only_session_cannot_write(dsn18: str, store18: EventStore) -> None:
    async with EventStore.connect(dsn18, read_only=True) as store:
        with pytest.raises(StoreFailed, match="read-only"):
            await store.append("s-1", [NewEvent("T")])
    assert await store18.version("s-1") == -1


async def test_a_query_that_takes_too_long_ends_and_the_connection_stays(dsn18: str, store18: EventStore) -> None:
    await store18.append("s-1", [NewEvent("T")])
    async with store_and_pool(dsn18, statement_timeout=0.2, max_connections=1) as (store, pool):
        async with pool.lend(guarded=False) as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
        with pytest.raises(QueryTimeout, match="statement_timeout"):
            async with pool.lend(guarded=False) as connection:
                await connection.execute("SELECT pg_sleep(600)")
        assert await store.version("s-1") == 0
        async with pool.lend(guarded=False) as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") == pid


@pytest.mark.slow
async def test_an_export_has_all_the_time_that_its_reader_takes(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await store18.append("s-1", [NewEvent("T", {"text": "x" * 2000}) for _ in range(5000)])
    async with EventStore.connect(dsn18, statement_timeout=0.3) as store:
        export = await store.export()
        pieces = aiter(export)
        await anext(pieces)
        await sql18.execute("SELECT pg_sleep(0.6)")
        async for _ in pieces:
            pass
        assert export.events == 5000


@pytest.mark.parametrize("changed", [False, True])
async def test_what_is_kept_prepared_outlives_a_change_of_the_table(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    if changed:
        change_asyncpg(monkeypatch, AttributeError)
    async with EventStore.connect(dsn18, max_connections=1) as store:
        await store.append("s-1", [NewEvent("T")])
        assert await store.version("s-1") == 0
        # The version is of another type from now on, which a statement that is prepared already must not return.
        await sql18.execute("ALTER TABLE events ALTER stream_seq TYPE integer")
        assert await store.version("s-1") == 0
        done = await store.append("s-1", [NewEvent("T")], expected=0)
        assert done.version == 1
        with pytest.raises(WrongVersion, match="its version is 1"):
            await store.append("s-1", [NewEvent("T")], expected=0)
    assert await store18.version("s-1") == 1


async def _search(store: EventStore) -> object:
    plan = await store.plan_search(Filter(event_type="T"))
    return [event.stream_seq for event in (await store.search_slice(plan)).events]


async def _lock(store: EventStore) -> None:
    async with store.lock_stream("other") as stream:
        await stream.append([NewEvent("T")])


_ALTER = "ALTER TABLE events ALTER global_seq TYPE integer, ALTER stream_seq TYPE integer"
_CALLS: dict[str, Callable[[EventStore], Awaitable[object]]] = {
    "doctor": lambda store: store.doctor(),
    "search": _search,
    "place of a time": lambda store: store.locate(Position(moment=datetime(2026, 1, 1, tzinfo=UTC)), stream="s-1"),
    "append": lambda store: store.append("one", [NewEvent("T")]),
    "append alone": lambda store: store.append("one", [NewEvent("T")], grouped=False),
    "several streams": lambda store: store.append_to_streams([StreamAppend("other", [NewEvent("T")])]),
    "many streams": lambda store: store.streams_page(),
    "consumers": lambda store: store.consumers(),
    "trail": lambda store: store.trail(1),
    "types": lambda store: store.types(),
    "health": lambda store: store.health(),
}
"""Calls that run their queries in transactions of their own, and some others."""


@pytest.mark.parametrize("call", _CALLS)
async def test_an_open_store_outlives_a_change_of_the_table(dsn18: str, sql18: asyncpg.Connection, call: str) -> None:
    async with EventStore.connect(dsn18, max_connections=1) as store:
        await store.append("s-1", [NewEvent("T", {"a": 1})])
        await _CALLS[call](store)
        await _CALLS[call](store)
        await sql18.execute(_ALTER)
        await _CALLS[call](store)


async def test_a_lock_on_a_stream_works_again_after_a_change_of_the_table(
    dsn18: str, sql18: asyncpg.Connection
) -> None:
    async with EventStore.connect(dsn18, max_connections=1) as store:
        await _lock(store)
        await sql18.execute(_ALTER)
        # What the caller does under the lock cannot be done again by the store.
        with contextlib.suppress(StoreFailed):
            await _lock(store)
        await _lock(store)


@pytest.mark.parametrize("changed", [False, True])
async def test_a_connection_that_is_terminated_between_two_questions_is_a_lost_one(
    dsn18: str, store18: EventStore, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    if changed:
        change_asyncpg(monkeypatch, AttributeError)
    async with EventStore.connect(dsn18, max_connections=1) as store:
        await store.append("s-1", [NewEvent("T")])
        repeat = session.Session.repeat
        terminated: list[session.Session] = []

        async def repeating(self: session.Session, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
            rows = await repeat(self, query, *arguments)
            if not terminated:
                terminated.append(self)
                self.terminate()
            return rows

        with pytest.raises(WrongVersion):
            await store.append("s-1", [NewEvent("T")], expected=7)
        monkeypatch.setattr(session.Session, "repeat", repeating)
        with pytest.raises(WrongVersion, match="its version is 0"):
            await store.append("s-1", [NewEvent("T")], expected=7)
        assert terminated
        async with asyncio.timeout(120):
            assert await store.version("s-1") == 0


@pytest.mark.parametrize("call", ["fetch", "fetchrow", "fetchval", "execute", "executemany"])
async def test_a_connection_that_is_terminated_within_a_call_is_a_lost_one(
    dsn18: str, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async with store_and_pool(dsn18, max_connections=1) as (store, pool):
        get = asyncpg.Connection._get_statement  # type: ignore[attr-defined]

        async def then_terminated(self: session.Session, *what: object, **how: object) -> object:
            statement = await get(self, *what, **how)
            self.terminate()
            return statement

        with pytest.raises(StoreUnavailable):
            async with pool.lend(guarded=False) as connection:
                monkeypatch.setattr(asyncpg.Connection, "_get_statement", then_terminated)
                arguments = [(1,)] if call == "executemany" else 1
                await getattr(connection, call)("SELECT $1::int", arguments)
        monkeypatch.undo()
        assert await store.version("s-1") == -1
