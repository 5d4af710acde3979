"""A statement that an administrator cancels: a passing fault, which ends nothing that goes on.

What is to be cancelled waits for a lock, so that it is there to be found.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import ANY, EventStore, NewEvent, ProjectionFailed, QueryCancelled, StoreFailed, StoreUnavailable, StreamAppend
from esx.errors import QueryTimeout
from tests.cli.support import environment
from tests.store.consume.test_projection import at, handled, note, note_all, read, running, until
from tests.store.feed.test_tail import Follower
from tests.support.forked import start
from tests.support.stores import opened_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from esx import Event
    from esx.embedded import EmbeddedServer

pytestmark = pytest.mark.slow

__all__ = ["read"]
_DEADLINE = 120.0
_CANCELLED = 100
_WAITING = """
    SELECT a.pid FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.wait_event_type = 'Lock' AND a.pid <> pg_backend_pid()
"""
_SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'esx' ORDER BY 1"
)


@contextlib.asynccontextmanager
async def locking(sql: asyncpg.Connection, *tables: str) -> AsyncIterator[None]:
    """Hold locks that all sessions wait for that read or write these tables."""
    async with sql.transaction():
        await sql.execute(f"LOCK TABLE {', '.join(tables or ('events',))}")
        yield


async def cancel(dsn: str) -> None:
    """Cancel the statements of all sessions that wait for a lock, once there is one."""
    admin = await asyncpg.connect(dsn)
    async with asyncio.timeout(_DEADLINE):
        while not await admin.fetch(f"SELECT pg_cancel_backend(pid) FROM ({_WAITING}) waiting"):
            await asyncio.sleep(0.01)
    await admin.close()


async def test_a_read_says_that_it_was_cancelled_and_keeps_its_connection(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    assert not await store.head()
    before = await sql.fetch(_SESSIONS)
    async with locking(sql):
        reading = asyncio.create_task(store.read_page("s"))
        await cancel(dsn)
        with pytest.raises(QueryCancelled, match=r"a statement was cancelled at .*user request") as told:
            await reading
    assert "\n" not in str(told.value)
    assert isinstance(told.value, StoreFailed)
    assert not await store.head()
    assert await sql.fetch(_SESSIONS) == before


async def test_a_statement_timeout_is_none(dsn: str, sql: asyncpg.Connection) -> None:
    async with EventStore.connect(dsn, statement_timeout=0.1) as limited, locking(sql):
        with pytest.raises(QueryTimeout):
            await limited.read_page("s")


@pytest.mark.parametrize(
    ("limit", "meaning"),
    [
        ("lock_timeout", StoreFailed),
        ("idle_in_transaction_session_timeout", StoreUnavailable),
        ("transaction_timeout", StoreUnavailable),
    ],
)
async def test_nor_is_another_limit_of_postgresql(
    server: EmbeddedServer, dsn: str, sql: asyncpg.Connection, limit: str, meaning: type[Exception]
) -> None:
    if limit == "transaction_timeout" and server.version < 17:
        pytest.skip("PostgreSQL has it from 17 on")
    async with locking(sql), opened_pool(dsn) as pool:
        with pytest.raises(meaning) as told:
            async with pool.lend(guarded=False) as connection, connection.transaction():
                await connection.execute(f"SET LOCAL {limit} = '50ms'")
                async with asyncio.timeout(_DEADLINE):
                    while limit.startswith("idle") and not connection.is_closed():
                        await asyncio.sleep(0.01)
                await connection.execute("LOCK TABLE events")
    assert not isinstance(told.value, QueryCancelled)


async def alone(store: EventStore) -> int:
    return (await store.append("s", [NewEvent("T")], expected=ANY)).version


async def at_a_version(store: EventStore) -> int:
    return (await store.append("s", [NewEvent("T")], expected=0)).version


async def together(store: EventStore) -> int:
    [done] = await store.append_to_streams([StreamAppend("s", [NewEvent("T")], ANY)])
    return done.version


@pytest.mark.parametrize("append", [alone, at_a_version, together])
async def test_an_append_is_tried_again_and_stored_once(
    dsn: str, store: EventStore, sql: asyncpg.Connection, append: Callable[[EventStore], Awaitable[int]]
) -> None:
    await store.append("s", [NewEvent("T")])
    async with locking(sql):
        appending = asyncio.ensure_future(append(store))
        await cancel(dsn)
    async with asyncio.timeout(_DEADLINE):
        assert await appending == 1
    assert await sql.fetchval("SELECT count(*) FROM events") == 2


async def test_an_append_without_patience_says_that_it_was_cancelled(dsn: str, sql: asyncpg.Connection) -> None:
    async with EventStore.connect(dsn, retry_for=0) as store:
        await store.version("s")
        async with locking(sql):
            appending = asyncio.create_task(store.append("s", [NewEvent("T")]))
            await cancel(dsn)
            with pytest.raises(QueryCancelled):
                await appending
        async with locking(sql):
            locked = asyncio.create_task(append_under_lock(store))
            await cancel(dsn)
            with pytest.raises(QueryCancelled):
                await locked
        assert await store.version("s") == -1


async def append_under_lock(store: EventStore) -> None:
    async with store.lock_stream("s") as stream:
        await stream.append([NewEvent("T")])


async def test_feeds_go_on_and_lose_and_repeat_nothing(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    await store.append("s", [NewEvent("T"), NewEvent("T")])
    feeds = [await store.feed(), await store.feed()]
    troubles: list[str | None] = []
    feeds[0].on_change = lambda: troubles.append(feeds[0].lost)
    async with asyncio.timeout(_DEADLINE), locking(sql):
        # Each by itself, as it begins.
        followers = [Follower(feed) for feed in feeds]
        await cancel(dsn)
    for follower in followers:
        await follower.reach(2)
    async with asyncio.timeout(_DEADLINE):
        while not all(feed.shared for feed in feeds):
            await asyncio.sleep(0.01)
    async with locking(sql):
        # Now one reads for both.
        await sql.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 2, 'T', '{}')")
        await cancel(dsn)
    for follower in followers:
        await follower.reach(3)
        assert follower.seen == [1, 2, 3]
        follower.task.cancel()
    assert any("cancelled" in (trouble or "") for trouble in troubles)
    assert troubles[-1] is None


@pytest.mark.parametrize("table", ["handled", "projections", "events"])
async def test_a_projection_goes_on_and_blames_no_event(
    dsn: str, store: EventStore, sql: asyncpg.Connection, read: asyncpg.Connection, table: str
) -> None:
    await store.append("s", [NewEvent("T")])
    async with running(store.project_batches("p", note_all)) as projecting:
        await at(store, 1, projecting)
        async with locking(sql, table):
            if table != "events":
                await store.append("s", [NewEvent("T"), NewEvent("T")])
            await cancel(dsn)
            await cancel(dsn)
        last = await store.append("s", [NewEvent("T")])
        await at(store, last.global_seq, projecting)
        assert await handled(read) == list(range(1, last.global_seq + 1))
        [status] = await store.projections()
        assert status.last_error is None


async def test_a_handler_that_uses_the_store_may_be_cancelled_too(
    dsn: str, store: EventStore, read: asyncpg.Connection
) -> None:
    tries = 0

    async def handler(connection: asyncpg.Connection, event: Event) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise QueryCancelled("a statement was cancelled elsewhere")
        await note(connection, event)

    await store.append("s", [NewEvent("T")])
    async with running(store.project("p", handler)) as projecting:
        await at(store, 1, projecting)
    assert await handled(read) == [1]


async def test_a_timeout_of_the_handlers_own_is_the_handlers(store: EventStore) -> None:
    async def handler(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
        await connection.execute("SET LOCAL statement_timeout = '20ms'")
        await connection.execute("SELECT pg_sleep(600)")

    await store.append("s", [NewEvent("T")])
    async with asyncio.timeout(_DEADLINE):
        with pytest.raises(ProjectionFailed, match="statement timeout") as failure:
            await store.project_batches("p", handler)
    assert failure.value.global_seq == 1


async def test_cancelling_everything_at_every_moment_loses_and_repeats_nothing(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    """Among the moments are those in which a transaction begins, is committed, and is rolled back."""
    await sql18.execute("CREATE TABLE handled (global_seq bigint)")
    luck = random.Random(8)
    seen: list[int] = []
    cancelled = 0
    admin = await asyncpg.connect(dsn18)
    ours = [each.get_server_pid() for each in (admin, sql18)]

    async def follow() -> None:
        async for event in store18.subscribe():
            seen.append(event.global_seq)

    async def append(number: int) -> int:
        turns = 0
        while cancelled < _CANCELLED:
            await store18.append(f"s-{number}", [NewEvent("T", {"n": turns})], expected=ANY)
            turns += 1
            await asyncio.sleep(0.02)
        return turns

    async with running(follow()) as following, running(store18.project_batches("p", note_all, batch=20)) as projecting:
        writing = asyncio.gather(*(append(number) for number in range(4)))
        async with asyncio.timeout(2 * _DEADLINE):
            while cancelled < _CANCELLED:
                cancelled += await admin.fetchval(
                    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND state <> 'idle' AND pid <> ALL ($1) AND random() < 0.3",
                    ours,
                )
                assert not projecting.done()
                assert not following.done()
                await asyncio.sleep(luck.uniform(0, 0.02))
            turns = await writing
        last = await store18.append("last", [NewEvent("Last")])
        await at(store18, last.global_seq, projecting)
        await until(lambda: _reached(seen, last.global_seq), following)
    stored = [row[0] for row in await sql18.fetch("SELECT global_seq FROM events ORDER BY 1")]
    assert seen == stored
    assert await handled(sql18) == stored
    for number, count in enumerate(turns):
        assert [event.data["n"] async for event in store18.read(f"s-{number}")] == list(range(count))
    await admin.close()


async def _reached(seen: list[int], last: int) -> bool:
    return seen[-1:] == [last]


async def told_that_it_was_cancelled(dsn: str, sql: asyncpg.Connection, *command: str) -> tuple[int | None, str, str]:
    """Run a command, cancel what it asks first, and return its exit code and what it wrote."""
    async with locking(sql):
        process = await start(*command, "-d", dsn, environment=environment())
        await cancel(dsn)
    async with asyncio.timeout(_DEADLINE):
        said, error = await process.communicate()
    return process.returncode, said.decode(), error.decode()


@pytest.mark.parametrize("command", [("read", "s"), ("streams",), ("health",)])
async def test_a_command_ends_with_one_line(dsn: str, sql: asyncpg.Connection, command: tuple[str, ...]) -> None:
    code, said, error = await told_that_it_was_cancelled(dsn, sql, *command)
    assert (code, said) == (1, "")
    [line] = error.splitlines()
    assert line.startswith("esx: a statement was cancelled at ")


async def test_the_doctor_says_what_could_not_be_examined(dsn: str, sql: asyncpg.Connection) -> None:
    code, said, error = await told_that_it_was_cancelled(dsn, sql, "doctor")
    assert (code, error) == (1, "")
    assert "could not be examined: canceling statement due to user request" in said


@pytest.mark.parametrize(("cancelled", "opens"), [(3, True), (4, False)])
async def test_a_connection_is_opened_again_where_opening_is_cancelled(
    dsn18: str, sql18: asyncpg.Connection, cancelled: int, opens: bool
) -> None:
    """As recovery does on a standby."""
    await sql18.execute(
        "CREATE SEQUENCE openings; CREATE FUNCTION cancel_some() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF current_setting('application_name') = 'many' AND nextval('public.openings') <= {cancelled} THEN "
        "RAISE 'canceling statement due to conflict with recovery' USING ERRCODE = 'query_canceled'; END IF; END $$; "
        "CREATE EVENT TRIGGER cancelling ON login EXECUTE FUNCTION cancel_some()"
    )
    opening = EventStore.connect(dsn18, application_name="many")
    if opens:
        async with opening as store:
            assert not await store.head()
    else:
        with pytest.raises(QueryCancelled):
            await opening
