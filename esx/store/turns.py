"""Taking turns: tasks of one process that got into each other's way at a stream go one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LONGEST = 1.0
"""Seconds after which a turn is over for the others, so that nobody waits for one who waits for him."""


class Turns:
    """A line for each key that somebody waits for, in the order in which they came."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def __contains__(self, key: str) -> bool:
        """Return whether there is a line."""
        return key in self._lines

    @contextlib.asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Line up, and have the turn for the length of an ``async with``, or for a second if that is longer."""
        line = self._lines.setdefault(key, _Line())
        line.members += 1
        try:
            await line.lock.acquire()
            ours = True

            def pass_on() -> None:
                nonlocal ours
                if ours:
                    ours = False
                    line.lock.release()

            timer = asyncio.get_running_loop().call_later(_LONGEST, pass_on)
            try:
                yield
            finally:
                timer.cancel()
                pass_on()
        finally:
            line.members -= 1
            if not line.members:
                del self._lines[key]


class _Line:
    def __init__(self) -> None:
        self.members = 0
        self.lock = asyncio.Lock()
