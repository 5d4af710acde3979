"""In the demo's own database the events of load tests are out of the first view of all events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx.demo import fill
from esx.model import NewEvent
from tests.tui.helpers import browse, explorer, text_of, until
from tests.tui.pictures import sitting

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow

TITLE = "$all · newest first · !exists($metadata.run_id)"


async def load_test(store: EventStore) -> None:
    """A load test ran; one of its events mentions a number of the shop's."""
    await store.append(
        "load-run-1-0", [NewEvent("LoadTested", {"n": 1018 + n}, {"run_id": "run-1"}) for n in range(300)]
    )


def types(app: Explorer) -> set[str]:
    return {row.event_type for row in browse(app).events.rows}


async def test_the_shop_is_shown_first_and_esc_shows_all(dsn18: str, store18: EventStore) -> None:
    await fill(store18)
    await load_test(store18)
    async with sitting(dsn18, (160, 40)) as (app, pilot):
        await until(pilot, lambda: TITLE in text_of(app) and "without load tests · esc shows all" in text_of(app))
        await until(pilot, lambda: types(app) and "LoadTested" not in types(app))
        # It follows all the same.
        await store18.append("plain", [NewEvent("Newest", {})])
        await until(pilot, lambda: "Newest" in types(app))

        # A stream of a load test is shown in full.
        browse(app).go_to("load-run-1-0", None)
        await until(
            pilot, lambda: browse(app).events_panel.stream_id == "load-run-1-0" and types(app) == {"LoadTested"}
        )
        await pilot.press("a")
        await until(pilot, lambda: TITLE in text_of(app) and types(app) and "LoadTested" not in types(app))
        await until(pilot, lambda: browse(app).events.has_focus)
        await pilot.press("escape")
        await until(pilot, lambda: "LoadTested" in types(app))
        # For good: another stream and back.
        await pilot.press("left", "end")
        await until(pilot, lambda: browse(app).events_panel.stream_id is not None and browse(app).events.rows)
        await pilot.press("home", "a")
        await until(pilot, lambda: browse(app).events_panel.stream_id is None and "LoadTested" in types(app))


async def test_a_load_test_that_ran_meanwhile_is_left_out_too_but_not_in_another_database(
    dsn18: str, store18: EventStore
) -> None:
    await fill(store18)
    async with sitting(dsn18, (160, 40)) as (app, pilot):
        await until(pilot, lambda: browse(app).events.rows and "$all · newest first" in text_of(app))
        await load_test(store18)
        await until(pilot, lambda: "LoadTested" in types(app))
        await pilot.press("4", "1")
        await until(pilot, lambda: TITLE in text_of(app) and types(app) and "LoadTested" not in types(app))
        # So it is of what mentions a stream.
        browse(app).go_to("accounts-1018", None)
        await until(pilot, lambda: browse(app).events_panel.stream_id == "accounts-1018" and browse(app).events.rows)
        await pilot.press("A")
        await until(pilot, lambda: "mentions:1018" in text_of(app) and len(types(app)) > 1)
        assert "LoadTested" not in types(app)
    # A database of one's own shows everything.
    async with explorer(dsn18) as (app, pilot):
        await until(pilot, lambda: "LoadTested" in types(app))
        await pilot.press("4", "1")
        await until(pilot, lambda: browse(app).streams.has_focus)
        assert not browse(app).events_panel.usual
