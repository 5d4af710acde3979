"""One page, and the explorer that runs for it as a child process."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import psutil
from aiohttp import WSCloseCode
from aiohttp.web import WebSocketResponse
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

from esx.leash import leashed
from esx.text import visible

WIDEST, HIGHEST = 500, 200
"""Columns and rows of the largest page, as an explorer's memory grows with their product."""
_PATIENCE = 2.0
"""Seconds that an explorer has to end after it is asked to, and again after SIGTERM."""
_KEPT = 4096
_READY = b"__GANGLION__\n"


class WebSession(AppService):
    """An explorer and the page that shows it."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        websocket: WebSocketResponse,
        downloads: DownloadManager,
    ) -> None:
        super().__init__(
            "",
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=self._close,
            download_manager=downloads,
        )
        self.used = time.monotonic()
        """When the last key was pressed or the mouse was last moved."""
        self.why = ""
        """Why the server ended it, in one line; empty if it did not."""
        self._words = list(command)
        self._environ = environ
        self._websocket = websocket
        self._said = b""
        self._stopping = asyncio.Lock()

    @property
    def memory(self) -> int:
        """Bytes that the explorer holds in memory."""
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0

    async def end(self, why: str) -> None:
        """Close the page, which ends the explorer; `why` is one line for both sides."""
        self.why = why
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._websocket.close(code=WSCloseCode.GOING_AWAY, message=why.encode()[:120])
        except (TimeoutError, ConnectionError, RuntimeError):
            # A page that no longer receives anything does not receive this.
            if self._websocket._req is not None and self._websocket._req.transport is not None:
                self._websocket._req.transport.abort()

    async def _close(self) -> None:
        await self._websocket.close()

    async def set_terminal_size(self, width: int, height: int) -> None:
        """Pass the size of the page to the explorer."""
        await super().set_terminal_size(*bounded(width, height))

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        width, height = bounded(width, height)
        self._process = process = await asyncio.create_subprocess_exec(
            *self._words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is for the server
            env={
                **leashed(self._environ),
                "TEXTUAL_DRIVER": "esx.tui.webdriver:BrowserDriver",
                "TEXTUAL_FPS": "60",
                "TEXTUAL_COLOR_SYSTEM": "truecolor",
                "TERM_PROGRAM": "textual",
                "TERM_PROGRAM_VERSION": version("textual-serve"),
                "COLUMNS": str(width),
                "ROWS": str(height),
            },
        )
        self._stdin = process.stdin
        return process

    async def stop(self) -> None:
        """End the explorer, if necessary by a signal, and wait until it has ended."""
        process = self._process
        async with self._stopping:
            if process is None:
                return
            await self._download_manager.cancel_app_downloads(app_service_id=self.app_service_id)
            # Not awaited without a limit, as it may no longer read.
            asking = asyncio.ensure_future(self.send_meta({"type": "quit"}))
            for number in (None, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
                if number is not None and process.returncode is None:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        _signal(process, number)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), _PATIENCE)
                    break
            asking.cancel()
            if self._task is not None:
                await asyncio.wait([self._task], timeout=_PATIENCE)
                self._task.cancel()
                self._task = None
            if process.returncode not in (0, None) and not self.why:
                lines = visible(self._said.decode("utf-8", "replace").strip(), limit=_KEPT).splitlines()
                self.why = lines[-1] if lines else f"its explorer ended with exit code {process.returncode}"

    async def run(self) -> None:
        """Pass the explorer's output to the page until it ends; it is read even if the page is gone."""
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        stdout = self._process.stdout
        listening = asyncio.ensure_future(self._listen(self._process.stderr))
        there = True
        try:
            while (line := await stdout.readline()) != _READY:
                if not line:
                    return
            while True:
                kind = await stdout.readexactly(1)
                payload = await stdout.readexactly(int.from_bytes(await stdout.readexactly(4), "big"))
                if there:
                    try:
                        await self._hand(kind, payload)
                    except (ConnectionError, RuntimeError):
                        there = False
        except asyncio.IncompleteReadError:
            pass
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(listening, _PATIENCE)
            # The page then says that the explorer has ended or failed.
            with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
                await asyncio.wait_for(self._websocket.close(), _PATIENCE)

    async def _hand(self, kind: bytes, payload: bytes) -> None:
        if kind == b"D":
            await self.on_data(payload)
        elif kind == b"M":
            await self.on_meta(payload)
        elif kind == b"P":
            await self.on_packed(payload)

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        while piece := await stderr.read(_KEPT):
            self._said = (self._said + piece)[-_KEPT:]


def bounded(width: int, height: int) -> tuple[int, int]:
    """Return the size within an explorer's bounds that is closest to the given one."""
    return min(max(width, 1), WIDEST), min(max(height, 1), HIGHEST)


def _signal(process: Process, number: int) -> None:
    """Send a signal to the explorer; SIGKILL goes to its whole process group."""
    if number == getattr(signal, "SIGKILL", None):
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
