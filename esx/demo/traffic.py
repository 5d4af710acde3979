# ruff: noqa: S311 - made-up traffic needs no cryptography
"""Live traffic: several writers carry the shop on, each with the optimistic concurrency of a real application."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from esx.demo import nouns, shop
from esx.demo.money import decode, encode
from esx.store.errors import QueryCancelled, StoreUnavailable, WrongVersion
from esx.store.model import NO_STREAM, NewEvent, category_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from esx.demo.nouns import Fact, Outcome, Step
    from esx.store.model import Event
    from esx.store.store import EventStore

_T = TypeVar("_T")

_RECENT = 60
_MEETING = 0.04  # how often two writers are sent to one stream at once
_BEGIN = 0.15  # how often something new begins although something else is due
_MOST_PENDING = 300
_MOST_KNOWN = 500
_TRIES = 25
_BACKOFF = (0.2, 5.0)
# What an event in the shop's streams, but not of its making, can do to a step: it is then left alone.
_NOT_OURS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(slots=True)
class TrafficStats:
    """What the traffic has come to so far: events appended, and appends refused because another writer was first."""

    appended: int = 0
    conflicts: int = 0


async def run_traffic(
    store: EventStore,
    *,
    rate: float = 10.0,
    writers: int = 4,
    seed: int | None = None,
    stats: TrafficStats | None = None,
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
        self._store = store
        self._rate = rate
        self._writers = writers
        self._rng = rng
        self._stats = stats
        self._order = count()
        self._slot = 0.0
        self._pending: list[tuple[float, int, Step]] = []
        self._urgent: list[Step] = []
        self._accounts: list[str] = []
        self._next_account = nouns.FIRST_CUSTOMER
        self._next_cart = nouns.FIRST_CART

    # -- what there is already ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Find out who the customers are and what is unfinished."""
        self._urgent.append(shop.open_shop())
        for category in shop.CATEGORIES:
            await self._patiently(partial(self._look_at, category))

    async def _look_at(self, category: str) -> None:
        prefix = f"{category}-"
        page = await self._store.streams_page(prefix=prefix, recent=True, limit=_RECENT)
        if not page.streams:
            # Something else has been writing so much that the shop is no longer among the recent streams.
            page = await self._store.streams_page(prefix=prefix, limit=_RECENT, backwards=True)
        for stream in page.streams:
            if not shop.is_ours(stream.stream_id):
                continue
            self._meet(stream.stream_id)
            # An account does not show whether its last event has been answered elsewhere; the others do.
            if category != "accounts" and shop.goes_on(stream.last_event_type):
                events = await self._read(stream.stream_id)
                self._follow(list(map(_fact, events)), within=30.0)

    def _meet(self, stream_id: str) -> None:
        number = nouns.number_of(stream_id)
        if category_of(stream_id) == "carts":
            self._next_cart = max(self._next_cart, number + 1)
        elif category_of(stream_id) == "accounts" and stream_id != nouns.SHOP_ACCOUNT:
            self._next_account = max(self._next_account, number + 1)
            if stream_id not in self._accounts:
                self._accounts.append(stream_id)
                del self._accounts[:-_MOST_KNOWN]

    # -- writing ------------------------------------------------------------------------------------------

    async def write(self) -> None:
        """Be one of the writers: wait for the next moment, and do what is due then."""
        while True:
            await self._pace()
            for _ in range(_TRIES):
                step, hesitates = self._choose()
                if await self._take(step, hesitates=hesitates):
                    break

    async def _pace(self) -> None:
        """Wait for the next moment to write: at random, but no two closer than a third of the mean."""
        gap = (1 + self._rng.expovariate(0.5)) / (3 * self._rate)
        now = asyncio.get_running_loop().time()
        self._slot = max(self._slot + gap, now)  # time lost is not made up for by a burst
        await asyncio.sleep(self._slot - now)

    def _choose(self) -> tuple[Step, bool]:
        """Return what to do now, and whether to hesitate between reading and appending."""
        rng = self._rng
        if self._urgent:
            return self._urgent.pop(), False
        if self._writers > 1 and rng.random() < _MEETING:
            # Two writers on one stream: this one hesitates, the next one is faster, and this one must try again.
            account = nouns.SHOP_ACCOUNT
            if self._accounts and rng.random() < 0.3:
                account = rng.choice(self._accounts)
            self._urgent.append(shop.deposit(account))
            return shop.deposit(account), True
        now = asyncio.get_running_loop().time()
        begin = len(self._pending) < _MOST_PENDING and rng.random() < _BEGIN
        if self._pending and self._pending[0][0] <= now and not begin:
            return heapq.heappop(self._pending)[2], False
        return self._begin(), False

    def _begin(self) -> Step:
        chance = self._rng.random()
        if not self._accounts or chance < 0.06:
            self._next_account += 1
            return shop.open_account(self._next_account - 1)
        account = self._rng.choice(self._accounts)
        if chance < 0.5:
            self._next_cart += 1
            return shop.start_cart(self._next_cart - 1, account)
        if chance < 0.8:
            return shop.deposit(account)
        if chance < 0.95:
            return shop.withdraw(account)
        return shop.change_contact(account) if chance < 0.99 else shop.settle()

    async def _take(self, step: Step, *, hesitates: bool) -> bool:
        """Take a step: read, decide, append, again after each conflict. Return whether it made an event."""
        event_id, correlation = uuid4(), str(uuid4())
        while True:
            events = await self._patiently(partial(self._read, step.stream_id))
            facts = list(map(_fact, events))
            if events and any(fact.event_id == event_id for fact in facts):
                # The connection was lost, but the append had been made.
                self._stats.appended += 1
                return True
            outcome = self._decide(step, facts)
            if outcome is None:
                return False
            if hesitates:
                await asyncio.sleep(min(1.5 / self._rate, 0.4))
                hesitates = False
            metadata = nouns.metadata(step, outcome, correlation)
            event = NewEvent(outcome.event_type, encode(outcome.data), encode(metadata), event_id)
            expected = events[-1].stream_seq if events else NO_STREAM
            try:
                await self._store.append(step.stream_id, [event], expected=expected)
            except WrongVersion:
                self._stats.conflicts += 1
                continue
            except (StoreUnavailable, QueryCancelled):
                await asyncio.sleep(_BACKOFF[0])
                continue  # reading shows whether the event got there, and waits while it cannot
            self._stats.appended += 1
            self._meet(step.stream_id)
            facts.append(nouns.made(step, outcome, event_id, correlation))
            self._follow(facts)
            return True

    def _decide(self, step: Step, facts: Sequence[Fact]) -> Outcome | None:
        try:
            return step.decide(step, facts, self._rng)
        except _NOT_OURS:
            return None

    def _follow(self, facts: Sequence[Fact], *, within: float | None = None) -> None:
        """Put what follows from the last fact on the list, hours made seconds, or at random `within` seconds."""
        if not facts[-1].correlation_id:
            return
        try:
            step = shop.react(facts[-shop.WINDOW :], self._rng)
            if step is None or not shop.is_ours(step.stream_id):
                return
        except _NOT_OURS:
            return
        wait = 0.6 * math.log1p(step.wait) if within is None else self._rng.uniform(0, within)
        due = asyncio.get_running_loop().time() + wait
        heapq.heappush(self._pending, (due, next(self._order), step))

    async def _read(self, stream_id: str) -> list[Event]:
        """Return the newest events of a stream, oldest first."""
        events = await self._store.read_page(stream_id, limit=shop.WINDOW, backwards=True)
        events.reverse()
        return events

    async def _patiently(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Return what `ask` returns, asking again, less and less often, while the store is unavailable."""
        pause, longest = _BACKOFF
        while True:
            try:
                return await ask()
            except (StoreUnavailable, QueryCancelled):
                await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))
                pause = min(pause * 2, longest)


def _fact(event: Event) -> Fact:
    """Return a stored event as the shop sees it; what is not of its making has no correlation id."""
    try:
        data, metadata = decode(event.data_json), decode(event.metadata_json or "{}")
        user, correlation = str(metadata["user"]), str(metadata["correlation_id"])
    except _NOT_OURS:
        data, user, correlation = {}, "", ""
    return nouns.Fact(event.stream_id, event.event_type, data, user, correlation, event.event_id or uuid4())
