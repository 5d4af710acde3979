"""Running `esx` as its users do: as a process."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Any

from tests.support import forked

ESX = [sys.executable, "-m", "esx"]
_TIMEOUT = 200
_CHOOSING = ("ESX_DSN", "DATABASE_URL", "PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")


def environment(**extra: str) -> dict[str, str]:
    """Return the environment without anything that would choose a database."""
    return {name: value for name, value in os.environ.items() if name not in _CHOOSING} | extra


def esx(
    *arguments: str, stdin: str | bytes = "", onto: str | int | None = None, closed: str = "", **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with its standard output in `onto`, a file, without the streams that are `closed`."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = forked.run(
        [*arguments], stdin=given, environment=environment(**extra), timeout=_TIMEOUT, onto=onto, closed=closed
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def ndjson(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]  # a text may have other ends of lines in it


def one_line_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the error, having checked that it is one line, with that exit code and nothing on stdout."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("esx: ")
    return line


class Running:
    """A command that goes on, whose output is read line by line."""

    def __init__(self, process: forked.Process | asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, *arguments: str, **extra: str) -> Running:
        return cls(await forked.start(*arguments, environment=environment(**extra)))

    @classmethod
    async def fed(cls, *arguments: str, really: bool = False, **extra: str) -> Running:
        """Start a command that has a pipe for its standard input, `really` in a new Python."""
        return cls(await forked.start(*arguments, environment=environment(**extra), fed=True, really=really))

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), _TIMEOUT)).decode()

    async def narration(self) -> str:
        assert self.process.stderr is not None
        return (await asyncio.wait_for(self.process.stderr.readline(), _TIMEOUT)).decode()

    async def read_no_further(self) -> tuple[int, str]:
        """Close the pipe that its output comes by; return its exit code and what it says."""
        assert isinstance(self.process, forked.Process)
        self.process.stop_reading()
        said = await asyncio.wait_for(self.process.stderr.read(), _TIMEOUT)
        return await asyncio.wait_for(self.process.wait(), _TIMEOUT), said.decode()

    async def end(self, signal: int) -> int:
        self.process.send_signal(signal)
        await asyncio.wait_for(self.process.communicate(), _TIMEOUT)
        assert self.process.returncode is not None
        return self.process.returncode


def on_terminal(*arguments: str, columns: int = 80, lines: int = 24, **extra: str) -> tuple[int, str]:
    """Run a command on a terminal of that size; return its exit code and what the terminal got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    given = {name: value for name, value in environment(TERM="xterm-256color").items() if name not in _OF_TERMINALS}
    process = forked.OnTerminal(theirs, [*arguments], environment=given | extra)
    got = b""
    try:
        while piece := os.read(ours, 65536):
            got += piece
    except OSError:  # how Linux tells that the other end is closed
        pass
    os.close(ours)
    return process.wait(_TIMEOUT), got.decode().replace("\r\n", "\n")


_OF_TERMINALS = ("PAGER", "LESS", "NO_COLOR", "COLUMNS", "LINES")
