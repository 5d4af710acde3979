"""Reading from a hot standby: nothing is lost there either, and the feed says that it polls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import pytest
import pytest_asyncio

from esx import EventStore, NewEvent, QueryCancelled, StoreFailed
from esx.embedded import EmbeddedServer
from esx.embedded.account import account_for, run
from esx.layouts.layout import Layout
from esx.store.feed.comparison import DifferenceKind, compare
from esx.store.feed.history import history_at
from esx.store.feed.server import read_server
from esx.store.feed.settings import FeedSettings
from tests.support.proxy import proxied
from tests.support.stores import store_and_pool
from tests.support.targets import Lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from esx import Event
    from esx.store.feed.feed import Feed
    from tests.conftest import Servers

pytestmark = pytest.mark.slow

_DEADLINE = 120.0


@contextlib.contextmanager
def standby_of(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    directory = Path(tempfile.mkdtemp(prefix="esx-standby-"))
    directory.chmod(0o777)
    data = directory / f"postgresql-{server.version}" / "data"
    try:
        copied = run(
            [
                *(server.bin_dir / "pg_basebackup", "-h", str(server.socket_dir), "-U", "postgres"),
                *("-D", data, "--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream"),
            ],
            account_for(server.data_dir),
        )
        assert copied.returncode == 0, copied.stderr
        for of_the_primary in data.glob(".s.PGSQL.*"):
            of_the_primary.unlink()
        with EmbeddedServer.start(directory, version=server.version) as running:
            yield running
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def standby(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    with standby_of(server) as running:
        yield running


@pytest_asyncio.fixture
async def standby18(servers: Servers) -> AsyncIterator[EmbeddedServer]:
    with standby_of(await servers.get(18)) as running:
        yield running


QUICKLY = FeedSettings(standby_moment=1.0)


@contextlib.asynccontextmanager
async def connect(
    address: str, settings: FeedSettings = QUICKLY, *, max_connections: int = 10
) -> AsyncIterator[EventStore]:
    """Connect to a standby. The primary tells at once what it tells every 15 seconds, so less is waited for that."""
    async with EventStore.connect(address, max_connections=max_connections) as store:
        store.feed_settings = settings
        yield store


async def test_a_feed_on_a_standby_waits_for_gaps_and_polls(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection, standby18: EmbeddedServer, tmp_path: Path
) -> None:
    name = await sql18.fetchval("SELECT current_database()")
    insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, 0, 'T', '{}')"
    open_writer = sql18.transaction()
    await open_writer.start()
    await sql18.execute(insert, "slow")
    await store18.append("quick", [NewEvent("T")])
    async with asyncio.timeout(_DEADLINE), connect(standby18.dsn_for(name)) as replica:
        while not await replica.head():
            await asyncio.sleep(0.01)
        feed = await replica.feed()
        async for batch in feed.to_safe_position(patience=1.5):
            assert batch.events == []
            assert batch.gap is not None
            assert batch.gap.writers[0].state == "open on the primary"
        state = await feed.state()
        assert (state.cursor, state.head, len(state.gaps)) == (0, 2, 1)
        await open_writer.commit()
        seen: list[str] = []
        async for batch in feed.follow():
            seen += [event.stream_id for event in batch.events]
            if len(seen) == 2:
                break
        assert seen == ["slow", "quick"]
        assert not feed.listening
        assert feed.problem is not None
        assert "recovery" in feed.problem
        with pytest.raises(StoreFailed, match="a relay cannot keep its position"):
            await replica.relay("r", Lines(tmp_path / "out"))
        with pytest.raises(StoreFailed):
            await replica.append("s", [NewEvent("T")])


async def test_a_query_that_recovery_cancels_is_told_as_such(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection, standby18: EmbeddedServer
) -> None:
    name = await sql18.fetchval("SELECT current_database()")
    admin = await asyncpg.connect(standby18.dsn_for("postgres"))
    await admin.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    await admin.execute("SELECT pg_reload_conf()")
    await store18.append("s", [NewEvent("T")])

    async with asyncio.timeout(_DEADLINE), store_and_pool(standby18.dsn_for(name)) as (replica, pool):

        async def read_at_length() -> None:
            async with pool.lend(guarded=False) as connection:
                await connection.execute("SELECT pg_sleep(600) FROM events")

        while not await replica.head():
            await asyncio.sleep(0.01)
        reading = asyncio.create_task(read_at_length())
        while not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')"):
            await asyncio.sleep(0.01)
        async with sql18.transaction():
            await sql18.execute("LOCK TABLE events")
        with pytest.raises(QueryCancelled, match="conflict with recovery"):
            await reading
    await admin.close()


@contextlib.asynccontextmanager
async def number_without_id(
    dsn: str, store: EventStore, sql: asyncpg.Connection, replica: EventStore
) -> AsyncIterator[SlowWriter]:
    """Let a writer draw a number and get its id only when it is told to; before, another gets both and commits.

    The replica has seen that.
    """
    warm = await store.append("warm", [NewEvent("T")])
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    await sql.execute("SELECT pg_advisory_lock(7)")
    writing = asyncio.ensure_future(
        connection.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data) "
            "VALUES ('slow', 0, 'T', to_jsonb(pg_advisory_xact_lock(7)::text))"
        )
    )
    while not await sql.fetchval("SELECT last_value > $1 FROM events_global_seq_seq", warm.global_seq):
        await asyncio.sleep(0.01)
    await store.append("quick", [NewEvent("T")])
    assert not writing.done()
    while await replica.version("quick") < 0:
        await asyncio.sleep(0.01)

    async def has_its_id() -> None:
        await sql.execute("SELECT pg_advisory_unlock(7)")
        await writing
        await sql.execute("SELECT pg_log_standby_snapshot()")

    try:
        yield SlowWriter(has_its_id, transaction.commit)
    finally:
        await sql.execute("SELECT pg_advisory_unlock_all()")
        await connection.close()


class SlowWriter(NamedTuple):
    has_its_id: Callable[[], Awaitable[None]]
    commit: Callable[[], Awaitable[None]]


async def streams(feed: Feed, count: int) -> list[str]:
    seen: list[str] = []
    async for batch in feed.follow():
        seen += [event.stream_id for event in batch.events]
        if len(seen) >= count:
            break
    return seen


async def test_a_writer_with_the_lower_number_and_the_higher_id_is_waited_for(
    dsn: str, store: EventStore, sql: asyncpg.Connection, standby: EmbeddedServer
) -> None:
    """The number is drawn first, and the id comes with the row: in between, another writer may get both and commit."""
    name = await sql.fetchval("SELECT current_database()")
    async with (
        asyncio.timeout(_DEADLINE),
        connect(standby.dsn_for(name), FeedSettings(standby_moment=2.0)) as replica,
        number_without_id(dsn, store, sql, replica) as slow,
    ):
        feed, end = await replica.feed(), await replica.feed_from_end()
        batches = feed.follow()
        assert [event.stream_id for event in (await anext(batches)).events] == ["warm"]
        following = asyncio.ensure_future(anext(batches))
        await slow.has_its_id()
        done, _ = await asyncio.wait([following], timeout=2.5)
        assert not done or following.result().events == [], "the feed is held"
        await slow.commit()
        seen = [event.stream_id for event in (await following).events]
        while len(seen) < 2:
            seen += [event.stream_id for event in (await anext(batches)).events]
        assert seen == ["slow", "quick"]
        assert await streams(end, 1) == ["slow"]


async def test_a_promoted_standby_is_the_same_history_only_if_it_holds_all(
    dsn: str, store: EventStore, sql: asyncpg.Connection, standby: EmbeddedServer
) -> None:
    """It holds number 20 and lacks 15: WAL has them in the order of their commits."""
    name = await sql.fetchval("SELECT current_database()")
    insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, 0, 'T', '{}')"
    there = await asyncpg.connect(standby.dsn_for(name))
    async with asyncio.timeout(_DEADLINE):
        await store.append("s", [NewEvent("T") for _ in range(14)])
        held = await history_at(sql, Layout(), 14)
        late = sql.transaction()
        await late.start()
        await sql.execute(insert, "late")
        await store.append("t", [NewEvent("T") for _ in range(5)])
        while await there.fetchval("SELECT coalesce(max(global_seq), 0) FROM events") < 20:
            await asyncio.sleep(0.01)
        # From here on the standby hears nothing any more, and then the writer commits.
        await there.execute("ALTER SYSTEM SET primary_conninfo = ''")
        await there.execute("SELECT pg_reload_conf()")
        while await there.fetchval("SELECT count(*) FROM pg_stat_wal_receiver"):
            await asyncio.sleep(0.01)
        await late.commit()
        read = await history_at(sql, Layout(), 20)
        assert (read.count, read.server.timeline) == (20, 1)
        assert await read_server(there, Layout()) == read.server
        # As long as it is a standby, the rest may still come.
        lagging = await compare(there, Layout(), read)
        assert lagging is not None
        assert (lagging.kind, lagging.missing) == (DifferenceKind.BEHIND, (15,))
        await there.fetchval("SELECT pg_promote()")
        assert await read_server(there, Layout()) == read.server._replace(timeline=2)
        assert await compare(there, Layout(), held) is None
        lost = await compare(there, Layout(), read)
        assert lost is not None
        assert (lost.kind, lost.head >= 20, lost.missing) == (DifferenceKind.CHANGED, True, (15,))
        assert lost.reason == (
            "event 15 is there no more, and this server was promoted since then (timeline 2, 1 before)"
        )
        # Where it is not among the last few, the count tells.
        few = await compare(there, Layout(), replace(read, marks=read.marks[-3:]))
        assert few is not None
        assert (few.kind, few.missing) == (DifferenceKind.CHANGED, ())
        assert few.reason.startswith("1 of the 20 events between 1 and 20 are gone, and this server was promoted")
    # The checkpoint of a projection is in the WAL itself, so what was promoted fits.
    handled: list[int] = []

    async def handle(_connection: asyncpg.Connection, event: Event) -> None:
        handled.append(event.global_seq)

    async with EventStore.connect(standby.dsn_for(name)) as promoted:
        projecting = asyncio.create_task(promoted.project("p", handle))
        while len(handled) < 19:
            await asyncio.sleep(0.01)
        projecting.cancel()
    assert 15 not in handled
    await there.close()


@contextlib.asynccontextmanager
async def replay_paused(standby: asyncpg.Connection, _: asyncpg.Connection) -> AsyncIterator[None]:
    await standby.execute("SELECT pg_wal_replay_pause()")
    yield
    await standby.execute("SELECT pg_wal_replay_resume()")


@contextlib.asynccontextmanager
async def primary_silent(_: asyncpg.Connection, primary: asyncpg.Connection) -> AsyncIterator[None]:
    """Stop the processes that send to the standby; it takes a minute until it takes its primary for lost."""
    senders = [
        row[0] for row in await primary.fetch("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'")
    ]
    for pid in senders:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in senders:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("deaf", [replay_paused, primary_silent])
async def test_time_does_not_pass_a_gap_while_the_standby_hears_nothing(
    dsn18: str,
    store18: EventStore,
    sql18: asyncpg.Connection,
    standby18: EmbeddedServer,
    deaf: Callable[[asyncpg.Connection, asyncpg.Connection], AbstractAsyncContextManager[None]],
) -> None:
    name = await sql18.fetchval("SELECT current_database()")
    there = await asyncpg.connect(standby18.dsn_for(name))
    async with (
        asyncio.timeout(_DEADLINE),
        connect(standby18.dsn_for(name)) as replica,
        number_without_id(dsn18, store18, sql18, replica) as slow,
    ):
        async with deaf(there, sql18):
            await slow.has_its_id()
            feed = await replica.feed()
            seen: list[str] = []
            async for batch in feed.to_safe_position(patience=2):
                seen += [event.stream_id for event in batch.events]
            assert seen == ["warm"], "twice the moment has passed, but not on the standby"
        await slow.commit()
        assert await streams(feed, 2) == ["slow", "quick"]
    await there.close()


async def test_a_gap_is_not_passed_where_an_address_comes_to_lead_to_a_standby(
    dsn18: str, store18: EventStore, servers: Servers
) -> None:
    """Neither is it taken for true that no session writes there, nor what was found out on the primary."""
    slow = await asyncpg.connect(dsn18)
    database = await slow.fetchval("SELECT current_database()")
    with standby_of(await servers.get(18)) as standby, tempfile.TemporaryDirectory() as directory:
        async with (
            asyncio.timeout(_DEADLINE),
            proxied(dsn18, Path(directory)) as (proxy, address),
            connect(address, max_connections=1) as store,
            connect(standby.dsn_for(database)) as replica,
        ):
            open_writer = slow.transaction()
            await open_writer.start()
            await slow.execute(
                "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('slow', 0, 'T', '{}')"
            )
            await store18.append("quick", [NewEvent("T")])
            feed = await store.feed()
            batches = feed.follow()
            assert (await anext(batches)).gap is not None
            while await replica.version("quick") < 0:
                await asyncio.sleep(0.01)

            proxy.target = str(standby.socket_dir / ".s.PGSQL.5432")
            proxy.cut = "before the request"
            batch = await anext(batches)
            assert (proxy.losses, batch.events) == (1, [])
            assert batch.gap is not None
            assert batch.gap.writers[0].state == "open on the primary"
            await open_writer.commit()
            seen: list[str] = []
            while len(seen) < 2:
                seen += [event.stream_id for event in (await anext(batches)).events]
    await slow.close()
    assert seen == ["slow", "quick"]


async def test_an_event_that_was_deleted_ends_no_feed_on_a_standby(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection, standby18: EmbeddedServer
) -> None:
    """What was read from this server as it runs can only have been deleted, and nothing is left to wait for."""
    address = standby18.dsn_for(await sql18.fetchval("SELECT current_database()"))
    await store18.append("a", [NewEvent("T") for _ in range(3)])
    async with asyncio.timeout(_DEADLINE), connect(address) as replica:
        while await replica.head() < 3:
            await asyncio.sleep(0.01)
        feed = await replica.feed()
        batches = feed.follow()
        assert [event.global_seq for event in (await anext(batches)).events] == [1, 2, 3]
        await sql18.execute("DELETE FROM events WHERE global_seq = 2")
        while await replica.event(2) is not None:
            await asyncio.sleep(0.01)
        # On a connection that is new to it, the feed looks first.
        connection = await asyncpg.connect(address)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'esx' "
            "AND datname = current_database()"
        )
        await connection.close()
        last = await store18.append("b", [NewEvent("T")])
        seen: list[int] = []
        while last.global_seq not in seen:
            seen += [event.global_seq for event in (await anext(batches)).events]
        assert seen == [last.global_seq]


async def test_a_deleted_event_does_not_hold_a_reader_for_ever(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection, standby18: EmbeddedServer
) -> None:
    """After a restart of the standby what is missing might still come; when all is replayed, it was deleted."""
    name = await sql18.fetchval("SELECT current_database()")
    await store18.append("s", [NewEvent("T") for _ in range(3)])
    seen: list[int] = []

    async def follow(replica: EventStore) -> None:
        async for event in replica.subscribe():
            seen.append(event.global_seq)

    async with (
        asyncio.timeout(2 * _DEADLINE),
        connect(standby18.dsn_for(name), FeedSettings(standby_moment=1.0, behind_for=0.2)) as replica,
    ):
        following = asyncio.create_task(follow(replica))
        while seen != [1, 2, 3]:
            assert not following.done()
            await asyncio.sleep(0.01)
        await sql18.execute("DELETE FROM events WHERE global_seq = 2")
        directory, version = standby18.data_dir.parent.parent, standby18.version
        standby18.stop()
        with EmbeddedServer.start(directory, version=version):
            await store18.append("s", [NewEvent("T")])
            while seen != [1, 2, 3, 4]:
                assert not following.done()
                await asyncio.sleep(0.01)
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
