"""An asyncpg that has changed inside: esx goes the documented way, does all that it did, and says so in one line."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from esx import NO_STREAM, EventStore, NewEvent, OutcomeUnknown, WrongVersion
from esx.errors import StoreUnavailable
from esx.postgres import driver_internals
from esx.postgres.connection import Connector
from esx.postgres.driver_internals import progress
from esx.postgres.pool import Pool
from tests.support.asyncpg_changed import another_version, change_asyncpg
from tests.support.pgbouncer import needs_pgbouncer, pooled
from tests.support.proxy import proxied
from tests.support.stores import store_and_pool

pytestmark = pytest.mark.slow

_SILENCE = 1.0
_DEADLINE = 120.0
_CHANGES = pytest.mark.parametrize("how", [AttributeError, TypeError])


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "esx.postgres"]


async def test_this_asyncpg_is_as_esx_knows_it(
    dsn18: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where this fails, appends cost an eighth more, and the watchdog sees less, until esx follows asyncpg."""
    another_version(monkeypatch)
    async with store_and_pool(dsn18) as (store, pool):
        await store.append("s", [NewEvent("T")])
        async with pool.lend(guarded=False) as connection:
            assert driver_internals.socket_of(connection) is not None
            driver_internals.look_up_types_with_jit(connection)
            driver_internals.know_arrays(connection)
            asking = asyncio.create_task(connection.execute("SELECT pg_sleep(0.1)"))
            await asyncio.sleep(0)
            assert progress(connection) is not None
            await asking
            assert progress(connection) is None
    assert told(caplog) == []


ARRAYS: dict[str, list[object]] = {
    "json": ["[1.50]", None],
    "bool": [True, False],
    "bytea": [b"\0"],
    "name": ["n"],
    "smallint": [-1, 2],
    "int": [-1, 2],
    "bigint": [2**62, -1],
    "real": [0.5],
    "float8": [0.1],
    "timestamptz": [datetime(2026, 8, 7, tzinfo=UTC)],
    "uuid": [UUID(int=7)],
    "jsonb": ['{"a": 1}'],
}


