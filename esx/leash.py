"""No process of ours outlives the one that started it, however that ended, killed or not.

The one that starts a process gives it `leashed` as its environment; the process calls `hold` first of all. On Linux
the kernel then tells it of its parent's end, elsewhere it looks once a second. It is asked to end as by SIGTERM, so
that it can leave in order, and is ended for good a few seconds later: also where it spins, or waits for a reader who
has gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from _thread import start_new_thread
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE = 5.0
"""Seconds that a process has to end in order."""
_PARENT = "ESX_PARENT"
_LOOK_EVERY = 1.0
_PR_SET_PDEATHSIG = 1


def leashed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` for a process that is to end with this one."""
    return {**environ, _PARENT: str(os.getpid())}


def parent() -> int:
    """Return the process that this one ends with: the one that said so, else the one that started it."""
    told = os.environ.pop(_PARENT, "")
    return int(told) if told.isdecimal() else os.getppid()


def is_held() -> bool:
    """Return whether whoever started this process wants it to end with itself."""
    return _PARENT in os.environ


def hold(
    *,
    by: int | None = None,
    kernel: bool = True,
    start: Callable[[Callable[[], None], tuple[()]], object] = start_new_thread,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """End this process soon after its parent, which is `by` if that is given.

    The `kernel` can tell of that at once, where the parent starts processes from a thread that lasts as long as it
    does itself. `start` starts a native thread and `sleep` lets it wait, where others have taken the place of
    Python's own.
    """
    watched = parent() if by is None else by
    if kernel and sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The thread also sees a parent that had gone before the kernel was asked.
    start(partial(_watch, watched, sleep), ())


def _watch(watched: int, sleep: Callable[[float], object]) -> None:
    # Some pythons are started by a launcher, which then stands between.
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
    """End this process for good after `patience` seconds, and with it the group that it leads."""
    sleep(patience)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
