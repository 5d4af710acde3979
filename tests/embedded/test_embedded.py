"""The embedded PostgreSQL: made, started, shared, stopped, and none the worse for what gets killed."""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import pytest

from esx.embedded import EmbeddedFailed, EmbeddedServer
from esx.embedded.account import account_for, as_user
from esx.embedded.postmaster import Postmaster, reap, server_processes
from tests.support.clusters import copy_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
NOBODY = 65534
ESX = """
    import sys
    from pathlib import Path
    from esx.embedded import EmbeddedServer
    with EmbeddedServer.start(Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        sys.stdin.read()
"""


@contextmanager
def short_directory() -> Iterator[Path]:
    # Not tmp_path: as root, each run of pytest closes the directory above it to the server's user.
    path = Path(tempfile.mkdtemp(prefix="esx-test-")).resolve()
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def empty() -> Iterator[Path]:
    with short_directory() as path:
        yield path


def initialised(home: Path, version: int = 18) -> Path:
    """Put data there such as a first start of a server leaves: most tests need no initdb of their own."""
    home.mkdir(parents=True, exist_ok=True)
    asyncio.run(copy_cluster(home, version))
    (home / f"postgresql-{version}/postgresql.log").unlink()
    return home


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    with short_directory() as path:
        yield initialised(path)


@pytest.fixture
def root(made: Path) -> Iterator[Path]:
    """A directory with data and no running server, before and after the test."""
    yield made
    assert not (made / "postgresql-18/data/postmaster.pid").exists()


class OtherEsx(NamedTuple):
    process: subprocess.Popen[str]
    server_pid: int

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(120) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(120)


