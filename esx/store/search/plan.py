"""Plans a search by type, JSONPath and time, which runs in slices of a bounded number of events.

The cost of a search is known before it runs: `plan_search` asks PostgreSQL for estimates, and for an index that finds
the matches. Without such an index, all events are looked at along the index that orders the list, slice by slice, so
that the caller can show progress and stop.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import asyncpg

from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.postgres.values import explain
from esx.store.filter_sql import filter_sql, stored_filter
from esx.store.read.estimates import Estimate, count_events
from esx.store.read.event_list import EventList
from esx.store.read.order_check import LOOK, Doubt
from esx.store.search.indexes import (
    MemberIndex,
    count_types,
    index_for_member,
    index_for_path,
    matching_types,
    type_index,
)
from esx.store.search.jsonpath import JsonPath, read_path
from esx.store.search.span import find_span
from esx.text import round_estimate

# Events looked at in a second: measured at 1.2 million events in memory, on one core, and halved.
_RATE = 400_000
_PATH_RATE = 200_000


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """What a search may cost. A search of more than `large` seconds, by estimate, should be confirmed first.

    A slice looks at up to `slice` events. Events out of order are looked for if that costs at most `look` in units of
    PostgreSQL's planner: 100,000 are a second or so for data in memory.
    """

    large: float = 2.0
    slice: int = 100_000
    look: float = LOOK


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How a search will run, and what it costs.

    `size` is the number of events of the list between the given times; `total` is the same or, if that may be far off,
    its upper bound. By PostgreSQL's statistics about `reads` events have to be looked at, in about `seconds`. `index`
    is the index that finds the matches, and `leads_to` how many events it finds, None if that is not known. Each
    statement of `advice` makes an index that would help; it is empty for a cheap search. With a `doubt`, events of the
    given times may be outside of the part that is looked at.
    """

    within: EventList
    where: Filter
    path: JsonPath | None
    since: datetime | None
    until: datetime | None
    first: int
    end: int
    size: Estimate
    total: int
    doubt: Doubt | None
    limits: SearchLimits
    reads: int = 0
    seconds: float = 0.0
    index: str | None = None
    leads_to: Estimate | None = None
    advice: tuple[str, ...] = ()
    types: tuple[str, ...] | None = None
    by_path: bool = False
    also: tuple[JsonPath, ...] = ()
    by_member: MemberIndex | None = None

    @property
    def most(self) -> Estimate | None:
        """How many events have to be looked at, at worst; None if that is not known."""
        return self.leads_to if self.index else self.size

    @property
    def large(self) -> bool:
        """Whether it takes so long that it should be confirmed first."""
        return self.seconds > self.limits.large

    @property
    def time(self) -> str:
        """About how long it takes, in words."""
        for limit, text in (
            (1, "less than a second"),
            (10, "a few seconds"),
            (50, "less than a minute"),
            (100, "about a minute"),
            (3000, f"some {round(self.seconds / 60)} minutes"),
        ):
            if self.seconds < limit:
                return text
        return "an hour or more"

    @property
    def cost(self) -> str:
        """What it costs, in words that follow "this"."""
        events = f"{self.size.text if self.size.known else f'up to {round_estimate(self.total):,}'} events"
        if self.index:
            some = "those" if self.leads_to is None else f"the {self.leads_to.text}"
            events = f"{some} of {events} that index {self.index} leads to"
        elif self.reads < self.total:
            events = f"up to {events.removeprefix('up to ')}, until enough are found"
        cold = ", longer if they are not in memory" if self.large else ""
        return f"looks at {events}: {self.time}{cold}"


