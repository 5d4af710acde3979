from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from textual.widgets import Button, Input

from esx.load.model import LoadCounts, LoadOptions, LoadProgress, LoadSummary
from esx.store import EsxError
from esx.tui.screens.load import LoadPane
from tests.tui.helpers import explorer, fill, text_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.store import EventStore
    from esx.tui.app import Explorer

SUMMARY = LoadSummary(
    "run-1",
    3.0,
    7,
    LoadCounts(100, 80, 20),
    26.7,
    0.2,
    {"p50": 1.5, "p99": 9.0},
    stored=80,
    verdict="pass",
    evidence=("80 appended, 80 stored",),
)


def pane(app: Explorer) -> LoadPane:
    return app.query(LoadPane).first()


async def test_a_run_from_form_to_verdict(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    asked: list[tuple[str | None, LoadOptions]] = []

    async def run_load(dsn: str | None, options: LoadOptions) -> AsyncIterator[LoadProgress | LoadSummary]:
        asked.append((dsn, options))
        for second in range(1, 4):
            await asyncio.sleep(0)
            yield LoadProgress(second, 7, LoadCounts(30, 24, 6), 24.0, 0.2, 1.0, 2.0, 3.0)
        yield SUMMARY

    async with explorer(dsn18, run_load=run_load) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        pane(app).query_one("#load-users", Input).value = "7"
        pane(app).query_one("#load-hot-share", Input).value = "0.5"
        await pilot.press("s")
        await until(pilot, lambda: pane(app).summary is not None and not pane(app).running)
        await until(pilot, lambda: "PASS" in text_of(app))
        assert asked == [(dsn18, LoadOptions(users=7, hot_share=0.5))]
        shown = text_of(app)
        for piece in ("20.0% conflicts", "100 attempts = 80 appended + 20 conflicts", "80 stored", "p99 9.0 ms"):
            assert piece in shown, piece


async def test_what_the_form_does_not_accept(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)

    async def run_load(dsn: str | None, options: LoadOptions) -> AsyncIterator[LoadProgress | LoadSummary]:
        raise AssertionError("must not start")
        yield SUMMARY

    async with explorer(dsn18, run_load=run_load) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        pane(app).query_one("#load-users", Input).value = "0"
        await pilot.press("s")
        await pilot.pause()
        assert not pane(app).running
        assert pane(app).query_one("#load-users", Input).has_focus
        await pilot.press("escape", "1")
        await pilot.pause()
        assert "streams by name" in text_of(app)


async def test_stopping_ends_the_run(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    closed: list[bool] = []

    async def run_load(dsn: str | None, options: LoadOptions) -> AsyncIterator[LoadProgress | LoadSummary]:
        try:
            yield LoadProgress(1, 7, LoadCounts(), 24.0, 0.2, 1.0, 2.0, 3.0)
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async with explorer(dsn18, run_load=run_load) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        await pilot.press("s")
        await until(pilot, lambda: "24/s" in text_of(app))
        await pilot.press("x")
        await until(pilot, lambda: closed and not pane(app).running)
        assert "without a summary" in text_of(app)


class Stoppable:
    """Ends with its summary when it is told to stop."""

    def __init__(self, _dsn: str | None, _options: LoadOptions) -> None:
        self._stopped = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[LoadProgress | LoadSummary]:
        yield LoadProgress(1, 7, LoadCounts(), 24.0, 0.2, 1.0, 2.0, 3.0)
        await self._stopped.wait()
        yield SUMMARY

    def stop(self) -> None:
        self._stopped.set()


async def test_stopping_keeps_the_summary_where_there_is_one(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, run_load=Stoppable) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        await pilot.press("s")
        await until(pilot, lambda: "24/s" in text_of(app))
        await pilot.press("x")
        await until(pilot, lambda: "PASS" in text_of(app))


async def test_a_failure_is_a_line(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)

    async def run_load(dsn: str | None, options: LoadOptions) -> AsyncIterator[LoadProgress | LoadSummary]:
        raise EsxError("the child \x1b[31mdied")
        yield SUMMARY

    async with explorer(dsn18, run_load=run_load) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: pane(app).query_one("#load-start", Button).has_focus)
        await pilot.press("s")
        await until(pilot, lambda: "the child ␛[31mdied" in text_of(app))
        assert not pane(app).running
