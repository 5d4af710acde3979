"""What an event of ten megabytes costs in the explorer's detail, and what a long stream's state costs.

python -m tests.bench.detail [--megabytes 10] [--events 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import TYPE_CHECKING

import psutil

from esx import EventStore, JsonText, NewEvent
from esx.fold.states import States
from esx.tui.contrast import ReadableApp
from esx.tui.event.detail import EventDetail
from tests.bench.common import database, fill, server

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.pilot import Pilot

    from esx.model import Event


class Stage(ReadableApp):
    """The detail, alone on a screen."""

    def compose(self) -> ComposeResult:
        yield EventDetail()


async def main(megabytes: int, events: int) -> None:
    """Measure each thing once on a fresh store, and print it."""
    with server() as running:
        dsn = await database(running, "detail")
        await fill(dsn, events, 1)
        async with EventStore.connect(dsn, max_connections=2) as store:
            for name, text in _payloads(megabytes * 1_000_000):
                await store.append(name, [NewEvent("Big", JsonText(text))])
                began = time.perf_counter()
                page = await store.read_page(name)
                _print(f"{name}: read from PostgreSQL", (time.perf_counter() - began) * 1000, "ms")
                await _look_at(name, page[0])
            await _fold(store, events)


def _payloads(size: int) -> list[tuple[str, str]]:
    row = {"i": 10**6, "text": "x" * 50, "price": 12.5, "tags": ["a", "b"]}
    count = size // len(json.dumps(row))
    rows = json.dumps({"rows": [{**row, "i": number} for number in range(count)]})
    return [("an array of objects", rows), ("one long string", json.dumps({"text": "é and more " * (size // 12)}))]


async def _look_at(name: str, event: Event) -> None:
    process = psutil.Process()
    app = Stage()
    async with app.run_test(size=(120, 40)) as pilot:
        detail = app.query_one(EventDetail)
        detail.focus()
        await pilot.pause()
        before = process.memory_info().rss
        began = time.perf_counter()
        detail.show(event)
        _draw(detail)
        _print(f"{name}: first screen", (time.perf_counter() - began) * 1000, "ms")
        lags, pages = await _while_laid_out(detail)
        _print(f"{name}: all laid out", time.perf_counter() - began, "s")
        _print(f"{name}: a page down meanwhile, p95", statistics.quantiles(pages, n=20)[-1] * 1000, "ms")
        _print(f"{name}: lag of the event loop meanwhile, p95", statistics.quantiles(lags, n=20)[-1] * 1000, "ms")
        _print(f"{name}: memory taken", (process.memory_info().rss - before) / 1e6, "MB")
        await _keys(name, detail, pilot)


async def _while_laid_out(detail: EventDetail) -> tuple[list[float], list[float]]:
    lags, pages = [0.0, 0.0], [0.0, 0.0]
    while not detail.document.laid_out:
        began = time.perf_counter()
        await asyncio.sleep(0.01)
        lags.append(time.perf_counter() - began - 0.01)
        began = time.perf_counter()
        detail.action_page(1)
        _draw(detail)
        pages.append(time.perf_counter() - began)
    return lags, pages


async def _keys(name: str, detail: EventDetail, pilot: Pilot[None]) -> None:
    for what, act in (
        ("end", detail.action_end),
        ("start", detail.action_start),
        ("fold all", lambda: detail.action_fold(0)),
        ("unfold all", detail.action_unfold),
        ("fold one", detail.action_fold_here),
    ):
        began = time.perf_counter()
        act()
        while any(worker.group.startswith("fold") for worker in pilot.app.workers):
            await asyncio.sleep(0.001)
        _draw(detail)
        _print(f"{name}: {what}", (time.perf_counter() - began) * 1000, "ms")
    began = time.perf_counter()
    detail.find("more")
    while any(worker.group == "search" for worker in pilot.app.workers):
        await asyncio.sleep(0.001)
    _print(f"{name}: search", (time.perf_counter() - began) * 1000, "ms")


def _draw(detail: EventDetail) -> None:
    for y in range(detail.size.height):
        detail.render_line(y)


async def _fold(store: EventStore, events: int) -> None:
    states = States(store, "s-0")
    began = time.perf_counter()
    state = await states.at(events)
    assert state is not None
    _print(f"state after {events:,} events: the first time", time.perf_counter() - began, "s")
    times = []
    for version in range(events - 1, events - 1200, -13):
        began = time.perf_counter()
        await states.at(version)
        times.append(time.perf_counter() - began)
    _print(f"state after {events:,} events: another version, p95", statistics.quantiles(times, n=20)[-1] * 1000, "ms")


def _print(what: str, value: float, unit: str) -> None:
    print(f"{what:<60} {value:10,.1f} {unit}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=10)
    parser.add_argument("--events", type=int, default=100_000)
    options = parser.parse_args()
    asyncio.run(main(options.megabytes, options.events))
