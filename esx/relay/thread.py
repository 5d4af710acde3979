"""One thread for the blocking calls of a client, which can be ended at any time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Flag
from typing import TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """The relay is being ended."""


class WorkThread:
    """Runs calls one after another in a thread of its own. They look at `stopping` now and then, and raise Stopped."""

    def __init__(self, name: str) -> None:
        self.stopping = Flag()
        self._name = name
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Run `work` in the thread; if this is cancelled, the thread is told to stop, and waited for."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        running = asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.stopping.set()
            await asyncio.wait([running])
            self.stopping.clear()
            if not running.cancelled():
                running.exception()  # it was told to stop
            raise

    def check(self) -> None:
        """Raise Stopped if the thread is to stop."""
        if self.stopping.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Wait in the thread; raises Stopped."""
        if self.stopping.wait(seconds):
            raise Stopped

    def close(self) -> None:
        """End the thread when its call has ended."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)
