"""What processes have in common that fork commands, `forked` and `forked_locust`, and those that ask for them."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading

LINE = 2**20
"""Bytes that a line of output may have."""
CODE = 4
"""Bytes of a process id, and of an exit code."""
# What Python and the C library read when a process starts.
_AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_")


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
