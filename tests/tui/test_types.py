"""Screen Types, and what happened lately."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from esx.filters import Filter
from esx.model import NewEvent
from esx.tui.screens.summary import SummaryPane
from esx.tui.screens.types import TypesPane
from tests.tui.helpers import browse, explorer, lines_of, text_of, until

if TYPE_CHECKING:
    import asyncpg
    from textual.pilot import Pilot

    from esx.eventstore import EventStore
    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow


async def shop(store: EventStore) -> None:
    """Orders, of which the later ones have a discount, and a cart."""
    for number in range(30):
        data = {"total": number, "items": [{"sku": "tea"}], **({"discount": 1} if number >= 20 else {})}
        await store.append(f"orders-{number}", [NewEvent("OrderPlaced", data), NewEvent("Paid", {"at": number})])
    await store.append("carts-1", [NewEvent("Cart[made]", {"n": 1})])


def types_of(app: Explorer) -> TypesPane:
    return app.query(TypesPane).first()


def lately(app: Explorer) -> SummaryPane:
    return app.query(SummaryPane).first()


async def types_read(app: Explorer, pilot: Pilot[None]) -> None:
    await pilot.press("6")
    await until(pilot, lambda: types_of(app).types.rows and types_of(app).types.has_focus, "for the types")


async def test_types_with_the_shape_of_their_data_lead_to_their_events(dsn18: str, store18: EventStore) -> None:
    await shop(store18)
    async with explorer(dsn18) as (app, pilot):
        await types_read(app, pilot)
        pane = types_of(app)
        assert [one.summary.event_type for one in pane.types.rows] == ["OrderPlaced", "Paid", "Cart[made]"]
        await until(pilot, lambda: [path.path for path in pane.shape.paths.rows][:1] == ["$.discount"])
        line = next(line for line in lines_of(app) if "$.discount" in line)
        assert "33%" in line
        assert "since" in line
        assert "all 61 events" in text_of(app)
        assert ["1 path, " in line for line in lines_of(app)[3:6]] == [True, False, False], "only orders changed"

        assert "types by count · 3 · 1 changed shape" in text_of(app)
        await pilot.press("s", "s")
        assert [one.summary.event_type for one in pane.types.rows] == ["Cart[made]", "OrderPlaced", "Paid"]
        await pilot.press("s")
        assert [one.summary.event_type for one in pane.types.rows] == ["Cart[made]", "Paid", "OrderPlaced"]

        await pilot.press("slash", *"cart", "enter")
        await until(pilot, lambda: [one.summary.event_type for one in pane.types.rows] == ["Cart[made]"])
        await until(pilot, lambda: pane.types.has_focus and [path.path for path in pane.shape.paths.rows] == ["$.n"])
        await pilot.press("escape")
        await until(pilot, lambda: len(pane.types.rows) == 3)

        # From a path, and from a type, to their events.
        await pilot.press("s", "s")
        await until(pilot, lambda: pane.types.has_focus and pane.types.rows[0].summary.event_type == "OrderPlaced")
        await pilot.press("home")
        await until(pilot, lambda: [path.path for path in pane.shape.paths.rows][:1] == ["$.discount"])
        await pilot.press("right", "enter")
        await until(pilot, lambda: browse(app).events_panel.filter.where == "exists($.discount)")
        await until(pilot, lambda: len(browse(app).events.rows) == 10 and browse(app).events.has_focus)

        await pilot.press("6", "left", "end", "enter")
        await until(pilot, lambda: [row.event_type for row in browse(app).events.rows] == ["Cart[made]"])
        await pilot.press("escape")
        await until(pilot, lambda: len(browse(app).events.rows) == 61)


async def test_types_whose_shape_changed_come_first_by_one_key_however_many_there_are(
    dsn18: str, store18: EventStore
) -> None:
    await shop(store18)
    for kind in range(60):
        await store18.append(f"many-{kind}", [NewEvent(f"Kind{kind:02}", {"n": n}) for n in range(40)])
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        await types_read(app, pilot)
        await until(pilot, lambda: "63 · 1 changed shape" in text_of(app), "for the count, before any of it is seen")
        assert "1 path, " not in text_of(app)
        await pilot.press("s", "g")
        await until(pilot, lambda: "types changed first" in text_of(app) and "1 path, " in text_of(app))
        assert types_of(app).types.rows[0].summary.event_type == "OrderPlaced"


async def test_a_sample_says_what_it_may_lack_and_all_can_be_counted(dsn18: str, sql18: asyncpg.Connection) -> None:
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT 's-' || n, 0, CASE WHEN n = 6000 THEN 'Rare' ELSE 'Usual' END, '{}' FROM generate_series(1, 12000) n"
    )
    async with explorer(dsn18) as (app, pilot):
        await types_read(app, pilot)
        await until(pilot, lambda: "may be missing · m counts all" in text_of(app))
        await pilot.press("m")
        await until(pilot, lambda: "all 12,000 events" in text_of(app))
        found = {one.summary.event_type: one.summary.events.text for one in types_of(app).types.rows}
        assert found == {"Usual": "11,999", "Rare": "1"}
        await sql18.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('n-1', 0, 'New', '{}')"
        )
        await until(pilot, lambda: "1 newer, r reads them" in text_of(app))
        await pilot.press("r")
        await until(pilot, lambda: len(types_of(app).types.rows) == 3)


async def test_what_happened_lately(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    await shop(store18)
    await sql18.execute("UPDATE events SET created_at = now() - interval '15 min' WHERE event_type = 'Paid'")
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("W")
        await until(pilot, lambda: lately(app).table.rows and lately(app).table.has_focus)
        rows = [(row.category, row.event_type, row.events, row.before, row.change) for row in lately(app).table.rows]
        assert rows == [
            ("orders", None, "30", "30", "="),
            ("orders", "OrderPlaced", "30", "0", "new"),
            ("orders", "Paid", "0", "30", "none now"),
            ("carts", None, "1", "0", "new"),
            ("carts", "Cart[made]", "1", "0", "new"),
        ]
        assert "31 events, 30 in the 10 min before" in text_of(app)

        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "30 events, 0 in the 10 min before" in text_of(app))
        await pilot.press("right_square_bracket", "W")
        await until(pilot, lambda: "61 events, 0 in the 1 h before" in text_of(app))

        await pilot.press("f", *"carts-* since:-2h", "enter")
        await until(pilot, lambda: "1 event, 0 in the 2 h before" in text_of(app))
        assert lately(app).where == Filter(stream="carts-*", any_case=True)
        assert lately(app).length == timedelta(hours=2)
        await pilot.press("end", "enter")
        await until(pilot, lambda: [row.event_type for row in browse(app).events.rows] == ["Cart[made]"])
        assert not app.query(SummaryPane)

        # There is no window before the first time.
        await pilot.press("W")
        await until(pilot, lambda: lately(app).table.rows)
        await pilot.press("f", *"since:0900-01-01", "enter")
        await until(pilot, lambda: lately(app).length > timedelta(days=400_000) and lately(app).table.has_focus)
        await until(pilot, lambda: lately(app).table.problem, "for the window before, which has no start")
        await pilot.press("left_square_bracket", "left_square_bracket", "W")
        await until(pilot, lambda: lately(app).length == timedelta(minutes=10) and lately(app).table.rows)


async def test_a_category_leads_to_its_events_and_esc_back(dsn18: str, store18: EventStore) -> None:
    await shop(store18)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        await pilot.press("W")
        await until(pilot, lambda: lately(app).table.rows)
        assert all(len(line) == 80 for line in lines_of(app))
        await pilot.press("home", "enter")
        await until(pilot, lambda: browse(app).events_panel.filter.stream == "orders-*")
        await until(pilot, lambda: len(browse(app).events.rows) == 60)
        since = browse(app).events_panel.filter.since
        assert since is not None
        assert datetime.now(UTC) - since < timedelta(minutes=15)
        await pilot.press("W")
        await until(pilot, lambda: lately(app).table.rows)
        await pilot.press("escape")
        await until(pilot, lambda: not app.query(SummaryPane) and browse(app).events.has_focus)
