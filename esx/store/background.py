"""Work that goes on in the background: none of it ends without somebody hearing of it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_log = logging.getLogger("esx.background")
_FIRST_PAUSE = 0.1
_LAST_PAUSE = 30.0


def keep_running(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
    """Run `work` in a task of that name until it returns or is cancelled.

    Where it raises, that is logged, and it begins again after a pause: of 0.1 seconds, then twice as long each time, up
    to 30 seconds.
    """
    return asyncio.create_task(_run(work, name), name=name)


async def _run(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    loop = asyncio.get_running_loop()
    pause = _FIRST_PAUSE
    while True:
        began = loop.time()
        try:
            return await work()
        except Exception:
            if loop.time() - began > _LAST_PAUSE:
                pause = _FIRST_PAUSE
            _log.exception("%s failed, and begins again in %.1f s", name, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LAST_PAUSE)


def tell_failure(task: asyncio.Task[Any]) -> None:
    """Log what a task has raised whose result nobody waits for: a callback for when it is done."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed", task.get_name(), exc_info=error)
