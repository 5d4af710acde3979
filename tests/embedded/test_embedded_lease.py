"""The embedded PostgreSQL stops by itself soon after its last user, however that ended."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from esx.embedded import EmbeddedServer
from esx.embedded.postmaster import Postmaster
from tests.cli.support import ESX, environment
from tests.embedded.test_embedded import ESX as USER
from tests.embedded.test_embedded import (
    empty,
    initialised,
    kill_server,
    made,
    other_esx,
    psql,
    root,
    runs,
    short_directory,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["empty", "made", "root"]


def watchers(home: Path) -> list[Any]:
    """Return the running watchers of a server by the lock that each holds."""
    psutil: Any = importlib.import_module("psutil")
    lock = str(home / "postgresql-18/watch.lock")
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(part.endswith("watcher.py") for part in process.info["cmdline"] or ()):
            links = []
            try:
                folder = f"/proc/{process.pid}/fd"
                links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
            except OSError:
                continue
            if lock in links:
                found.append(process)
    return found


pytestmark = [
    pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="finds watchers by /proc"),
    pytest.mark.slow,
]


def test_killed_its_only_user_leaves_no_server_and_no_watcher(root: Path) -> None:
    with other_esx(root) as other:
        assert len(watchers(root)) == 1
        other.kill()
        until(lambda: not runs(other.server_pid))
    until(lambda: not watchers(root))
    assert "fast shutdown" in (root / "postgresql-18/postgresql.log").read_text()


def test_killed_while_it_starts_the_server(empty: Path) -> None:
    initialised(empty)
    never_ready = (
        "from dataclasses import replace; from esx.embedded.postmaster import Postmaster; look = Postmaster.read\n"
        "Postmaster.read = lambda data_dir: (found := look(data_dir)) and replace(found, ready=False)\n"
    )
    command = [sys.executable, "-u", "-c", never_ready + USER.replace("\n    ", "\n"), str(empty)]
    with subprocess.Popen(command) as starting:
        data = empty / "postgresql-18/data"
        until(lambda: (found := Postmaster.read(data)) is not None and found.pid > 0 and len(watchers(empty)) == 1)
        found = Postmaster.read(data)
        assert found is not None
        pid = found.pid
        starting.kill()
    until(lambda: not runs(pid))
    until(lambda: not watchers(empty))


def test_one_of_two_users_killed_leaves_the_server_to_the_other(root: Path) -> None:
    with other_esx(root) as first, other_esx(root) as second:
        assert first.server_pid == second.server_pid
        first.kill()
        assert len(watchers(root)) == 1
        with EmbeddedServer.start(root) as mine:
            assert mine.pid == second.server_pid
            assert psql(mine, "SELECT 1") == "1"
        second.kill()
        until(lambda: not runs(second.server_pid))


def test_the_watcher_killed_the_last_user_stops_it_all_the_same(root: Path) -> None:
    with other_esx(root) as other:
        [watcher] = watchers(root)
        watcher.kill()
        other.end()
        assert not runs(other.server_pid)


def test_whoever_comes_puts_another_in_the_place_of_a_watcher_that_is_gone(root: Path) -> None:
    with other_esx(root) as first:
        [watcher] = watchers(root)
        watcher.kill()
        until(lambda: not watchers(root))
        with other_esx(root) as second:
            first.kill()
            second.kill()
            until(lambda: not runs(second.server_pid))
    until(lambda: not watchers(root))


def test_the_watcher_does_not_outlive_a_server_that_was_killed(root: Path) -> None:
    with EmbeddedServer.start(root) as server:
        [watcher] = watchers(root)
        kill_server(server)
        until(lambda: not watcher.is_running() or watcher.status() == "zombie")
        with EmbeddedServer.start(root) as again:
            assert len(watchers(root)) == 1
            server.stop()
            assert psql(again, "SELECT 1") == "1"


def test_whoever_comes_while_it_is_being_stopped_gets_a_server(root: Path) -> None:
    for _ in range(3):
        with other_esx(root) as other:
            other.kill()
            with EmbeddedServer.start(root) as mine:
                assert psql(mine, "SELECT 1") == "1"


def test_the_watcher_sleeps_holds_nothing_and_has_few_rights(root: Path) -> None:
    with EmbeddedServer.start(root) as server:
        [watcher] = watchers(root)
        until(lambda: watcher.status() == "sleeping")
        before = watcher.cpu_times()
        assert psql(server, "SELECT pg_sleep(1)") == ""
        used = watcher.cpu_times()
        assert used.user + used.system - before.user - before.system < 0.05
        assert os.getsid(watcher.pid) == watcher.pid
        assert watcher.uids().effective == server.data_dir.stat().st_uid
        for number in range(3):
            assert os.readlink(f"/proc/{watcher.pid}/fd/{number}") == "/dev/null"


def test_a_pipe_from_a_command_ends_with_it(root: Path) -> None:
    with EmbeddedServer.start(root):
        pass
    read, write = os.pipe()
    command = [*ESX, "tail"]
    with subprocess.Popen(command, stdout=write, stderr=write, env=environment(ESX_DATA_DIR=str(root))) as tail:
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert b"following" in pipe.readline()
            [watcher] = watchers(root)
            tail.send_signal(signal.SIGKILL)
            # It ends although the server and the watcher may still be at work.
            assert pipe.read() == b""
    until(lambda: not watchers(root))
    assert not watcher.is_running() or watcher.status() == "zombie"


def test_a_path_too_long_for_a_socket_leaves_no_directory_either() -> None:
    with short_directory() as path:
        deep = initialised(path / ("long " * 20))
        with other_esx(deep) as other:
            lines = (deep / "postgresql-18/data/postmaster.pid").read_text().splitlines()
            assert os.path.isdir(lines[4])
            other.kill()
            until(lambda: not os.path.exists(lines[4]))
