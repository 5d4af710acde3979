"""What a session may do, and for how long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from esx.store import EventStore, NewEvent, WrongVersion, connection
from esx.store.errors import QueryTimeout, StoreFailed

if TYPE_CHECKING:
    import asyncpg


async def test_a_read_only_session_cannot_write(dsn18: str, store18: EventStore) -> None:
    async with EventStore.connect(dsn18, read_only=True) as store:
        with pytest.raises(StoreFailed, match="read-only"):
            await store.append("s-1", [NewEvent("T")])
    assert await store18.version("s-1") == -1


async def test_a_query_that_takes_too_long_ends_and_the_connection_stays(dsn18: str, store18: EventStore) -> None:
    await store18.append("s-1", [NewEvent("T")])
    async with EventStore.connect(dsn18, statement_timeout=0.2, max_connections=1) as store:
        async with store._writing() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
        with pytest.raises(QueryTimeout, match="statement_timeout"):
            async with store._writing() as connection:
                await connection.execute("SELECT pg_sleep(60)")
        assert await store.version("s-1") == 0
        async with store._writing() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") == pid


async def test_an_export_has_all_the_time_that_its_reader_takes(dsn18: str, store18: EventStore) -> None:
    await store18.append("s-1", [NewEvent("T", {"text": "x" * 2000}) for _ in range(5000)])
    async with EventStore.connect(dsn18, statement_timeout=0.3) as store:
        export = await store.export()
        pieces = aiter(export)
        await anext(pieces)
        async with store18._writing() as connection:
            await connection.execute("SELECT pg_sleep(0.6)")
        async for _ in pieces:
            pass
        assert export.events == 5000


def test_this_asyncpg_is_called_below_its_upper_layers() -> None:
    assert connection._DIRECT, "asyncpg's bind_execute has changed: appends cost an eighth more until esx follows it"


@pytest.mark.parametrize("direct", [True, False])
async def test_what_is_kept_prepared_outlives_a_change_of_the_table(
    dsn18: str, store18: EventStore, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    monkeypatch.setattr(connection, "_DIRECT", direct)
    async with EventStore.connect(dsn18, max_connections=1) as store:
        await store.append("s-1", [NewEvent("T")])
        assert await store.version("s-1") == 0
        # The version is of another type from now on, which a statement that is prepared already must not return.
        async with store18._writing() as other:
            await other.execute("ALTER TABLE events ALTER stream_seq TYPE integer")
        assert await store.version("s-1") == 0
        done = await store.append("s-1", [NewEvent("T")], expected=0)
        assert done.version == 1
        with pytest.raises(WrongVersion, match="its version is 1"):
            await store.append("s-1", [NewEvent("T")], expected=0)
    assert await store18.version("s-1") == 1


@pytest.mark.parametrize("direct", [True, False])
async def test_a_connection_that_is_terminated_between_two_questions_is_a_lost_one(
    dsn18: str, store18: EventStore, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    monkeypatch.setattr(connection, "_DIRECT", direct)
    async with EventStore.connect(dsn18, max_connections=1) as store:
        await store.append("s-1", [NewEvent("T")])
        repeat = connection.Session.repeat
        terminated: list[connection.Session] = []

        async def repeating(self: connection.Session, query: str, *arguments: object) -> asyncpg.Record | None:
            row = await repeat(self, query, *arguments)
            if not terminated:
                terminated.append(self)
                self.terminate()
            return row

        with pytest.raises(WrongVersion):
            await store.append("s-1", [NewEvent("T")], expected=7)
        monkeypatch.setattr(connection.Session, "repeat", repeating)
        with pytest.raises(WrongVersion, match="its version is 0"):
            await store.append("s-1", [NewEvent("T")], expected=7)
        assert terminated
        async with asyncio.timeout(10):
            assert await store.version("s-1") == 0
