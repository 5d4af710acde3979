"""Grouped appends: against single ones and pgbench, over the number of writers, on one hot stream, and in processes.

    python -m tests.bench.grouped [--seconds 3] [--rounds 5] [--only writers|exact|hot|processes] [--svg FILE]
        [--message-db DIRECTORY]

The store has its ten connections, as users open it; embedded PostgreSQL 18, fsync on. Each side has its p99 and
its longest append printed, and how many the slowest task got. With --message-db, and where eventsourcing is installed,
these append beside it (tests/bench/others.py says how to get them). --svg draws appends/s over writers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import uvloop

from esx import ANY, EventStore, NewEvent, WrongVersion
from esx.load.report.pages.scale import Axis
from esx.load.report.pages.svg import Series, line_chart, standalone
from tests.bench.appends import SAME_SQL
from tests.bench.common import WRITERS, database, pgbench, server
from tests.bench.others import message_db_writer, recorder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.embedded import EmbeddedServer

    Turn = Callable[[int, random.Random], Awaitable[bool]]
    Other = Callable[[int, float], Awaitable["Run"]]

_STREAMS = 10_000
_WRITERS = (1, 8, 32, 64, 128, 256)
_CLIENTS = (32, 64)


class Run(NamedTuple):
    """One run: appends a second, milliseconds of an append, and the share of the mean that the slowest task got."""

    rate: float
    p99: float = 0.0
    longest: float = 0.0
    slowest: float = 1.0


async def run(tasks: int, seconds: float, turn: Turn) -> Run:
    """Let so many tasks append for so long; `turn` returns whether it has appended."""
    took: list[float] = []
    counts = [0] * tasks
    began = time.perf_counter()
    end = began + seconds

    async def loop(number: int) -> None:
        draw = random.Random(number)
        while (asked := time.perf_counter()) < end:
            counts[number] += await turn(number, draw)
            took.append(time.perf_counter() - asked)

    await asyncio.gather(*(loop(number) for number in range(tasks)))
    elapsed = time.perf_counter() - began
    took.sort()
    return Run(
        sum(counts) / elapsed,
        took[int(len(took) * 0.99)] * 1000,
        took[-1] * 1000,
        min(counts) / max(statistics.mean(counts), 1e-9),
    )


def any_version(store: EventStore) -> Turn:
    """Append to any of the streams with ANY."""

    async def turn(_: int, draw: random.Random) -> bool:
        await store.append(f"s-{draw.randrange(_STREAMS)}", [NewEvent("Deposited", {"amount": 100})], expected=ANY)
        return True

    return turn


def exact(store: EventStore, tasks: int, versions: dict[str, int]) -> Turn:
    """Append at the version that the task left, each to its own streams; pgbench reads no version either."""

    async def turn(number: int, draw: random.Random) -> bool:
        stream = f"x-{draw.randrange(max(_STREAMS // tasks, 1)) * tasks + number}"
        at = versions.get(stream, -1)
        done = await store.append(stream, [NewEvent("Deposited", {"amount": 100})], expected=ANY if at < 0 else at)
        versions[stream] = done.version
        return True

    return turn


def deciding(store: EventStore) -> Turn:
    """Decide about one hot stream in turns, each from the version that the last one left: the best policy."""
    turns = asyncio.Lock()
    at = -1

    async def turn(_: int, __: random.Random) -> bool:
        nonlocal at
        async with turns:
            if at < 0:
                at = (await store.append("turns", [NewEvent("T")])).version
            else:
                at = (await store.append("turns", [NewEvent("T")], expected=at)).version
        return True

    return turn


def retrying(store: EventStore) -> Turn:
    """Read the version of one hot stream, append at it, and do so again at once after a conflict."""

    async def turn(_: int, __: random.Random) -> bool:
        while True:
            version = await store.version("hot")
            try:
                await store.append("hot", [NewEvent("T")], expected=ANY if version < 0 else version)
            except WrongVersion:
                continue
            return True

    return turn


async def show(what: str, measures: dict[str, Callable[[], Awaitable[Run]]], rounds: int) -> dict[str, float]:
    """Measure each in turn, print medians with the slowest of all rounds, and return the medians."""
    seen: dict[str, list[Run]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seen[name].append(await measure())
    print(f"\n{what} (median of {rounds} alternating rounds)")
    medians = {name: statistics.median(each.rate for each in runs) for name, runs in seen.items()}
    reference = next(reversed(medians.values()))
    for name, runs in seen.items():
        times = ""
        if runs[0].p99:
            p99 = statistics.median(each.p99 for each in runs)
            times = (
                f"   p99 {p99:6.2f} ms, longest {max(each.longest for each in runs):4.0f} ms, "
                f"slowest task {min(each.slowest for each in runs):.2f} of the mean"
            )
        print(f"  {name:<28} {medians[name]:>9,.0f}/s   x {medians[name] / reference:<5.2f}{times}", flush=True)
    return medians


class Bench:
    """The stores and the server that all measures use."""

    def __init__(self, running: EmbeddedServer, grouped: EventStore, single: EventStore, seconds: float) -> None:
        self.running, self.grouped, self.single, self.seconds = running, grouped, single, seconds

    def by_pgbench(self, clients: int) -> Callable[[], Awaitable[Run]]:
        """Return the measure of pgbench with the same statement."""
        script = SAME_SQL.replace("random(0, 311) * 32", f"random(0, {_STREAMS // clients - 1}) * {clients}")

        async def measure() -> Run:
            return Run(await asyncio.to_thread(pgbench, self.running, "grouped", script, self.seconds, clients=clients))

        return measure

    def both(self, tasks: int, turn: Callable[[EventStore], Turn]) -> dict[str, Callable[[], Awaitable[Run]]]:
        """Return the measures of grouped and of single appends."""
        return {
            "esx, grouped": lambda: run(tasks, self.seconds, turn(self.grouped)),
            "esx, each by itself": lambda: run(tasks, self.seconds, turn(self.single)),
        }


async def over_writers(bench: Bench, message_db: str | None, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Print appends/s over writers, and return the points of each line."""
    lines: dict[str, list[tuple[float, float]]] = {}

    async def compare(tasks: int, others: dict[str, Other]) -> None:
        measures = bench.both(tasks, any_version)
        measures |= {name: partial(other, tasks, bench.seconds) for name, other in others.items()}
        for clients in sorted({min(tasks, each) for each in _CLIENTS}):
            measures[f"pgbench, {clients} clients"] = bench.by_pgbench(clients)
        medians = await show(f"ANY, {tasks} tasks on {_STREAMS:,} streams", measures, rounds)
        best = max(rate for name, rate in medians.items() if name.startswith("pgbench"))
        for name, rate in medians.items():
            if not name.startswith("pgbench"):
                lines.setdefault(name, []).append((tasks, rate))
        lines.setdefault("pgbench, its best of 32 and 64 clients", []).append((tasks, best))
        print(f"  grouped: {medians['esx, grouped'] / best:.2f} of pgbench's best")

    async with AsyncExitStack() as stack:
        others = await find_others(bench.running, message_db, stack)
        for tasks in _WRITERS:
            if tasks <= WRITERS:
                await compare(tasks, others)
    # The server has a hundred connections.
    for tasks in _WRITERS:
        if tasks > WRITERS:
            await compare(tasks, {})
    return lines


