"""A real PostgreSQL for every test: both versions in the wheel, and a database of its own for each test."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from esx.embedded import EmbeddedServer
from esx.eventstore import EventStore
from tests.support import forked_locust
from tests.support.clusters import TEMPLATE, choose_home, copy_cluster, remove_home
from tests.support.connections import connected
from tests.support.roles import Role, new_role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
    from contextlib import AbstractAsyncContextManager

pytest_plugins = ["tests.support.kafka", "tests.support.limit", "tests.support.markers"]

_commanding: dict[tuple[int, Path], psycopg.Connection[Any]] = {}
"""A connection to each server."""
# Nothing there survives the test run, so a crash may lose it; and no test waits for what autovacuum does each minute.
_SETTINGS = "fsync = off\nautovacuum_naptime = '1d'\n"
_IN_MEMORY = Path("/dev/shm")
_ROOM = 4 * 2**30

# Until all tests are collected: what they import makes hardly any garbage, which is searched for again and again.
gc.disable()

# Tests start Python some hundred times, and each process of pytest-xdist loads all tests: none need compile it again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Each test makes a database: on a disk, that takes most of a short test's time, and nothing of it is kept.
if "TMPDIR" not in os.environ and os.access(_IN_MEMORY, os.W_OK | os.X_OK):
    _found = os.statvfs(_IN_MEMORY)
    if _found.f_bavail * _found.f_frsize >= _ROOM and not _found.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(_IN_MEMORY)
        tempfile.tempdir = None


def pytest_xdist_auto_num_workers() -> int:
    """Return four more than there are cores: that many keep two busy, as tests wait for screens and for programs."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or (os.cpu_count() or 1) + 4)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        choose_home()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        remove_home()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let each process of pytest-xdist compile a part of the tests for all of them, before each loads all."""
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    here = Path(__file__).parent
    modules = sorted(".".join(path.relative_to(here.parent).with_suffix("").parts) for path in here.rglob("test_*.py"))
    for module in modules[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        with contextlib.suppress(Exception):  # it is loaded again, and then it is told
            importlib.import_module(module)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the tests and what they import out of the searches for garbage: they stay until the end."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        # Most of what a test makes lasts until its end.
        gc.set_threshold(20_000, 20, 10)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the runs with faults did, passed or not."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, text in getattr(report, "user_properties", ()):
                if name == "faults" and report.when == "call":
                    terminalreporter.write_line(text)


class Servers:
    """One server a version, started when a test first needs it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[int, EmbeddedServer] = {}
        self._kept: dict[tuple[int, str], str] = {}

    async def get(self, version: int) -> EmbeddedServer:
        if version not in self._running:
            await copy_cluster(self._directory, version, _SETTINGS)
            self._running[version] = EmbeddedServer.start(self._directory, version=version)
        return self._running[version]

    async def kept(self, version: int, name: str, fill: Callable[[str], Awaitable[None]]) -> str:
        """Return the address of a database for all tests that only read it, which is filled when the first needs it.

        To write there is refused. `name` tells it from others, as a part of an identifier does.
        """
        if (version, name) not in self._kept:
            server = await self.get(version)
            database = f"kept_{name}"
            async with admin(server) as connection:
                await connection.execute(f"CREATE DATABASE {database} TEMPLATE template1 STRATEGY file_copy")
                await fill(server.dsn_for(database))
                await connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
            self._kept[version, name] = server.dsn_for(database)
        return self._kept[version, name]

    def stop(self) -> None:
        for server in self._running.values():
            server.stop()


def admin(server: EmbeddedServer) -> AbstractAsyncContextManager[asyncpg.Connection]:
    return connected(server.dsn_for("postgres"))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let commands be interrupted: a shell starts what runs in the background with these ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGQUIT", "SIGHUP"):  # nohup ignores the latter
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
            signal.signal(getattr(signal, name), signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def load_tests_are_forked() -> None:
    """Let load tests that esx starts be forked; `REALLY` in the environment has them started."""
    forked_locust.ask_at()


@pytest.fixture(scope="session", autouse=True)
def data_directories() -> Iterator[Path]:
    """Keep what commands save out of the user's own directory."""
    directory = Path(tempfile.mkdtemp(prefix="esx-data-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESX_DATA_DIR", str(directory))
        yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def data_directory(data_directories: Path) -> Iterator[Path]:
    """Keep what one test leaves, such as a border that was moved, out of the next."""
    directory = data_directories / uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("ESX_DATA_DIR") == str(data_directories):
            patch.setenv("ESX_DATA_DIR", str(directory))
        yield directory


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    # A short path: the name of a socket may have no more than 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="esx-test-"))
    servers = Servers(directory)
    try:
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def fresh_database(server: EmbeddedServer, template: str) -> AsyncIterator[str]:
    name = f"test_{uuid4().hex}"
    administer(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield server.dsn_for(name)
    finally:
        administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def administer(server: EmbeddedServer, command: str) -> None:
    """Run a command on a connection that stays: to make one for each test costs a fifth of what its database costs."""
    known = server.pid, server.data_dir
    connection = _commanding.get(known)
    if connection is None or connection.closed:
        connection = _commanding[known] = psycopg.connect(server.dsn_for("postgres"), autocommit=True)
    connection.execute(command)


@pytest_asyncio.fixture(params=[16, 18], ids=["pg16", "pg18"])
async def server(request: pytest.FixtureRequest, servers: Servers) -> EmbeddedServer:
    """Both servers in turn, for what may differ between versions."""
    return await servers.get(request.param)


@pytest_asyncio.fixture
async def dsn(server: EmbeddedServer) -> AsyncIterator[str]:
    """A fresh database with the schema, on both versions."""
    async with fresh_database(server, TEMPLATE) as address:
        yield address


@pytest_asyncio.fixture
async def empty_dsn(server: EmbeddedServer) -> AsyncIterator[str]:
    """A fresh database without the schema, on both versions."""
    async with fresh_database(server, "template1") as address:
        yield address


@pytest_asyncio.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with EventStore.connect(dsn, max_connections=40) as store:
        yield store


@pytest_asyncio.fixture
async def dsn18(servers: Servers) -> AsyncIterator[str]:
    """A fresh database with the schema, for what does not depend on the version of PostgreSQL."""
    async with fresh_database(await servers.get(18), TEMPLATE) as address:
        yield address


@pytest_asyncio.fixture
async def empty_dsn18(servers: Servers) -> AsyncIterator[str]:
    async with fresh_database(await servers.get(18), "template1") as address:
        yield address


@pytest_asyncio.fixture
async def store18(dsn18: str) -> AsyncIterator[EventStore]:
    async with EventStore.connect(dsn18, max_connections=40) as store:
        yield store


@pytest_asyncio.fixture
async def sql(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A bare connection to the database of `dsn`: for what is done there without esx."""
    async with connected(dsn) as connection:
        yield connection


@pytest_asyncio.fixture
async def sql18(dsn18: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(dsn18) as connection:
        yield connection


@pytest_asyncio.fixture
async def role(dsn18: str) -> AsyncIterator[Role]:
    """Yield a user of that database without any rights."""
    async with new_role(dsn18) as made:
        yield made
