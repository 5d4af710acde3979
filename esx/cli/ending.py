"""Ending early what has something to tell of itself: on Ctrl-C, and on what a CI or a closed terminal sends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Ending:
    """Which signal asked for the end."""

    def __init__(self) -> None:
        self._number: int = signal.SIGINT

    def came(self, number: int) -> None:
        """Take note of a signal."""
        self._number = number

    def leave(self) -> NoReturn:
        """End the command with the exit code that tells of the signal."""
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self._number)


@contextlib.contextmanager
def ended_by(stop: Callable[[], object]) -> Iterator[Ending]:
    """Have `stop` called, in the running loop, for a signal that asks for the end. One that is ignored stays so."""
    loop = asyncio.get_running_loop()
    ending = Ending()
    before = {}

    def come(number: int) -> None:
        ending.came(number)
        stop()

    for number in _ENDING:
        handler = signal.getsignal(number)
        if handler is not signal.SIG_IGN:
            with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C then ends it at once
                loop.add_signal_handler(number, come, number)
                before[number] = handler
    try:
        yield ending
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
