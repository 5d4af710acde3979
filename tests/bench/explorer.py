"""Whether the explorer keeps its promises on a large store: first frame, first rows, jumps, keys, memory.

python -m tests.bench.explorer [--events 10000000] [--paged 1000000] [--dsn a store that is filled already]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import pty
import random
import select
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
from textual import events

from esx.database_choice import Database
from esx.tui.app import Explorer
from esx.tui.lists.rowtable import RowTable
from esx.tui.screens.streams import StreamsPane
from tests.bench.common import database, fill, server
from tests.tui.helpers import browse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from textual.strip import Strip

    from esx.tui.lists.pagedlist import PagedList

_SIZE = (120, 34)
_TURNS = 200
_BARE = "import click\n@click.command()\n@click.version_option('1')\ndef main(): pass\nmain()"


_drawn: dict[str | None, float] = {}
"""When a line of a list was last drawn, by the list's id."""
_drawn_rows: dict[str | None, float] = {}
"""When one was drawn that shows a row."""
_connected: list[float] = []
"""When the explorer was connected."""


def watch() -> None:
    """Note from now on when lists draw their lines, and when the explorer is connected."""
    render_line, connected = RowTable.render_line, StreamsPane.connected

    def noting(self: RowTable[Any], y: int) -> Strip:
        strip = render_line(self, y)
        _drawn[self.id] = time.perf_counter()
        if self.first <= self.scroll_offset.y + y - 1 <= self.last:
            _drawn_rows[self.id] = _drawn[self.id]
        return strip

    def noting_connection(self: StreamsPane) -> None:
        _connected.append(time.perf_counter())
        connected(self)

    StreamsPane.connected = noting_connection  # type: ignore[method-assign]
    RowTable.render_line = noting  # type: ignore[method-assign]


def report(what: str, value: float, bar: float, unit: str) -> None:
    """Print a figure beside its bar."""
    verdict = "ok" if value <= bar else "TOO MUCH"
    print(f"{what:<58} {value:>9.2f} {unit:<3} (bar {bar:g})  {verdict}", flush=True)


