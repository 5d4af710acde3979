"""A superuser opens the explorer on the store of a hostile owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from esx.tui.session.session import SessionState
from tests.conftest import Servers
from tests.support.hostile import hostile_database
from tests.tui.helpers import browse, explorer, text_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.hostile import Hostile

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def hostile(servers: Servers) -> AsyncIterator[Hostile]:
    async with hostile_database(await servers.get(18)) as database:
        yield database


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin without trusted owners."""
    monkeypatch.setenv("ESX_DATA_DIR", str(tmp_path))


async def test_no_screen_runs_what_is_planted(hostile: Hostile) -> None:
    await hostile.plant_everywhere()
    async with explorer(hostile.dsn) as (app, pilot):
        await pilot.press("enter")
        await until(pilot, lambda: "Placed" in text_of(app), "for events")
        await pilot.press("enter")
        await until(pilot, lambda: "sku" in text_of(app), "for an event in full")
        await pilot.press("v")
        await pilot.press("t")
        await until(pilot, lambda: "order-1" in text_of(app), "for the trail")
        await pilot.press("2")
        await until(pilot, lambda: app.follower.position == 5, "for the feed")
        await pilot.press("4")
        await until(pilot, lambda: "doctor" in text_of(app).lower(), "for the findings")
        await pilot.press("1")
        await pilot.press("f")
        await pilot.press(*"type:Pl*", "enter")
        await until(pilot, lambda: browse(app).events.rows, "for what was found")
    assert not hostile.sprung


async def test_it_asks_once_whether_to_trust_the_owner(hostile: Hostile) -> None:
    await hostile.plant_in_an_index()
    async with explorer(hostile.dsn, connected=False) as (app, pilot):
        await until(pilot, lambda: "T  trusts the owner" in text_of(app), "for the question")
        assert "Reading this store runs code of its owner" in text_of(app)
        assert app.session.state is SessionState.NOT_TRUSTED
        # Other keys do not answer it.
        await pilot.press("r", "1", "2", "enter", "y")
        assert app.session.state is SessionState.NOT_TRUSTED
        assert not hostile.sprung
        await pilot.press("T")
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED, "for the streams")
    async with explorer(hostile.dsn) as (app, pilot):
        assert app.session.state is SessionState.CONNECTED
