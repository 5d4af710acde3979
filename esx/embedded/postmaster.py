"""Whether there is a server: what its pid file says, whether it answers, and which processes are its own."""

from __future__ import annotations

import importlib
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esx.embedded.sockets import SOCKET

LAUNCHED: set[int] = set()
"""The process ids of servers that are this process's children."""


@dataclass(frozen=True)
class Postmaster:
    """What postmaster.pid says. The server writes it piece by piece, so that any line may be missing."""

    pid: int  # 0: not written yet
    socket_dir: Path | None
    ready: bool

    @classmethod
    def read(cls, data_dir: Path) -> Postmaster | None:
        """Return what the file in `data_dir` says, None if there is no such file and so no server."""
        try:
            lines = (data_dir / "postmaster.pid").read_text("utf-8", "surrogateescape").splitlines()
        except FileNotFoundError:
            return None
        lines += [""] * 8
        try:
            pid = abs(int(lines[0]))  # negative: a single-user session
        except ValueError:
            pid = 0
        socket_dir = Path(lines[4]) if lines[4].startswith("/") else None
        return cls(pid, socket_dir, lines[7].strip() == "ready")

    def answers(self) -> bool:
        """Return whether a server listens on the socket. Nobody else can: the directory is closed to others."""
        if self.socket_dir is None:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(self.socket_dir / SOCKET))
            except OSError:
                return False
        return True


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
            LAUNCHED.discard(pid)


def server_processes(data_dir: Path) -> dict[int, Any]:
    """Return the running processes of the server in `data_dir` by their ids: they all work in that directory.

    This looks at every process of the machine, so it is only asked when something is wrong.
    """
    psutil: Any = importlib.import_module("psutil")
    found: dict[int, Any] = {}
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != "postgres":
            continue
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == data_dir:
                found[process.pid] = process
    return found