async def find_others(running: EmbeddedServer, message_db: str | None, stack: AsyncExitStack) -> dict[str, Other]:
    """Return what appends with other tools, as far as they are there."""
    others: dict[str, Other] = {}
    if message_db:
        write = await message_db_writer(running, Path(message_db), stack, WRITERS)

        async def turn(number: int, _: random.Random) -> bool:
            await write(number)
            return True

        others["message-db write_message"] = partial(_by_turns, turn)
    with contextlib.suppress(ImportError):
        record = await recorder(running, stack)

        async def by_threads(tasks: int, seconds: float) -> Run:
            return Run(await asyncio.to_thread(record, tasks, seconds))

        others["eventsourcing recorder"] = by_threads
    return others


async def _by_turns(turn: Turn, tasks: int, seconds: float) -> Run:
    return await run(tasks, seconds, turn)


async def in_processes(dsn: str, seconds: float, rounds: int) -> None:
    """Print what one, two and four processes append together to the same streams."""

    async def measure(processes: int, tasks: int) -> Run:
        command = [sys.executable, "-m", "tests.bench.grouped", "--append-to", dsn, "--seconds", str(seconds)]
        started = [
            await asyncio.create_subprocess_exec(*command, "--tasks", str(tasks), stdout=asyncio.subprocess.PIPE)
            for _ in range(processes)
        ]
        said = [(await each.communicate())[0] for each in started]
        return Run(sum(float(each) for each in said))

    measures: dict[str, Callable[[], Awaitable[Run]]] = {
        f"{processes} processes of 32 tasks": (lambda n=processes: measure(n, 32))  # type: ignore[misc]
        for processes in (4, 2, 1)
    }
    await show(f"grouped, ANY, on the same {_STREAMS:,} streams", measures, rounds)


async def append_to(dsn: str, tasks: int, seconds: float) -> None:
    """Append for some seconds, and print the rate: one of several processes."""
    async with EventStore.connect(dsn) as store:
        await store.version("s-0")
        print((await run(tasks, seconds, any_version(store))).rate)


def draw(lines: dict[str, list[tuple[float, float]]], file: Path) -> None:
    """Write the picture of appends/s over writers."""
    series = [Series(name, points, tone, dots=True) for tone, (name, points) in enumerate(lines.items(), 1)]
    chart = line_chart("", series, Axis("writers", log=True), Axis("appends a second", low=0.0), width=720, height=340)
    file.write_text(standalone([[chart]]), encoding="utf-8")


async def main(options: argparse.Namespace) -> None:
    """Run all comparisons, or one."""
    with server() as running:
        dsn = await database(running, "grouped")
        async with EventStore.connect(dsn) as grouped, EventStore.connect(dsn, grouping=False) as single:
            for store in (grouped, single):
                await store.version("s-0")
            bench = Bench(running, grouped, single, options.seconds)
            if options.only in (None, "writers"):
                lines = await over_writers(bench, options.message_db, options.rounds)
                if options.svg:
                    draw(lines, options.svg)
            if options.only in (None, "exact"):
                versions: dict[str, int] = {}
                measures = bench.both(32, lambda store: exact(store, 32, versions))
                measures["pgbench, 32 clients"] = bench.by_pgbench(32)
                await show("exact versions, 32 tasks, each on its own streams", measures, options.rounds)
            if options.only in (None, "hot"):
                await show("32 tasks try again at once on one stream", bench.both(32, retrying), options.rounds)
                await show("32 tasks decide about one stream, in turns", bench.both(32, deciding), options.rounds)
            if options.only in (None, "processes"):
                await in_processes(dsn, options.seconds, options.rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["writers", "exact", "hot", "processes"])
    parser.add_argument("--message-db", default=os.environ.get("MESSAGE_DB"))
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--append-to", help=argparse.SUPPRESS)
    parser.add_argument("--tasks", type=int, default=32, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.append_to:
        uvloop.run(append_to(given.append_to, given.tasks, given.seconds))
    else:
        uvloop.run(main(given))
