"""The lease: what lets a server stop by itself soon after its last user, however that ended.

Each user of a server holds a shared lock on ``lease.lock``. A watcher (see `esx.embedded.watcher`) waits in the kernel
for the moment when nobody does. It holds ``watch.lock``: there is one, and whoever comes sees
if it is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from esx.embedded.account import open_file
from esx.embedded.locks import lock, try_lock
from esx.embedded.patience import POLL

if TYPE_CHECKING:
    from esx.embedded.cluster import Cluster

_PROGRAM = Path(__file__).with_name("watcher.py")
_LEAVING = 1.0
"""Seconds that the watcher of a server that has just ended may take to end."""
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""What of the environment an interpreter may need to start."""


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
    """Let a watcher see to the server `pid`, unless one does; the guard is held. `fresh` is one just started.

    Where none can be started, a killed process leaves its server to the next one that stops.
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
        process.returncode = 0  # it outlives this call, and mostly this process
    except OSError:
        pass
    finally:
        for file in files:
            with suppress(OSError):
                os.close(file)