async def plan_search(
    connection: asyncpg.Connection,
    layout: Layout,
    events: EventList,
    where: Filter,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    wanted: int | None = None,
    limits: SearchLimits,
) -> SearchPlan:
    """Return how to search the list for events that pass `where`, created from `since` on and before `until`.

    `wanted` is how many matches are wanted, None for all: a few of many are found early. Raises InvalidQuery for a
    malformed pattern or path.
    """
    since = max((each for each in (since, where.since) if each is not None), default=None)
    until = min((each for each in (until, where.until) if each is not None), default=None)
    where = replace(stored_filter(layout, where), since=None, until=None)
    pattern = where.type_pattern
    literal, regex = (None, None) if pattern is None else pattern
    paths = [await read_path(connection, text) for text in where.paths]
    path = paths[0] if paths else None
    first, end, wide, doubt = await find_span(connection, layout, events, since, until, look=limits.look)
    names = Filter(stream=where.stream, event_type=where.event_type, any_case=where.any_case)
    size = await count_events(connection, layout, events, first, end)
    total = size.count if size.known else size.high or size.count
    share = await _share(connection, layout, names)
    candidates = max(round(total * share), 1) if total else 0

    plan = SearchPlan(events, where, path, since, until, first, end, size=size, total=total, doubt=doubt, limits=limits)
    plan = replace(plan, also=tuple(paths[1:]))
    if not where:
        # Between the times all events match; events out of order are behind many that do not.
        return _priced(plan, total, _RATE) if wide else plan
    of_data = path is not None or bool(where.members or where.mentions)
    rate = _PATH_RATE if of_data else _RATE
    enough = total if wanted is None else wanted

    for member in where.members if _all_of_own(layout, events) else ():
        found = await index_for_member(connection, layout, member)
        if found is not None:
            return _priced(plan, min(found.events, total), rate, index=found.name, by_member=found)
    index = await index_for_path(connection, layout, events, path, range(first, end), enough)
    if index is not None:
        name, matches = index
        return _priced(plan, min(matches, total), rate, index=name, by_path=True)
    index_name = None if regex is None else await type_index(connection, layout, events)
    if index_name is not None:
        types = (literal,) if literal is not None else await matching_types(connection, layout, events, regex or "")
        if types is not None and len(types) * candidates <= max(total, 1):
            leads_to = await count_types(connection, layout, events, types, range(first, end))
            reads = max(candidates, leads_to.low) if leads_to.high is None else leads_to.count
            if where.stream is None and not of_data:
                reads = min(reads, enough)
            return _priced(plan, reads, rate, index=index_name, types=types, leads_to=leads_to)
    reads = total if of_data else min(total, round(enough / max(share, 1e-9)))
    plan = _priced(plan, reads, rate)
    if not plan.large:
        return plan
    return _advised(plan, layout, index_name, candidates)


def _all_of_own(layout: Layout, events: EventList) -> bool:
    """Return whether these are all events of esx's own kind of table, whose indexes have the ids in metadata."""
    return events.stream_id is None and layout.foreign is None


async def _share(connection: asyncpg.Connection, layout: Layout, names: Filter) -> float:
    """Return about which share of all events has a matching stream and type."""
    if not names:
        return 1.0
    conditions, arguments = filter_sql(names, 1)
    everything = await explain(connection, f"SELECT FROM {layout.table} e")
    some = await explain(connection, f"SELECT FROM {layout.table} e WHERE {' AND '.join(conditions)}", *arguments)
    return min(float(some["Plan Rows"]) / max(float(everything["Plan Rows"]), 1.0), 1.0)


def _priced(plan: SearchPlan, reads: int, rate: float, **found: Any) -> SearchPlan:
    return replace(plan, reads=reads, seconds=reads / rate, **found)


def _advised(plan: SearchPlan, layout: Layout, type_index: str | None, candidates: int) -> SearchPlan:
    """Name the indexes that would help: one on the type if that chooses few events, one on the path if any can."""
    if layout.foreign is not None:
        return plan  # that tool decides on its indexes, under its own names
    advice = []
    fixed, key = plan.within.fixed, plan.within.key
    if plan.where.event_type is not None and type_index is None and candidates * 10 <= plan.total:
        advice.append(f"CREATE INDEX {layout.index_on} ({', '.join([*fixed, 'event_type', key])})")
    if plan.path is not None:
        statement = plan.path.index(layout.index_on, ", ".join([*fixed, key]))
        if statement is not None:
            advice.append(statement)
    return replace(plan, advice=tuple(advice))