def p95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def start_up() -> None:
    """Compare ``esx --version`` with the bare interpreter and Click."""
    commands = {"esx": [sys.executable, "-m", "esx", "--version"], "bare": [sys.executable, "-c", _BARE, "--version"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(20):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - began)
    ratio = statistics.median(times["esx"]) / statistics.median(times["bare"])
    report("esx --version, against the bare interpreter and Click", ratio, 1.5, "x")


_cpu: list[float] = []


def first_frame(dsn: str) -> None:
    """Start the explorer in a terminal, and wait for its first frame and for its first rows."""
    frames, rows = [], []
    for _ in range(5):
        began = time.perf_counter()
        frame, row = _watch_terminal(dsn, [b"Streams", b"s-1000"])
        frames.append(frame - began)
        rows.append(row - began)
    report("from the command to the first frame, median", statistics.median(frames), 1.0, "s")
    print(f"{'from the command to rows on screen, median':<58} {statistics.median(rows):>9.2f} s")
    print(f"{'of which computing, the rest waiting for its turn':<58} {statistics.median(_cpu):>9.2f} s")


def _watch_terminal(dsn: str, wanted: list[bytes]) -> list[float]:
    """Return when each of the texts first came out."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "LINES": str(_SIZE[1]), "COLUMNS": str(_SIZE[0])}
    process = subprocess.Popen(
        [sys.executable, "-m", "esx", "-d", dsn], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    out = b""
    seen: list[float] = []
    deadline = time.perf_counter() + 30
    try:
        while len(seen) < len(wanted):
            if time.perf_counter() > deadline:
                raise RuntimeError(f"{wanted[len(seen)]!r} did not come; the end of what did: {out[-2000:]!r}")
            if select.select([ours], [], [], 0.1)[0]:
                out += os.read(ours, 65536)
                while len(seen) < len(wanted) and wanted[len(seen)] in out:
                    seen.append(time.perf_counter())
        _cpu.append(sum(psutil.Process(process.pid).cpu_times()[:2]))
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return seen


@contextlib.asynccontextmanager
async def explorer(dsn: str) -> AsyncIterator[tuple[Explorer, float]]:
    """Open the explorer without a terminal; yields the time at which it was connected, too."""
    _connected.clear()
    gc.disable()  # as the command does: the explorer decides on it
    app = Explorer(Database(dsn, "--dsn", "benchmark", embedded=False))
    async with app.run_test(size=_SIZE):
        await _until(lambda: len(app.query("#streams")) and browse(app).streams.rows)
        yield app, _connected[0]


async def _until(condition: Callable[..., object], *arguments: Any) -> None:
    deadline = time.perf_counter() + 60
    while not condition(*arguments):
        if time.perf_counter() > deadline:
            raise RuntimeError("waited in vain")
        await asyncio.sleep(0.001)


async def idle_lag() -> None:
    """Show how late this machine lets an idle loop run: no figure below can be better."""
    late = []
    for _ in range(400):
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        late.append(time.perf_counter() - began - 0.005)
    print(f"{'an idle event loop runs late by, p95':<58} {p95(late) * 1000:>9.2f} ms")


async def first_rows(dsn: str) -> None:
    """Measure from the open connection to rows on screen."""
    times = []
    for _ in range(5):
        async with explorer(dsn) as (app, connected):
            table = browse(app).streams
            await _until(_rows_drawn_since, table, connected)
            times.append(_drawn_rows[table.id] - connected)
    report("from the connection to rows on screen, worst of 5", max(times), 0.3, "s")


async def jumps(dsn: str) -> None:
    """Go anywhere in the lists of streams and of all events, and to their ends."""
    draw = random.Random(3)
    async with explorer(dsn) as (app, _):
        pane = browse(app)
        for name, table in (("$all", pane.events), ("streams", pane.streams)):
            await _until(_measured, table)
            times = []
            for turn in range(_TURNS):
                await _until(_idle, table)
                began = time.perf_counter()
                match turn % 5:
                    case 0:
                        table.action_last()
                    case 1:
                        table.action_page(-1)
                    case 2:
                        table.action_first()
                    case _:
                        table.scroll_to(y=draw.randrange(table.length - 100))
                await _until(_arrived, table, began)
                times.append(time.perf_counter() - began)
            report(f"any jump or page in {name}, p95 of {_TURNS}", p95(times) * 1000, 100, "ms")


def _measured(table: PagedList[Any, Any]) -> bool:
    return table.window is not None and table.window.row_numbers is not None


def _idle(table: PagedList[Any, Any]) -> bool:
    return not table.busy


def _covers(table: PagedList[Any, Any], place: int) -> bool:
    return table.first <= place and table.last >= place + 40


def _drawn_since(table: PagedList[Any, Any], began: float) -> bool:
    return _drawn.get(table.id, 0) > began


def _rows_drawn_since(table: PagedList[Any, Any], began: float) -> bool:
    return _drawn_rows.get(table.id, 0) > began


def _arrived(table: PagedList[Any, Any], began: float) -> bool:
    """Return whether what the screen shows has been loaded and drawn."""
    top = table.scroll_offset.y
    in_view = table.first <= top and min(top + table.body_height, table.length) - 1 <= table.last
    return in_view and table.row is not None and _rows_drawn_since(table, began)


async def keys(dsn: str) -> None:
    """Press keys in one list while both load pages."""
    draw = random.Random(4)
    async with explorer(dsn) as (app, _):
        pane = browse(app)
        streams, others = pane.streams, pane.events
        await _until(_measured, streams)
        await _until(_measured, others)
        streams.focus()
        times = []
        for turn in range(_TURNS):
            if turn % 2:
                others.scroll_to(y=draw.randrange(others.length))
            began = time.perf_counter()
            app.post_message(events.Key("pagedown" if turn % 3 else "down", None))
            await _until(_drawn_since, streams, began)
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)
        report(f"a key to the repaint while pages load, p95 of {_TURNS}", p95(times) * 1000, 50, "ms")


async def memory(dsn: str, paged: int) -> None:
    """Page through all events, and see what the process has grown to."""
    process = psutil.Process()
    async with explorer(dsn) as (app, _):
        table = browse(app).events
        await _until(_measured, table)
        before = process.memory_info().rss / 1e6
        began = time.perf_counter()
        place = 0
        while place < min(paged, table.length - 200):
            place += 150
            table.scroll_to(y=place)
            await _until(_covers, table, place)
        after = process.memory_info().rss / 1e6
        seconds = time.perf_counter() - began
    print(f"{'paged through':<58} {place:>9,} events in {seconds:.0f} s, from {before:.0f} MB on")
    report("resident memory after that", after, 250, "MB")


async def main(count: int, paged: int, given: str | None) -> None:
    """Fill a store, unless one is given, and measure."""
    watch()
    with contextlib.ExitStack() as stack:
        if given is None:
            dsn = await database(stack.enter_context(server()), "large")
            print(f"filling a store with {count:,} events in {count // 10:,} streams ...", flush=True)
            await fill(dsn, count, count // 10)
        else:
            dsn = given
        await idle_lag()
        start_up()
        first_frame(dsn)
        await first_rows(dsn)
        await jumps(dsn)
        await keys(dsn)
        await memory(dsn, paged)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--paged", type=int, default=1_000_000)
    parser.add_argument("--dsn")
    options = parser.parse_args()
    asyncio.run(main(options.events, options.paged, options.dsn))
