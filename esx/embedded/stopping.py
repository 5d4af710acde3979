"""Stopping a server, and clearing what one that was killed has left."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from esx.embedded.account import write_file
from esx.embedded.patience import PATIENCE, POLL
from esx.embedded.postmaster import LAUNCHED, Postmaster, exists, reap, same_directory, server_processes
from esx.embedded.sockets import SOCKET, remove_socket_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from esx.embedded.cluster import Cluster

_NO_SUCH_PID = 2**31 - 1


def shut_down(cluster: Cluster, tell: Callable[[str], None]) -> None:
    """Stop the server and wait until it is gone; the guard is held."""
    found = Postmaster.read(cluster.data_dir)
    # A number in a file may be another program's by now, or another server's: signal it only if it is this one.
    if found is None or not found.pid:
        return
    ours = LAUNCHED.get(found.pid) == cluster.data_dir or found.serves(cluster.data_dir, cluster.account)
    if not ours and found.pid not in server_processes(cluster.data_dir):
        return
    began = time.monotonic()
    told = False
    # Fast: ends the sessions and writes everything to disk. Immediate: the next start recovers.
    for send, patience in ((signal.SIGINT, PATIENCE), (signal.SIGQUIT, 10.0)):
        with suppress(ProcessLookupError):
            os.kill(found.pid, send)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            reap(found.pid)
            now = Postmaster.read(cluster.data_dir)
            if now is None or now.pid != found.pid or not exists(found.pid):
                _see_off(cluster, found)
                return
            if not told and time.monotonic() - began > 1:
                tell(f"stopping PostgreSQL {cluster.version}")
                told = True
            time.sleep(POLL)


def _see_off(cluster: Cluster, found: Postmaster) -> None:
    # Removing postmaster.pid is the last thing a server does. Only a child is waited for, to collect it:
    # in a container whose first process collects nothing, another's stays a zombie for ever.
    until = time.monotonic() + 0.5
    while found.pid in LAUNCHED and time.monotonic() < until:
        reap(found.pid)
        time.sleep(0.001)
    if found.socket_dir is not None:
        remove_socket_dir(found.socket_dir, cluster.data_dir)


def clear_remains(cluster: Cluster, found: Postmaster, orphans: Mapping[int, Any]) -> None:
    """Remove what a server that was killed left and what would stop the next one from starting."""
    # A killed postmaster's backends end by themselves unless they are busy, and PostgreSQL does not start
    # while one of them has the old shared memory.
    for send, patience in ((None, 1.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 10.0)):
        if send is not None:
            for process in orphans.values():
                with suppress(Exception):
                    process.send_signal(send)
        until = time.monotonic() + patience
        while orphans and time.monotonic() < until:
            time.sleep(0.02)
            orphans = server_processes(cluster.data_dir)
    pid_file = cluster.data_dir / "postmaster.pid"
    if not found.pid:
        pid_file.unlink(missing_ok=True)
    elif exists(found.pid):
        # PostgreSQL refuses to start while a process has this number, whatever its program. The file stays
        # for its other lines: PostgreSQL looks there for shared memory that may still be in use.
        rest = pid_file.read_text("utf-8", "surrogateescape").partition("\n")[2]
        write_file(pid_file, f"{_NO_SUCH_PID}\n{rest}", cluster.account)
    if found.socket_dir is not None:
        if _has_socket(found, cluster.data_dir):
            for name in (f"{SOCKET}.lock", SOCKET):
                with suppress(OSError):
                    (found.socket_dir / name).unlink()
        remove_socket_dir(found.socket_dir, cluster.data_dir)


def clear_copied_socket(data_dir: Path) -> None:
    """Remove what a copy has of the original's socket: it would keep a server from starting. The guard is held."""
    socket_lock = data_dir / f"{SOCKET}.lock"
    with suppress(OSError, IndexError):
        if not same_directory(socket_lock.read_text("utf-8", "surrogateescape").splitlines()[1], data_dir):
            socket_lock.unlink()
            (data_dir / SOCKET).unlink(missing_ok=True)


def _has_socket(found: Postmaster, data_dir: Path) -> bool:
    """Return whether the socket is that server's: in a copy, the file may name one that the original still uses."""
    assert found.socket_dir is not None
    if found.socket_dir == data_dir:
        return True
    with suppress(OSError):
        owner = (found.socket_dir / f"{SOCKET}.lock").read_text("utf-8", "surrogateescape").splitlines()
        return tuple(owner[: len(found.identity)]) == found.identity
    return False
