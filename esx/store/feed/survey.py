"""What is ahead of a position, and where the visible events end, without reading the events."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import asyncpg

from esx.errors import HistoryChanged
from esx.layouts.layout import Layout
from esx.store.feed.batch import Gap
from esx.store.feed.comparison import BEYOND
from esx.store.feed.fence import read_fence
from esx.store.feed.settings import DEFAULT, FeedSettings
from esx.store.feed.writers import (
    ON_PRIMARY,
    LockWatch,
    committed_at,
    keeps_timestamps,
    on_standby,
    outwait,
    read_writers,
    that_can_hold,
)


async def check_start(connection: asyncpg.Connection, layout: Layout, position: int) -> None:
    """Raise HistoryChanged if a position is above all numbers that the server has drawn.

    It does not raise on a standby, which may be behind, or for a user who may not read the sequence.
    """
    if not position or on_standby(connection, layout):
        return
    head, exact = await connection.fetchrow(  # type: ignore[misc]
        f"SELECT greatest({layout.head()}, (SELECT max(global_seq) FROM {layout.numbers})), {layout.head_exact()}"
    )
    if exact and head < position:
        raise HistoryChanged(position, head, BEYOND)


class Survey(NamedTuple):
    """What is ahead of a position.

    `head` is the highest global_seq drawn, `safe` the highest one up to which no event can appear any more; `gaps` are
    the missing numbers between them that may still appear, as far as they were looked at: up to `looked`.
    """

    head: int
    safe: int
    gaps: tuple[Gap, ...]
    looked: int


async def survey(
    connection: asyncpg.Connection, layout: Layout, position: int, *, clock_step: timedelta, limit: int = 10_000
) -> Survey:
    """Look ahead of a safe `position`, at up to `limit` visible numbers; `clock_step` as in `FeedSettings`."""
    # A sequence that does not belong to the column says nothing, so the highest visible number counts too.
    head = int(
        await connection.fetchval(f"SELECT greatest({layout.head()}, (SELECT max(global_seq) FROM {layout.numbers}))")
    )
    standby = on_standby(connection, layout)
    if standby:
        # Its sequence is ahead by what the primary has logged in advance, and its writers are not visible.
        head = int(await connection.fetchval(f"SELECT coalesce(max(global_seq), 0) FROM {layout.numbers}"))
    # In this order: a transaction that drew a number up to the head is a writer now, or its events are visible below.
    writers = ON_PRIMARY if standby else await read_writers(connection, layout)
    if not writers:
        return Survey(head, max(head, position), (), head)
    position = max(position, await read_fence(connection, layout))
    stamped = await keeps_timestamps(connection, layout)
    visible = [
        row[0]
        for row in await connection.fetch(
            f"SELECT global_seq FROM {layout.numbers} WHERE global_seq > $1::bigint ORDER BY global_seq LIMIT $2",
            position,
            limit,
        )
    ]
    gaps = []
    last = position
    for number in [*visible, head + 1] if len(visible) < limit else visible:
        if number > last + 1:
            holders = writers
            if stamped and number <= head:
                holders = that_can_hold(writers, await committed_at(connection, layout, number), clock_step)
            if holders:
                gaps.append(Gap(last + 1, number - 1, holders))
        last = max(last, number)
    looked = visible[-1] if len(visible) >= limit else max(head, position, *visible[-1:])
    return Survey(head, gaps[0].first - 1 if gaps else looked, tuple(gaps), looked)


class Seen:
    """The numbers that were visible at one moment: all up to `head`, except the runs that were missing.

    `firsts` and `lasts` are the ends of these runs, in ascending order.
    """

    def __init__(self, head: int, firsts: Sequence[int] = (), lasts: Sequence[int] = ()) -> None:
        self.head = head
        # There may be half a million of them.
        self._firsts, self._lasts = array("q", firsts), array("q", lasts)

    def __contains__(self, number: int) -> bool:
        if number > self.head:
            return False
        run = bisect_right(self._firsts, number) - 1
        return run < 0 or number > self._lasts[run]

    def below(self, first: int) -> Seen:
        """Return the visible numbers below `first`."""
        return Seen(min(self.head, first - 1), self._firsts, self._lasts)


class End(NamedTuple):
    """Where the visible events end: a position, and the numbers that are visible already (`seen`).

    `settled` says that no event can appear at or below the position any more.
    """

    position: int
    seen: Seen
    settled: bool


async def find_end(connection: asyncpg.Connection, layout: Layout, settings: FeedSettings = DEFAULT) -> End:
    """Return the position after which a reader gets all events that become visible from now on.

    Open writers may still fill numbers below the head, so it waits for them. If one is open for longer than
    `end_patience`, or if writers are not visible, as on a hot standby, the position is before the first missing number
    (at most `look_back` numbers back), and the reader has to skip what is visible above it.
    """
    if not on_standby(connection, layout):
        head = await connection.fetchval(
            f"SELECT coalesce(max(global_seq), {layout.before_first}) FROM {layout.numbers}"
        )
        if not await outwait(connection, LockWatch(layout), settings.end_patience):
            # A transaction that had drawn a number up to that head was one of them.
            return End(head, Seen(head), True)
    # Nothing tells which missing numbers are older than the writer: created_at is the start of a transaction that may
    # have drawn its number long after, or what an import says.
    row = await connection.fetchrow(
        f"""
        WITH top AS (SELECT coalesce(max(global_seq), 0) AS head FROM {layout.numbers}),
             pairs AS (SELECT e.global_seq AS next,
                              lag(e.global_seq, 1, greatest(top.head - $1, 0)) OVER (ORDER BY e.global_seq) AS before
                       FROM {layout.table} e, top WHERE e.global_seq > greatest(top.head - $1, 0))
        SELECT (SELECT head FROM top), coalesce(array_agg(before + 1 ORDER BY next), '{{}}'),
               coalesce(array_agg(next - 1 ORDER BY next), '{{}}')
        FROM pairs WHERE next <> before + 1
        """,
        settings.look_back,
    )
    assert row is not None
    head, firsts, lasts = row
    return End(firsts[0] - 1 if firsts else head, Seen(head, firsts, lasts), False)
