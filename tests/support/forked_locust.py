"""Locust in forks of a process that has imported it: to import it takes most of a short load test.

Each load test is a process of its own, as with `forked`, and leads a session. Its parent is not the process that asked
for it, as where a launcher stands between. Tests of such processes, and of how Locust is started, set `REALLY`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from functools import cache
from types import SimpleNamespace
from typing import Any

from tests.support.forking import CODE, LINE, ForkedProcess, can_fork, reader, run_command, take_streams, written

REALLY = "ESX_TEST_REALLY_START_LOCUST"
"""The environment variable with which Locust is started as users have it."""
_SERVE = f"from {__name__} import serve; serve()"
_LOCUST = (sys.executable, "-m", "locust")
_asked_at: socket.socket | None = None
# What the scenario imports; itself it is loaded by each process.
_USED = ("locust.main", "esx.loadtest.webui", "esx.loadtest.webguard", "esx.loadtest.user", "uvloop")


class Process(ForkedProcess):
    """A process of Locust."""

    stdout: asyncio.StreamReader | None = None
    stderr: asyncio.StreamReader | None = None

    @classmethod
    async def start(cls, command: tuple[str, ...], how: dict[str, Any]) -> Process:
        self = cls()
        names = "stdin", "stdout", "stderr"
        streams, ours = zip(*(_stream(number, how.get(name)) for number, name in enumerate(names)), strict=True)
        answers, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(_asked_at or server(), [b"."], [theirs.fileno(), *streams])
        for stream in streams:
            os.close(stream)
        answers.sendall(json.dumps([command, how["env"], str(how["cwd"])]).encode())
        answers.shutdown(socket.SHUT_WR)
        if ours[0] is not None:
            self.stdin = await written(ours[0])
        self.stdout, self.stderr = [each and (await reader(each, how.get("limit", LINE)))[0] for each in ours[1:]]
        told, self._writer = await asyncio.open_unix_connection(sock=answers)
        try:
            self.pid = int.from_bytes(await told.readexactly(CODE), "big")
        except asyncio.CancelledError:
            if self.stdin is not None:
                self.stdin.close()  # which ends it
            raise
        self._end = asyncio.create_task(self._ended(told))
        return self

    async def communicate(self) -> tuple[bytes | None, bytes | None]:
        async def read(stream: asyncio.StreamReader | None) -> bytes | None:
            return None if stream is None else await stream.read()

        out, err, _ = await asyncio.gather(read(self.stdout), read(self.stderr), self.wait())
        return out, err


def ask_at(descriptor: int | None = None) -> None:
    """Let this process ask for Locust where it starts a load test: at that socket, or at one of its own."""
    global _asked_at  # noqa: PLW0603 - a process asks at one
    if descriptor is not None:
        os.set_inheritable(descriptor, False)
        _asked_at = socket.socket(fileno=descriptor)
    start = asyncio.create_subprocess_exec

    async def create_subprocess_exec(*command: Any, **how: Any) -> Any:
        environment = how.get("env") or os.environ
        is_locust = tuple(part for part in command[:4] if part != "-P")[:3] == _LOCUST
        if not is_locust or REALLY in environment or not can_fork(dict(environment)):
            return await start(*command, **how)
        return await Process.start(command, how)

    asyncio.create_subprocess_exec = create_subprocess_exec


def _stream(number: int, wanted: int | None) -> tuple[int, int | None]:
    """Return a descriptor for that standard stream of the process, and one for ours if a pipe is wanted."""
    if wanted is None:
        return os.dup(number), None
    if wanted == asyncio.subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR), None
    assert wanted == asyncio.subprocess.PIPE
    reads, writes = os.pipe()
    return (writes, reads) if number else (reads, writes)


def serve() -> None:
    """Run load tests, as they are asked for on the socket that is our standard input, until it closes."""
    plain = SimpleNamespace(**vars(os))  # before gevent has other functions, which need its loop
    requests = socket.socket(fileno=0)
    while True:
        said, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
        if not said:
            os._exit(0)
        _import()
        with contextlib.suppress(ChildProcessError):
            while plain.waitpid(-1, os.WNOHANG)[0]:
                pass
        if plain.fork() == 0:
            break
        for descriptor in descriptors:
            plain.close(descriptor)
    _handle(plain, *descriptors)


@cache
def _import() -> None:
    import gc
    import importlib

    for name in _USED:
        importlib.import_module(name)
    gc.freeze()


def _handle(plain: SimpleNamespace, answers: int, *streams: int) -> None:
    """Run one load test in a child, which returns when it has ended; tell its process id and its exit code."""
    said = b""
    while piece := plain.read(answers, 65536):
        said += piece
    command, environment, directory = json.loads(said)
    pid = plain.fork()
    if pid:
        for stream in (0, *streams):
            plain.close(stream)
        with contextlib.suppress(BrokenPipeError):
            plain.write(answers, pid.to_bytes(CODE, "big"))
        code = os.waitstatus_to_exitcode(plain.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            plain.write(answers, code.to_bytes(CODE, "big", signed=True))
        os._exit(0)
    import gevent

    os.setsid()
    plain.close(answers)
    take_streams(*streams, close=plain.close)
    if "-P" in command[:2]:
        sys.path.remove("")
    gevent.reinit()
    run_command(command, "locust", environment, directory)


@cache
def server() -> socket.socket:
    """Return the socket of the process that forks. It imports Locust when it is asked for a load test."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # It ends when this process does, as the socket closes then.
        subprocess.Popen([sys.executable, "-c", _SERVE], stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
    return ours
