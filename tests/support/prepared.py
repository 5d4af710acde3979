"""A server that takes prepared transactions: the other servers of the tests keep PostgreSQL's default of none."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from esx import EventStore
from esx.embedded import EmbeddedServer
from tests.support.clusters import copy_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class PreparingServer:
    """The server, with a store in its database; `restart` makes it forget which session prepared what."""

    def __init__(self, directory: Path, version: int) -> None:
        self._directory = directory
        self._version = version
        self._running = EmbeddedServer.start(directory, version=version)

    @property
    def dsn(self) -> str:
        return self._running.dsn

    def restart(self) -> None:
        self.stop()
        self._running = EmbeddedServer.start(self._directory, version=self._version)

    def stop(self) -> None:
        self._running.stop()


@contextlib.asynccontextmanager
async def preparing_server(version: int) -> AsyncIterator[PreparingServer]:
    directory = Path(tempfile.mkdtemp(prefix="esx-prepared-"))
    server = None
    try:
        await copy_cluster(directory, version, "max_prepared_transactions = 4\n")
        server = PreparingServer(directory, version)
        async with EventStore.connect(server.dsn) as store:
            await store.init()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def server_with(version: int, *settings: str) -> AsyncIterator[str]:
    """Yield the address of a store on a server of its own with other settings, e.g. ``wal_level = logical``."""
    directory = Path(tempfile.mkdtemp(prefix="esx-settings-"))
    try:
        await copy_cluster(directory, version, "".join(f"{setting}\n" for setting in settings))
        with EmbeddedServer.start(directory, version=version) as server:
            async with EventStore.connect(server.dsn) as store:
                await store.init()
            yield server.dsn
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def prepare_append(dsn: str, gid: str) -> None:
    """Append an event in a transaction that is then left prepared, by a session that ends."""
    connection = await asyncpg.connect(dsn)
    # One that rang the doorbell cannot be prepared.
    await connection.execute(
        "BEGIN; SET LOCAL esx.notification = 'off'; SAVEPOINT a; "
        "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('prepared', 0, 'T', '{}'); "
        "RELEASE a; SAVEPOINT b; "
        "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('prepared', 1, 'T', '{}'); "
        f"PREPARE TRANSACTION '{gid}'"
    )
    await connection.close()
