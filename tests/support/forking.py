"""What processes have in common that fork commands, `forked` and `forked_locust`, and those that ask for them."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

LINE = 2**20
"""Bytes that a line of output may have."""
CODE = 4
"""Bytes of a process id, and of an exit code."""
# What Python and the C library read when a process starts.
_AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_")


class ForkedProcess:
    """A process that was asked for: what tests use of `asyncio.subprocess.Process`, beside its output."""

    stdin: asyncio.StreamWriter | None = None
    pid: int
    returncode: int | None = None
    _writer: asyncio.StreamWriter
    _end: asyncio.Task[int]

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    async def _ended(self, told: asyncio.StreamReader) -> int:
        self.returncode = int.from_bytes(await told.readexactly(CODE), "big", signed=True)
        self._writer.close()
        return self.returncode


def take_streams(*streams: int, close: Callable[[int], object] = os.close) -> None:
    """Make these the standard streams of this process."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        close(descriptor)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - until it ends
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115


def run_command(command: list[str], module: str, environment: dict[str, str], directory: str) -> NoReturn:
    """Run a command ``... -m module ...`` in this process, as Python does."""
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv, sys.orig_argv = command[command.index(module) :], command
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, int | None):
            with contextlib.suppress(OSError, ValueError):  # Python itself tells what cannot be written
                end(ended.code or 0)
        raise
    raise AssertionError(f"{module} has not ended")


def end(code: int) -> None:
    """End as Python does, but without taking all that was imported apart, which takes a third of a short command."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def can_fork(environment: dict[str, str]) -> bool:
    return _at_the_start(environment) == _at_the_start(dict(os.environ))


async def written(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(descriptor, "wb"))
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def reader(descriptor: int, limit: int = LINE) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    read = asyncio.StreamReader(limit)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(read), os.fdopen(descriptor, "rb")
    )
    return read, transport


def _at_the_start(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_AT_THE_START)}
