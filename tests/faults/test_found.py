"""What the faults have found in esx, each by itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import NO_STREAM, EventStore, NewEvent, NotAllowed, StoreUnavailable
from esx.store.feed.settings import FeedSettings
from tests.conftest import admin
from tests.faults.cluster import connected, until
from tests.store.feed.test_standby import standby_of
from tests.support.proxy import Proxy, proxied

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from esx import Event
    from tests.conftest import Servers

pytestmark = pytest.mark.slow

_TIMEOUT = 0.5
# Many times what it may take, so that a machine that is busy does not decide.
_FOR_EVER = 120.0
_NUMBER = "SELECT nextval('events_global_seq_seq')"


class Half(Proxy):
    """Lets the first part of the next bound statement through, and then nothing more on that connection."""

    armed = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(self.target)

        async def forward() -> None:
            silent = False
            while data := await reader.read(65536):
                if self.armed and data[:1] == b"B":
                    self.armed, silent = False, True
                    end = 1 + int.from_bytes(data[1:5], "big")  # of Bind; then comes Execute, and Sync
                    upstream_writer.write(data[: end + 1 + int.from_bytes(data[end + 1 : end + 5], "big")])
                elif not silent:
                    upstream_writer.write(data)

        async def back() -> None:
            while data := await upstream_reader.read(65536):
                writer.write(data)

        tasks = [asyncio.create_task(forward()), asyncio.create_task(back())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            writer.transport.abort()
            upstream_writer.transport.abort()


async def test_a_connection_that_falls_silent_within_a_request_is_ended(
    dsn18: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction is open, holds the feed and the stream, and PostgreSQL says that it is active."""
    monkeypatch.setattr("tests.support.proxy.Proxy", Half)
    async with proxied(dsn18, tmp_path) as (proxy, address), EventStore.connect(address, timeout=_TIMEOUT) as store:
        assert isinstance(proxy, Half)
        await store.append("s", [NewEvent("T")])
        proxy.armed = True
        async with asyncio.timeout(_FOR_EVER):
            await store.append("t", [NewEvent("T")], expected=NO_STREAM)
        assert not proxy.armed


async def test_silent_connections_are_ended_where_the_address_leads_to_another_primary_now(
    dsn18: str, servers: Servers, tmp_path: Path
) -> None:
    other = await servers.get(16)
    async with proxied(dsn18, tmp_path) as (proxy, address), EventStore.connect(address, timeout=_TIMEOUT) as store:
        await store.append("s", [NewEvent("T")])
        async with connected(dsn18) as connection, admin(other) as there:
            name = await connection.fetchval("SELECT current_database()")
            await there.execute(f"CREATE DATABASE {name} TEMPLATE esx_template")
        try:
            proxy.hush()
            proxy.target = str(other.socket_dir / ".s.PGSQL.5432")
            async with asyncio.timeout(_FOR_EVER):
                await store.append("t", [NewEvent("T")], expected=NO_STREAM)
        finally:
            proxy.target = ""
            async with admin(other) as there:
                await there.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_gap_is_passed_at_once_where_a_standby_was_promoted(
    dsn18: str, store18: EventStore, servers: Servers
) -> None:
    with standby_of(await servers.get(18)) as standby:
        async with connected(dsn18) as connection:
            name = await connection.fetchval("SELECT current_database()")
        async with EventStore.connect(standby.dsn_for(name), max_connections=1) as store:
            store.feed_settings = FeedSettings(standby_moment=3600)  # as long as a standby would wait
            feed = (await store.feed()).follow()
            first = await store18.append("s", [NewEvent("T")])
            assert (await anext(feed)).position == first.global_seq
            async with connected(standby.dsn_for(name)) as connection:
                await connection.fetchval("SELECT pg_promote(true, 600)")
                await connection.execute(_NUMBER)
            await store.append("s", [NewEvent("T")])
            async with asyncio.timeout(_FOR_EVER):
                while not (await anext(feed)).events:
                    pass


async def test_connections_that_came_to_a_standby_by_a_wrong_address_are_given_up(
    dsn18: str, store18: EventStore, servers: Servers, tmp_path: Path
) -> None:
    """The address leads to the standby for a moment. What was opened then refuses one append, and is not used again."""
    await store18.append("s", [NewEvent("T")])
    with standby_of(await servers.get(18)) as standby:
        async with proxied(dsn18, tmp_path) as (proxy, address):
            primary, proxy.target = proxy.target, str(standby.socket_dir / ".s.PGSQL.5432")
            async with EventStore.connect(address) as store:
                await asyncio.gather(*(store.read_page("s") for _ in range(5)))
                proxy.target = primary
                refused = 0
                for number in range(20):
                    try:
                        await store.append(f"t-{number}", [NewEvent("T")])
                    except NotAllowed:
                        refused += 1
                assert 1 <= refused <= 5
                for number in range(20):
                    await store.append(f"u-{number}", [NewEvent("T")])


@pytest.mark.parametrize("silent_on", ["standby", "primary"])
async def test_a_silent_connection_is_ended_where_its_server_cannot_be_asked_any_more(
    silent_on: str, dsn18: str, store18: EventStore, servers: Servers, tmp_path: Path
) -> None:
    """Each new connection comes to the other server, which knows nothing of the silent one."""
    await store18.append("s", [NewEvent("T")])
    with standby_of(await servers.get(18)) as standby:
        async with proxied(dsn18, tmp_path) as (proxy, address):
            targets = {"primary": proxy.target, "standby": str(standby.socket_dir / ".s.PGSQL.5432")}
            proxy.target = targets.pop(silent_on)
            async with EventStore.connect(address, timeout=_TIMEOUT) as store:
                assert len(await store.read_page("s")) == 1
                proxy.hush()
                [proxy.target] = targets.values()
                async with asyncio.timeout(_FOR_EVER):
                    with pytest.raises(StoreUnavailable):
                        await store.read_page("s")
                    assert len(await store.read_page("s")) == 1


async def test_a_projection_outlives_that_its_address_leads_to_a_standby_for_a_moment(
    dsn18: str, store18: EventStore, servers: Servers, tmp_path: Path
) -> None:
    handled: list[str] = []

    async def handle(_: asyncpg.Connection, events: Sequence[Event]) -> None:
        handled.extend(event.stream_id for event in events)

    with standby_of(await servers.get(18)) as standby:
        async with (
            proxied(dsn18, tmp_path) as (proxy, address),
            EventStore.connect(address) as store,
            connected(dsn18) as connection,
        ):
            running = asyncio.create_task(store.project_batches("p", handle))
            await store18.append("one", [NewEvent("T")])
            await until(lambda: "one" in handled, lambda: None, "the projection")
            back, proxy.target = proxy.target, str(standby.socket_dir / ".s.PGSQL.5432")
            opened = proxy.opened
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'esx projection'"
            )
            await store18.append("two", [NewEvent("T")])
            await until(lambda: running.done() or proxy.opened > opened + 2, lambda: None, "a few attempts")
            proxy.target = back
            await until(lambda: running.done() or "two" in handled, lambda: None, "the projection")
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
