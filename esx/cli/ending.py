"""Ending early what has something to tell of itself: on Ctrl-C, and on what a CI or a closed terminal sends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from functools import partial
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ASKED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What a CI or a closed terminal sends; Windows has but one."""
_stops: dict[int, list[Callable[[], object]]] = {}
"""What to call for each signal: the innermost, which is the last."""


def _innermost(number: int) -> None:
    _stops[number][-1]()


class Ending:
    """Which signal asked for the end, if one did."""

    def __init__(self) -> None:
        self.number: int | None = None

    def leave(self) -> NoReturn:
        """End the command with the exit code that tells of the signal."""
        if self.number is None or self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.number)


@contextlib.contextmanager
def ended_by(stop: Callable[[], object], numbers: tuple[int, ...] = (signal.SIGINT, *ASKED)) -> Iterator[Ending]:
    """Have `stop` called once, in the running loop, for a signal that asks for the end. One that is ignored stays so.

    An exception from a signal handler would come up anywhere, also where it is lost.
    """
    loop = asyncio.get_running_loop()
    ending = Ending()
    before = {}

    def come(number: int) -> None:
        if ending.number is None:
            ending.number = number
            stop()

    taken = []
    for number in numbers:
        handler = signal.getsignal(number)
        if handler is signal.SIG_IGN:
            continue
        if not _stops.get(number):
            with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C then ends it at once
                loop.add_signal_handler(number, _innermost, number)
                before[number] = handler
        _stops.setdefault(number, []).append(partial(come, number))
        taken.append(number)
    try:
        yield ending
    finally:
        for number in taken:
            _stops[number].pop()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
