"""Leaving the terminal as it was, whatever signal ends the explorer."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from textual.app import App

_PATIENCE = 10.0
"""Seconds to leave in, e.g. from a terminal that is gone, and takes nothing any more."""

_SOON = 3.0
"""Seconds after which it hangs."""
_RESET = (
    b"".join(b"\x1b[?%dl" % mode for mode in (1000, 1003, 1015, 1006, 2004, 1004, 1049)) + b"\x1b[<u\x1b[?7h\x1b[?25h"
)
_LAST = "esx-last-resort"


@contextlib.contextmanager
def leaving_on_signals(app: App[None]) -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the explorer like its key does, and SIGQUIT at once, with the terminal given back.

    After the first two `app.return_code` tells of it. A signal that is ignored stays so.
    """
    handlers: dict[str, Callable[[App[None], int], None]] = {"SIGTERM": _leave, "SIGHUP": _leave, "SIGQUIT": _quit}
    before: dict[int, Any] = {}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)  # Windows has but one
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _calling(handler, app))
    try:
        yield
    finally:
        for each in threading.enumerate():
            if each.name == _LAST:
                each.cancel()  # type: ignore[attr-defined]
        for number, handler in before.items():
            signal.signal(number, handler)


def _calling(handler: Callable[[App[None], int], None], app: App[None]) -> Callable[[int, object], None]:
    return lambda number, _frame: handler(app, number)


def _leave(app: App[None], number: int) -> None:
    code = 128 + number
    if app._loop is None or app.return_code == code:
        raise SystemExit(code)
    app._return_code = code
    # The loop may be asleep, and would not wake up for a message alone.
    app._loop.call_soon_threadsafe(lambda: app.exit(return_code=code))
    last = threading.Timer(_PATIENCE, os._exit, (code,))
    last.name, last.daemon = _LAST, True
    last.start()


def _quit(app: App[None], number: int) -> None:
    def die() -> None:
        driver = app._driver
        if driver is not None:
            with contextlib.suppress(Exception):
                driver.stop_application_mode()
                driver.close()  # what is still to be written
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    # From the loop: what the handler interrupts may hold the lock that writing to the terminal takes.
    if app._loop is None:
        die()
        return
    app._loop.call_soon_threadsafe(die)
    last = threading.Timer(_SOON, _die_at_once)
    last.name, last.daemon = _LAST, True
    last.start()


def _die_at_once() -> None:
    """Die where the loop hangs, which is what SIGQUIT is for."""
    with contextlib.suppress(OSError):
        os.write(2, _RESET)
    os.kill(os.getpid(), signal.SIGKILL)
