"""The recorded clock: it plays, pauses, steps and jumps, and says what has to be shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from esx.capsule.timeline import Timeline

SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""How many seconds of the recording pass in a second."""
_EVERY = 0.1


class Player:
    """A clock between the begin and the end of a recording. It begins where the recording does, and stands still.

    `move` shows what had appeared by a time; it gets that time and the highest global_seq by then. `jumped` is called
    when the clock has gone back, or forth by other than playing: what is shown is then to be read anew.
    """

    def __init__(
        self,
        timeline: Timeline,
        move: Callable[[datetime, int], Awaitable[None]],
        *,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timeline = timeline
        self.name = name
        """What the recording is called."""
        self.at = timeline.within(timeline.info.begun)
        self.playing = False
        self.speed = 1.0
        self.moved = asyncio.Condition()
        self.jumped: Callable[[], None] = lambda: None
        self._move = move
        self._clock = clock
        self._since = 0.0
        self._one = asyncio.Lock()

    def now(self) -> datetime:
        """Return the time of the recording."""
        return self.at

    def seconds(self) -> float:
        """Return the time of the recording in seconds, for rates."""
        return self.at.timestamp()

    async def run(self) -> None:
        """Let the clock go while it plays, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            await self.advance()

    def play(self) -> None:
        """Play or pause; at the end, play from the begin of the recording on."""
        self.playing = not self.playing
        self._since = self._clock()

    async def advance(self) -> None:
        """Go on by the time that has passed, if it plays."""
        if not self.playing:
            return
        now = self._clock()
        passed, self._since = now - self._since, now
        if self.at >= self.timeline.end:
            self.playing = False
            return
        await self._go(self.at + timedelta(seconds=passed * self.speed))

    def faster(self, by: int) -> None:
        """Choose the next higher speed, or the next lower one."""
        place = SPEEDS.index(self.speed) + by
        self.speed = SPEEDS[max(0, min(place, len(SPEEDS) - 1))]

    async def jump(self, at: datetime) -> None:
        """Go to a time."""
        await self._go(at)
        self.jumped()

    async def step(self, forth: bool) -> None:
        """Go to the next time at which something appeared, or to the last one before, and stand still."""
        self.playing = False
        await self.jump(self.timeline.next(self.at) if forth else self.timeline.before(self.at))

    async def _go(self, at: datetime) -> None:
        async with self._one:
            at = self.timeline.within(at)
            await self._move(at, self.timeline.head(at))
            self.at = at
        async with self.moved:
            self.moved.notify_all()