async def test_arrays_of_postgresqls_own_types_are_known_without_asking(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(*_: object) -> None:
        raise AssertionError("PostgreSQL is asked for a type")

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", ask)
    session = await Connector(dsn, "test").open()
    for name, values in ARRAYS.items():
        assert await session.fetchval(f"SELECT $1::{name}[]", values) == values, name
        assert await session.fetchval(f"SELECT ARRAY(SELECT $1::{name})", values[0]) == values[:1], name
    await session.close()
    assert len(ARRAYS) == len(driver_internals._ARRAYS)


@_CHANGES
async def test_all_goes_on_with_an_asyncpg_that_has_changed(
    dsn18: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: type[Exception]
) -> None:
    change_asyncpg(monkeypatch, how)
    async with EventStore.connect(dsn18) as store, asyncio.timeout(_DEADLINE):
        first = await store.append("s", [NewEvent("T", {"n": 1})], expected=NO_STREAM)
        with pytest.raises(WrongVersion):
            await store.append("s", [NewEvent("T")], expected=NO_STREAM)
        assert await store.version("s") == 0
        async with store.lock_stream("s") as stream:
            await stream.append([NewEvent("T")])
        event = await store.event(first.global_seq)
        assert event is not None
        assert event.data == {"n": 1}
        assert (await store.place()).database
        # A feed that listens is woken.
        feed = await store.feed()
        assert await feed.listen()
        seen: list[int] = []

        async def follow() -> None:
            async for batch in feed.follow():
                seen.extend(event.global_seq for event in batch.events)

        following = asyncio.create_task(follow())
        while len(seen) < 2:
            await asyncio.sleep(0.01)
        last = await store.append("s", [NewEvent("T")])
        while seen[-1] != last.global_seq:
            await asyncio.sleep(0.01)
        following.cancel()
    async with EventStore.connect(dsn18, read_only=True) as reader:
        assert [event.stream_seq async for event in reader.read("s")] == [0, 1, 2]
    [line] = told(caplog)
    assert f"asyncpg {asyncpg.__version__} has changed inside" in line


@_CHANGES
async def test_the_watchdog_goes_by_the_count_of_the_session(
    dsn18: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: type[Exception]
) -> None:
    change_asyncpg(monkeypatch, how)
    with tempfile.TemporaryDirectory() as directory:
        async with (
            proxied(dsn18, Path(directory)) as (proxy, address),
            store_and_pool(Connector(address, "esx", timeout=_SILENCE)) as (store, pool),
            asyncio.timeout(_DEADLINE),
        ):
            await store.append("s", [NewEvent("T")], expected=NO_STREAM)
            async with pool.lend(guarded=False) as connection:
                asking = asyncio.create_task(connection.execute("SELECT pg_sleep(0.1)"))
                await asyncio.sleep(0)
                assert progress(connection) == (connection.begun, 0)
                await asking
                assert progress(connection) is None
            proxy.hush()
            with pytest.raises(StoreUnavailable):
                await store.read_page("s")
            assert len(await store.read_page("s")) == 1
            proxy.mute = True
            with pytest.raises(OutcomeUnknown):
                await store.append("s", [NewEvent("T")], expected=0)
    assert len(told(caplog)) == 1


@_CHANGES
@pytest.mark.parametrize("read_only", [False, True])
async def test_a_query_that_is_cut_short_leaves_a_usable_connection(
    dsn18: str, monkeypatch: pytest.MonkeyPatch, how: type[Exception], read_only: bool
) -> None:
    change_asyncpg(monkeypatch, how)
    pool = Pool(Connector(dsn18, "test").open, 1, "here", read_only=read_only)
    other = await asyncpg.connect(dsn18)

    async def slow() -> None:
        async with pool.lend() as connection:
            await connection.execute("SELECT pg_sleep(600)")

    async with asyncio.timeout(_DEADLINE):
        async with pool.lend() as connection:
            first = connection.get_server_pid()
        for _ in range(3):
            task = asyncio.create_task(slow())
            while not await other.fetchval("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1", first):
                await asyncio.sleep(0.01)
            task.cancel()
            async with pool.lend() as connection:
                assert await connection.fetchval("SELECT pg_backend_pid()") == first
    await other.close()
    pool.terminate()


@_CHANGES
@needs_pgbouncer
async def test_behind_a_pooler_too(
    dsn18: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: type[Exception]
) -> None:
    change_asyncpg(monkeypatch, how)
    async with pooled(dsn18) as address, EventStore.connect(address) as store:
        assert store.pooler is not None
        await store.append("s", [NewEvent("T")], expected=NO_STREAM)
        assert [event.stream_seq async for event in store.read("s")] == [0]
    assert len(told(caplog)) == 1


def test_another_signature_is_noticed_when_esx_is_loaded(dsn18: str) -> None:
    """Neither the method nor the class with which the watchdog asks need be there."""
    program = f"""
import asyncio, logging
import asyncpg.protocol.protocol as protocol
logging.basicConfig(format="%(name)s %(message)s")
class BaseProtocol:
    async def bind_execute(self, state, args, timeout): ...
protocol.BaseProtocol = BaseProtocol
del protocol.PreparedStatementState
from esx import NewEvent
from esx.postgres.connection import Connector
from tests.support.stores import store_and_pool
async def main():
    async with store_and_pool(Connector({dsn18!r}, "esx", timeout=0.4)) as (store, pool):
        for version in range(3):
            assert (await store.append("s", [NewEvent("T")])).version == version
        async with pool.lend() as connection:
            await connection.execute("SELECT pg_catalog.pg_sleep(1)")
        assert len(await store.read_page("s")) == 3
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("esx.postgres asyncpg ")
