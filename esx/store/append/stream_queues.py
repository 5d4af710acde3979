"""Queues of tasks of one process that decide about the same stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class StreamQueues:
    """A queue for each stream that a task waits for, first come, first served.

    After `longest` seconds the next task gets its turn in any case, so that two tasks never wait for each other.
    """

    def __init__(self, longest: float = 1.0) -> None:
        self._longest = longest
        self._queues: dict[str, _Queue] = {}

    def __contains__(self, stream_id: str) -> bool:
        """Return whether there is a queue."""
        return stream_id in self._queues

    @contextlib.asynccontextmanager
    async def turn(self, stream_id: str) -> AsyncIterator[None]:
        """Wait for the turn, and keep it for the length of an ``async with``, at most `longest` seconds."""
        queue = self._queues.setdefault(stream_id, _Queue())
        queue.members += 1
        try:
            await queue.lock.acquire()
            ours = True

            def pass_on() -> None:
                nonlocal ours
                if ours:
                    ours = False
                    queue.lock.release()

            timer = asyncio.get_running_loop().call_later(self._longest, pass_on)
            try:
                yield
            finally:
                timer.cancel()
                pass_on()
        finally:
            queue.members -= 1
            if not queue.members:
                del self._queues[stream_id]


class _Queue:
    def __init__(self) -> None:
        self.members = 0
        self.lock = asyncio.Lock()
