"""Copying and exporting what is shown."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from textual.widgets import Input

from esx.eventstore import EventStore
from esx.model import Event, NewEvent
from esx.tui.dialogs.copy_as import CopyAs
from esx.tui.dialogs.export import ExportDialog
from tests.tui.helpers import browse, explorer, fill, ids, text_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from textual.pilot import Pilot

    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow


async def copied(app: Explorer, pilot: Pilot[None], *down: str) -> str:
    await pilot.press("x")
    await until(pilot, lambda: isinstance(app.screen, CopyAs) and "esx command" in text_of(app))
    await pilot.press(*down, "enter")
    await until(pilot, lambda: not isinstance(app.screen, CopyAs))
    return app.clipboard


async def test_copying_what_is_shown(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 3, 3)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        assert "streams --limit=1000 -d" in await copied(app, pilot)
        await pilot.press("slash", *"s-00?", "enter")
        # With a filter there is no line for all streams.
        await until(pilot, lambda: [row.summary is None for row in browse(app).streams.rows] == [False] * 3)
        await pilot.press("home", "enter")
        await until(pilot, lambda: browse(app).events.has_focus and browse(app).events_panel.stream_id == "s-000")
        assert (await copied(app, pilot)).endswith(" s-000")
        assert "e.stream_id = 's-000'" in await copied(app, pilot, "down")
        await until(pilot, lambda: browse(app).detail.event is not None)
        assert json.loads(await copied(app, pilot, "down", "down"))["stream_id"] == "s-000"
        await pilot.press("left")
        assert "'--match=s-00?'" in await copied(app, pilot)
        await pilot.press("2")
        await until(pilot, lambda: app.follower.log.received == 9)
        await until(pilot, lambda: "9 shown" in text_of(app))
        assert "esx tail --from=0" in await copied(app, pilot)


async def test_exporting_what_is_shown(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store18, 2, 3)
    monkeypatch.chdir(tmp_path)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):

        async def export(name: str = "") -> None:
            await pilot.press("e")
            await until(pilot, lambda: isinstance(app.screen, ExportDialog) and app.focused is not None)
            if name:
                app.screen.query_one(Input).value = name
            await pilot.press("enter")

        await export()
        await until(pilot, lambda: "2 rows" in text_of(app))
        rows = [json.loads(line) for line in (tmp_path / "streams.ndjson").read_text().splitlines()]
        assert [row["stream_id"] for row in rows] == ids(app)
        await pilot.press("down", "enter")
        await until(pilot, lambda: browse(app).events.has_focus and browse(app).events_panel.stream_id == "s-000")
        # A file that is there is replaced only when asked for again.
        await export("streams.ndjson")
        await until(pilot, lambda: "there already: enter again replaces it" in text_of(app))
        assert len((tmp_path / "streams.ndjson").read_text().splitlines()) == 2
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, ExportDialog))
        rows = [json.loads(line) for line in (tmp_path / "streams.ndjson").read_text().splitlines()]
        assert [(row["stream_id"], row["stream_seq"]) for row in rows] == [("s-000", at) for at in range(3)]
        await export("missing/file")
        await until(pilot, lambda: "No such file" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, ExportDialog))
    assert [path.name for path in tmp_path.iterdir()] == ["streams.ndjson"]


async def test_an_export_can_be_stopped(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store18.append("s-1", [NewEvent("T") for _ in range(2500)])
    monkeypatch.chdir(tmp_path)
    going_on = asyncio.Event()
    read = EventStore.read

    async def halting(self: EventStore, stream_id: str, **options: Any) -> AsyncIterator[Event]:
        async for event in read(self, stream_id, **options):
            if event.stream_seq == 1500:
                going_on.set()
                await asyncio.Event().wait()
            yield event

    async with explorer(dsn18) as (app, pilot):
        await pilot.press("down", "enter")
        await until(pilot, lambda: browse(app).events.has_focus and browse(app).events_panel.stream_id == "s-1")
        monkeypatch.setattr(EventStore, "read", halting)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, ExportDialog) and app.focused is not None)
        await pilot.press("enter")
        await until(pilot, going_on.is_set)
        [part] = tmp_path.iterdir()
        assert part.match("s-1.ndjson.*.part")
        await pilot.press("escape")
        await until(pilot, lambda: "export stopped, nothing written" in text_of(app))
        await until(pilot, lambda: not list(tmp_path.iterdir()))
