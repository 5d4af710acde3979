"""What a reader of the global order has passed last: enough to notice that its promise was broken.

The barrier's proof holds where every number is drawn by the INSERT that stores it, on one server. Whoever draws numbers
by hand, or brings rows from elsewhere, steps outside of it. So a reader remembers which numbers were visible in a
trailing window below its safe position, and now and then counts them again.
"""

from __future__ import annotations

from array import array
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from esx.store.careful import fetch
from esx.store.history import MARKS, History, Mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from esx.store.history import Server
    from esx.store.layout import Layout
    from esx.store.model import Event

WINDOW = 10_000
"""How many visible events the window holds at least, once so many were passed; at most twice as many."""
_NAMED = 100
"""So many missed events of one look are named; more are only counted."""


class Missed(NamedTuple):
    """An event that became visible below a safe position, so that this reader never handed it out."""

    global_seq: int
    stream_id: str
    event_type: str


class Look(NamedTuple):
    """What counting again has shown.

    `missed` are the events that have appeared, the first hundred by name; `appeared` is how many. `gone` is how many
    numbers of the window have no event any more, `head` the highest number handed out by the sequence or visible.
    `numbers` are those of the window that are visible now, None if nothing has changed.
    """

    missed: tuple[Missed, ...]
    appeared: int
    gone: int
    head: int
    numbers: array[int] | None = None


class Recent:
    """The trailing window of one reader, and the marks of the last events that it handed out.

    `server` is where they were read last, `run` which run of it that was; both are None before the first reading, and
    `run` where it is not known.
    """

    def __init__(self, position: int) -> None:
        self.low = self.position = position
        """What is remembered lies above the one, up to the other."""
        self.server: Server | None = None
        self.run: object = None
        self._numbers = array("q")
        self._marks: deque[Mark] = deque(maxlen=MARKS)

    def passed(self, numbers: Iterable[int], position: int, events: Sequence[Event]) -> None:
        """Remember visible `numbers` up to the new `position`, and which `events` of them were handed out."""
        self._numbers.extend(numbers)
        self.position = position
        self._marks.extend(map(Mark.of, events[-MARKS:]))
        if len(self._numbers) > 2 * WINDOW:
            self.low = self._numbers[-WINDOW - 1]
            del self._numbers[:-WINDOW]

    def up_to(self, position: int) -> Recent:
        """Return what is remembered of the numbers up to `position`."""
        copy = Recent(min(self.low, position))
        copy.server, copy.run = self.server, self.run
        copy.passed(takewhile(lambda number: number <= position, self._numbers), position, ())
        copy._marks.extend(mark for mark in self._marks if mark.global_seq <= position)
        return copy

    def forget(self, numbers: Iterable[int]) -> None:
        """Take events that were deleted out of what was handed out."""
        gone = set(numbers)
        self._marks = deque((mark for mark in self._marks if mark.global_seq not in gone), maxlen=MARKS)

    @property
    def history(self) -> History | None:
        """What it takes to know this history again; None before the first reading."""
        if self.server is None:
            return None
        return History(self.server, self.position, self.low, len(self._numbers), tuple(self._marks))

    async def look_again(self, connection: asyncpg.Connection, layout: Layout) -> Look:
        """Count the events of the window again. What has appeared or gone is known once it is kept."""
        counted, head = await connection.fetchrow(  # type: ignore[misc]
            f"SELECT (SELECT count(*) FROM {layout.table} WHERE global_seq > $1 AND global_seq <= $2), "
            f"greatest({layout.head()}, (SELECT max(global_seq) FROM {layout.table}))",
            self.low,
            self.position,
        )
        if counted == len(self._numbers):
            return Look((), 0, 0, head)
        now = await _visible(connection, layout, self.low, self.position)
        before = set(self._numbers)
        new = [number for number in now if number not in before]
        gone = len(before) - (len(now) - len(new))
        named = await fetch(
            connection,
            f"SELECT global_seq, stream_id, event_type FROM {layout.table} WHERE global_seq = ANY($1::bigint[]) "
            "ORDER BY global_seq",
            new[:_NAMED],
        )
        return Look(tuple(map(Missed._make, named)), len(new), gone, head, array("q", now))

    def keep(self, look: Look) -> None:
        """Take what a look has shown for known from now on."""
        if look.numbers is not None:
            self._numbers = look.numbers

    async def look_back(self, connection: asyncpg.Connection, layout: Layout) -> None:
        """Take what is visible below the window for known, and let the window begin there."""
        low = max(self.low - WINDOW, 0)
        self._numbers = array("q", await _visible(connection, layout, low, self.low)) + self._numbers
        self.low = low


async def _visible(connection: asyncpg.Connection, layout: Layout, low: int, position: int) -> list[int]:
    rows = await connection.fetch(
        f"SELECT global_seq FROM {layout.table} WHERE global_seq > $1 AND global_seq <= $2 ORDER BY global_seq",
        low,
        position,
    )
    return [row[0] for row in rows]