@contextmanager
def other_esx(root: Path) -> Iterator[OtherEsx]:
    command = [sys.executable, "-c", textwrap.dedent(ESX), str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield OtherEsx(process, int(process.stdout.readline()))
        finally:
            process.kill()


def runs(pid: int) -> bool:
    reap(pid)
    psutil: Any = importlib.import_module("psutil")
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def psql(server: EmbeddedServer, sql: str) -> str:
    command = [str(server.bin_dir / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", server.dsn, "-c", sql]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def kill_server(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not runs(server.pid))


def in_time(told: list[str]) -> list[str]:
    """Leave out what is said only where the machine takes its time."""
    return [text for text in told if not text.startswith(("waiting for PostgreSQL", "stopping PostgreSQL"))]


@pytest.mark.parametrize("killed", [False, True])
def test_a_slow_start_is_told_as_a_crash_only_after_one(
    empty: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    look = Postmaster.read.__func__  # type: ignore[attr-defined]

    def late(cls: type[Postmaster], data_dir: Path) -> Postmaster | None:
        found: Postmaster | None = look(cls, data_dir)
        return found and replace(found, ready=found.ready and any("waiting" in text for text in told))

    with EmbeddedServer.start(initialised(empty)) as server:
        if killed:
            kill_server(server)
    monkeypatch.setattr(Postmaster, "read", classmethod(late))
    with EmbeddedServer.start(empty, on_progress=told.append):
        pass
    what = "recover from a crash" if killed else "start"
    assert f"waiting for PostgreSQL 18 to {what}" in told


@pytest.mark.parametrize("version", [16, 18])
async def test_the_first_start_makes_it_and_later_ones_keep_it(empty: Path, version: int) -> None:
    told: list[str] = []
    home = empty / "new" / "it's odd"  # neither is there yet
    server = await asyncio.to_thread(EmbeddedServer.start, home, version=version, on_progress=told.append)
    try:
        assert in_time(told) == ["creating the embedded database", f"starting PostgreSQL {version}"]
        assert server.version == version
        assert server.data_dir == home / f"postgresql-{version}/data"
        assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
        assert (server.bin_dir / "pgbench").exists()
        connection = await asyncpg.connect(server.dsn)
        try:
            assert connection.get_server_version().major == version
            assert await connection.fetchval("SELECT current_database()") == "esx"
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
            assert await connection.fetchval("SHOW fsync") == "on"
            assert await connection.fetchval("SHOW max_connections") == "200"
            assert await connection.fetchval("SHOW shared_buffers") == "256MB"
            assert await connection.fetchval("SHOW listen_addresses") == ""
            assert await connection.fetchval("SELECT upper('é')") == ("É" if version >= 17 else "é")
            await connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
        finally:
            await connection.close()
    finally:
        await asyncio.to_thread(server.stop)
    assert not runs(server.pid)
    server.stop()

    told.clear()
    with EmbeddedServer.start(home, version=version, on_progress=told.append) as again:
        assert in_time(told) == [f"starting PostgreSQL {version}"]
        assert psql(again, "SELECT value FROM kept") == "42"
        told.clear()
        with EmbeddedServer.start(home, version=version, on_progress=told.append) as shared:
            assert shared.pid == again.pid
            assert shared.dsn == again.dsn
        assert told == []
        assert psql(again, "SELECT value FROM kept") == "42"
    assert not runs(again.pid)
    assert "ERROR" not in again.log_file.read_text()


def test_the_last_process_stops_it(root: Path) -> None:
    with other_esx(root) as first, other_esx(root) as second:
        assert first.server_pid == second.server_pid
        first.end()
        assert runs(second.server_pid)
        with EmbeddedServer.start(root) as mine:
            second.end()
            assert psql(mine, "SELECT 1") == "1"
        until(lambda: not runs(mine.pid))


def test_many_processes_at_once(root: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(ESX), str(root)]
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [("", 0)] * 6


def test_a_killed_process_does_not_keep_it_running(root: Path) -> None:
    with other_esx(root) as other:
        other.kill()
        until(lambda: not runs(other.server_pid))

    with other_esx(root) as other, EmbeddedServer.start(root) as mine:
        other.kill()
        assert psql(mine, "SELECT 1") == "1"
    until(lambda: not runs(mine.pid))


def test_a_killed_server_recovers(root: Path) -> None:
    server = EmbeddedServer.start(root)
    psql(server, "CREATE TABLE survives AS SELECT generate_series(1, 1000) AS number")
    kill_server(server)
    with EmbeddedServer.start(root) as again:
        assert again.pid != server.pid
        assert psql(again, "SELECT count(*) FROM survives") == "1000"
        server.stop()
        assert psql(again, "DROP TABLE survives") == ""
    assert "interrupted" in again.log_file.read_text()


def test_a_killed_server_whose_session_is_still_busy(root: Path) -> None:
    server = EmbeddedServer.start(root)
    busy = "SELECT count(*) FROM generate_series(1, 1000000000000)"
    active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%series(1,%'"
    command = [str(server.bin_dir / "psql"), "-X", "-d", server.dsn, "-c", busy]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as session:
        try:
            until(lambda: psql(server, active) == "2")
            kill_server(server)
            with EmbeddedServer.start(root) as again:
                assert psql(again, "SELECT 1") == "1"
                assert session.wait(120) != 0
                server.stop()
        finally:
            session.kill()
            for left in server_processes(server.data_dir).values():
                left.kill()


def test_the_process_id_of_a_killed_server_now_belongs_to_another_program(root: Path) -> None:
    server = EmbeddedServer.start(root)
    pid_file = server.data_dir / "postmaster.pid"
    lock_file = server.socket_dir / ".s.PGSQL.5432.lock"
    # Only a process of the server's own user keeps PostgreSQL from starting.
    user = as_user(account_for(server.data_dir))
    kill_server(server)
    with subprocess.Popen(["sleep", "600"], **user) as other:
        try:
            for file in (pid_file, lock_file):
                rest = file.read_text().partition("\n")[2]
                file.write_text(f"{other.pid}\n{rest}")
            server.stop()
            assert other.poll() is None
            with EmbeddedServer.start(root) as again:
                assert psql(again, "SELECT 1") == "1"
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize("content", ["", "12", "99999999\n/nowhere\n"])
def test_remains_of_a_crash_while_starting(root: Path, content: str) -> None:
    pid_file = root / "postgresql-18/data/postmaster.pid"
    pid_file.write_text(content)
    with EmbeddedServer.start(root) as server:
        assert psql(server, "SELECT 1") == "1"


def test_a_dropped_database_is_made_again(root: Path) -> None:
    with EmbeddedServer.start(root) as server:
        subprocess.run([server.bin_dir / "dropdb", "-h", server.socket_dir, "-U", "postgres", "esx"], check=True)
    with EmbeddedServer.start(root) as server:
        assert psql(server, "SELECT 1") == "1"


def test_it_is_out_of_reach_of_ctrl_c(root: Path) -> None:
    with EmbeddedServer.start(root) as server:
        assert os.getsid(server.pid) == server.pid


def test_the_environment_does_not_reach_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGPORT": "1",
        "PGHOST": "nowhere.invalid",
        "PGSSLMODE": "verify-full",
        "PGDATABASE": "other",
        "PGUSER": "nobody",
        "PGOPTIONS": "-c nonsense=1",
        "PGDATA": "/nowhere",
        "LC_ALL": "xx_XX.UTF-8",
        "ESX_DATA_DIR": str(root),
    }.items():
        monkeypatch.setenv(name, value)
    with EmbeddedServer.start() as server:
        assert server.data_dir.is_relative_to(root)

        async def ask() -> object:
            connection = await asyncpg.connect(server.dsn)
            try:
                return await connection.fetchval("SELECT current_database() || current_user")
            finally:
                await connection.close()

        assert asyncio.run(ask()) == "esxpostgres"


def test_settings_are_brought_up_to_date(root: Path) -> None:
    conf = root / "postgresql-18/data/postgresql.conf"
    before = conf.read_text()
    assert before.count("esx: begin") == 1
    conf.write_text(before.replace("max_connections = 200", "max_connections = 17") + "work_mem = 9MB\n")
    try:
        with EmbeddedServer.start(root) as server:
            assert psql(server, "SHOW max_connections") == "200"
            assert psql(server, "SHOW work_mem") == "9MB"
        assert conf.read_text() == before + "work_mem = 9MB\n"
        assert stat.S_IMODE(conf.stat().st_mode) == 0o600
    finally:
        conf.write_text(before)


def connect_as_nobody(server: EmbeddedServer) -> str:
    command = [str(server.bin_dir / "psql"), "-X", "-d", server.dsn, "-c", "SELECT 1"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/"
    )
    return done.stderr if done.returncode else ""


@as_root
def test_nobody_else_can_connect(root: Path) -> None:
    with EmbeddedServer.start(root) as server:
        assert stat.S_IMODE((server.socket_dir / ".s.PGSQL.5432").stat().st_mode) == 0o700
        assert "Permission denied" in connect_as_nobody(server)
        server.data_dir.chmod(0o711)
        try:
            assert "Permission denied" in connect_as_nobody(server)
        finally:
            server.data_dir.chmod(0o700)


def test_a_path_too_long_for_a_socket(empty: Path) -> None:
    deep = initialised(empty / ("long, 'odd' " * 8))
    with EmbeddedServer.start(deep) as server:
        assert psql(server, "SELECT 1") == "1"
        assert not server.socket_dir.is_relative_to(empty)
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        assert server.socket_dir.stat().st_uid == server.data_dir.stat().st_uid
        if os.geteuid() == 0:
            assert "Permission denied" in connect_as_nobody(server)
        with EmbeddedServer.start(deep) as shared:
            assert shared.dsn == server.dsn
        kill_server(server)
        with EmbeddedServer.start(deep) as again:
            assert psql(again, "SELECT 1") == "1"
            assert not server.socket_dir.exists()
    assert not again.socket_dir.exists()


def test_nothing_is_printed_and_nothing_else_is_touched(root: Path) -> None:
    script = """
        import atexit, logging, sys, warnings
        from pathlib import Path
        before = logging.getLogger().handlers[:], logging.root.manager.disable, warnings.filters[:]
        from esx.embedded import EmbeddedServer
        EmbeddedServer.start(Path(sys.argv[1])).stop()
        assert before == (logging.getLogger().handlers[:], logging.root.manager.disable, warnings.filters[:])
    """
    environ = {key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"}
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(script), str(root)],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def failure(root: Path, version: int = 18) -> str:
    with pytest.raises(EmbeddedFailed) as caught:
        EmbeddedServer.start(root, version=version)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_in_place_of_the_directory(empty: Path) -> None:
    (empty / "file").touch()
    assert failure(empty / "file") == (
        f"cannot use {empty}/file/postgresql-18: Not a directory: "
        "set ESX_DATA_DIR to a directory of yours, or pass --dsn"
    )


def test_data_of_another_version(empty: Path) -> None:
    data = empty / "postgresql-18/data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    assert f"{data} holds data of PostgreSQL 16, not 18: move it away" in failure(empty)


def test_something_else_where_the_data_should_be(empty: Path) -> None:
    data = empty / "postgresql-18/data"
    data.mkdir(parents=True)
    (data / "precious").touch()
    assert "is not PostgreSQL's data: move it away" in failure(empty)
    assert (data / "precious").exists()


def test_a_full_disk(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=3_400_000))
    assert "not enough disk space" in failure(empty)
    assert "3 MB free, the embedded database needs 150 MB" in failure(empty)


def test_programs_that_are_not_there(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failure(empty, version=17) == "no embedded PostgreSQL 17: there are 16 and 18"
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert failure(empty) == "no embedded PostgreSQL for this platform: pass --dsn or set ESX_DSN"


def test_a_server_that_does_not_start(root: Path) -> None:
    conf = root / "postgresql-18/data/postgresql.conf"
    before = conf.read_text()
    conf.write_text(before + "shared_buffers = 'much'\n")
    try:
        message = failure(root)
    finally:
        conf.write_text(before)
    assert message.startswith("PostgreSQL 18 did not start: ")
    assert message.endswith(f"see {root}/postgresql-18/postgresql.log")


def test_an_interrupted_start_leaves_nothing_running(root: Path) -> None:
    class Interrupted(BaseException):
        pass

    pids: list[int] = []

    def interrupt(*_: object, **__: object) -> None:
        found = Postmaster.read(root / "postgresql-18/data")
        assert found is not None
        pids.append(found.pid)
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subprocess.run", interrupt)  # psql, which looks whether there is a database
        with pytest.raises(Interrupted):
            EmbeddedServer.start(root)
    assert not runs(pids[0])


def test_an_interrupted_initdb_leaves_nothing_half_made(empty: Path) -> None:
    half_made = empty / "postgresql-18/data.new-12345678"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with EmbeddedServer.start(empty) as server:
        assert psql(server, "SELECT 1") == "1"
    assert not list(empty.glob("*/data.new-*"))
