"""Whether there is a server: what its pid file says, whether it serves this directory, and which processes are its own.

A copy of a data directory in use carries the original's pid file, and a directory may be moved while it is in use. So
neither the number nor the socket in that file is believed: who answers there is asked for a file in this directory.
"""

from __future__ import annotations

import importlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esx.embedded.account import open_file
from esx.embedded.asking import ServerFull, ask

if TYPE_CHECKING:
    from esx.embedded.account import Account

LAUNCHED: dict[int, Path] = {}
"""The servers that are this process's children: their process ids, and the directories that they serve."""
MARK = "esx-asks-"
"""How the files begin that servers are asked for."""
_QUERY = (
    "SELECT (pg_stat_file('{}', true)).size IS NOT NULL, current_setting('data_directory'), "
    "pg_read_file('postmaster.pid', true)"
)
_SERVER = "postgres"
_IDENTITY = 3
"""Lines of postmaster.pid that tell one server from all others: its number, its directory, when it began."""


@dataclass(frozen=True)
class Postmaster:
    """What postmaster.pid says. The server writes it piece by piece, so that any line may be missing."""

    pid: int  # 0: not written yet
    socket_dir: Path | None
    ready: bool
    identity: tuple[str, ...] = ()
    """What no other server has in its file."""

    @classmethod
    def read(cls, data_dir: Path) -> Postmaster | None:
        """Return what the file in `data_dir` says, None if there is no such file and so no server."""
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
            # It is in the data directory, whose name may have been another when this was written.
            socket_dir = data_dir
        return cls(pid, socket_dir, lines[7].strip() == "ready", identity)

    def serves(self, data_dir: Path, account: Account | None) -> bool | None:
        """Return whether the server on the socket serves `data_dir`, None if none answers."""
        if self.socket_dir is None:
            return None
        try:
            return _ask(self.socket_dir, data_dir, account)[0]
        except ServerFull:
            return self.pid in server_processes(data_dir)

    def serves_elsewhere(self, data_dir: Path, account: Account | None) -> str | None:
        """Return the directory that the server which wrote this file serves, if it runs and that is another one."""
        elsewhere = _directory_of(self.pid)
        if elsewhere is not None:
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
        # Another user's: it can be seen that it is a server, not which.
        return self.identity[1] if is_server(self.pid) and len(self.identity) > 1 else None


def _ask(socket_dir: Path, data_dir: Path, account: Account | None) -> tuple[bool | None, str, str]:
    """Ask a server whether it sees a new file in `data_dir`, what it calls its directory, and for its pid file."""
    mark = data_dir / f"{MARK}{secrets.token_hex(8)}"
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
    """Return whether two names are of one directory, as with symbolic links and bind mounts."""
    with suppress(OSError):
        return os.path.samefile(one, other)
    return Path(one) == other


def _directory_of(pid: int) -> str | None:
    """Return the directory that the server `pid` works in, None if there is no such server or it is not told."""
    psutil: Any = importlib.import_module("psutil")
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        if process.name() == _SERVER and process.status() != psutil.STATUS_ZOMBIE:
            return str(process.cwd())
    return None


def is_server(pid: int) -> bool:
    """Return whether the process `pid` is some PostgreSQL."""
    psutil: Any = importlib.import_module("psutil")
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        return bool(process.name() == _SERVER and process.status() != psutil.STATUS_ZOMBIE)
    return False


def exists(pid: int) -> bool:
    """Return whether there is a process `pid`, whatever it runs."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def reap(pid: int) -> None:
    """Collect a server that this process started and that has ended."""
    if pid in LAUNCHED:
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            ended = True
        if ended:
            LAUNCHED.pop(pid, None)


def server_processes(data_dir: Path) -> dict[int, Any]:
    """Return the running processes of the server in `data_dir` by their ids: they all work in that directory.

    This looks at every process of the machine, so it is only asked when something is wrong.
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
