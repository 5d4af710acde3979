"""The numbers that a reader of the global order passed last, to notice events that appear below its position.

The barrier's proof holds if every number is drawn by the INSERT that stores it, on one server. It does not cover
numbers drawn by hand, or rows that come from elsewhere. So a reader remembers the visible numbers in a window below its
safe position, and counts them again now and then.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, takewhile
from typing import NamedTuple

import asyncpg

from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.values import fetch
from esx.store.feed.batch import Missed
from esx.store.feed.history import MARKS, History, HistoryMark
from esx.store.feed.server import Server

WINDOW = 10_000
"""The window holds this many visible events to twice as many, once they were passed."""
_NAMED = 100
"""How many missed events of one look are named; more are only counted."""


class Look(NamedTuple):
    """The result of counting again.

    `appeared` events have appeared; `missed` are the first hundred of them. `gone` numbers of the window have no event
    any more. `head` is the highest number, drawn or visible. `numbers` are the visible numbers of the window, None if
    nothing has changed.
    """

    missed: tuple[Missed, ...]
    appeared: int
    gone: int
    head: int
    numbers: array[int] | None = None


class Recent:
    """The window of one reader, and the marks of the last events that it handed out.

    `server` and `run` are the server, and the run of it, that was read last; None before the first step, and `run` also
    where it is unknown.
    """

    def __init__(self, position: int) -> None:
        self.low = self.position = position
        """The window: numbers above `low`, up to `position`."""
        self.server: Server | None = None
        self.run: object = None
        self._parts: deque[Sequence[int]] = deque()
        """The visible numbers of the window, in parts; a range, where none is missing, takes no time for each."""
        self._count = 0
        self._marks: deque[HistoryMark] = deque(maxlen=MARKS)
        self._unmarked: Sequence[Event] = ()
        """Events that are no marks yet, as more that follow may take their places."""

    def passed(self, numbers: Sequence[int], position: int, events: Sequence[Event], *, full: bool = False) -> None:
        """Add visible `numbers` up to the new `position`, and the `events` of them that were handed out.

        `full` says that more follow at once.
        """
        self._add(numbers)
        self.position = position
        if len(events) < MARKS:
            self._mark()
        self._unmarked = events
        if not full:
            self._mark()
        if self._count > 2 * WINDOW:
            self._forget_first(self._count - WINDOW)

    def _forget_first(self, many: int) -> None:
        while many:
            part = self._parts.popleft()
            taken = min(many, len(part))
            self.low = part[taken - 1]
            if taken < len(part):
                self._parts.appendleft(part[taken:])
            self._count -= taken
            many -= taken

    @property
    def _numbers(self) -> array[int]:
        return array("q", chain.from_iterable(self._parts))

    def _add(self, numbers: Sequence[int], *, before: bool = False) -> None:
        if not numbers:
            return
        last = self._parts[-1] if self._parts else None
        if before:
            self._parts.appendleft(numbers)
        elif isinstance(last, range) and isinstance(numbers, range) and last.stop == numbers.start:
            self._parts[-1] = range(last.start, numbers.stop)
        else:
            self._parts.append(numbers)
        self._count += len(numbers)

    def _mark(self) -> deque[HistoryMark]:
        self._marks.extend(map(HistoryMark.of, self._unmarked[-MARKS:]))
        self._unmarked = ()
        return self._marks

    def up_to(self, position: int) -> Recent:
        """Return a copy that ends at `position`."""
        copy = Recent(min(self.low, position))
        copy.server, copy.run = self.server, self.run
        copy.passed(array("q", takewhile(lambda number: number <= position, self._numbers)), position, ())
        copy._marks.extend(mark for mark in self._mark() if mark.global_seq <= position)
        return copy

    def forget(self, numbers: Iterable[int]) -> None:
        """Remove deleted events from the marks."""
        gone = set(numbers)
        self._marks = deque((mark for mark in self._mark() if mark.global_seq not in gone), maxlen=MARKS)

    @property
    def history(self) -> History | None:
        """What identifies this history; None before the first step."""
        if self.server is None:
            return None
        return History(self.server, self.position, self.low, self._count, tuple(self._mark()))

    async def look_again(self, connection: asyncpg.Connection, layout: Layout) -> Look:
        """Count the events of the window again. The window changes only with `keep`."""
        counted, head = await connection.fetchrow(  # type: ignore[misc]
            f"SELECT (SELECT count(*) FROM {layout.numbers} "
            "WHERE global_seq > $1::bigint AND global_seq <= $2::bigint), "
            f"greatest({layout.head()}, (SELECT max(global_seq) FROM {layout.numbers}))",
            self.low,
            self.position,
        )
        if counted == self._count:
            return Look((), 0, 0, head)
        now = await _visible(connection, layout, self.low, self.position)
        before = set(self._numbers)
        new = [number for number in now if number not in before]
        gone = len(before) - (len(now) - len(new))
        stream, _, event_type = layout.place("e")
        named = await fetch(
            connection,
            f"SELECT e.global_seq, {stream}, {event_type} FROM {layout.table} e "
            "WHERE e.global_seq = ANY($1::bigint[]) ORDER BY e.global_seq",
            new[:_NAMED],
        )
        return Look(tuple(map(Missed._make, named)), len(new), gone, head, array("q", now))

    def keep(self, look: Look) -> None:
        """Make what a look has shown the window."""
        if look.numbers is not None:
            self._parts.clear()
            self._count = 0
            self._add(look.numbers)

    async def look_back(self, connection: asyncpg.Connection, layout: Layout) -> None:
        """Extend the window downwards, with the events that are visible there now."""
        low = max(self.low - WINDOW, 0)
        self._add(array("q", await _visible(connection, layout, low, self.low)), before=True)
        self.low = low


async def _visible(connection: asyncpg.Connection, layout: Layout, low: int, position: int) -> list[int]:
    rows = await connection.fetch(
        f"SELECT global_seq FROM {layout.numbers} WHERE global_seq > $1::bigint AND global_seq <= $2::bigint "
        "ORDER BY global_seq",
        low,
        position,
    )
    return [row[0] for row in rows]
