"""Live traffic: several writers carry the shop on, each with the optimistic concurrency of a real application."""

import asyncio
import heapq
import json
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

from esx.demo import shop
from esx.demo.samples import encode
from esx.errors import QueryCancelled, StoreUnavailable, WrongVersion
from esx.eventstore import EventStore
from esx.expected import NO_STREAM
from esx.model import Event, NewEvent, category_of

_RECENT, _MOST_KNOWN, _MOST_PENDING, _TRIES = 60, 500, 300, 25
_MEETING = 0.04  # how often two writers are at one stream at once
_BEGIN = 0.15  # how often something new begins although something else is due
_AWAY = (StoreUnavailable, QueryCancelled)
# What an event in the shop's streams, but not of its making, can do to a step: it is then left alone.
_NOT_OURS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
# What begins of its own accord, and how often.
_BEGINNINGS = {"AccountOpened": 6, "CartCreated": 44, "MoneyDeposited": 30, "MoneyWithdrawn": 15,
               "ContactDetailsChanged": 4, "SettlementReported": 1}  # fmt: skip


@dataclass(slots=True)
class TrafficStats:
    """What the traffic has come to so far: events appended, and appends refused because another writer was first."""

    appended: int = 0
    conflicts: int = 0


async def run_traffic(
    store: EventStore, *, rate: float = 10, writers: int = 4, seed: int | None = None, stats: TrafficStats | None = None
) -> None:
    """Append about `rate` events a second until cancelled, keeping `stats` up to date.

    Each writer reads a stream, decides, and appends at the version it has read; after a WrongVersion it does so
    again. While the store is unavailable the writers wait. Every other error of the store ends the traffic.
    """
    if not rate > 0 or writers < 1:
        raise ValueError(f"traffic needs a rate above 0 and at least one writer, not {rate} and {writers}")
    traffic = _Traffic(store, rate, writers, random.Random(seed), TrafficStats() if stats is None else stats)
    await traffic.start()
    tasks = [asyncio.create_task(traffic.write(), name=f"demo writer {number}") for number in range(writers)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Traffic:
    def __init__(self, store: EventStore, rate: float, writers: int, rng: random.Random, stats: TrafficStats) -> None:
        self._store, self._rate, self._writers, self._rng, self._stats = store, rate, writers, rng, stats
        self._order = count(1)
        self._slot = 0.0
        self._pending = [(0.0, 0, shop.Step(shop.SHOP_ACCOUNT, "AccountOpened"))]
        self._accounts: list[str] = []
        self._next = {"accounts": shop.FIRST_CUSTOMER, "carts": shop.FIRST_CART}

    async def start(self) -> None:
        """Find out who the customers are and what is unfinished."""
        for category in shop.CATEGORIES:
            # By name, so by number: other events, however many, do not hide them.
            ask = partial(self._store.streams_page, prefix=f"{category}-", limit=_RECENT, backwards=True)
            for stream in (await self._patiently(ask)).streams:
                if not shop.is_ours(stream.stream_id):
                    continue
                self._meet(stream.stream_id, stream.last_event_type)
                # An account with more than a sign-up does not show whether its last event has been answered elsewhere.
                if category != "accounts" or stream.last_event_type == "AccountOpened":
                    self._follow((await self._read(stream.stream_id))[0], within=30.0)

    def _meet(self, stream_id: str, event_type: str) -> None:
        """Go on numbering behind a stream, and know its customer once the sign-up is over."""
        category, number = category_of(stream_id), shop.number_of(stream_id)
        if category in self._next:
            self._next[category] = max(self._next[category], number + 1)
        signed_up = category == "accounts" and event_type != "AccountOpened"
        if signed_up and stream_id not in (shop.SHOP_ACCOUNT, *self._accounts):
            self._accounts.append(stream_id)
            del self._accounts[:-_MOST_KNOWN]

    async def write(self) -> None:
        """Be one of the writers: wait for the next moment, and do what is due then."""
        loop = asyncio.get_running_loop()
        while True:
            # At random, but no two closer than a third of the mean; time lost is not made up for by a burst.
            self._slot = max(self._slot + (1 + self._rng.expovariate(0.5)) / (3 * self._rate), loop.time())
            await asyncio.sleep(self._slot - loop.time())
            if self._writers > 1 and self._accounts and self._rng.random() < _MEETING:
                # Two at once on one stream, most often the shop's: the later one must try again.
                account = shop.SHOP_ACCOUNT if self._rng.random() < 0.7 else self._rng.choice(self._accounts)
                try:
                    async with asyncio.TaskGroup() as both:
                        for _ in range(2):
                            both.create_task(self._take(shop.Step(account, "MoneyDeposited")))
                except BaseExceptionGroup as group:
                    raise group.exceptions[0] from None
                continue
            for _ in range(_TRIES):
                if await self._take(self._choose(loop.time())):
                    break

    def _choose(self, now: float) -> shop.Step:
        begin = len(self._pending) < _MOST_PENDING and self._rng.random() < _BEGIN
        if self._pending and self._pending[0][0] <= now and not begin:
            return heapq.heappop(self._pending)[2]
        event_type = "AccountOpened"
        if self._accounts:
            (event_type,) = self._rng.choices(list(_BEGINNINGS), list(_BEGINNINGS.values()))
        account = self._rng.choice(self._accounts or [shop.SHOP_ACCOUNT])
        category = {"AccountOpened": "accounts", "CartCreated": "carts"}.get(event_type)
        if category is None:
            return shop.Step(shop.SHOP_ACCOUNT if event_type == "SettlementReported" else account, event_type)
        self._next[category] += 1
        return shop.Step(f"{category}-{self._next[category] - 1}", event_type, {"account_id": account})

    async def _take(self, step: shop.Step) -> bool:
        """Take a step: read, decide, append, again after each conflict. Return whether it made an event."""
        event_id = uuid4()
        while True:
            facts, version = await self._read(step.stream_id)
            if any(fact.event_id == event_id for fact in facts):
                break  # the connection was lost, but the append had been made
            fact = None
            with suppress(*_NOT_OURS):
                account = shop.account_of(step.stream_id, facts, step.about)
                opened = (await self._read(account, first=True))[0] if shop.is_ours(account) else []
                fact = shop.decide(step, facts, event_id, self._rng, opened)
            if fact is None:
                return False
            event = NewEvent(fact.event_type, encode(fact.data), encode(fact.metadata), event_id)
            try:
                await self._store.append(step.stream_id, [event], expected=version if facts else NO_STREAM)
            except WrongVersion:
                self._stats.conflicts += 1
            except _AWAY:
                continue  # reading shows whether the event got there, and waits while it cannot
            else:
                facts.append(fact)
                break
        self._stats.appended += 1
        self._meet(step.stream_id, facts[-1].event_type)
        self._follow(facts)
        return True

    def _follow(self, facts: Sequence[shop.Fact], *, within: float | None = None) -> None:
        """Put what follows from the last fact on the list, hours made seconds, or at random `within` seconds."""
        step = None
        with suppress(*_NOT_OURS):
            step = shop.react(facts, self._rng) if facts[-1].metadata else None
        if step is not None and shop.is_ours(step.stream_id):
            wait = 0.6 * math.log1p(step.wait) if within is None else self._rng.uniform(0, within)
            heapq.heappush(self._pending, (asyncio.get_running_loop().time() + wait, next(self._order), step))

    async def _read(self, stream_id: str, *, first: bool = False) -> tuple[list[shop.Fact], int]:
        """Return the newest facts of a stream, oldest first, or only the very first; and the version of the last."""
        ask = partial(self._store.read_page, stream_id, limit=1 if first else shop.WINDOW, backwards=not first)
        events = await self._patiently(ask)
        return list(map(_fact, reversed(events))), events[0].stream_seq if events else -1

    async def _patiently(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Return what `ask` returns, asking again, less and less often, while the store is unavailable."""
        pause = 0.2
        while True:
            try:
                return await ask()
            except _AWAY:
                await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))
                pause = min(pause * 2, 5.0)


def _fact(event: Event) -> shop.Fact:
    """Return a stored event as the shop sees it; what is not of its making says nothing."""
    data, metadata = {}, {}
    with suppress(*_NOT_OURS):
        known = json.loads(event.metadata_json or "{}")
        metadata = {name: str(known[name]) for name in ("correlation_id", "causation_id") if name in known}
        data = json.loads(event.data_json, parse_float=Decimal)
    return shop.Fact(event.stream_id, event.event_type, data, metadata, event.event_id or uuid4())
