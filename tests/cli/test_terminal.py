"""The explorer on a terminal: it gives that back as it was, however it ends, and stops and goes on with the shell."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from esx import NewEvent
from esx.embedded import EmbeddedServer
from tests.cli.support import ESX, environment, esx
from tests.embedded.test_embedded import runs, short_directory, until
from tests.support.clusters import copy_cluster
from tests.support.forked import OnTerminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esx import EventStore

pytestmark = pytest.mark.slow

MODES = ("1000", "1003", "1006", "1049", "2004", "1004")
"""Mouse, the other screen, pasting, focus."""


class Terminal:
    """A terminal with a process on it, whose shell this is. If it is started `really`, it is not forked."""

    def __init__(self, *arguments: str, really: bool = False, **extra: str) -> None:
        self._ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self.out = b""
        given = environment(TERM="xterm-256color", LINES="30", COLUMNS="100", **extra)
        self.process = (_started if really else _forked)(theirs, [*arguments], given)
        self._theirs = theirs

    def read(self, wanted: bytes | None = None) -> None:
        """Read until `wanted` has come, or until nothing comes any more."""
        end = time.monotonic() + 120
        while wanted is None or wanted not in self.out:
            assert time.monotonic() < end, self.out[-3000:]
            if select.select([self._ours], [], [], 0.2)[0]:
                self.out += os.read(self._ours, 65536)
            elif wanted is None:
                return

    def hang_up(self) -> None:
        """Close the terminal, as its window is closed."""
        os.close(self._theirs)
        os.close(self._ours)
        self._ours = self._theirs = -1

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def await_stop(self) -> None:
        """Wait until the process has stopped, reading what it writes: a terminal does not keep much."""
        end = time.monotonic() + 120
        while psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < end
            self.read()

    def await_end(self) -> int:
        """Wait until the process has ended, reading what it writes, and return its code."""
        end = time.monotonic() + 120
        while (code := self.process.poll()) is None:
            assert time.monotonic() < end
            self.read()
        self.read()
        return code

    def modes(self) -> dict[str, bool]:
        """Return which modes are on after all that was written."""
        return {
            mode: self.out.rfind(f"\x1b[?{mode}h".encode()) > self.out.rfind(f"\x1b[?{mode}l".encode())
            for mode in MODES
        }

    def is_given_back(self) -> bool:
        """Return whether every mode is off, the cursor shown, and lines are edited as before."""
        shown = self.out.rfind(b"\x1b[?25h") > self.out.rfind(b"\x1b[?25l")
        return shown and not any(self.modes().values()) and termios.tcgetattr(self._theirs) == self.before

    def close(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(120)
        if self._ours >= 0:
            self.hang_up()


def _forked(terminal: int, arguments: list[str], environment: dict[str, str]) -> OnTerminal:
    return OnTerminal(os.dup(terminal), arguments, environment=environment, session=True, explorer=True)


def _started(terminal: int, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*ESX, *arguments],
        stdin=terminal, stdout=terminal, stderr=terminal,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )  # fmt: skip


@contextlib.contextmanager
def explorer(*arguments: str, really: bool = False, **extra: str) -> Iterator[Terminal]:
    terminal = Terminal(*arguments, really=really, **extra)
    try:
        terminal.read(b"one-stream")
        assert all(terminal.modes()[mode] for mode in ("1000", "1049"))
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize("name", ["SIGQUIT", "SIGTERM", "SIGHUP", "ctrl+c"])
async def test_the_terminal_is_given_back_however_it_ends(dsn18: str, store18: EventStore, name: str) -> None:
    await store18.append("one-stream", [NewEvent("T")])
    with explorer("-d", dsn18) as terminal:
        if name.startswith("SIG"):
            terminal.process.send_signal(signal.Signals[name])
        else:
            terminal.press(b"\x03")
        code = terminal.await_end()
        assert terminal.is_given_back()
        assert b"Traceback" not in terminal.out
        assert code == {"SIGQUIT": -signal.SIGQUIT, "SIGTERM": 143, "SIGHUP": 129}.get(name, 0)


async def test_it_ends_with_its_terminal(dsn18: str, store18: EventStore) -> None:
    await store18.append("one-stream", [NewEvent("T")])
    with explorer("-d", dsn18) as terminal:
        terminal.hang_up()
        assert terminal.process.wait(120) != 0


async def test_ctrl_z_stops_it_fg_goes_on_and_q_ends_it(dsn18: str, store18: EventStore) -> None:
    """As users start it, in a Python of its own."""
    await store18.append("one-stream", [NewEvent("T")])
    with explorer("-d", dsn18, really=True) as terminal:
        for _ in range(2):
            terminal.press(b"\x1a")
            terminal.await_stop()
            terminal.read()
            assert terminal.is_given_back()
            terminal.out = b""
            await store18.append("one-stream", [NewEvent("T")])
            terminal.process.send_signal(signal.SIGCONT)
            terminal.read(b"one-stream")
            assert terminal.modes()["1000"]
            assert terminal.modes()["1049"]
        terminal.press(b"q")
        assert terminal.await_end() == 0
        assert terminal.is_given_back()
        assert b"Traceback" not in terminal.out


async def test_the_embedded_server_waits_for_a_stopped_explorer_and_ends_after_a_killed_one() -> None:
    with short_directory() as home:
        await copy_cluster(home, 18)
        assert esx("append", "one-stream", "T", ESX_DATA_DIR=str(home)).returncode == 0
        with explorer(ESX_DATA_DIR=str(home)) as terminal:
            with EmbeddedServer.start(home) as server:
                terminal.press(b"\x1a")
                terminal.await_stop()
            assert runs(server.pid)
            terminal.process.send_signal(signal.SIGCONT)
            terminal.out = b""
            terminal.read(b"one-stream")
            terminal.process.send_signal(signal.SIGQUIT)
            terminal.await_end()
            until(lambda: not runs(server.pid))
