"""The screen Consumers: what each does, and what a user can do to it after being asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import NewEvent
from esx.errors import ProjectionFailed
from esx.permissions import Permissions
from esx.tui.dialogs.copy_as import CopyAs
from esx.tui.dialogs.export import ExportDialog
from esx.tui.screens.consumers import ConsumersPane
from esx.tui.tuning import Tuning
from tests.tui.helpers import explorer, lines_of, text_of, until

if TYPE_CHECKING:
    from pathlib import Path

    from textual.pilot import Pilot

    from esx.eventstore import EventStore
    from esx.model import Event
    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow

_QUICK = Tuning(read_health=0.1)


async def refuses(connection: asyncpg.Connection, event: Event) -> None:
    if event.event_type == "Bad":
        raise ValueError("no such account [b]\x1b[2J")


async def failed(store: EventStore) -> None:
    """Leave a projection behind that failed at event 2 of 3."""
    await store.append("account-1", [NewEvent("T"), NewEvent("Bad"), NewEvent("T")])
    with pytest.raises(ProjectionFailed):
        await store.project("balances", refuses)


async def choose(app: Explorer, pilot: Pilot[None], text: str) -> None:
    """Choose what to do to the consumer under the cursor."""
    await pilot.press("enter")
    await until(pilot, lambda: text in text_of(app), "for the actions")
    lines = [line for line in lines_of(app) if "│" in line]
    first = next(at for at, line in enumerate(lines) if "pause:" in line or "resume:" in line)
    at = next(at for at, line in enumerate(lines) if text in line)
    await pilot.press(*["down"] * (at - first), "enter")
    await until(pilot, lambda: "what will happen" in text_of(app), "for the question")


async def test_what_each_does_is_listed_with_its_error(dsn18: str, store18: EventStore) -> None:
    await failed(store18)
    async with explorer(dsn18, size=(80, 24), tuning=_QUICK) as (app, pilot):
        await pilot.press("5")
        for size in ((80, 24), (200, 55)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: "consumers · 1" in text_of(app))
            await until(pilot, lambda: "at event 2: ValueError: no such account [b]␛[2J" in text_of(app))
            await until(pilot, lambda: "balances projection failed 1 2" in " ".join(text_of(app).split()))
            await until(pilot, lambda: "1, 2 events behind" in " ".join(text_of(app).split()))
            assert all(len(line) == size[0] for line in lines_of(app))


async def test_the_list_is_copied_and_exported(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await failed(store18)
    async with explorer(dsn18, size=(100, 30), tuning=_QUICK) as (app, pilot):
        await pilot.press("5")
        await until(pilot, lambda: "consumers · 1" in text_of(app))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, CopyAs) and "esx consumers -d" in text_of(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.clipboard.startswith("SELECT name, kind, position"))
        connection = await asyncpg.connect(dsn18)
        rows = await connection.fetch(app.clipboard)
        await connection.close()
        assert [(row["name"], row["position"]) for row in rows] == [("balances", 1)]
        await until(pilot, lambda: not isinstance(app.screen, CopyAs))
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, ExportDialog))
        await pilot.press("enter")
        await until(pilot, (tmp_path / "consumers.ndjson").exists)
        [line] = (tmp_path / "consumers.ndjson").read_text().splitlines()
        assert (json.loads(line)["name"], json.loads(line)["state"]) == ("balances", "failed")


async def test_nothing_is_done_before_the_user_agrees(dsn18: str, store18: EventStore) -> None:
    await failed(store18)
    async with explorer(dsn18, size=(100, 30), tuning=_QUICK) as (app, pilot):
        await pilot.press("5")
        await until(pilot, lambda: "failed" in text_of(app))
        await choose(app, pilot, "skip the event")
        assert "NEVER handles event 2 (Bad of account-1)" in " ".join(text_of(app).split())
        await pilot.press("escape")
        await until(pilot, lambda: "what will happen" not in text_of(app))
        assert (await store18.consumer("balances")).position == 1
        await choose(app, pilot, "skip the event")
        await pilot.press("ctrl+y")
        await until(pilot, lambda: "waiting: no program runs it" in text_of(app), "for what it does then")
        report = await store18.consumer("balances")
        assert (report.position, report.skipped) == (2, 1)


async def test_pause_resume_reset_and_delete(dsn18: str, store18: EventStore) -> None:
    await failed(store18)
    async with explorer(dsn18, size=(100, 30), tuning=_QUICK) as (app, pilot):
        pane = app.query(ConsumersPane)
        await pilot.press("5")
        await until(pilot, lambda: "failed" in text_of(app))
        for text, done in (
            ("pause:", lambda: pane.first().reports[0].paused),  # type: ignore[index, union-attr]
            ("resume:", lambda: not pane.first().reports[0].paused),  # type: ignore[index, union-attr]
            ("reset to the end", lambda: pane.first().reports[0].position == 3),  # type: ignore[index]
            ("reset to the start", lambda: pane.first().reports[0].position == 0),  # type: ignore[index]
            ("delete", lambda: pane.first().reports == []),
        ):
            await choose(app, pilot, text)
            await pilot.press("ctrl+y")
            await until(pilot, done, f"for {text}")
        await until(pilot, lambda: "no consumers" in text_of(app))


async def test_a_page_that_only_reads_changes_nothing(dsn18: str, store18: EventStore) -> None:
    await failed(store18)
    for options in ({"permissions": Permissions.only()}, {"read_only": True}):
        async with explorer(dsn18, size=(100, 30), tuning=_QUICK, **options) as (app, pilot):
            await pilot.press("5")
            await until(pilot, lambda: "failed" in text_of(app))
            await pilot.press("enter")
            app.query_one(ConsumersPane).consumers.post_message(
                app.query_one(ConsumersPane).consumers.Chosen(app.query_one(ConsumersPane).consumers, None)
            )
            await until(pilot, lambda: "only reads" in text_of(app), "for the reason")
            assert "what will happen" not in text_of(app)
