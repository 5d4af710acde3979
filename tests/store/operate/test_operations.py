"""Operating consumers: what each does is told, and what a user asks for happens while it runs."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import (
    ConsumerState,
    Event,
    EventStore,
    HistoryChanged,
    NewEvent,
    NotFound,
    ProjectionFailed,
    SchemaMissing,
    UnknownConsumer,
)
from esx.errors import InvalidQuery
from esx.postgres.pooler import Pooler
from tests.store.consume.test_consumers import SCHEMA_2
from tests.store.consume.test_projection import at, fill, handled, note, running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx import ConsumerReport

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def read18(dsn18: str) -> AsyncIterator[asyncpg.Connection]:
    """A bare connection with a read model."""
    connection = await asyncpg.connect(dsn18)
    await connection.execute("CREATE TABLE handled (global_seq bigint)")
    yield connection
    await connection.close()


async def refuse_bad(connection: asyncpg.Connection, event: Event) -> None:
    if event.event_type == "Bad":
        raise ValueError("bad")
    await note(connection, event)


async def in_state(store: EventStore, state: ConsumerState, name: str = "p") -> ConsumerReport:
    """Wait until a consumer is in a state."""

    async def there() -> bool:
        return (await store.consumer(name)).state is state

    await until(there)
    return await store.consumer(name)


async def test_who_runs_it_is_told_while_it_does(store: EventStore) -> None:
    await fill(store, 3)
    connection = await asyncpg.connect(store._connector._dsn)
    await connection.execute("CREATE TABLE handled (global_seq bigint)")
    async with running(store.project("p", note, stream="s*")) as task:
        await at(store, 3, task)
        report = await store.consumer("p")
        assert (report.kind, report.state, report.lag, report.parked) == ("projection", ConsumerState.ACTIVE, 0, 0)
        assert report.runner is not None
        assert (report.runner.host, report.runner.pid) == (socket.gethostname(), os.getpid())
        assert report.owner is not None
        assert report.runner.backend == report.owner.pid
        assert report.rate > 0
        assert await connection.fetchval("SELECT filter::text FROM consumers") == '{"stream": "s*"}'
    # What it left behind in its row is no longer true.
    report = await in_state(store, ConsumerState.WAITING)
    assert (report.runner, report.waits_for, report.rate) == (None, "no program runs it", 0)
    # Another filter, after events were handled: from there on.
    async with running(store.project("p", note)) as task:
        await in_state(store, ConsumerState.ACTIVE)

        async def changed() -> bool:
            filters = await connection.fetchval("SELECT filter::text FROM consumers")
            return bool(filters == '{"changed_at": 3}')

        await until(changed)
    await connection.close()


async def test_behind_a_pooler_it_says_itself_that_it_is_there(store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 3)
    store18._connector.pooler = Pooler(certain=True)
    async with running(store18.project("p", note)) as task:
        await at(store18, 3, task)
        report = await store18.consumer("p")
        assert (report.owner, report.state) == (None, ConsumerState.ACTIVE)
        assert report.runner is not None
        assert (report.runner.pid, report.runner.backend) == (os.getpid(), None)
        await read18.execute("UPDATE consumers SET seen_at = now() - interval '1 minute'")
        await until(lambda: seen(read18), task)


async def seen(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("SELECT seen_at > now() - interval '30 seconds' FROM consumers"))


async def test_a_running_one_obeys_pause_and_resume(store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 2)
    async with running(store18.project("p", note)) as task:
        await at(store18, 2, task)
        await store18.pause_consumer("p")
        await fill(store18, 3)
        report = await store18.consumer("p")
        assert (report.state, report.lag, report.position) == (ConsumerState.PAUSED, 3, 2)
        assert report.runner is not None
        await store18.resume_consumer("p")
        await at(store18, 5, task)
        assert (await store18.consumer("p")).state is ConsumerState.ACTIVE
    assert await handled(read18) == [1, 2, 3, 4, 5]


async def test_the_event_that_stops_one_is_named_and_can_be_skipped(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    await store18.append("s", [NewEvent("T"), NewEvent("Other"), NewEvent("Bad"), NewEvent("T")])
    with pytest.raises(ProjectionFailed):
        await store18.project("p", refuse_bad, event_type="[TB]*")
    report = await store18.consumer("p")
    assert (report.state, report.position, report.error_seq) == (ConsumerState.FAILED, 1, 3)
    assert report.failed_at is not None
    found = await store18.skippable("p")
    assert (found.global_seq, found.stream_id, found.event_type, found.parked) == (3, "s", "Bad", False)
    with pytest.raises(NotFound):
        await store18.skip_event("p", 4)
    skipped = await store18.skip_event("p", found.global_seq)
    assert (skipped.global_seq, skipped.state, skipped.error) == (3, "skipped", "ValueError: bad")
    report = await store18.consumer("p")
    assert (report.position, report.last_error, report.error_seq, report.skipped) == (3, None, None, 1)
    with pytest.raises(InvalidQuery, match="has not failed"):
        await store18.skip_event("p")
    async with running(store18.project("p", refuse_bad, event_type="[TB]*")) as task:
        await at(store18, 4, task)
    assert await handled(read18) == [1, 4]
    # It knows the history that it goes on with.
    await read18.execute("DELETE FROM events WHERE global_seq = 2")
    assert (await store18.consumer("p")).state is ConsumerState.FAILED


async def test_nothing_is_skipped_in_another_history(store18: EventStore, read18: asyncpg.Connection) -> None:
    await store18.append("s", [NewEvent("T"), NewEvent("Bad")])
    with pytest.raises(ProjectionFailed):
        await store18.project("p", refuse_bad)
    await read18.execute("DELETE FROM events WHERE global_seq = 1")
    with pytest.raises(HistoryChanged):
        await store18.skip_event("p")
    assert (await store18.consumer("p")).position == 1
    assert await store18.put_aside("p") == []


async def test_a_reset_empties_tables_and_forgets_in_one_transaction(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    await store18.append("s", [NewEvent("T"), NewEvent("Bad")])
    with pytest.raises(ProjectionFailed):
        await store18.project("p", refuse_bad)
    await store18.skip_event("p")
    with pytest.raises(InvalidQuery, match="no table nowhere"):
        await store18.reset_consumer("p", truncate=["handled", "nowhere"])
    assert await handled(read18) == [1]
    await store18.reset_consumer("p", truncate=["handled"])
    report = await store18.consumer("p")
    assert (report.position, report.skipped, report.start, await handled(read18)) == (0, 0, 0, [])
    await store18.reset_consumer("p", to=2)
    assert (await store18.consumer("p")).start == 2


async def test_an_open_writer_makes_it_wait(store18: EventStore, dsn18: str, read18: asyncpg.Connection) -> None:
    await fill(store18, 1)
    async with running(store18.project("p", note)) as task:
        await at(store18, 1, task)
        writer = await asyncpg.connect(dsn18)
        async with writer.transaction():
            await writer.execute(
                "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('w', 0, 'T', '{}')"
            )
            await fill(store18, 1, "later")
            report = await in_state(store18, ConsumerState.WAITING)
            assert f"pid {writer.get_server_pid()}" in (report.waits_for or "")
        await at(store18, 3, task)
        await writer.close()


async def test_one_that_is_deleted_ends(store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 1)
    projecting = asyncio.create_task(store18.project("p", note))
    await at(store18, 1, projecting)
    await store18.delete_consumer("p")
    with pytest.raises(ProjectionFailed, match="was deleted"):
        await projecting
    with pytest.raises(UnknownConsumer):
        await store18.consumer("p")
    for operation in (store18.pause_consumer, store18.reset_consumer, store18.skip_event, store18.put_aside):
        with pytest.raises(UnknownConsumer, match="no consumer p"):
            await operation("p")


async def test_relays_stand_in_the_same_list(store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 2)
    await read18.execute(
        "INSERT INTO consumers (name, kind, position) VALUES ('kafka', 'relay', 1), ('a', 'projection', 2)"
    )
    assert [(each.name, each.kind, each.lag) for each in await store18.consumers()] == [
        ("a", "projection", 0),
        ("kafka", "relay", 1),
    ]
    await store18.pause_consumer("kafka")
    assert (await store18.consumer("kafka")).paused
    await store18.delete_consumer("kafka")
    assert [each.name for each in await store18.consumers()] == ["a"]


async def test_the_tables_of_version_2_are_listed_but_not_operated(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await connection.execute(SCHEMA_2)
    await connection.execute("INSERT INTO consumers (name) VALUES ('p')")
    await connection.close()
    async with EventStore.connect(empty_dsn18) as store:
        [report] = await store.consumers()
        assert (report.name, report.parked, report.waits_for) == ("p", None, "no program runs it")
        with pytest.raises(SchemaMissing, match="esx init"):
            await store.pause_consumer("p")
