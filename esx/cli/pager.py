"""Shows long output in a pager, as git does: $PAGER, else less, and LESS=FRX if that is not set.

Output is held until it is longer than the screen; then the pager gets it. What comes slowly is shown as it comes, and
without a pager.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from esx.cli.output import held_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_AHEAD = 256
"""How many pieces of output may wait for a pager that is behind."""
_LOOK = 0.05
_PATIENCE = 1.0
"""After how many seconds what is held is shown, though it does not fill the screen."""


@contextlib.contextmanager
def paged(wanted: bool) -> Iterator[None]:
    """Let what is printed on stdout go through a pager if it is longer than the screen, and wait until that is left.

    Messages on stderr are printed after it.
    """
    command = pager_command(os.environ) if wanted else None
    if command is None:
        yield
        return
    screen = Screen(command, max(shutil.get_terminal_size().lines - 1, 5))
    with contextlib.redirect_stdout(screen), held_back(lambda: screen.pager_runs):
        try:
            yield
        finally:
            screen.finish()


def pager_command(environ: Mapping[str, str]) -> str | None:
    """Return the command line of the pager, None where none is to be used or found."""
    named = environ.get("PAGER")
    if named is None:
        return "less" if shutil.which("less") else None
    try:
        program = next(iter(shlex.split(named)), "cat")
    except ValueError:
        return None
    return None if program == "cat" or shutil.which(program) is None else named


class Screen(io.TextIOBase):
    """Stands for stdout: holds lines until there are more than `lines` of them, then starts the pager."""

    def __init__(self, command: str, lines: int) -> None:
        super().__init__()
        self._command = command
        self._most = lines
        self._out = sys.stdout
        self._held: list[str] = []
        self._lines = 0
        self._straight = False
        self._timer: asyncio.TimerHandle | None = None
        self._pager: _Pager | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of what is written."""
        return "utf-8"

    @property
    def pager_runs(self) -> bool:
        """Whether the pager has the screen."""
        return self._pager is not None

    def isatty(self) -> bool:
        """Return true: it is the terminal in the end."""
        return True

    def fileno(self) -> int:
        """Return the number of stdout."""
        return self._out.fileno()

    def writable(self) -> bool:
        """Return true."""
        return True

    def write(self, text: str) -> int:
        """Hold text, or pass it on. Raises BrokenPipeError when the pager was left."""
        if self._straight:
            return self._out.write(text)
        if self._pager is not None:
            self._pager.put(text)
            return len(text)
        if not self._held:
            with contextlib.suppress(RuntimeError):  # nothing waits where no loop runs
                self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._release_late)
        self._held.append(text)
        self._lines += text.count("\n")
        if self._lines > self._most:
            self._start()
        return len(text)

    def flush(self) -> None:
        """Pass on to the terminal what it can have already."""
        if self._straight:
            self._out.flush()

    async def room(self) -> None:
        """Wait while the pager is far behind. Raises BrokenPipeError when it was left."""
        if self._pager is not None:
            await self._pager.room()

    def finish(self) -> None:
        """Show what is still held, or wait until the user leaves the pager."""
        if self._timer is not None:
            self._timer.cancel()
        if self._pager is None:
            self._release()
            return
        # Ctrl-C is for the pager now.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._pager.finish()
        finally:
            signal.signal(signal.SIGINT, before)
            self._pager = None
            self._straight = True

    def _release_late(self) -> None:
        # The next write tells that the terminal is gone.
        with contextlib.suppress(OSError):
            self._release()

    def _release(self) -> None:
        if self._pager is None and not self._straight:
            self._straight = True
            self._out.write("".join(self._held))
            self._out.flush()
            self._held.clear()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._pager = _Pager(self._command)
        except OSError:
            self._release()
            return
        self._pager.put("".join(self._held))
        self._held.clear()


class _Pager:
    """The pager's process, written to by a thread: while the user reads, the event loop must go on."""

    def __init__(self, command: str) -> None:
        environment = {"LESS": "FRX", "LV": "-c"} | os.environ
        # The user's own command line, which a shell runs, as for git.
        self._process = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, env=environment)  # noqa: S602
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._left = False
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def put(self, text: str) -> None:
        if self._left:
            raise BrokenPipeError
        self._pieces.put(text)

    async def room(self) -> None:
        while self._pieces.qsize() > _AHEAD and not self._left:
            await asyncio.sleep(_LOOK)
        if self._left:
            raise BrokenPipeError

    def finish(self) -> None:
        self._pieces.put(None)
        self._thread.join()
        self._process.wait()

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        try:
            with pipe:
                while (text := self._pieces.get()) is not None:
                    pipe.write(text.encode("utf-8", "backslashreplace"))
        except OSError:
            self._left = True
