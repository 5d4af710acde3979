"""The server's process: finding, starting and stopping it.

A copy of a data directory in use has the original's pid file, and a directory may be moved while it is in use. So
neither the process id nor the socket in that file is trusted: the server that answers there is asked for a file in this
directory.
"""

from __future__ import annotations

import importlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esx.embedded.account import Account, EmbeddedFailed, as_user, environment, open_file, reason, write_file
from esx.embedded.cluster import Cluster
from esx.embedded.lease import POLL, RECOVERY_PATIENCE, watch
from esx.embedded.sockets import PORT, SOCKET, ServerFull, ask, make_socket_dir, remove_socket_dir
from esx.embedded.watcher import exists
from esx.text import visible

PATIENCE = 60.0
"""Seconds that another process may take to start or stop the server, and an orderly stop."""
LAUNCHED: dict[int, Path] = {}
"""The directories of the servers that are this process's children, by process id."""
_MARK = "esx-asks-"
"""How the names of the files begin that servers are asked for."""
_QUERY = (
    "SELECT (pg_stat_file('{}', true)).size IS NOT NULL, current_setting('data_directory'), "
    "pg_read_file('postmaster.pid', true)"
)
_SERVER = "postgres"
_IDENTITY = 3
"""The first lines of postmaster.pid, which differ for every server: process id, directory, start time."""
_LOG_LIMIT_BYTES = 16_000_000
_NO_SUCH_PID = 2**31 - 1


@dataclass(frozen=True)
class Postmaster:
    """The content of postmaster.pid. The server writes it in parts, so any line may be missing."""

    pid: int  # 0: not written yet
    socket_dir: Path | None
    ready: bool
    identity: tuple[str, ...] = ()

    @classmethod
    def read(cls, data_dir: Path) -> Postmaster | None:
        """Read the file in `data_dir`; None if there is no file and so no server."""
        try:
            lines = (data_dir / "postmaster.pid").read_text("utf-8", "surrogateescape").splitlines()
        except FileNotFoundError:
            return None
        identity = tuple(lines[:_IDENTITY])
        lines += [""] * 8
        try:
            pid = abs(int(lines[0]))  # negative: a single-user session
        except ValueError:
            pid = 0
        socket_dir = Path(lines[4]) if lines[4].startswith("/") else None
        if socket_dir is not None and lines[4] == lines[1]:
            # It is in the data directory, which may have been moved since this was written.
            socket_dir = data_dir
        return cls(pid, socket_dir, lines[7].strip() == "ready", identity)

    def serves(self, data_dir: Path, account: Account | None) -> bool | None:
        """Return whether the server at the socket serves `data_dir`, None if none answers."""
        if self.socket_dir is None:
            return None
        try:
            return _ask(self.socket_dir, data_dir, account)[0]
        except ServerFull:
            return self.pid in server_processes(data_dir)

    def serves_elsewhere(self, data_dir: Path, account: Account | None) -> str | None:
        """Return the directory of the server that wrote this file, if it runs and that is not `data_dir`."""
        elsewhere = _directory_of(self.pid)
        if elsewhere:
            if same_directory(elsewhere, data_dir):
                return None
            with suppress(OSError):
                there = Postmaster.read(Path(elsewhere))
                return elsewhere if there is not None and there.identity == self.identity else None
        elif not exists(self.pid):
            return None
        if self.socket_dir is not None:
            with suppress(ServerFull):
                ours, named, file = _ask(self.socket_dir, data_dir, account)
                if ours is not None:
                    return named if not ours and tuple(file.splitlines()[:_IDENTITY]) == self.identity else None
        return self.identity[1] if elsewhere is not None and len(self.identity) > 1 else None


def _ask(socket_dir: Path, data_dir: Path, account: Account | None) -> tuple[bool | None, str, str]:
    """Ask a server whether it sees a new file in `data_dir`, and for its directory's name and its pid file."""
    mark = data_dir / f"{_MARK}{secrets.token_hex(8)}"
    try:
        os.close(open_file(mark, os.O_WRONLY | os.O_EXCL, account))
        try:
            answer = ask(socket_dir, _QUERY.format(mark.name))
        finally:
            mark.unlink(missing_ok=True)
    except OSError:
        return None, "", ""
    if answer is None:
        return None, "", ""
    ours, directory, file = answer
    return ours == "t", directory or "", file or ""


def same_directory(one: str, other: Path) -> bool:
    """Return whether two names are of one directory, also by symbolic links and bind mounts."""
    with suppress(OSError):
        return os.path.samefile(one, other)
    return Path(one) == other


