"""The embedded PostgreSQL serves its own directory, whatever was copied, moved, or named twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from esx.embedded import EmbeddedServer
from esx.embedded.account import account_for, as_user
from tests.cli.support import esx, ndjson, one_line_error
from tests.embedded.test_embedded import (
    NOBODY,
    as_root,
    empty,
    failure,
    initialised,
    kill_server,
    psql,
    runs,
    short_directory,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

__all__ = ["empty"]
DATA = "postgresql-18/data"


def copy(original: Path, to: Path) -> Path:
    subprocess.run(["cp", "-a", original, to], check=True)
    return to


def streams(home: Path) -> list[str]:
    done = esx("streams", "--json", ESX_DATA_DIR=str(home))
    assert done.returncode == 0, done.stderr
    return [each["stream_id"] for each in ndjson(done.stdout)]


@pytest.mark.parametrize("deep", [False, True], ids=["socket-inside", "socket-elsewhere"])
def test_a_copy_made_in_use_is_refused_and_the_original_goes_on(empty: Path, deep: bool) -> None:
    name = "original" * 12 if deep else "original"
    original = initialised(empty / name)
    with EmbeddedServer.start(original) as server:
        assert server.socket_dir.is_relative_to(original) is not deep
        duplicate = copy(original, empty / "duplicate")
        done = esx("append", "s", "T", ESX_DATA_DIR=str(duplicate))
        line = one_line_error(done, 1)
        assert f"{duplicate}/{DATA} is a copy of {original}/{DATA}" in line
        assert "end the esx processes" in line
        assert "copy it again" in line
        # Nothing came to the original, which still runs, as does what is in it.
        assert runs(server.pid)
        assert psql(server, "SELECT 1") == "1"
        with EmbeddedServer.start(original) as again:
            assert again.pid == server.pid
        assert (server.socket_dir / ".s.PGSQL.5432").exists()
    assert not list((original / DATA).glob("esx-asks-*"))


def test_a_copy_that_was_refused_is_used_once_the_remedy_is_carried_out(empty: Path) -> None:
    original = initialised(empty / "original")
    assert esx("append", "kept", "T", ESX_DATA_DIR=str(original)).returncode == 0
    with EmbeddedServer.start(original) as server:
        psql(server, "CHECKPOINT")
        duplicate = copy(original, empty / "duplicate")
        assert "is a copy" in failure(duplicate)
        (duplicate / DATA / "postmaster.pid").unlink()
        assert streams(duplicate) == ["kept"]
        assert psql(server, "SELECT 1") == "1"
    shutil.rmtree(duplicate)
    copy(original, duplicate)
    assert esx("append", "mine", "T", ESX_DATA_DIR=str(duplicate)).returncode == 0
    assert streams(original) == ["kept"]


@pytest.mark.parametrize("deep", [False, True], ids=["socket-inside", "socket-elsewhere"])
def test_a_copy_of_what_a_crash_has_left_is_used_although_the_original_runs_again(empty: Path, deep: bool) -> None:
    original = initialised(empty / ("original" * 12 if deep else "original"))
    with EmbeddedServer.start(original) as server:
        kill_server(server)
        duplicate = copy(original, empty / "duplicate")
        with EmbeddedServer.start(original) as again, EmbeddedServer.start(duplicate) as other:
            assert again.pid != other.pid
            assert psql(other, "SHOW data_directory") == f"{duplicate}/{DATA}"
            assert psql(again, "SHOW data_directory") == f"{original}/{DATA}"


def test_a_copy_whose_number_now_belongs_to_another_server_is_used(empty: Path) -> None:
    with (
        EmbeddedServer.start(initialised(empty / "other")) as other,
        EmbeddedServer.start(initialised(empty / "original")) as server,
    ):
        duplicate = copy(empty / "original", empty / "duplicate")
        file = duplicate / DATA / "postmaster.pid"
        file.write_text(f"{other.pid}\n{file.read_text().partition(chr(10))[2]}")
        with EmbeddedServer.start(duplicate) as mine:
            assert mine.pid not in (other.pid, server.pid)
        assert psql(other, "SELECT 1") == psql(server, "SELECT 1") == "1"


def test_a_copy_whose_number_now_belongs_to_another_program_is_used(empty: Path) -> None:
    server = EmbeddedServer.start(initialised(empty / "original"))
    duplicate = copy(empty / "original", empty / "duplicate")
    user = as_user(account_for(server.data_dir))
    server.stop()
    with subprocess.Popen(["sleep", "600"], **user) as program:
        file = duplicate / DATA / "postmaster.pid"
        file.write_text(f"{program.pid}\n{file.read_text().partition(chr(10))[2]}")
        with EmbeddedServer.start(duplicate) as mine:
            assert psql(mine, "SELECT 1") == "1"
        assert program.poll() is None
        program.kill()


def test_locks_that_were_copied_along_hold_nobody_up(empty: Path) -> None:
    with EmbeddedServer.start(initialised(empty / "original")):
        duplicate = copy(empty / "original", empty / "duplicate")
        shutil.rmtree(duplicate / DATA)
        with EmbeddedServer.start(duplicate) as mine:
            assert psql(mine, "SELECT 1") == "1"
        assert not runs(mine.pid)


def test_two_names_of_one_directory_are_one_server(empty: Path) -> None:
    real, link = empty / "real", empty / "link"
    real.mkdir()
    link.symlink_to(real)
    with EmbeddedServer.start(initialised(real)) as server:
        with EmbeddedServer.start(link) as same:
            assert same.pid == server.pid
        (empty / "inner").mkdir()
        (empty / "inner/postgresql-18").symlink_to(real / "postgresql-18")
        with EmbeddedServer.start(empty / "inner") as inner:
            assert inner.pid == server.pid
        assert psql(server, "SELECT 1") == "1"
    assert not runs(server.pid)


@as_root
def test_a_directory_mounted_at_another_place_is_one_server(empty: Path) -> None:
    real, mounted = empty / "real", empty / "mounted"
    real.mkdir()
    mounted.mkdir()
    if subprocess.run(["mount", "--bind", real, mounted], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with EmbeddedServer.start(initialised(real)) as server, EmbeddedServer.start(mounted) as same:
            assert same.pid == server.pid
            assert psql(same, "SELECT 1") == "1"
        assert not runs(server.pid)
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_a_directory_moved_while_in_use_keeps_its_server(empty: Path) -> None:
    with EmbeddedServer.start(initialised(empty / "before")) as server:
        (empty / "before").rename(empty / "after")
        with EmbeddedServer.start(empty / "after") as same:
            assert same.pid == server.pid
            assert psql(same, "SELECT 1") == "1"
        os.kill(server.pid, signal.SIGINT)
        until(lambda: not runs(server.pid))
        server.stop()
    with EmbeddedServer.start(empty / "after") as again:
        assert psql(again, "SELECT 1") == "1"


def test_a_directory_moved_after_a_crash_is_recovered(empty: Path) -> None:
    with EmbeddedServer.start(initialised(empty / "before")) as server:
        psql(server, "CREATE TABLE kept AS SELECT 1 AS one")
        kill_server(server)
        server.stop()
        (empty / "before").rename(empty / "after")
        with EmbeddedServer.start(empty / "after") as again:
            assert psql(again, "SELECT one FROM kept") == "1"


def test_a_copy_of_another_versions_data_is_refused(empty: Path) -> None:
    with EmbeddedServer.start(initialised(empty / "original", 16), version=16) as server:
        (empty / "duplicate/postgresql-18").mkdir(parents=True)
        copy(server.data_dir, empty / "duplicate" / DATA)
        assert f"is a copy of {server.data_dir}" in failure(empty / "duplicate")
    assert not runs(server.pid)


def test_a_server_that_takes_no_more_sessions_is_still_known(empty: Path) -> None:
    with EmbeddedServer.start(initialised(empty)) as server:
        psql(server, "ALTER SYSTEM SET max_connections = 5")
        psql(server, "ALTER SYSTEM SET superuser_reserved_connections = 0")
    (conf := empty / DATA / "postgresql.conf").write_text(conf.read_text() + "max_wal_senders = 0\n")
    with EmbeddedServer.start(empty) as server:
        sleeping = [str(server.bin_dir / "psql"), "-X", "-d", server.dsn, "-c", "SELECT pg_sleep(600)"]
        sessions: list[subprocess.Popen[bytes]] = []
        try:
            full = [str(server.bin_dir / "psql"), "-X", "-d", server.dsn, "-c", ""]
            # One more each time: a session is refused its place while the look at it has that.
            while subprocess.run(full, check=False, capture_output=True).returncode == 0:
                assert len(sessions) < 50
                sessions.append(subprocess.Popen(sleeping, stderr=subprocess.DEVNULL))
            with EmbeddedServer.start(empty) as same:
                assert same.pid == server.pid
        finally:
            for session in sessions:
                session.kill()
                session.wait()


@pytest.mark.parametrize("silent", [False, True], ids=["asked", "silent"])
def test_a_copy_is_refused_where_the_original_cannot_be_looked_into(
    empty: Path, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    name = "original" * 12
    with EmbeddedServer.start(initialised(empty / name)) as server:
        duplicate = copy(empty / name, empty / "duplicate")
        monkeypatch.setattr(psutil.Process, "cwd", denied)
        socket = server.socket_dir / ".s.PGSQL.5432"
        if silent:
            socket.rename(socket.with_name("aside"))
        assert f"is a copy of {server.data_dir}" in failure(duplicate)
        if silent:
            socket.with_name("aside").rename(socket)
        assert psql(server, "SELECT 1") == "1"


@as_root
def test_another_users_copy_is_refused(empty: Path) -> None:
    with short_directory() as theirs, EmbeddedServer.start(initialised(empty)) as server:
        theirs.chmod(0o755)
        duplicate = copy(empty, theirs / "duplicate")
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", duplicate], check=True)
        script = (
            "import sys; from pathlib import Path; from esx.embedded import EmbeddedServer\n"
            "try: EmbeddedServer.start(Path(sys.argv[1])).stop()\n"
            "except Exception as error: print(error)"
        )
        try:
            done = subprocess.run(
                [os.path.realpath(sys.executable), "-c", script, str(duplicate)],
                capture_output=True, text=True, check=False, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
                env={"PYTHONPATH": ":".join(sys.path)},
            )  # fmt: skip
        except PermissionError:
            pytest.skip("another user cannot run this interpreter")
        if "ModuleNotFound" in done.stderr:
            pytest.skip("another user cannot read this installation")
        assert f"{duplicate}/{DATA} is a copy of {server.data_dir}" in done.stdout, done.stderr
        assert psql(server, "SELECT 1") == "1"
