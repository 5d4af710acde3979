"""Restoring the terminal when a signal ends the explorer."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from textual.app import App

_RESET = (
    b"".join(b"\x1b[?%dl" % mode for mode in (1000, 1003, 1015, 1006, 2004, 1004, 1049)) + b"\x1b[<u\x1b[?7h\x1b[?25h"
)
_LAST = "esx-last-resort"


@contextlib.contextmanager
def leaving_on_signals(app: App[None]) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the explorer as its key does, and SIGQUIT at once; the terminal is restored.

    After the first two `app.return_code` is 128 and the signal's number. A signal that is ignored stays ignored.
    """
    handlers = {"SIGTERM": _leave, "SIGHUP": _leave, "SIGQUIT": _quit}
    before: dict[int, Any] = {}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)  # Windows has only SIGTERM
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, partial(handler, app))
    try:
        yield
    finally:
        for each in threading.enumerate():
            if each.name == _LAST:
                each.cancel()  # type: ignore[attr-defined]
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(app: App[None], number: int, _frame: object) -> None:
    code = 128 + number
    if app._loop is None or app.return_code == code:
        raise SystemExit(code)
    app._return_code = code
    # The loop may be asleep, and would not wake up for a message alone.
    app._loop.call_soon_threadsafe(lambda: app.exit(return_code=code))
    # A terminal that is gone may block its last output.
    _after(10.0, lambda: os._exit(code))


def _quit(app: App[None], number: int, _frame: object) -> None:
    def die() -> None:
        driver = app._driver
        if driver is not None:
            with contextlib.suppress(Exception):
                driver.stop_application_mode()
                driver.close()  # writes what is pending
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    # From the loop: the code that the handler interrupts may hold the lock for writing to the terminal.
    if app._loop is None:
        die()
        return
    app._loop.call_soon_threadsafe(die)
    _after(3.0, _die_at_once)


def _after(seconds: float, last_resort: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, last_resort)
    timer.name, timer.daemon = _LAST, True
    timer.start()


def _die_at_once() -> None:
    """Die although the loop hangs: that is what SIGQUIT is for."""
    with contextlib.suppress(OSError):
        os.write(2, _RESET)
    os.kill(os.getpid(), signal.SIGKILL)
