"""The screens show values that Python or UTF-8 does not have, and everything beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.oddities import SQL_ASCII, TIMES, database, fill_bytes, fill_times
from tests.tui.helpers import explorer, feed_of, ids, text_of, until

if TYPE_CHECKING:
    from tests.conftest import Servers

pytestmark = pytest.mark.slow


async def test_the_screens_show_odd_times(servers: Servers) -> None:
    async with database(await servers.get(18)) as dsn:
        await fill_times(dsn)
        async with explorer(dsn, size=(200, 45)) as (app, pilot):
            await until(pilot, lambda: len(ids(app)) == 10, "for all streams")
            screen = text_of(app)
            assert "+∞" in screen
            assert " BC" in screen
            await pilot.press("down", "down")
            await until(pilot, lambda: "infinity" in text_of(app), "for the event")
            await pilot.press("down", "down", "down", "down", "down", "down")
            await until(pilot, lambda: TIMES["0044-03-15 12:00:00.25Z BC"] in text_of(app), "for the event of 44 BC")
            await pilot.press("2")
            await until(pilot, lambda: len(feed_of(app).table.rows) > 0, "for the feed")
            await pilot.press("home")
            await until(pilot, lambda: "20000-01-01 00:00" in text_of(app), "for the year 20000 in the feed")
            assert "0044-03-15 12:00 BC" in text_of(app)
            await pilot.press("4")
            await until(pilot, lambda: "last visible" in text_of(app), "for the state of health")


async def test_the_screens_show_bytes_that_are_no_text(servers: Servers) -> None:
    bad = SQL_ASCII.visible
    async with database(await servers.get(18), "SQL_ASCII") as dsn:
        await fill_bytes(dsn, SQL_ASCII)
        async with explorer(dsn, size=(200, 45)) as (app, pilot):
            await until(pilot, lambda: len(ids(app)) == 2, "for both streams")
            await pilot.press("down")
            await until(pilot, lambda: f'"x": "é {bad}"' in text_of(app), "for the event")
            assert f"b{bad}-é {bad}" in text_of(app)
            await pilot.press("down")
            await until(pilot, lambda: '"x": "é"' in text_of(app), "for the next stream's event")