def _directory_of(pid: int) -> str | None:
    """Return the directory of the server `pid`: empty if it cannot be read, None if there is no such server."""
    psutil: Any = importlib.import_module("psutil")
    directory = None
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        if process.name() == _SERVER and process.status() != psutil.STATUS_ZOMBIE:
            directory = ""  # of another user's server the directory cannot be read
            directory = str(process.cwd())
    return directory


def reap(pid: int) -> None:
    """Wait for a server that this process started, if it has ended."""
    if pid in LAUNCHED:
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            ended = True
        if ended:
            LAUNCHED.pop(pid, None)


def server_processes(data_dir: Path) -> dict[int, Any]:
    """Return the running processes of the server in `data_dir` by their ids: they all work in that directory.

    It looks at every process of the machine, so it is called only when something is wrong.
    """
    psutil: Any = importlib.import_module("psutil")
    found: dict[int, Any] = {}
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != _SERVER:
            continue
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and same_directory(process.cwd(), data_dir):
                found[process.pid] = process
    return found


# -- starting -----------------------------------------------------------------------------------------------------


def launch(cluster: Cluster, tell: Callable[[str], None]) -> Postmaster:
    """Start the server and wait until it accepts connections."""
    for mark in cluster.data_dir.glob(f"{_MARK}*"):
        mark.unlink(missing_ok=True)
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
                # Settings on the command line override all files: no other user ever gets in.
                *("-c", "listen_addresses="),
                *("-c", "unix_socket_permissions=0700"),
                *("-c", f"port={PORT}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment(),
            start_new_session=True,  # Ctrl-C and the terminal's end reach only esx
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
            # The machine may also just be slow.
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


# -- stopping -----------------------------------------------------------------------------------------------------


def shut_down(cluster: Cluster, tell: Callable[[str], None]) -> None:
    """Stop the server and wait until it has ended; the guard is held."""
    found = Postmaster.read(cluster.data_dir)
    # The process id may belong to another program or server by now: signal it only if it is this server.
    if found is None or not found.pid:
        return
    ours = LAUNCHED.get(found.pid) == cluster.data_dir or found.serves(cluster.data_dir, cluster.account)
    if not ours and found.pid not in server_processes(cluster.data_dir):
        return
    began = time.monotonic()
    told = False
    # A fast shutdown ends the sessions and writes everything to disk; after an immediate one the next start recovers.
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
    # A server removes postmaster.pid last. Only a child is waited for: in a container whose first process does not wait
    # for orphans, other servers stay zombies.
    until = time.monotonic() + 0.5
    while found.pid in LAUNCHED and time.monotonic() < until:
        reap(found.pid)
        time.sleep(0.001)
    if found.socket_dir is not None:
        remove_socket_dir(found.socket_dir, cluster.data_dir)


def clear_remains(cluster: Cluster, found: Postmaster, orphans: Mapping[int, Any]) -> None:
    """Remove what a killed server left and what would prevent the next start."""
    # The backends of a killed postmaster end by themselves unless they are busy, and PostgreSQL does not start
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
        # PostgreSQL does not start while any process has this id. The file stays for its other lines, where PostgreSQL
        # finds shared memory that may still be in use.
        rest = pid_file.read_text("utf-8", "surrogateescape").partition("\n")[2]
        write_file(pid_file, f"{_NO_SUCH_PID}\n{rest}", cluster.account)
    if found.socket_dir is not None:
        if _has_socket(found, cluster.data_dir):
            for name in (f"{SOCKET}.lock", SOCKET):
                with suppress(OSError):
                    (found.socket_dir / name).unlink()
        remove_socket_dir(found.socket_dir, cluster.data_dir)


def clear_copied_socket(data_dir: Path) -> None:
    """Remove a copy of the original's socket, which would prevent the start. The guard is held."""
    socket_lock = data_dir / f"{SOCKET}.lock"
    with suppress(OSError, IndexError):
        if not same_directory(socket_lock.read_text("utf-8", "surrogateescape").splitlines()[1], data_dir):
            socket_lock.unlink()
            (data_dir / SOCKET).unlink(missing_ok=True)


def _has_socket(found: Postmaster, data_dir: Path) -> bool:
    """Return whether the socket is that server's: in a copy, the file may name that of the running original."""
    assert found.socket_dir is not None
    if found.socket_dir == data_dir:
        return True
    with suppress(OSError):
        owner = (found.socket_dir / f"{SOCKET}.lock").read_text("utf-8", "surrogateescape").splitlines()
        return tuple(owner[: len(found.identity)]) == found.identity
    return False
