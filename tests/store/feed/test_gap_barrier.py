"""The gap barrier, statement by statement: what happens between two of them must cost no event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest_asyncio

from esx import EventStore, NewEvent
from esx.layouts.layout import Layout
from esx.store.feed.gap_barrier import Barrier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, $2, 'T', '{}')"


class Hooked:
    """A connection that lets something happen before or after each of its statements, e.g. ``after read``."""

    standby = False

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.server_started = connection.get_server_pid()
        self.hooks: dict[str, Callable[[], Awaitable[object]]] = {}

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        kind = "list" if "pg_locks" in sql else "read"
        await self._happen(f"before {kind}")
        rows = await self._connection.fetch(sql, *arguments)
        await self._happen(f"after {kind}")
        return rows

    def __getattr__(self, name: str) -> Any:
        """Let everything else through: what a barrier asks of a server that is new to it."""
        return getattr(self._connection, name)

    async def fetchrow(self, sql: str, *arguments: Any) -> asyncpg.Record | None:
        if "count(*)" in sql:
            await self._happen("before count")
        return await self._connection.fetchrow(sql, *arguments)

    async def _happen(self, moment: str) -> None:
        """Do once what is to be done at a moment."""
        hook = self.hooks.pop(moment, None)
        if hook is not None:
            await hook()


class Writer:
    """Somebody who keeps a transaction open."""

    def __init__(self, connection: asyncpg.Connection, stream: str) -> None:
        self._connection = connection
        self._stream = stream
        self._transaction = connection.transaction()
        self._seq = 0

    async def begin(self) -> None:
        """Insert an event, and stay open."""
        self._transaction = self._connection.transaction()
        await self._transaction.start()
        await self._connection.execute(_INSERT, self._stream, self._seq)
        self._seq += 1

    async def commit(self) -> None:
        await self._transaction.commit()

    async def roll_back(self) -> None:
        await self._transaction.rollback()


@pytest_asyncio.fixture
async def hooked(dsn: str) -> AsyncIterator[Hooked]:
    connection = await asyncpg.connect(dsn)
    yield Hooked(connection)
    await connection.close()


@pytest_asyncio.fixture
async def writers(dsn: str) -> AsyncIterator[tuple[Writer, Writer]]:
    connections = [await asyncpg.connect(dsn) for _ in range(2)]
    yield Writer(connections[0], "slow"), Writer(connections[1], "slower")
    for connection in connections:
        await connection.close()


async def numbers(barrier: Barrier, hooked: Hooked, steps: int) -> list[int]:
    """Return the numbers handed out in so many steps."""
    connection: Any = hooked
    return [event.global_seq for _ in range(steps) for event in (await barrier.step(connection, 100)).events]


async def quick(store: EventStore) -> None:
    await store.append("quick", [NewEvent("T")])


async def test_what_commits_between_the_read_and_the_list_is_read_again(
    hooked: Hooked, writers: tuple[Writer, Writer], store: EventStore
) -> None:
    """The writer is not in the list any more, and what it wrote is not in what was read."""
    await writers[0].begin()
    await quick(store)
    hooked.hooks["after read"] = writers[0].commit
    assert await numbers(Barrier(Layout()), hooked, 4) == [1, 2]


async def test_who_begins_between_two_statements_is_seen(
    hooked: Hooked, writers: tuple[Writer, Writer], store: EventStore
) -> None:
    """A list made before the read does not have the writer of the gap that the read shows."""

    async def late() -> None:
        await writers[0].begin()
        await quick(store)

    hooked.hooks["before read"] = late
    barrier = Barrier(Layout())
    assert await numbers(barrier, hooked, 2) == []
    await writers[0].commit()
    assert await numbers(barrier, hooked, 2) == [1, 2]


async def test_a_gap_that_opens_while_another_is_waited_for_has_a_wait_of_its_own(
    hooked: Hooked, writers: tuple[Writer, Writer], store: EventStore
) -> None:
    """That those of the first list are gone says nothing about numbers drawn since."""
    barrier = Barrier(Layout())
    await writers[0].begin()
    await quick(store)
    assert await numbers(barrier, hooked, 1) == []
    await writers[1].begin()
    await quick(store)
    assert await numbers(barrier, hooked, 1) == []
    await writers[0].roll_back()
    assert await numbers(barrier, hooked, 3) == [2]
    await writers[1].commit()
    assert await numbers(barrier, hooked, 3) == [3, 4]


async def test_what_was_found_out_about_a_gap_does_not_count_for_another_server(
    hooked: Hooked, writers: tuple[Writer, Writer], store: EventStore, dsn: str
) -> None:
    """A fence that was passed above the position says nothing of the numbers that a server behind will hand out."""
    connection = await asyncpg.connect(dsn)
    step: Any = hooked
    barrier = Barrier(Layout())
    await writers[0].begin()  # 1
    for _ in range(3):
        await quick(store)  # 2, 3, 4
    await connection.execute("DELETE FROM events WHERE global_seq IN (2, 3)")
    # A page of one event, 4, ends at the fence; by the time of the second read 1 is there, and is the page.
    hooked.hooks["after read"] = writers[0].commit
    assert [event.global_seq for event in (await barrier.step(step, 1)).events] == [1]
    # The server that took its place had not heard of 4, nor of who drew the numbers before: it hands them out anew.
    await connection.execute("DELETE FROM events WHERE global_seq = 4; SELECT setval('events_global_seq_seq', 1)")
    hooked.server_started += 1
    await writers[0].begin()  # 2
    await quick(store)  # 3
    assert await numbers(barrier, hooked, 3) == []
    await writers[0].commit()
    assert await numbers(barrier, hooked, 3) == [2, 3]
    await connection.close()
