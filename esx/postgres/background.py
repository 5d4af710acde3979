"""Tasks in the background, whose failures are logged."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

_log = logging.getLogger("esx.background")


def keep_running(
    work: Callable[[], Coroutine[Any, Any, None]], name: str, *, first_pause: float = 0.1, last_pause: float = 30.0
) -> asyncio.Task[None]:
    """Run `work` in a task of that name until it returns or is cancelled.

    An exception is logged, and `work` begins again after a pause of `first_pause` seconds, which doubles each time up
    to `last_pause`. After a run of more than `last_pause` seconds the pauses begin with `first_pause` again.
    """

    async def run() -> None:
        loop = asyncio.get_running_loop()
        pause = first_pause
        while True:
            began = loop.time()
            try:
                return await work()
            except Exception:
                if loop.time() - began > last_pause:
                    pause = first_pause
                _log.exception("%s failed, and begins again in %.1f s", name, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, last_pause)

    return asyncio.create_task(run(), name=name)


def tell_failure(task: asyncio.Task[Any]) -> None:
    """Log the exception of a task; a done callback for tasks that are not awaited."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed", task.get_name(), exc_info=error)
