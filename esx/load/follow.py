"""Subscribers of a load test, in a process of their own: ``python -m esx.load.follow PREFIX COUNT``.

They follow the streams of one prefix in the database of the environment (ESX_DSN, else libpq's variables) and tell
what they were given: one JSON line when they follow, then one a second. ``until N`` on standard input lets them go on
up to global_seq N, tell their last line, and end; the end of the input ends them at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hdrh.histogram import HdrHistogram

from esx.leash import hold
from esx.load.verdict import Delivery
from esx.store import EsxError, EventStore
from esx.store.barrier import Filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from esx.store import Event
    from esx.store.feed import Feed

_CATCH_UP_LIMIT = 30.0
_PERIOD = 1.0
_HIGHEST_US = 600_000_000
APPLICATION_NAME = "esx load subscriber"


class Subscriber:
    """One feed, and what it gave. `last` is the highest global_seq among it."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.delivery = Delivery()
        self.last = 0
        self._versions: dict[str, int] = {}

    def take(self, events: list[Event], lags: Any) -> None:
        """Count what was given; the lags, in microseconds, go to a histogram."""
        now = time.time()
        for event in events:
            self._take(event)
            if event.created_at is not None:
                lag = int((now - event.created_at.timestamp()) * 1e6)
                lags.record_value(min(max(lag, 1), _HIGHEST_US))

    def _take(self, event: Event) -> None:
        delivery = self.delivery
        delivery.take(event.stream_seq, event.event_id)
        last = self._versions.get(event.stream_id, -1)
        if event.stream_seq <= last:
            delivery.duplicates += 1
            return
        if event.global_seq <= self.last or event.stream_seq != last + 1:
            delivery.disordered += 1
        self._versions[event.stream_id] = event.stream_seq
        self.last = max(event.global_seq, self.last)


class Report:
    """Writes the lines."""

    def __init__(self, subscribers: list[Subscriber]) -> None:
        self._subscribers = subscribers
        self.lags = _histogram()
        self._all_lags = _histogram()

    def write(self, *, last: bool = False) -> None:
        """Write one line: each delivery, and the lags since the line before, or of all if it is the last."""
        recent, self.lags = self.lags, _histogram()
        self._all_lags.add(recent)
        lags = self._all_lags if last else recent
        line = {
            "deliveries": [_plain(each.delivery) for each in self._subscribers],
            "lag": _milliseconds(lags),
            "last": last,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def _plain(delivery: Delivery) -> dict[str, Any]:
    return {**asdict(delivery), "fingerprint": f"{delivery.fingerprint:x}"}


def _histogram() -> Any:
    return HdrHistogram(1, _HIGHEST_US, 3)


def _milliseconds(lags: Any) -> dict[str, float]:
    ranks = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
    if not lags.get_total_count():
        return {}
    highest = lags.get_max_value()
    return {name: min(lags.get_value_at_percentile(rank), highest) / 1000 for name, rank in ranks.items()}


async def _main(prefix: str, count: int) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with EventStore.connect(
        os.environ.get("ESX_DSN") or None, max_connections=count, application_name=APPLICATION_NAME
    ) as store:
        start = await store.head()
        subscribers = [
            Subscriber(await store.feed(after=start, where=Filter(f"{prefix}*", None, None))) for _ in range(count)
        ]
        report = Report(subscribers)
        followers = [asyncio.ensure_future(_follow(each, report)) for each in subscribers]
        try:
            report.write()
            command = asyncio.ensure_future(commands.readline())
            while not command.done():
                await asyncio.wait([command, *followers], timeout=_PERIOD, return_when=asyncio.FIRST_COMPLETED)
                for follower in followers:
                    if follower.done():
                        follower.result()
                if not command.done():
                    report.write()
            word, _, number = (await command).decode().strip().partition(" ")
            if word == "until":
                await _reach(subscribers, int(number))
                report.write(last=True)
        finally:
            for follower in followers:
                follower.cancel()


async def _follow(subscriber: Subscriber, report: Report) -> None:
    async for batch in subscriber.feed.follow():
        subscriber.take(batch.events, report.lags)


async def _reach(subscribers: list[Subscriber], head: int) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_CATCH_UP_LIMIT):
            while any(each.last < head for each in subscribers):
                await asyncio.sleep(0.01)
    for each in subscribers:
        each.delivery.reached = each.feed.position >= head


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def main() -> None:
    """Run as a process; what goes wrong is one line on standard error."""
    hold()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_main(sys.argv[1], int(sys.argv[2])))
    except EsxError as error:
        sys.exit(f"subscribers: {error}")


if __name__ == "__main__":
    main()
