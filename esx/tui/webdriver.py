"""The explorer's end of a page: Textual's driver for browsers, which also ends when the page has gone."""

import asyncio
import contextlib
import os
import select
import signal
import threading
import time

from textual import messages
from textual.drivers.web_driver import WebDriver

from esx.leash import PATIENCE, end_within


class BrowserDriver(WebDriver):
    """Ends the explorer when the server closes its input, takes none of its output, or asks by a signal.

    Textual forgets a request to end that comes before it has begun, and waits for ever to write to a pipe that has no
    reader. So it is asked again and again, and the process is ended a few seconds later.
    """

    def start_application_mode(self) -> None:
        """Begin, and listen to signals."""
        self._loop = asyncio.get_running_loop()
        self._ending = threading.Lock()
        self._write = self._write_all  # type: ignore[assignment]
        if hasattr(os, "set_blocking"):
            os.set_blocking(self.fileno, False)
        super().start_application_mode()
        for each in (signal.SIGINT, signal.SIGTERM):
            # Not a handler of the event loop, because that may hang.
            signal.signal(each, lambda _number, _frame: self._end())

    def run_input_thread(self) -> None:
        """Read what the page sends, until it has gone."""
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._end()

    def _end(self) -> None:
        if self._ending.acquire(blocking=False):
            threading.Thread(target=self._see_to_the_end, daemon=True).start()

    def _see_to_the_end(self) -> None:
        over = time.monotonic() + PATIENCE
        while time.monotonic() < over:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._app.post_message, messages.ExitApp())
            time.sleep(0.5)
        end_within(0)

    def _write_all(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self.fileno, left) :]
            except BlockingIOError:
                # A server that takes nothing for 30 seconds is gone.
                if not select.select([], [self.fileno], [], 30.0)[1]:
                    end_within(0)
            except BrokenPipeError:
                self._end()
                break
        return len(data)
