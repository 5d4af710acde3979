"""A peer that stays connected and says nothing: callers that wait for it get an error in time."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import ANY, NO_STREAM, EventStore, NewEvent, OutcomeUnknown
from esx.errors import StoreUnavailable
from esx.postgres.connection import Connector
from esx.postgres.driver_internals import progress
from esx.postgres.timings import Timings
from esx.postgres.watchdog import Watchdog
from tests.support.proxy import Proxy, proxied
from tests.support.stores import open_store, store_and_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from esx import Event
    from esx.postgres.session import Session

pytestmark = pytest.mark.slow

_SILENCE = 1.0
_SOON = 60.0
_LONGER = 4.0
"""A silence after which PostgreSQL is asked, and in which it answers on a busy machine too."""


class Asking(Connector):
    """Counts how many times the watchdog asks PostgreSQL."""

    asked = 0

    async def open(self, role: str = "", **options: Any) -> Session:
        self.asked += role == "watch"
        return await super().open(role, **options)


@pytest.fixture
async def through_proxy(dsn18: str) -> AsyncIterator[tuple[Proxy, EventStore]]:
    with tempfile.TemporaryDirectory() as directory:
        async with (
            proxied(dsn18, Path(directory)) as (proxy, address),
            EventStore.connect(address, timeout=_SILENCE, retry_for=_SILENCE) as store,
        ):
            await store.append("s", [NewEvent("T")], expected=NO_STREAM)
            yield proxy, store


async def test_an_append_goes_on_over_another_connection(through_proxy: tuple[Proxy, EventStore]) -> None:
    proxy, store = through_proxy
    proxy.hush()
    async with asyncio.timeout(_SOON):
        assert (await store.append("s", [NewEvent("T")], expected=0)).version == 1
        proxy.hush()
        with pytest.raises(OutcomeUnknown):
            await store.append("s", [NewEvent("T")], expected=ANY)


async def test_a_read_is_told_and_the_next_one_works(through_proxy: tuple[Proxy, EventStore]) -> None:
    proxy, store = through_proxy
    proxy.hush()
    async with asyncio.timeout(_SOON):
        with pytest.raises(StoreUnavailable):
            await store.read_page("s")
        assert len(await store.read_page("s")) == 1


async def test_a_feed_goes_on(dsn18: str, through_proxy: tuple[Proxy, EventStore]) -> None:
    proxy, store = through_proxy
    events = aiter(store.subscribe())
    async with asyncio.timeout(_SOON), EventStore.connect(dsn18) as other:
        assert (await anext(events)).stream_seq == 0
        proxy.hush()
        await other.append("s", [NewEvent("T")])
        assert (await anext(events)).stream_seq == 1


async def test_a_feed_whose_listening_connection_falls_silent_at_once_polls(
    dsn18: str,
) -> None:
    class FallingSilent(Connector):
        async def open(self, role: str = "", **options: Any) -> Session:
            connection = await super().open(role, **options)
            if role == "listener":
                proxy.hush()
            return connection

    with tempfile.TemporaryDirectory() as directory:
        async with asyncio.timeout(_SOON), proxied(dsn18, Path(directory)) as (proxy, address):
            connector = FallingSilent(address, "test", timeout=_SILENCE, timings=Timings(heartbeat_answer=_SILENCE))
            async with await open_store(connector) as store:
                feed = await store.feed()
                assert not await feed.listen()


async def test_where_nothing_answers_an_append_ends(through_proxy: tuple[Proxy, EventStore]) -> None:
    proxy, store = through_proxy
    proxy.mute = True
    async with asyncio.timeout(_SOON):
        with pytest.raises(OutcomeUnknown):
            await store.append("s", [NewEvent("T")], expected=0)


async def test_a_long_wait_for_a_lock_is_no_silence(dsn18: str) -> None:
    sql = await asyncpg.connect(dsn18)
    connector = Asking(dsn18, "esx", timeout=_LONGER)
    async with await open_store(connector, retry_for=0) as store:
        assert await store.version("s") == -1
        blocking = sql.transaction()
        await blocking.start()
        await sql.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}')")
        appending = asyncio.create_task(store.append("s", [NewEvent("T")], expected=NO_STREAM))
        async with asyncio.timeout(_SOON):
            while connector.asked < 2:
                await asyncio.sleep(0.01)
            assert not appending.done()
            await blocking.rollback()
            assert (await appending).version == 0
    await sql.close()


async def test_the_holder_of_a_lock_may_take_its_time(dsn18: str) -> None:
    connector = Asking(dsn18, "esx", timeout=_LONGER)
    async with store_and_pool(connector) as (store, pool):
        async with store.lock_stream("s") as stream, asyncio.timeout(_SOON), pool.lend() as other:
            slow = asyncio.create_task(other.execute("SELECT pg_sleep(600)"))
            while connector.asked < 2:
                await asyncio.sleep(0.01)
            slow.cancel()
            await stream.append([NewEvent("T")])
        assert await store.version("s") == 0


async def test_a_lock_whose_holder_is_no_longer_heard_goes_to_the_next(
    dsn18: str, through_proxy: tuple[Proxy, EventStore]
) -> None:
    proxy, store = through_proxy
    async with asyncio.timeout(_SOON), EventStore.connect(dsn18) as other:
        with pytest.raises(OutcomeUnknown):
            async with store.lock_stream("s") as stream:
                proxy.hush()
                proxy.clings = True
                await stream.append([NewEvent("T")])
        async with other.lock_stream("s") as stream:
            assert stream.version == 0


async def test_a_projection_whose_connection_falls_silent_in_a_batch_goes_on(
    dsn18: str, through_proxy: tuple[Proxy, EventStore]
) -> None:
    proxy, store = through_proxy
    await store.append("s", [NewEvent("T"), NewEvent("T")], expected=0)
    sql = await asyncpg.connect(dsn18)
    await sql.execute("CREATE TABLE seen (global_seq bigint)")
    handled = asyncio.Event()
    tries = 0

    async def handler(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            proxy.hush()
        await connection.executemany("INSERT INTO seen VALUES ($1)", [(event.global_seq,) for event in events])
        handled.set()

    async with asyncio.timeout(2 * _SOON):
        projection = asyncio.create_task(store.project_batches("p", handler))
        await handled.wait()
        while (await store.projections())[0].position < 3:
            await asyncio.sleep(0.01)
        assert [row[0] for row in await sql.fetch("SELECT * FROM seen ORDER BY 1")] == [1, 2, 3]
        assert tries == 2
        projection.cancel()
    await sql.close()


async def test_a_look_that_fails_is_logged_and_not_the_last(
    through_proxy: tuple[Proxy, EventStore], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    proxy, store = through_proxy
    failures = 0

    def fail_at_first(connection: Session) -> tuple[int, int] | None:
        nonlocal failures
        if not failures:
            failures += 1
            raise RuntimeError("not expected")
        return progress(connection)

    monkeypatch.setattr("esx.postgres.watchdog.progress", fail_at_first)
    proxy.hush()
    async with asyncio.timeout(_SOON):
        with pytest.raises(StoreUnavailable):
            await store.read_page("s")
    assert [record.name for record in caplog.records] == ["esx.background"]


async def test_one_that_has_got_on_by_the_time_of_the_answer_is_left_alone(dsn18: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with proxied(dsn18, Path(directory)) as (proxy, address):
            connector = Connector(address, "test", timeout=_SILENCE)
            connection = await connector.open()
            impatient = Watchdog(connector, {connection}, patience=0.0)
            watchdog = Watchdog(connector, {connection}, patience=_SILENCE)
            sleeping = asyncio.create_task(connection.execute("SELECT pg_sleep(0.1)"))
            async with asyncio.timeout(_SOON):
                while not (silent := impatient.silent()):
                    await asyncio.sleep(0)
                await sleeping
                # A moment ago it was silent. Now it has begun something new, of which PostgreSQL has not heard yet.
                proxy.hush()
                begun = asyncio.create_task(connection.execute("SELECT 1"))
                await asyncio.sleep(0)
                assert progress(connection) is not None
                await watchdog.end_those_in_vain(silent)
                assert not connection.is_closed()
                # PostgreSQL does nothing for what it waits for now, so a second look ends it.
                while not (silent := impatient.silent()):
                    await asyncio.sleep(0)
                await watchdog.end_those_in_vain(silent)
                assert connection.is_closed()
            await asyncio.gather(begun, return_exceptions=True)


async def test_whether_an_answer_is_waited_for(dsn18: str) -> None:
    sql = await asyncpg.connect(dsn18)
    assert progress(sql) is None
    async with sql.transaction():
        asking = asyncio.create_task(sql.fetchval("SELECT pg_sleep(600)"))
        await asyncio.sleep(0)
        assert progress(sql) is not None
        asking.cancel()
        await asyncio.sleep(0)
        assert progress(sql) is not None, "for the cancelled statement to end"
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert progress(sql) is None
    assert await sql.fetchval("SELECT 1") == 1
    await sql.close()
