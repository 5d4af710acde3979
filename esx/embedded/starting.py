"""Starting a server, and waiting until it is ready."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from esx.embedded.account import as_user, open_file
from esx.embedded.errors import EmbeddedFailed, reason
from esx.embedded.lease import watch
from esx.embedded.patience import POLL, RECOVERY_PATIENCE
from esx.embedded.postmaster import LAUNCHED, Postmaster
from esx.embedded.programs import environment
from esx.embedded.sockets import PORT, make_socket_dir, remove_socket_dir
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esx.embedded.cluster import Cluster

_LOG_LIMIT_BYTES = 16_000_000


def launch(cluster: Cluster, tell: Callable[[str], None]) -> Postmaster:
    """Start the server and wait until it accepts connections."""
    socket_dir = make_socket_dir(cluster.data_dir, cluster.account)
    log = open_file(cluster.log_file, os.O_WRONLY | os.O_APPEND, cluster.account)
    try:
        if os.fstat(log).st_size > _LOG_LIMIT_BYTES:
            os.ftruncate(log, 0)
        logged = os.fstat(log).st_size
        process = subprocess.Popen(
            [
                cluster.bin_dir / "postgres",
                *("-D", cluster.data_dir),
                *("-k", f'"{socket_dir}"'),
                # Settings on the command line win over all files: nobody else ever gets in.
                *("-c", "listen_addresses="),
                *("-c", "unix_socket_permissions=0700"),
                *("-c", f"port={PORT}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment(),
            start_new_session=True,  # Ctrl-C and the terminal's end are for esx alone
            **as_user(cluster.account),
        )
    finally:
        os.close(log)
    try:
        # At once: this process may be killed before the server is ready.
        watch(cluster, process.pid, socket_dir, fresh=True)
        return _await_ready(cluster, process, logged, tell)
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
            process.wait()
        remove_socket_dir(socket_dir, cluster.data_dir)
        raise
    finally:
        if process.returncode is None:
            # The server outlives this call and often this process; `reap` collects it.
            LAUNCHED[process.pid] = cluster.data_dir
            process.returncode = 0


def _await_ready(
    cluster: Cluster, process: subprocess.Popen[bytes], logged: int, tell: Callable[[str], None]
) -> Postmaster:
    began = time.monotonic()
    told = False
    while process.poll() is None:
        found = Postmaster.read(cluster.data_dir)
        if found is not None and found.pid == process.pid and found.ready:
            return found
        waited = time.monotonic() - began
        if waited > 2 and not told:
            # It may as well be the machine that is slow.
            crashed = "database system was interrupted" in _said(cluster.log_file, logged)
            tell(f"waiting for PostgreSQL {cluster.version} to {'recover from a crash' if crashed else 'start'}")
            told = True
        if waited > RECOVERY_PATIENCE:
            raise EmbeddedFailed(
                f"PostgreSQL {cluster.version} was not ready after {waited:.0f} s: see {visible(str(cluster.log_file))}"
            )
        time.sleep(POLL)
    why = reason(_said(cluster.log_file, logged))
    raise EmbeddedFailed(f"PostgreSQL {cluster.version} did not start: {why}: see {visible(str(cluster.log_file))}")


def _said(log_file: Path, logged: int) -> str:
    """Return what the server has written to its log since that had `logged` bytes."""
    with log_file.open("rb") as file:
        file.seek(logged)
        return file.read(100_000).decode("utf-8", "replace")
