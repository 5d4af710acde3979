"""A primary and its asynchronous standby behind one address, and what can be done to them.

All processes are children of servers that were started here; each is stopped, and in the end looked for, by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import psutil

from esx.embedded import EmbeddedServer
from esx.embedded.account import account_for, run
from esx.embedded.postmaster import server_processes
from tests.faults.history import Row
from tests.support.clusters import copy_cluster
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_PATIENCE = 120.0
_SETTINGS = {
    # A standby that was stopped finds what it has missed, and looks for its primary again at once.
    "wal_keep_size": "512MB",
    "wal_retrieve_retry_interval": "100ms",
    # One whose primary's sender was stopped stays as far behind as it is.
    "wal_receiver_timeout": "0",
    # Of two who wait for each other PostgreSQL ends one at once.
    "deadlock_timeout": "100ms",
}


class Node:
    """One server with a directory of its own."""

    def __init__(self, directory: Path, version: int) -> None:
        self.directory = directory
        self.version = version
        self.server: EmbeddedServer | None = None
        self._stopped: set[int] = set()

    @classmethod
    def make(cls, version: int) -> Node:
        """Return a node without any files; the name is short, as that of a socket may have no more than 107 bytes."""
        directory = Path(tempfile.mkdtemp(prefix="esx-fault-"))
        directory.chmod(0o777)
        return cls(directory, version)

    @property
    def running(self) -> EmbeddedServer:
        assert self.server is not None
        return self.server

    @property
    def dsn(self) -> str:
        return self.running.dsn

    @property
    def socket(self) -> str:
        return str(self.running.socket_dir / ".s.PGSQL.5432")

    @property
    def _data(self) -> Path:
        return self.directory / f"postgresql-{self.version}" / "data"

    def start(self) -> None:
        before, self.server = self.server, EmbeddedServer.start(self.directory, version=self.version)
        if before is not None:
            before.stop()

    def copy(self, primary: Node) -> None:
        """Take the files of a running primary, to be its standby."""
        copied = run(
            [
                *(primary.running.bin_dir / "pg_basebackup", "-h", str(primary.running.socket_dir), "-U", "postgres"),
                *("-D", self._data, "--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync"),
            ],
            account_for(primary.running.data_dir),
        )
        assert copied.returncode == 0, copied.stderr
        for of_the_primary in self._data.glob(".s.PGSQL.*"):
            of_the_primary.unlink()

    def kill(self) -> None:
        """Kill the postmaster without a word; its children end when they notice."""
        postmaster = psutil.Process(self.running.pid)
        postmaster.kill()
        postmaster.wait(_PATIENCE)

    def kill_all(self) -> None:
        """Kill every process of the server, also those that are stopped, and see them gone."""
        while processes := [*self.left().values()]:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, 1)
        self._stopped.clear()

    def suspend(self, pids: list[int]) -> None:
        """Stop processes of this server, until `resume`."""
        mine = {process.pid for process in psutil.Process(self.running.pid).children()}
        for pid in mine & set(pids):
            self._stopped.add(pid)
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped.clear()

    def end(self) -> None:
        """End all that runs here, and remove the files, which nobody needs any more."""
        self.kill_all()
        if self.server is not None:
            self.server.stop()
            shutil.rmtree(self.server.socket_dir, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def left(self) -> dict[int, Any]:
        """Return the processes that run here, by their ids: they all work in the data directory."""
        return server_processes(self._data)


class Gate(Proxy):
    """The address: a proxy that also bears a server that is not there."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await super().serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()


