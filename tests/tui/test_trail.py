from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from esx.model import NewEvent
from esx.tui.screens.trail import TrailPane
from tests.tui.helpers import browse, explorer, feed_of, lines_of, text_of, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from esx.eventstore import EventStore
    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow


async def shop(store: EventStore, field: str = "correlation_id") -> None:
    """An order, with what it caused, among others."""
    cause = None
    for at, stream in enumerate(("order-1", "payment-1", "order-1", "order-1")):
        event_id = uuid4()
        metadata = {field: "checkout", **({} if cause is None else {"causation_id": str(cause)})}
        await store.append(stream, [NewEvent(f"Step{at}", {"at": at}, metadata, event_id)])
        await store.append("other-1", [NewEvent("Other", {}, {field: str(uuid4())})])
        cause = cause or event_id


def trail(app: Explorer) -> TrailPane:
    return app.query(TrailPane).first()


async def opened(app: Explorer, pilot: Pilot[None]) -> None:
    await until(pilot, lambda: trail(app).trail is not None and trail(app).table.has_focus, "for the trail")


async def test_from_a_stream_to_the_trail_into_another_stream(dsn18: str, store18: EventStore) -> None:
    await shop(store18)
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("down", "enter")
        await until(
            pilot, lambda: browse(app).events_panel.stream_id == "order-1" and browse(app).events.row is not None
        )
        await pilot.press("end")
        await until(pilot, lambda: browse(app).event_at_hand() == 7)
        await pilot.press("t")
        await opened(app, pilot)
        assert [row.rails for row in trail(app).table.rows] == ["● ", "├─ ", "├─ ", "└─ "]
        assert trail(app).event_at_hand() == 7
        assert "correlation_id checkout" in text_of(app)
        assert "4 events of 2 streams" in text_of(app)
        await pilot.press("s")
        assert [row.rails for row in trail(app).table.rows] == [""] * 4

        await pilot.press("escape")
        await until(pilot, lambda: browse(app).events.has_focus and not app.query(TrailPane), "for the way back")
        assert browse(app).event_at_hand() == 7

        await pilot.press("t")
        await opened(app, pilot)
        await pilot.press("home", "down", "enter")
        await until(
            pilot, lambda: browse(app).events_panel.stream_id == "payment-1" and browse(app).event_at_hand() == 3
        )
        assert not app.query(TrailPane)


async def test_from_the_feed_with_another_convention_in_a_small_terminal(dsn18: str, store18: EventStore) -> None:
    await shop(store18, "$correlationId")
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.rows)
        await pilot.press("home", "t")
        await opened(app, pilot)
        assert [row.node.event.global_seq for row in trail(app).table.rows] == [1, 3, 5, 7]
        assert "Step0" in text_of(app)
        assert all(len(line) == 80 for line in lines_of(app))
        await pilot.press("4")
        await until(pilot, lambda: not app.query(TrailPane) and "last visible" in text_of(app))
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.has_focus)
