"""Subscribers of a load test, in a process of their own: ``python -m esx.load.subscribers PREFIX COUNT STORE [trust]``.

They follow the streams of one prefix in the database of the environment (ESX_DSN, else libpq's variables) and write
what they receive: one JSON line when they follow, then one a second. At ``until N`` on standard input they go on up to
global_seq N, write their last line, and end; at the end of the input they end at once.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from esx.config import load as load_config
from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.filters import Filter
from esx.leash import hold
from esx.load.histogram import histogram, percentiles, record
from esx.load.verdict import Delivery
from esx.model import Event
from esx.store.feed.feed import Feed

_CATCH_UP_LIMIT = 30.0
_PERIOD = 1.0
APPLICATION_NAME = "esx load subscriber"


class Subscriber:
    """One feed and what it delivered. `last` is the highest global_seq of that."""

    def __init__(self, feed: Feed, before: int) -> None:
        """Make one; `before` is the version before a stream's first event."""
        self.feed = feed
        self.delivery = Delivery()
        self.last = 0
        self._before = before
        self._versions: dict[str, int] = {}

    def take(self, events: Sequence[Event], lags: Any) -> None:
        """Count events, and add their lags, in microseconds, to a histogram."""
        now = time.time()
        for event in events:
            self._take(event)
            if event.created_at is not None:
                record(lags, int((now - event.created_at.timestamp()) * 1e6))

    def _take(self, event: Event) -> None:
        delivery = self.delivery
        delivery.take(event.stream_seq, event.event_id)
        last = self._versions.get(event.stream_id, self._before)
        if event.stream_seq <= last:
            delivery.duplicates += 1
            return
        if event.global_seq <= self.last or event.stream_seq != last + 1:
            delivery.disordered += 1
        self._versions[event.stream_id] = event.stream_seq
        self.last = max(event.global_seq, self.last)


class Report:
    """Writes what the subscribers received to standard output."""

    def __init__(self, subscribers: list[Subscriber]) -> None:
        self._subscribers = subscribers
        self.lags = histogram()
        self._all_lags = histogram()

    def write(self, *, last: bool = False) -> None:
        """Write one line: each delivery, and the lags since the last line; in the last line, all lags."""
        recent, self.lags = self.lags, histogram()
        self._all_lags.add(recent)
        line = {
            "deliveries": [_plain(each.delivery) for each in self._subscribers],
            "lag": percentiles(self._all_lags if last else recent),
            "last": last,
        }
        print(json.dumps(line), flush=True)


def _plain(delivery: Delivery) -> dict[str, Any]:
    return {**asdict(delivery), "fingerprint": f"{delivery.fingerprint:x}"}


async def _main(prefix: str, count: int, where: str | None, *, trust_owner: bool) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with EventStore.connect(
        os.environ.get("ESX_DSN") or None,
        max_connections=count,
        application_name=APPLICATION_NAME,
        store=where,
        trust_owner=trust_owner,
        layouts=() if where is None else load_config(os.environ).layouts,
    ) as store:
        start = await store.head()
        before = await store.first_version() - 1
        where_ours = Filter(f"{prefix}*", None, None)
        subscribers = [Subscriber(await store.feed(after=start, where=where_ours), before) for _ in range(count)]
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
    """Run as a process; an error is one line on standard error."""
    hold()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            prefix, count, where, *trust = sys.argv[1:]
            runner.run(_main(prefix, int(count), where or None, trust_owner=bool(trust)))
    except EsxError as error:
        sys.exit(f"subscribers: {error}")


if __name__ == "__main__":
    main()
