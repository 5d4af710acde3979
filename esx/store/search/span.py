"""Finds the part of a list that a search between two times has to look at."""

from datetime import datetime
from functools import partial
from typing import NamedTuple

import asyncpg

from esx.layouts.layout import Layout
from esx.store.read.event_list import EventList
from esx.store.read.locate import place_near
from esx.store.read.order_check import Doubt, look_beyond

BEFORE_ALL, AFTER_ALL = -1, 2**63
"""Numbers that no event has."""


class NumberSpan(NamedTuple):
    """The numbers of the list, `first` included and `end` excluded, between which the events of the times are.

    `wide` says that events out of order made it wider than the times alone.
    """

    first: int
    end: int
    wide: bool
    doubt: Doubt | None


async def find_span(
    connection: asyncpg.Connection,
    layout: Layout,
    events: EventList,
    since: datetime | None,
    until: datetime | None,
    *,
    look: float,
) -> NumberSpan:
    """Return where events are that were created from `since` on and before `until`; `look` as in `place_of_moment`.

    Where times are known to be out of order, that is the whole list.
    """
    first, end = BEFORE_ALL + 1, AFTER_ALL
    beyond = partial(look_beyond, connection, layout, events, look=look)
    conditions, times = [], []
    if since is not None:
        place = await place_near(connection, layout, events, since)
        first = place.end if place.first is None else min(place.first, place.end)
        times.append(since)
        conditions.append("e.created_at >= {0}::timestamptz")
    if until is not None:
        end = max((await place_near(connection, layout, events, until)).end, first)
        times.append(until)
        conditions.append(f"e.created_at < {{{len(times) - 1}}}::timestamptz")
    condition = " AND ".join(conditions)
    low, high = first, end
    doubts = []
    if since is not None:
        below = await beyond("<", first, condition, *times)
        low = first if below.number is None else below.number
        doubts.append(below.doubt)
    if until is not None:
        above = await beyond(">=", end, condition, *times)
        high = end if above.number is None else above.number + 1
        doubts.append(above.doubt)
    found = [doubt for doubt in doubts if doubt is not None]
    if any(doubt.broken for doubt in found):
        # Some events are out of order, and more may be: look at all.
        return NumberSpan(BEFORE_ALL + 1, AFTER_ALL, True, None)
    return NumberSpan(low, high, (low, high) != (first, end), next(iter(found), None))
