"""The server killed with -9 and restarted under its writers, while a feed follows."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import psutil
import pytest

from esx import EventStore, NewEvent
from esx.embedded import EmbeddedServer
from tests.support.clusters import copy_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

_INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, $2, 'T', '{}') RETURNING global_seq"
_LOSS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_WRITERS = 24
_TRANSACTIONS = 20
_DEADLINE = 120.0


class Mortal:
    """A server of the test's own, which can be killed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server = EmbeddedServer.start(directory, version=18)
        self.dsn = self._server.dsn

    def kill_and_restart(self) -> None:
        """Kill the postmaster without a word, and let a new one recover what is there."""
        postmaster = psutil.Process(self._server.pid)
        postmaster.kill()
        postmaster.wait(_DEADLINE)
        killed, self._server = self._server, EmbeddedServer.start(self._directory, version=18)
        assert self._server.dsn == self.dsn
        assert self._server.pid != postmaster.pid
        killed.stop()

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
async def mortal() -> AsyncIterator[Mortal]:
    directory = Path(tempfile.mkdtemp(prefix="esx-kill-"))
    directory.chmod(0o755)
    await copy_cluster(directory, 18)
    mortal = Mortal(directory)
    try:
        yield mortal
    finally:
        mortal.stop()
        shutil.rmtree(directory, ignore_errors=True)


class MoodyWriters:
    """Write from transactions that now and then pause before they commit or roll back, whatever becomes of the server.

    `committed` was acknowledged; of `unknown` a commit was asked for and not answered.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.committed: set[int] = set()
        self.unknown: set[int] = set()

    async def run(self) -> None:
        await asyncio.gather(*(self._write(name) for name in range(_WRITERS)))

    async def _write(self, name: int) -> None:
        mood = random.Random(name)
        turns = iter(range(_TRANSACTIONS))
        while True:
            try:
                connection = await asyncpg.connect(self._dsn)
            except _LOSS:
                await asyncio.sleep(0.02)
                continue
            try:
                for turn in turns:
                    await self._transact(connection, f"s-{name}-{turn}", mood)
            except _LOSS:
                continue
            finally:
                connection.terminate()
            return

    async def _transact(self, connection: asyncpg.Connection, stream: str, mood: random.Random) -> None:
        transaction = connection.transaction()
        await transaction.start()
        numbers = {await connection.fetchval(_INSERT, stream, seq) for seq in range(mood.randint(1, 3))}
        if mood.random() < 0.4:
            await asyncio.sleep(mood.uniform(0, 0.05))
        if mood.random() < 0.3:
            await transaction.rollback()
            return
        self.unknown |= numbers
        await transaction.commit()
        self.unknown -= numbers
        self.committed |= numbers


async def test_nothing_is_lost_or_repeated_when_the_server_is_killed_under_its_writers(mortal: Mortal) -> None:
    async with EventStore.connect(mortal.dsn) as store, asyncio.timeout(_DEADLINE):
        await store.init()
        feed = await store.feed(page=50)
        seen: list[int] = []

        async def follow() -> None:
            async for batch in feed.follow():
                seen.extend(event.global_seq for event in batch.events)

        following = asyncio.create_task(follow())
        writers = MoodyWriters(mortal.dsn)
        writing = asyncio.create_task(writers.run())
        for share in (0.25, 0.5):
            while len(writers.committed) < share * _WRITERS * _TRANSACTIONS:
                assert not writing.done()
                await asyncio.sleep(0.005)
            await asyncio.to_thread(mortal.kill_and_restart)
        await writing
        # The connections at rest are those of the dead server.
        async with EventStore.connect(mortal.dsn) as after:
            last = await after.append("last", [NewEvent("Last")])
        while last.global_seq not in seen:
            assert not following.done()
            await asyncio.sleep(0.01)
        following.cancel()
        connection = await asyncpg.connect(mortal.dsn)
        stored = [row[0] for row in await connection.fetch("SELECT global_seq FROM events ORDER BY global_seq")]
        await connection.close()
    assert seen == stored
    assert writers.committed <= set(stored) <= writers.committed | writers.unknown | {last.global_seq}
    assert feed.dead == feed.position - len(seen)
