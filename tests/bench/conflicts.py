"""What recording conflicts costs: ``python -m tests.bench.conflicts [ROUNDS]``.

Tasks of one process append to one stream, each at the version it has read, so that most appends are refused. With and
without recording alternate; the figure is the ratio of the appends that were answered.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from esx import NO_STREAM, EventStore, NewEvent, WrongVersion
from tests.bench.common import database, server

_TASKS = 16
_SECONDS = 3.0


async def answered(dsn: str, stream_id: str, *, record: bool, grouping: bool) -> tuple[float, float, float]:
    """Return answers a second, the share that was refused, and the 99th percentile of an answer, ms."""
    times: list[float] = []
    refused = 0
    async with EventStore.connect(dsn, max_connections=_TASKS, record_conflicts=record, grouping=grouping) as store:
        await store.append(stream_id, [NewEvent("Made")], expected=NO_STREAM)
        until = time.perf_counter() + _SECONDS

        async def work() -> None:
            nonlocal refused
            while time.perf_counter() < until:
                version = await store.version(stream_id)
                began = time.perf_counter()
                try:
                    await store.append(stream_id, [NewEvent("Done", {"n": 1}, {"user": "ann"})], expected=version)
                except WrongVersion:
                    refused += 1
                times.append(time.perf_counter() - began)

        await asyncio.gather(*(work() for _ in range(_TASKS)))
    times.sort()
    return len(times) / _SECONDS, refused / len(times), times[len(times) * 99 // 100] * 1000


async def main(rounds: int) -> None:
    """Compare, and print each round and the medians."""
    with server() as running:
        dsn = await database(running, "conflicts")
        for grouping in (False, True):
            ratios = []
            for number in range(rounds):
                found = {}
                for record in (False, True) if number % 2 else (True, False):
                    stream_id = f"s-{grouping}-{number}-{record}"
                    found[record] = await answered(dsn, stream_id, record=record, grouping=grouping)
                ratios.append(found[True][0] / found[False][0])
                print(
                    f"grouping {grouping!s:5}  without {found[False][0]:7,.0f}/s {found[False][1]:4.0%} refused, "
                    f"p99 {found[False][2]:6.2f} ms   recording {found[True][0]:7,.0f}/s {found[True][1]:4.0%}, "
                    f"p99 {found[True][2]:6.2f} ms   {ratios[-1]:.2f}"
                )
            print(f"  median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7))
