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
    driver = app._driver
    if driver is not None:
        with contextlib.suppress(Exception):
            driver.stop_application_mode()
            driver.close()  # what is still to be written
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
