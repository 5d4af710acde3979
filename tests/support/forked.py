"""`esx` in forks of a process that has imported it: to import it for each command takes most of such a test's time.

Each command is a process of its own, with its own arguments, environment, directory, and standard streams. Tests of
what happens before esx is imported, or meanwhile, start Python themselves.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SERVE = f"from {__name__} import serve; serve()"
# What commands import when they run, beside the modules of `esx.cli`.
_USED = (
    *("esx.database_choice", "esx.doctor.diagnosis", "esx.embedded.server", "esx.eventstore", "esx.load.process"),
    *("esx.load.sweep.text", "esx.payloads.decoder", "esx.store.bulk.import_", "uvloop"),
)
# What Python and the C library read when a process starts.
_AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_")
_ESX = [sys.executable, "-m", "esx"]
_LINE = 2**20
"""Bytes that a line of output may have."""
_CODE = 4
"""Bytes of a process id, and of an exit code."""


def run(
    arguments: list[str], *, stdin: bytes, environment: dict[str, str], timeout: float, onto: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``esx`` with these arguments to its end, as `subprocess.run` does. Raises `subprocess.TimeoutExpired`.

    `onto` is a file that its standard output goes to, instead of being returned; then the environment must be ours in
    what Python reads when it starts.
    """
    command = [*_ESX, *arguments]
    if not _can_fork(environment):
        assert onto is None
        return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, env=environment, check=False)
    (read_in, write_in), (read_out, write_out), (read_err, write_err) = os.pipe(), os.pipe(), os.pipe()
    if onto is not None:
        os.close(write_out)
        write_out = os.open(onto, os.O_WRONLY)
    with _fork(command, environment, read_in, write_out, write_err) as answers, ThreadPoolExecutor(3) as pool:
        writing = pool.submit(_write, write_in, stdin)
        out, err = pool.submit(_read, read_out), pool.submit(_read, read_err)
        pid = int.from_bytes(answers.recv(_CODE, socket.MSG_WAITALL), "big")
        answers.settimeout(timeout)
        try:
            code = int.from_bytes(answers.recv(_CODE, socket.MSG_WAITALL), "big", signed=True)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, timeout) from None
        writing.result()
        return subprocess.CompletedProcess(command, code, out.result(), err.result())


def run_on(terminal: int, arguments: list[str], *, environment: dict[str, str], timeout: float) -> Callable[[], int]:
    """Start ``esx`` on a terminal, which is closed here; return what waits for its exit code."""
    assert _can_fork(environment)
    streams = os.dup(terminal), os.dup(terminal), terminal
    answers = _fork([*_ESX, *arguments], environment, *streams)
    answers.settimeout(timeout)

    def code() -> int:
        with answers:
            answers.recv(_CODE, socket.MSG_WAITALL)
            return int.from_bytes(answers.recv(_CODE, socket.MSG_WAITALL), "big", signed=True)

    return code


class Process:
    """A command that goes on: what tests use of `asyncio.subprocess.Process`."""

    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    pid: int
    returncode: int | None = None
    _writer: asyncio.StreamWriter
    _end: asyncio.Task[int]

    def send_signal(self, signal: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    async def communicate(self) -> tuple[bytes, bytes]:
        out, err, _ = await asyncio.gather(self.stdout.read(), self.stderr.read(), self.wait())
        return out, err

    @classmethod
    async def start(cls, *arguments: str, environment: dict[str, str]) -> Process:
        self = cls()
        (read_out, write_out), (read_err, write_err) = os.pipe(), os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        answers = _fork([*_ESX, *arguments], environment, nothing, write_out, write_err)
        self.stdout, self.stderr = await _reader(read_out), await _reader(read_err)
        told, self._writer = await asyncio.open_connection(sock=answers)
        self.pid = int.from_bytes(await told.readexactly(_CODE), "big")
        self._end = asyncio.create_task(self._ended(told))
        return self

    async def _ended(self, told: asyncio.StreamReader) -> int:
        self.returncode = int.from_bytes(await told.readexactly(_CODE), "big", signed=True)
        self._writer.close()
        return self.returncode


async def start(*arguments: str, environment: dict[str, str]) -> Process | asyncio.subprocess.Process:
    """Start ``esx`` with these arguments, nothing on its standard input, and pipes for its output."""
    if _can_fork(environment):
        return await Process.start(*arguments, environment=environment)
    return await asyncio.create_subprocess_exec(
        *(*_ESX, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        limit=_LINE,
    )


def serve() -> None:
    """Run commands, as `run` asks for them on the socket that is our standard input, until it closes."""
    for module in pkgutil.walk_packages(importlib.import_module("esx.cli").__path__, "esx.cli."):
        importlib.import_module(module.name)
    for name in _USED:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=0) as requests:
        while True:
            said, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
            if not said:
                os._exit(0)
            if os.fork() == 0:
                requests.detach()
                break
            for descriptor in descriptors:
                os.close(descriptor)
    _handle(*descriptors)


def _handle(answers: int, *streams: int) -> None:
    """Run one command in a child, tell its process id and its exit code; return in the child, when it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=answers) as client:
        command, environment, directory = json.loads(client.makefile("rb").read())
        pid = os.fork()
        if pid:
            with contextlib.suppress(BrokenPipeError):  # it did not wait for us
                client.sendall(pid.to_bytes(_CODE, "big"))
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                client.sendall(code.to_bytes(_CODE, "big", signed=True))
            os._exit(0)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - until it ends
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv, sys.orig_argv = command[2:], command
    try:
        runpy.run_module("esx", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, int | None):
            with contextlib.suppress(OSError, ValueError):  # Python itself tells what cannot be written
                _end(ended.code or 0)
        raise


def _end(code: int) -> None:
    """End as Python does, but without taking all that was imported apart, which takes a third of a short command."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _can_fork(environment: dict[str, str]) -> bool:
    return _at_the_start(environment) == _at_the_start(dict(os.environ))


def _fork(command: list[str], environment: dict[str, str], *streams: int) -> socket.socket:
    """Ask for a command with these standard streams, which are closed here; return where the answers come."""
    answers, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(_server(), [b"."], [theirs.fileno(), *streams])
    for stream in streams:
        os.close(stream)
    answers.sendall(json.dumps([command, environment, os.getcwd()]).encode())
    answers.shutdown(socket.SHUT_WR)
    return answers


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(_LINE)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    return reader


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # It ends when this process does, as the socket closes then.
        subprocess.Popen([sys.executable, "-c", _SERVE], stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
    return ours


def _at_the_start(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_AT_THE_START)}


def _write(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb") as stream, contextlib.suppress(BrokenPipeError):
        stream.write(data)
        stream.flush()


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb") as stream:
        return stream.read()