class Cluster:
    """The two servers, and the address `dsn` that leads to the one that is the primary now."""

    def __init__(self, version: int, gate: Gate, primary: Node, dsn: str) -> None:
        self.version = version
        self.gate = gate
        self.primary = primary
        self.standby: Node | None = None
        self.dsn = dsn
        self.nodes = [primary]

    async def add_standby(self) -> None:
        """Make a standby of the primary, which is connected when this returns."""
        node = Node.make(self.version)
        self.nodes.append(node)
        await asyncio.to_thread(node.copy, self.primary)
        await asyncio.to_thread(node.start)
        self.standby = node
        await self.senders()

    async def senders(self) -> list[int]:
        """Return the process ids of the primary that send to the standby, once there are any."""
        async with connected(self.primary.dsn) as connection:
            return await _some(connection, "SELECT pid FROM pg_stat_replication WHERE state = 'streaming'")

    async def receivers(self) -> list[int]:
        """Return the process ids of the standby that receive, once there are any."""
        assert self.standby is not None
        async with connected(self.standby.dsn) as connection:
            return await _some(connection, "SELECT pid FROM pg_stat_wal_receiver WHERE status = 'streaming'")

    async def standby_has_all(self) -> None:
        """Wait until the standby has replayed all that the primary has committed by now."""
        assert self.standby is not None
        async with connected(self.primary.dsn) as primary, connected(self.standby.dsn) as standby:
            there = await primary.fetchval("SELECT pg_current_wal_flush_lsn()::text")
            patience = Patience()
            while not await standby.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", there):
                await patience.moment(await standby.fetchval("SELECT pg_last_wal_replay_lsn()::text"), "the standby")

    async def restart_primary(self) -> None:
        """Kill the primary and let it recover."""

        def kill_and_start() -> None:
            self.primary.kill()
            self.primary.start()

        await asyncio.to_thread(kill_and_start)

    async def promote(self) -> Node:
        """Promote the standby, and return the former primary, which must be dead."""
        former, promoted = self.primary, self.standby
        assert promoted is not None
        async with connected(promoted.dsn) as connection:
            assert await connection.fetchval("SELECT pg_promote(true, 600)")
        self.primary, self.standby = promoted, None
        return former

    def switch(self) -> None:
        """Let the address lead to the primary."""
        self.gate.target = self.primary.socket

    def end(self) -> None:
        """End all processes that were ever started here."""
        for node in self.nodes:
            node.end()

    def left(self) -> list[int]:
        return [pid for node in self.nodes for pid in node.left()]


@contextlib.asynccontextmanager
async def cluster(version: int) -> AsyncIterator[Cluster]:
    """Yield a primary and its standby; afterwards nothing of them is left, however that came about."""
    primary = Node.make(version)
    made: Cluster | None = None
    with tempfile.TemporaryDirectory(prefix="esx-gate-") as directory:
        try:
            await copy_cluster(primary.directory, version)
            await asyncio.to_thread(primary.start)
            async with connected(primary.dsn) as connection:
                assert await connection.fetchval("SHOW fsync") == "on"
                for name, value in _SETTINGS.items():
                    await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
                await connection.execute("SELECT pg_reload_conf()")
            gate = Gate(primary.socket)
            address = await asyncio.start_unix_server(gate.serve, Path(directory) / ".s.PGSQL.5432")
            dsn = f"postgresql://postgres@/esx?host={directory}&port=5432&sslmode=disable"
            made = Cluster(version, gate, primary, dsn)
            await made.add_standby()
            try:
                yield made
            finally:
                address.close()
        finally:
            (made or primary).end()


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn, timeout=_PATIENCE)
    try:
        yield connection
    finally:
        connection.terminate()


async def stored(node: Node) -> list[Row]:
    """Return the events of a server, in the order of their numbers."""
    async with connected(node.dsn) as connection:
        rows = await connection.fetch(
            "SELECT global_seq, stream_id, stream_seq, event_id FROM events ORDER BY global_seq"
        )
    return [Row._make(row) for row in rows]


async def _some(connection: asyncpg.Connection, query: str) -> list[int]:
    patience = Patience()
    while not (found := [row[0] for row in await connection.fetch(query)]):
        await patience.moment(None, query)
    return found


class Patience:
    """Waits as long as something moves; two minutes without that are a failure, however slow the machine is."""

    def __init__(self) -> None:
        self._before: object = None
        self._since = time.monotonic()

    async def moment(self, progress: object, what: str) -> None:
        """Wait a moment for `what`; `progress` is whatever changes while things move."""
        if progress != self._before:
            self._before, self._since = progress, time.monotonic()
        assert time.monotonic() < self._since + _PATIENCE, f"nothing moves any more, waiting for {what}: {progress}"
        await asyncio.sleep(0.01)


async def until(condition: Callable[[], bool], progress: Callable[[], object], what: str) -> None:
    """Wait until `condition` holds."""
    patience = Patience()
    while not condition():
        await patience.moment(progress(), what)


_SESSIONS = """
    SELECT pid FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = current_database()
      AND starts_with(application_name, $1)
    ORDER BY pid
"""


async def sessions(connection: asyncpg.Connection, names: str = "") -> list[int]:
    """Return the process ids of the sessions whose names begin so, in ascending order."""
    return [row[0] for row in await connection.fetch(_SESSIONS, names)]


async def end_sessions(dsn: str, names: str) -> None:
    """End all sessions whose names begin so, and see them gone: nothing that they were at will happen any more."""
    async with connected(dsn) as connection:
        while pids := await sessions(connection, names):
            await connection.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", pids)
            await asyncio.sleep(0.01)
