"""The explorer's end of a page: Textual's driver for browsers, which also ends when nobody is there any more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING

from textual import messages
from textual.drivers.web_driver import WebDriver

from esx.leash import PATIENCE, end_within

if TYPE_CHECKING:
    from types import FrameType

_LONGEST_WAIT = 30.0
"""Seconds in which the server must take something, or it is taken for gone."""
_ASK_EVERY = 0.5


class BrowserDriver(WebDriver):
    """Ends the explorer when the server closes its input, takes none of its output, or asks by a signal.

    Textual forgets that it was asked to end before it had begun, and waits for ever to write where nobody reads. So it
    is asked again and again, and the process is ended for good a few seconds later.
    """

    def start_application_mode(self) -> None:
        """Begin, and be ready for the end."""
        self._loop = asyncio.get_running_loop()
        self._ending = threading.Lock()
        self._write = self._write_all  # type: ignore[assignment]
        if hasattr(os, "set_blocking"):
            os.set_blocking(self.fileno, False)
        super().start_application_mode()
        for each in (signal.SIGINT, signal.SIGTERM):
            # Not one of the event loop's, which may be what does not get on.
            signal.signal(each, self._asked_to_end)

    def run_input_thread(self) -> None:
        """Read what the page sends, until it has gone."""
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._end()

    def _asked_to_end(self, _number: int, _frame: FrameType | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._ending.acquire(blocking=False):
            threading.Thread(target=self._see_to_the_end, daemon=True).start()

    def _see_to_the_end(self) -> None:
        over = time.monotonic() + PATIENCE
        while time.monotonic() < over:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._app.post_message, messages.ExitApp())
            time.sleep(_ASK_EVERY)
        end_within(0)

    def _write_all(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self.fileno, left) :]
            except BlockingIOError:
                if not select.select([], [self.fileno], [], _LONGEST_WAIT)[1]:
                    end_within(0)
            except BrokenPipeError:
                self._end()
                break
        return len(data)
