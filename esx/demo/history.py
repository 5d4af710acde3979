# ruff: noqa: S311 - a made-up history needs no cryptography
"""The sample history: two weeks of the shop, always the same but for the time it ends at."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid5

from esx.demo import nouns, shop
from esx.demo.money import encode
from esx.store.bulk import ImportedEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esx.demo.nouns import Fact, Outcome, Step

SEED = 20260807
FIRST_STREAM = nouns.SHOP_ACCOUNT
"""The history's first event is the first of this stream."""

_NAMESPACE = UUID("6f2d1c1e-54c6-5d0b-9f5c-0d7a3a1f8e42")
_DAY = 86400.0
_DAYS = 14
_CUSTOMERS = 105
_QUIET = timedelta(minutes=3)
# How busy the hours of a day are, from midnight on.
_RHYTHM = (5, 3, 3, 3, 3, 4, 7, 12, 17, 20, 22, 24, 26, 24, 22, 22, 24, 28, 33, 38, 38, 30, 18, 9)


def generate(now: datetime, seed: int = SEED) -> Iterator[ImportedEvent]:
    """Yield the history that ends a few minutes before `now`, in order of time.

    Streams, contents and event ids depend on the seed only; days and nights are those of `now`'s time zone.
    """
    played = _play(seed)
    clock = _Clock(now - _QUIET, played[-1].time)
    for event in played:
        outcome, fact = event.outcome, event.fact
        yield ImportedEvent(
            fact.stream_id,
            event.stream_seq,
            outcome.event_type,
            encode(outcome.data),
            encode(nouns.metadata(event.step, outcome, fact.correlation_id)),
            clock.at(event.time),
            fact.event_id,
        )


def event_id(stream_id: str, stream_seq: int) -> UUID:
    """Return the id of the history's event at that place."""
    return uuid5(_NAMESPACE, f"{stream_id}/{stream_seq}")


class _Played(NamedTuple):
    """An event with its time in seconds of business: a busy hour of the clock has more of them than a quiet one."""

    time: float
    stream_seq: int
    step: Step
    outcome: Outcome
    fact: Fact


def _play(seed: int) -> list[_Played]:
    """Play the shop for two weeks: always take the step that is due next, and note what it leads to."""
    rng = random.Random(seed)
    order = count()
    due = [(time, next(order), step) for time, step in _plan(rng)]
    heapq.heapify(due)
    streams: dict[str, list[Fact]] = {}
    played: list[_Played] = []
    while due:
        time, _, step = heapq.heappop(due)
        if time > _DAYS * _DAY:
            break
        stream = streams.setdefault(step.stream_id, [])
        outcome = step.decide(step, stream[-shop.WINDOW :], rng)
        if outcome is None:
            continue
        this = event_id(step.stream_id, len(stream))
        correlation = "" if step.cause else str(uuid5(this, "correlation"))
        fact = nouns.made(step, outcome, this, correlation)
        played.append(_Played(time, len(stream), step, outcome, fact))
        stream.append(fact)
        following = shop.react(stream[-shop.WINDOW :], rng)
        if following is not None:
            heapq.heappush(due, (time + following.wait, next(order), following))
    return played


def _plan(rng: random.Random) -> Iterator[tuple[float, Step]]:
    """Yield what customers do of their own accord, with its time: all that the rest follows from."""
    end = _DAYS * _DAY
    yield 0.0, shop.open_shop()
    for day in range(1, _DAYS):
        yield day * _DAY + rng.uniform(0, 600), shop.settle()
        yield day * _DAY - rng.uniform(0, 7200), shop.deposit(nouns.SHOP_ACCOUNT)
    # Most customers came in the first days.
    openings = sorted(0.9 * end * rng.random() ** 2 + 300 for _ in range(_CUSTOMERS))
    visits: list[tuple[float, str]] = []
    for number, opened in enumerate(openings, nouns.FIRST_CUSTOMER):
        account = nouns.account_stream(number)
        yield opened, shop.open_account(number)
        keen = rng.paretovariate(1.6)
        visits += [(time, account) for time in _times(rng, opened + 3600, end, 5.6 * _DAY / min(keen, 6))]
        for time in _times(rng, opened + 7200, end, 2.6 * _DAY):
            yield time, shop.deposit(account)
        for time in _times(rng, opened + 7200, end, 6 * _DAY):
            yield time, shop.withdraw(account)
        for time in _times(rng, opened + 7200, end, 20 * _DAY):
            yield time, shop.change_contact(account)
    for cart, (time, account) in enumerate(sorted(visits), nouns.FIRST_CART):
        yield time, shop.start_cart(cart, account)


def _times(rng: random.Random, start: float, end: float, mean: float) -> Iterator[float]:
    time = start + rng.expovariate(1 / mean)
    while time < end:
        yield time
        time += rng.expovariate(1 / mean)


class _Clock:
    """Turns business time into time of day: the same order, but slow at night."""

    def __init__(self, end: datetime, end_time: float) -> None:
        offset = end.utcoffset()
        if offset is None:
            raise ValueError(f"{end} has no time zone")
        self._end = end.astimezone(UTC)
        self._end_time = end_time
        # Going back from the end: at business second _business[i] before it, _wall[i] seconds of the clock are gone.
        self._business, self._wall = [0.0], [0.0]
        local = end.astimezone(timezone(offset))
        mean = sum(_RHYTHM) / len(_RHYTHM)
        hour, span = local.hour, local.minute * 60 + local.second + local.microsecond / 1e6
        while self._business[-1] <= end_time:
            self._business.append(self._business[-1] + span * _RHYTHM[hour] / mean)
            self._wall.append(self._wall[-1] + span)
            hour, span = (hour - 1) % 24, 3600.0

    def at(self, time: float) -> datetime:
        """Return when, in UTC, that business second was."""
        back = self._end_time - time
        hour = min(bisect_right(self._business, back), len(self._business) - 1)
        low, high = self._business[hour - 1], self._business[hour]
        within = (back - low) / (high - low) * (self._wall[hour] - self._wall[hour - 1])
        return self._end - timedelta(seconds=self._wall[hour - 1] + within)
