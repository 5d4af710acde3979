"""Running a command's coroutine, and ending it early on Ctrl-C, SIGTERM and SIGHUP."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
_ASKED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What a CI or a closed terminal sends; Windows has only the first."""
_stops: dict[int, list[Callable[[], object]]] = {}
"""What to call for each signal: the last one, which is the innermost."""


def _innermost(number: int) -> None:
    _stops[number][-1]()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C cancels it and raises KeyboardInterrupt, SIGTERM raises SystemExit."""
    endings: list[Ending] = []

    async def inside() -> T:
        task = asyncio.current_task()
        assert task is not None
        with ended_by(task.cancel, _ASKED) as ending:
            endings.append(ending)
            return await coroutine

    try:
        return asyncio.run(inside())
    except asyncio.CancelledError:
        if endings and endings[0].number is not None:
            endings[0].leave()
        raise


class Ending:
    """Which signal asked for the end, None if none did."""

    def __init__(self) -> None:
        self.number: int | None = None

    def leave(self) -> NoReturn:
        """End the command with the signal's exit code."""
        if self.number is None or self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.number)


@contextlib.contextmanager
def ended_by(stop: Callable[[], object], numbers: tuple[int, ...] = (signal.SIGINT, *_ASKED)) -> Iterator[Ending]:
    """Have `stop` called once, in the running loop, at the first of these signals. An ignored one stays ignored.

    An exception raised by a signal handler could come up at a place where it is lost.
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
            with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C then ends the command at once
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
