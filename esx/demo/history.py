"""The sample history: two weeks of the shop, always the same but for the time it ends at."""

import asyncio
import heapq
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import accumulate, count
from typing import NamedTuple
from uuid import UUID, uuid5

from esx.demo import shop
from esx.demo.samples import encode
from esx.demo.shop import CATEGORIES, SHOP_ACCOUNT, WINDOW, Fact, Step, is_ours
from esx.eventstore import EventStore
from esx.store.bulk.copy import ImportedEvent, StreamTaken

SEED = 20260816
_NAMESPACE = UUID("6f2d1c1e-54c6-5d0b-9f5c-0d7a3a1f8e42")
_DAY, _DAYS, _CUSTOMERS = 86400.0, 14, 105
# How busy the hours of a day are, from midnight on; and how many seconds of business each of them ends.
_RHYTHM = (5, 3, 3, 3, 3, 4, 7, 12, 17, 20, 22, 24, 26, 24, 22, 22, 24, 28, 33, 38, 38, 30, 18, 9)
_DONE = [_DAY * done / sum(_RHYTHM) for done in accumulate(_RHYTHM, initial=0)]


class FillResult(NamedTuple):
    """How many streams and events the shop has, and whether this call put them there."""

    streams: int
    events: int
    created: bool


async def fill(store: EventStore, *, now: datetime | None = None) -> FillResult:
    """Put the sample history into the store unless the shop is there already, with this or an earlier esx's history.

    It is one COPY, all or nothing, so whatever was interrupted or runs at the same time leaves one whole history.
    What else is in the store stays. Raises StreamTaken if a stream of the history's name is somebody else's.
    """
    try:
        if not await is_there(store):
            # By default the shop keeps the hours of the machine it runs on. In a thread: screens go on meanwhile.
            rows = await asyncio.to_thread(lambda: list(generate(now or datetime.now().astimezone())))
            await store.import_events(rows)
            return FillResult(len({row.stream_id for row in rows}), len(rows), created=True)
    except StreamTaken:
        # Another session may have filled it since we looked.
        if not await is_there(store):
            raise
    sizes = [of.events for each in CATEGORIES async for of in store.streams(prefix=f"{each}-") if is_ours(of.stream_id)]
    return FillResult(len(sizes), sum(sizes), created=False)


async def is_there(store: EventStore) -> bool:
    """Return whether the store has the shop, with this or an earlier esx's history."""
    # This id is the same in the history of each version of esx.
    return [first.event_id for first in await store.read_page(SHOP_ACCOUNT, limit=1)] == [_event_id(SHOP_ACCOUNT, 0)]


def _event_id(stream_id: str, stream_seq: int) -> UUID:
    return uuid5(_NAMESPACE, f"{stream_id}/{stream_seq}")


def generate(now: datetime, seed: int = SEED) -> Iterator[ImportedEvent]:
    """Yield the history that ends a few minutes before `now`, in order of time.

    Streams, contents and event ids depend on the seed only; days and nights are those of `now`'s time zone.
    """
    if now.utcoffset() is None:
        raise ValueError(f"{now} has no time zone")
    end = (now - timedelta(minutes=3)).astimezone(timezone(now.utcoffset() or timedelta()))
    midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)
    played = _play(random.Random(seed))
    # Played are seconds of business: a busy hour of the clock has more of them than a quiet one.
    part = (end - midnight) / timedelta(hours=1) % 1
    shift = _DONE[end.hour] + part * (_DONE[end.hour + 1] - _DONE[end.hour]) - played[-1][0]
    for time, stream_seq, fact in played:
        days, done = divmod(time + shift, _DAY)
        hour = bisect_right(_DONE, done) - 1
        hours = 24 * days + hour + (done - _DONE[hour]) / (_DONE[hour + 1] - _DONE[hour])
        created_at = (midnight + timedelta(hours=hours)).astimezone(UTC)
        data, metadata = encode(fact.data), encode(fact.metadata)
        yield ImportedEvent(fact.stream_id, stream_seq, fact.event_type, data, metadata, created_at, fact.event_id)


def _play(rng: random.Random) -> list[tuple[float, int, Fact]]:
    """Take the step that is due next until two weeks are over, and note when, where in its stream, and what it made."""
    order = count()
    due = [(time, next(order), step) for time, step in _plan(rng)]
    heapq.heapify(due)
    streams: defaultdict[str, list[Fact]] = defaultdict(list)
    played: list[tuple[float, int, Fact]] = []
    while due[0][0] <= _DAYS * _DAY:
        time, _, step = heapq.heappop(due)
        stream = streams[step.stream_id]
        fact = shop.decide(step, stream[-WINDOW:], _event_id(step.stream_id, len(stream)), rng)
        if fact is not None:
            played.append((time, len(stream), fact))
            stream.append(fact)
            following = shop.react(stream[-WINDOW:], rng)
            if following is not None:
                heapq.heappush(due, (time + following.wait, next(order), following))
    return played


def _plan(rng: random.Random) -> Iterator[tuple[float, Step]]:
    """Yield what customers do of their own accord, with its time: all that the rest follows from."""
    yield 0.0, Step(SHOP_ACCOUNT, "AccountOpened")
    for day in range(1, _DAYS):
        yield day * _DAY + rng.uniform(0, 600), Step(SHOP_ACCOUNT, "SettlementReported")
        yield day * _DAY - rng.uniform(0, 7200), Step(SHOP_ACCOUNT, "MoneyDeposited")
    visits: list[tuple[float, str]] = []
    for number in range(_CUSTOMERS):
        account = f"accounts-{shop.FIRST_CUSTOMER + number}"
        # Most customers came in the first days.
        opened = 0.9 * _DAYS * _DAY * ((number + rng.random()) / _CUSTOMERS) ** 2 + 300
        yield opened, Step(account, "AccountOpened")
        visits += [(time, account) for time in _times(rng, opened, 5.2 / min(rng.paretovariate(1.6), 6))]
        for event_type, days in (("MoneyDeposited", 2.6), ("MoneyWithdrawn", 6), ("ContactDetailsChanged", 20)):
            yield from ((time, Step(account, event_type)) for time in _times(rng, opened, days))
    for cart, (time, account) in enumerate(sorted(visits), shop.FIRST_CART):
        yield time, Step(f"carts-{cart}", "CartCreated", {"account_id": account})


def _times(rng: random.Random, opened: float, days: float) -> Iterator[float]:
    """Yield times at random, so many days apart on average, from an hour after an account was opened."""
    time = opened + 3600
    while (time := time + rng.expovariate(1 / days) * _DAY) < _DAYS * _DAY:
        yield time
