"""File locks, which the kernel releases when a process ends, and the lease made of one.

The lease lets a server stop soon after its last user has ended, in any way. Each user of a server holds a shared lock
on ``lease.lock``. A watcher (see `esx.embedded.watcher`) waits in the kernel until there is none. The watcher holds
``watch.lock``, so that there is only one, and the next user sees whether it runs.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from esx.embedded.account import Account, EmbeddedFailed, open_file
from esx.embedded.cluster import Cluster

POLL = 0.005
"""Seconds between two checks."""
RECOVERY_PATIENCE = 600.0
"""Seconds that a server may take to become ready: after a crash it first replays its log."""
_PROGRAM = Path(__file__).with_name("watcher.py")
_LEAVING = 1.0
"""Seconds that a watcher may take to end after its server."""
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""The variables that an interpreter may need to start."""


@contextmanager
def guard(path: Path, version: int, account: Account | None, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock under which servers are started and stopped: the one on the file `path`."""
    file = open_file(path, os.O_RDWR, account)
    try:
        began = time.monotonic()
        told = False
        while not try_lock(file, exclusive=True):
            waited = time.monotonic() - began
            if waited > 1 and not told:
                tell(f"waiting for another esx that starts or stops PostgreSQL {version}")
                told = True
            if waited > RECOVERY_PATIENCE:
                raise EmbeddedFailed(f"another process has held {path} for {waited:.0f} s: end it, or pass --dsn")
            time.sleep(POLL)
        yield
    finally:
        os.close(file)


def try_lock(file: int, *, exclusive: bool) -> bool:
    """Lock an open file, or change the lock it has, if no other process prevents that."""
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(file: int, *, exclusive: bool) -> None:
    """Lock an open file, or change the lock it has, once no other process prevents that."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)


def take(cluster: Cluster) -> int:
    """Return the open file whose lock says that this process uses the server; the guard is held."""
    file = open_file(cluster.home / "lease.lock", os.O_RDWR, cluster.account)
    try:
        lock(file, exclusive=False)
    except BaseException:
        os.close(file)
        raise
    return file


def watch(cluster: Cluster, pid: int, socket_dir: Path, *, fresh: bool = False) -> None:
    """Start a watcher for the server `pid`, unless there is one; the guard is held. `fresh`: it was just started.

    Where none can be started, the server of a killed process runs on until the next process stops it.
    """
    account = cluster.account
    names = ("watch.lock", "guard.lock", "users.lock", "lease.lock")
    files: list[int] = []
    try:
        files.append(open_file(cluster.home / names[0], os.O_RDWR, account))
        until = time.monotonic() + (_LEAVING if fresh else 0)
        while not try_lock(files[0], exclusive=True):
            if time.monotonic() >= until:
                return
            time.sleep(POLL)
        files += [open_file(cluster.home / name, os.O_RDWR, account) for name in names[1:]]
        owned = socket_dir if socket_dir != cluster.data_dir else ""
        ids = (os.geteuid(), os.getegid()) if account is None else (account.uid, account.gid)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _PROGRAM, *map(str, (pid, *ids, *files[1:])), str(owned)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            start_new_session=True,  # it outlives the terminal
            pass_fds=files,
        )
        process.returncode = 0  # it outlives this call, and usually this process
    except OSError:
        pass
    finally:
        for file in files:
            with suppress(OSError):
                os.close(file)
