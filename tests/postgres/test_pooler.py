"""Behind PgBouncer in transaction mode, where a few sessions belong to all clients for one transaction at a time."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendResult,
    Event,
    EventStore,
    NewEvent,
    Notification,
    OutcomeUnknown,
    StoreUnavailable,
    Strategy,
    StreamAppend,
    WrongVersion,
)
from esx.errors import QueryTimeout, StoreFailed
from esx.expected import ExpectedVersion
from esx.store.bulk.erase import Mark
from tests.store.consume.test_projection import at, fill, handled, note, running
from tests.store.feed.test_feed import moody_writers
from tests.support.pgbouncer import needs_pgbouncer, pooled
from tests.support.proxy import proxied
from tests.support.stores import store_and_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = [needs_pgbouncer, pytest.mark.slow]
_DEADLINE = 120.0
_ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


@pytest.fixture
async def address(dsn18: str) -> AsyncIterator[str]:
    async with pooled(dsn18) as address:
        yield address


@pytest.fixture
async def shared(address: str) -> AsyncIterator[EventStore]:
    async with EventStore.connect(address, max_connections=12) as store:
        yield store


async def test_a_pooler_is_recognised_and_how_sure_that_is(dsn18: str, shared: EventStore) -> None:
    assert shared.pooler == "a connection pooler lends sessions for one transaction at a time"
    async with EventStore.connect(dsn18) as direct:
        assert direct.pooler is None
        assert "pooler" in {finding.check for finding in await direct.doctor()}
    [finding] = [finding for finding in await shared.doctor() if finding.check == "pooler"]
    assert shared.pooler in finding.message
    # With a session for each client there may be none left to make sure with; it is not waited for.
    async with pooled(dsn18, mode="session", sessions=1) as address, EventStore.connect(address) as store:
        assert store.pooler is not None
        assert "may lend" in store.pooler
        assert (await store.append("s", [NewEvent("T")])).version == 0


async def test_appends_and_their_refusals(shared: EventStore) -> None:
    one = [NewEvent("T", {"n": 1})]
    first = await shared.append("s", one, expected=NO_STREAM)
    assert await shared.append("s", one, expected=NO_STREAM) == first  # the same event id: a repetition
    suitable: list[ExpectedVersion] = [STREAM_EXISTS, 2, ANY]
    for version, expected in enumerate(suitable):
        done = await shared.append("s", [NewEvent("T"), NewEvent("T")], expected=expected)
        assert done.version == 2 * version + 2
    for wrong in (NO_STREAM, 0):
        with pytest.raises(WrongVersion):
            await shared.append("s", [NewEvent("T")], expected=wrong)
    with pytest.raises(WrongVersion):
        await shared.append("none", [NewEvent("T")], expected=STREAM_EXISTS)
    parts = [StreamAppend("a", [NewEvent("T")], NO_STREAM), StreamAppend("b", [NewEvent("T")], NO_STREAM)]
    assert [done.version for done in await shared.append_to_streams(parts)] == [0, 0]


async def test_writers_on_one_stream_through_few_sessions(shared: EventStore) -> None:
    """Both strategies mixed, by more clients than there are sessions."""

    async def write(writer: int) -> list[AppendResult]:
        strategy = Strategy.ROW_LOCK if writer % 2 else Strategy.CONDITIONAL
        return [await shared.append("hot", [NewEvent("T", {"w": writer})], strategy=strategy) for _ in range(10)]

    async with asyncio.timeout(_DEADLINE):
        done = await asyncio.gather(*(write(writer) for writer in range(24)))
    assert sorted(result.version for results in done for result in results) == list(range(240))
    assert [event.stream_seq async for event in shared.read("hot")] == list(range(240))


async def test_the_feed_loses_nothing_and_says_that_it_polls(address: str, shared: EventStore) -> None:
    feed = await shared.feed(page=50)
    seen: list[int] = []

    async def follow() -> None:
        async for batch in feed.follow():
            seen.extend(event.global_seq for event in batch.events)

    following = asyncio.create_task(follow())
    async with asyncio.timeout(_DEADLINE):
        committed = await moody_writers(address, keep_statements=False)
        last = await shared.append("last", [NewEvent("Last")])
        while last.global_seq not in seen:
            await asyncio.sleep(0.01)
    state = await feed.state()
    following.cancel()
    assert seen == [*sorted(committed), last.global_seq]
    assert not state.listening
    assert state.problem == f"no LISTEN: {shared.pooler}"
    assert feed.lost is None


async def test_tail_says_once_that_it_polls(address: str, shared: EventStore) -> None:
    await shared.append("s", [NewEvent("T")])
    command = ("-m", "esx", "tail", "--from", "start", "--json", "--dsn", address)
    tail = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert tail.stdout is not None
    async with asyncio.timeout(_DEADLINE):
        assert json.loads(await tail.stdout.readline())["stream_id"] == "s"
        await shared.append("s", [NewEvent("Next")])
        assert json.loads(await tail.stdout.readline())["event_type"] == "Next"
        tail.terminate()
        _, said = await tail.communicate()
    assert said.decode().count("polling") == 1
    assert "a connection pooler lends sessions" in said.decode()


async def test_two_instances_of_a_projection_handle_each_event_once(dsn18: str, shared: EventStore) -> None:
    read = await asyncpg.connect(dsn18)
    await read.execute("CREATE TABLE handled (global_seq bigint)")
    calls: list[int] = []

    def handler() -> Callable[[asyncpg.Connection, Event], Awaitable[None]]:
        async def handle(connection: asyncpg.Connection, event: Event) -> None:
            calls.append(event.global_seq)
            await note(connection, event)

        return handle

    async with (
        running(shared.project("p", handler(), batch=3)) as one,
        running(shared.project("p", handler(), batch=5)) as two,
    ):
        for n in range(1, 6):
            await fill(shared, 10)
            await at(shared, n * 10, one, two)
    assert await handled(read) == calls == list(range(1, 51))
    await read.close()


async def test_bulk_through_a_pooler(shared: EventStore) -> None:
    await shared.append("s", [NewEvent("T", {"n": n}) for n in range(3000)])
    text = b"".join([piece async for piece in await shared.export()])
    done = await shared.import_ndjson([text.replace(b'"stream_id": "s"', b'"stream_id": "t"')])
    assert done.skipped + done.stored == 3000
    assert await shared.version("t") == 2999


async def test_a_lost_session_loses_and_doubles_no_append(dsn18: str, shared: EventStore) -> None:
    sql = await asyncpg.connect(dsn18)
    assert await shared.version("s-0") == -1

    async def write(writer: int) -> None:
        for turn in range(20):
            await shared.append(f"s-{writer}", [NewEvent("T", {"n": turn})], expected=turn - 1 if turn else NO_STREAM)

    writing = asyncio.gather(*(write(writer) for writer in range(6)))
    while not writing.done():
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(0.05)
    await writing
    async with EventStore.connect(dsn18) as store:
        for writer in range(6):
            assert [event.data["n"] async for event in store.read(f"s-{writer}")] == list(range(20))
    await sql.close()


async def test_cancelling_stops_the_query_in_any_session_that_it_runs_in(dsn18: str, address: str) -> None:
    sql = await asyncpg.connect(dsn18)
    async with asyncio.timeout(_DEADLINE), store_and_pool(address) as (store, pool):

        async def sleep() -> None:
            async with pool.lend(guarded=False) as connection:
                await connection.fetch("SELECT pg_sleep(600)")

        sleeping = asyncio.create_task(sleep())
        while not await sql.fetchval(_ASLEEP):
            await asyncio.sleep(0.01)
        sleeping.cancel()
        while await sql.fetchval(_ASLEEP):
            await asyncio.sleep(0.01)
        assert (await store.append("s", [NewEvent("T")])).version == 0
    await sql.close()


async def test_a_statement_may_take_as_long_as_was_said(address: str) -> None:
    async with store_and_pool(address, statement_timeout=0.2) as (store, pool):
        with pytest.raises(QueryTimeout, match="statement_timeout"):
            async with pool.lend(guarded=False) as connection:
                await connection.execute("SELECT pg_sleep(600)")
        assert await store.version("s") == -1


async def test_an_append_that_takes_too_long_may_have_been_stored(dsn18: str, address: str, tmp_path: Path) -> None:
    """PostgreSQL has stored it, and what it answers does not come."""
    async with (
        proxied(address, tmp_path) as (proxy, muffled),
        EventStore.connect(muffled, statement_timeout=1) as store,
        EventStore.connect(dsn18) as direct,
    ):

        def part(expected: ExpectedVersion) -> StreamAppend:
            return StreamAppend(f"s-{proxy.losses}", [NewEvent("T")], expected)

        async def under_a_lock(stream_id: str) -> None:
            async with store.lock_stream(stream_id) as stream:
                await stream.append([NewEvent("T")])

        for together in (False, True):
            for expected in (NO_STREAM, ANY):
                one = part(expected)
                assert await store.version(one.stream_id) == -1  # so that a connection is there
                # The message that executes the one has its stream id; the other is in its last statement.
                proxy.cut, proxy.about = "no reply", b"COMMIT" if together else one.stream_id.encode()
                append = (
                    store.append_to_streams([one])
                    if together
                    else store.append(one.stream_id, one.events, expected=expected)
                )
                if expected is NO_STREAM:
                    await append
                else:
                    with pytest.raises(OutcomeUnknown, match="statement timeout"):
                        await append
                assert proxy.cut is None
                assert await direct.count_events(one.stream_id) == 1
        proxy.cut = "no reply"
        with pytest.raises(OutcomeUnknown, match="statement timeout"):
            await under_a_lock("locked")
        assert await direct.count_events("locked") == 1


async def test_nothing_stays_behind_in_the_session(dsn18: str) -> None:
    """With one session for all, the next client gets the one that the store has used, unless that was ended."""
    async with pooled(dsn18, sessions=1) as address:
        plain = await asyncpg.connect(address, statement_cache_size=0)
        state = """
            SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),
                   (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
                   (SELECT array_agg(name || '=' || setting ORDER BY name) FROM pg_settings
                    WHERE source = 'session' AND name <> 'application_name')
        """
        before = tuple((await plain.fetch(state))[0])
        await plain.execute("CREATE TABLE handled (global_seq bigint)")
        async with (
            EventStore.connect(address) as store,
            EventStore.connect(address, read_only=True) as reader,
            running(store.project("p", note)) as projection,
        ):
            await fill(store, 3)
            await store.append("s", [NewEvent("T")], strategy=Strategy.ROW_LOCK)
            await at(store, 4, projection)
            assert [event.global_seq async for event in reader.read_all()] == [1, 2, 3, 4]
            async for _event in reader.subscribe():
                break
            assert [piece async for piece in await reader.export()]
            await reader.health()
            await reader.doctor()
        assert tuple((await plain.fetch(state))[0]) == before
        assert before[:3] == (0, 0, 0)
        await plain.close()


async def test_what_needs_a_session_of_its_own_is_refused_in_one_line(dsn18: str, address: str) -> None:
    async with EventStore.connect(address, read_only=True) as reader:
        with pytest.raises(StoreFailed, match="read-only"):
            await reader.delete_marked("s", Mark("run_id", "r1"))
        with pytest.raises(StoreFailed, match="read-only"):
            await reader.append("s", [NewEvent("T")])
        together = await asyncio.gather(
            *(reader.append(f"s-{n}", [NewEvent("T")]) for n in range(5)), return_exceptions=True
        )
        assert {type(each) for each in together} == {StoreFailed}
        assert await reader.head() == 0
    with pytest.raises(StoreFailed, match="notification 'off' is a setting of the session"):
        await EventStore.connect(address, notification=Notification.OFF)
    with pytest.raises(StoreUnavailable, match=r"refuses a setting of the address .*search_path.*ignore_startup") as no:
        await EventStore.connect(f"{address}&search_path=public")
    assert "\n" not in str(no.value)
    sql = await asyncpg.connect(dsn18)
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    await sql.close()
    async with pooled(dsn18) as strict:
        with pytest.raises(StoreFailed, match=r"are serializable.*ALTER DATABASE"):
            await EventStore.connect(strict)
        async with EventStore.connect(strict, read_only=True) as reader:
            assert await reader.head() == 0
