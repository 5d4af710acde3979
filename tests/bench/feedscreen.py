"""The Feed screen under load: how late the event loop is, whether every event is counted, and what memory does.

python -m tests.bench.feedscreen [--rate 5000] [--seconds 60] [--size 120x34]

The real explorer runs headless, with everything that a terminal would be sent rendered and thrown away; a writer in a
process of its own appends batches at the rate given.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import uvloop
from textual._compositor import CompositorUpdate

from esx.database_choice import Database
from esx.eventstore import EventStore
from esx.model import NewEvent
from esx.tui.app import Explorer
from esx.tui.screens.feed import FeedPane
from esx.tui.session.session import SessionState
from tests.bench.common import database, server

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.pilot import Pilot
    from textual.screen import Screen

BATCH = 50
_PROBE = 0.005


class DrawnExplorer(Explorer):
    """Does the work of drawing that a headless application leaves out."""

    frames = 0

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if isinstance(renderable, CompositorUpdate):
            self.frames += 1
            renderable.render_segments(self.console)
        super()._display(screen, renderable)


async def write(dsn: str, rate: int, seconds: float) -> None:
    """Append batches to many streams, at a steady rate; prints how many events it appended."""
    async with EventStore.connect(dsn, application_name="bench writer") as store:
        began = time.perf_counter()
        sent = 0

        async def one(number: int) -> None:
            events = [
                NewEvent(f"Type{(number + at) % 7}", {"number": number, "text": "x" * 80}, {"user": "ann"})
                for at in range(BATCH)
            ]
            await store.append(f"stream-{number % 1000}", events)

        pending: set[asyncio.Task[None]] = set()
        while (now := time.perf_counter() - began) < seconds:
            while sent * BATCH < now * rate:
                pending.add(asyncio.create_task(one(sent)))
                sent += 1
            if len(pending) > 100:
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            pending = {task for task in pending if not task.done()}
            await asyncio.sleep(0.002)
        await asyncio.gather(*pending)
        took = time.perf_counter() - began
    print(f"{sent * BATCH} {took}")


class _Lag:
    """How much later than asked for the event loop comes back, and how long it worked meanwhile.

    On a machine that others use too the first is theirs as well; the second is the explorer's own part.
    """

    def __init__(self) -> None:
        self.late: list[float] = []
        self.busy: list[float] = []

    async def run(self) -> None:
        while True:
            began, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(_PROBE)
            self.late.append(max(time.perf_counter() - began - _PROBE, 0.0))
            self.busy.append(time.thread_time() - worked)


def _spread(values: list[float]) -> str:
    ordered = sorted(values)
    p50, p99, most = (ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000 for share in (0.5, 0.99, 1))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.1f} ms"


async def idle(seconds: float) -> None:
    """Do nothing but see how late an event loop is on this machine; prints it."""
    lag = _Lag()
    probe = asyncio.create_task(lag.run())
    await asyncio.sleep(seconds)
    probe.cancel()
    print(_spread(lag.late))


async def until(pilot: Pilot[None], condition: object, patience: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        await pilot.pause(0.05)


async def main(rate: int, seconds: float, size: tuple[int, int]) -> None:
    """Open the Feed screen, let the writer run, and print the figures."""
    with server() as running:
        dsn = await database(running, "feedscreen")
        gc.disable()  # as the command does: the explorer decides on it
        app = DrawnExplorer(Database(dsn, "--dsn", "bench", embedded=False))
        process = psutil.Process()
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.session.state is SessionState.CONNECTED)
            await pilot.press("2")
            await until(pilot, lambda: app.query(FeedPane) and app.follower.started)
            log = app.follower.log
            lag, memory = _Lag(), [process.memory_info().rss]
            gc.collect()
            writer = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.feedscreen", "--writer", dsn, str(rate), str(seconds)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ},
            )
            beside = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.feedscreen", "--idle", str(seconds)],
                stdout=subprocess.PIPE,
                text=True,
            )
            probe = asyncio.create_task(lag.run())
            cpu = process.cpu_times()
            began = time.perf_counter()
            while writer.poll() is None:
                await pilot.pause(0.5)
                memory.append(process.memory_info().rss)
            assert writer.stdout is not None
            written, took = writer.stdout.read().split()
            await until(pilot, lambda: log.received >= int(written), 30)
            await pilot.pause(0.5)
            probe.cancel()
            used = process.cpu_times()
            elapsed = time.perf_counter() - began
            pane = app.query(FeedPane).first()
            print(f"written       {int(written):,} in {float(took):.1f} s ({int(written) / float(took):,.0f}/s)")
            print(f"counted       {log.received:,}: {len(pane.table.rows):,} kept, {log.gone:,} no longer kept")
            print(f"event loop    {_spread(lag.late)} late")
            print(f"              {_spread(lag.busy)} at work in one go")
            assert beside.stdout is not None
            print(f"idle process  {beside.stdout.read().strip()} late, beside it")
            share = (used.user + used.system - cpu.user - cpu.system) / elapsed
            print(f"explorer      {share:.0%} of a core, {app.frames / elapsed:.1f} frames/s")
            points = [memory[int(part * (len(memory) - 1))] / 1e6 for part in (0, 0.25, 0.5, 0.75, 1)]
            print("memory        " + ", ".join(f"{point:.0f}" for point in points) + " MB at each quarter of the run")
            assert log.received == int(written) == len(pane.table.rows) + log.gone


if __name__ == "__main__":
    if sys.argv[1:2] == ["--writer"]:
        uvloop.run(write(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    elif sys.argv[1:2] == ["--idle"]:
        asyncio.run(idle(float(sys.argv[2])))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--rate", type=int, default=5000)
        parser.add_argument("--seconds", type=float, default=60)
        parser.add_argument("--size", default="120x34")
        options = parser.parse_args()
        width, height = options.size.split("x")
        asyncio.run(main(options.rate, options.seconds, (int(width), int(height))))
