"""Ends a child process with its parent, also if the parent was killed.

The parent starts the process with `leashed` as its environment, and the process calls `hold` first. On Linux the kernel
then signals the end of the parent, elsewhere the process looks once a second. It gets a SIGTERM first, so that it can
end in order, and is killed a few seconds later, for example if it is in an endless loop.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from _thread import start_new_thread
from collections.abc import Callable, Mapping
from functools import partial

PATIENCE = 5.0
"""How many seconds a process has to end in order."""
_PARENT = "ESX_PARENT"
_LOOK_EVERY = 1.0
_PR_SET_PDEATHSIG = 1


def leashed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` for a process that is to end with this one."""
    return {**environ, _PARENT: str(os.getpid())}


def parent() -> int:
    """Return the process with which this one ends: the one in the environment, else the parent process."""
    told = os.environ.pop(_PARENT, "")
    return int(told) if told.isdecimal() else os.getppid()


def is_held() -> bool:
    """Return whether the process that started this one wants it to end with itself."""
    return _PARENT in os.environ


def hold(
    *,
    by: int | None = None,
    kernel: bool = True,
    start: Callable[[Callable[[], None], tuple[()]], object] = start_new_thread,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """End this process soon after its parent, which is `by` if that is given.

    The `kernel` can signal that at once, if the parent starts processes from a thread that lives as long as the parent.
    `start` starts a native thread and `sleep` lets it wait, for processes that have replaced Python's own functions.
    """
    watched = parent() if by is None else by
    if kernel and sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The thread also notices a parent that ended before the kernel was asked.
    start(partial(_watch, watched, sleep), ())


def _watch(watched: int, sleep: Callable[[float], object]) -> None:
    # Some Pythons are started by a launcher, which is then the parent process.
    above = os.getppid()
    while os.getppid() == above and (above == watched or _runs(watched)):
        sleep(_LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
    end_within(sleep=sleep)


def _runs(process: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def end_within(patience: float = PATIENCE, *, sleep: Callable[[float], object] = time.sleep) -> None:
    """Kill this process after `patience` seconds, with its process group if it leads one."""
    sleep(patience)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
