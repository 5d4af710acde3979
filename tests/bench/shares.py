"""Many tasks on one store as users open it, with its ten connections: what each gets, and how long the unlucky wait.

    python -m tests.bench.shares [--seconds 5] [--rounds 3] [--tasks 10,64,1000]

A throughput alone says nothing of that: ten tasks that take turns for ever make a fine one. Each task appends to a
stream of its own, or reads one; embedded PostgreSQL 18, fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

import uvloop

from esx import EventStore, NewEvent
from tests.bench.common import database, server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Shares(NamedTuple):
    """What came of one run: turns a second, turns of a task, and seconds for a turn."""

    rate: float
    fewest: int
    mean: float
    most: int
    p999: float
    longest: float


async def shares(turn: Callable[[int], Awaitable[object]], tasks: int, seconds: float) -> Shares:
    """Let so many tasks take turns for so long. Of a turn that ends later only its length counts."""
    counts = [0] * tasks
    took: list[float] = []
    began = time.perf_counter()
    end = began + seconds

    async def loop(number: int) -> None:
        now = time.perf_counter()
        while now < end:
            asked = now
            await turn(number)
            now = time.perf_counter()
            took.append(now - asked)
            if now < end:
                counts[number] += 1

    await asyncio.gather(*(loop(number) for number in range(tasks)))
    took.sort()
    return Shares(
        sum(counts) / seconds,
        min(counts),
        statistics.mean(counts),
        max(counts),
        took[min(int(len(took) * 0.999), len(took) - 1)],
        took[-1],
    )


def tell(what: str, runs: list[Shares]) -> None:
    """Print the medians of several runs, and the worst of them."""
    rate, fewest, mean, most = (statistics.median(run[field] for run in runs) for field in range(4))
    p999, longest = (statistics.median(run[field] for run in runs) * 1000 for field in (4, 5))
    print(
        f"  {what:<28} {rate:>9,.0f}/s   a task: {fewest:,.0f} to {most:,.0f}, mean {mean:,.1f}, "
        f"the slowest {min(run.fewest / run.mean for run in runs):.2f} of it at worst   "
        f"p99.9 {p999:,.0f} ms, at most {longest:,.0f} ms (of all runs {max(run.longest for run in runs) * 1000:,.0f})",
        flush=True,
    )


async def as_users_do(dsn: str, numbers: list[int], seconds: float, rounds: int) -> None:
    """Run it for each number of tasks, on one store with the connections that it has by default."""
    made = itertools.count()
    async with EventStore.connect(dsn) as store:

        async def append(number: int) -> None:
            await store.append(f"share-{run}-{number}", [NewEvent("Deposited", {"amount": 100})])

        async def read(number: int) -> None:
            await store.read_page(f"share-{run}-{number}", limit=10)

        print(f"\none store with its ten connections (medians of {rounds} runs of {seconds:g} s)")
        for tasks in numbers:
            done: dict[str, list[Shares]] = {"append": [], "read": []}
            for _ in range(rounds):
                run = next(made)
                done["append"].append(await shares(append, tasks, seconds))
                done["read"].append(await shares(read, tasks, seconds))
            for what, runs in done.items():
                tell(f"{tasks:,} tasks, each {what}s", runs)


async def main(numbers: list[int], seconds: float, rounds: int) -> None:
    """Start a server and run it all."""
    with server() as running:
        await as_users_do(await database(running, "shares"), numbers, seconds, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--tasks", type=lambda text: [int(number) for number in text.split(",")], default=[10, 64, 1000]
    )
    options = parser.parse_args()
    uvloop.run(main(options.tasks, options.seconds, options.rounds))
