from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx.model import JsonText, NewEvent
from esx.tui.lists import pagedlist
from tests.tui.helpers import browse, explorer, fill, ids, lines_of, text_of, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from esx.eventstore import EventStore
    from esx.tui.app import Explorer
    from esx.tui.lists.pagedlist import PagedList

pytestmark = pytest.mark.slow


async def test_streams_events_and_json(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 3, 4)
    async with explorer(dsn18) as (app, pilot):
        pane = browse(app)
        # All events are the first row, the newest first.
        await until(pilot, lambda: [row.global_seq for row in pane.events.rows] == list(range(12, 0, -1)))
        assert "$all · newest first" in text_of(app)
        assert ids(app) == ["s-000", "s-001", "s-002"]

        # The focus moves between the parts.
        for key, part in (("l", pane.events), ("right", pane.detail), ("h", pane.events), ("left", pane.streams)):
            await pilot.press(key)
            assert part.has_focus, key
        await pilot.press("tab")
        assert pane.events.has_focus
        await pilot.press("shift+tab", "l", "l", "z")
        await until(pilot, lambda: not pane.streams.region and pane.detail.size.width > 100)
        await pilot.press("z")
        await until(pilot, lambda: pane.streams.region)
        await pilot.press("h", "h")

        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: browse(app).events_panel.stream_id == "s-001" and len(browse(app).events.rows) == 4)
        assert browse(app).events.has_focus
        await pilot.press("down", "down")
        await until(pilot, lambda: (event := browse(app).detail.event) and event.stream_seq == 2, "for the event")
        event = browse(app).detail.event
        assert event is not None
        shown = text_of(app)
        assert str(event.event_id) in shown
        for piece in (
            "global_seq 7",
            "stream_id  s-001",
            '"at": 2',
            '"user": "ann"',
            "Type2",
            "s-001 · oldest first",
        ):
            assert piece in shown, piece
        await pilot.press("b")
        await until(pilot, lambda: [row.stream_seq for row in browse(app).events.rows] == [3, 2, 1, 0])
        await pilot.press("a")
        await until(pilot, lambda: browse(app).events_panel.stream_id is None and len(browse(app).events.rows) == 12)
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard)
        assert json.loads(app.clipboard)["stream_id"] == "s-002"


async def test_ages_grow_where_they_stand(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    await store18.append("s-1", [NewEvent("T", {"at": 1})])
    await sql18.execute("UPDATE events SET created_at = now() - interval '55 s'")
    async with explorer(dsn18) as (app, pilot):
        streams, events = browse(app).streams, browse(app).events
        await until(pilot, lambda: streams.rows and events.rows and browse(app).detail.event is not None)

        def drawn(table: PagedList[Any, Any]) -> str:
            """Return what is on screen where the list draws its ages again, without the rest of its lines."""
            [region] = table._age_regions()
            place = region.translate(table.region.offset)
            return " ".join(
                line[place.x : place.right].strip() for line in lines_of(app)[place.y : place.bottom]
            ).strip()

        assert re.fullmatch(r"\d+[sm]", drawn(streams))
        assert re.fullmatch(r"\d+[sm]", drawn(events))
        await until(pilot, lambda: (drawn(streams), drawn(events)) == ("1m", "1m"), "for a minute")
        await until(pilot, lambda: "1m ago" in text_of(app), "for the age in the event")


async def test_a_long_stream(dsn18: str, store18: EventStore) -> None:
    await store18.append("long", [NewEvent("T", {"n": n}) for n in range(5000)])
    async with explorer(dsn18) as (app, pilot):
        events = browse(app).events
        await until(pilot, lambda: browse(app).detail.event is not None and "n 4999" in text_of(app), "for all of it")
        await pilot.pause()
        await pilot.click("#streams", offset=(3, 2))
        await until(pilot, lambda: browse(app).events_panel.stream_id == "long" and len(events.rows) >= 100)
        await pilot.click("#events", offset=(3, 5))
        assert events.cursor == 4
        await pilot.click("#streams", offset=(3, 2), times=2)
        assert events.has_focus
        await until(pilot, lambda: events.length == 5000, "for the length")
        assert len(events.rows) < 1000
        await its_ends_are_one_key_away(app, pilot)
        await the_scrollbar_spans_all_of_it(app, pilot)
        await a_refresh_and_a_resize_stay_where_they_are(app, pilot)
        await rows_that_are_let_go_do_not_move_the_cursor(app, pilot)


async def its_ends_are_one_key_away(app: Explorer, pilot: Pilot[None]) -> None:
    events = browse(app).events
    await pilot.press("end")
    await until(pilot, lambda: events.row and events.row.stream_seq == 4999, "for the last event")
    assert len(events.rows) < 1000
    await until(pilot, lambda: "seq 4,999 of 4,999" in text_of(app))
    for _ in range(5):
        await pilot.press("pageup")
    await until(pilot, lambda: events.row and events.row.stream_seq == 4999 - 5 * (events.body_height - 1))
    await pilot.press("home")
    await until(pilot, lambda: events.row and events.row.stream_seq == 0, "for the first event")
    assert events.scroll_offset.y == 0


async def the_scrollbar_spans_all_of_it(app: Explorer, pilot: Pilot[None]) -> None:
    events = browse(app).events
    events.scroll_to(y=2500)
    await until(pilot, lambda: events.row and events.row.stream_seq == 2500, "for the middle")
    await pilot.press("down")
    assert events.row is not None
    assert events.row.stream_seq == 2501
    bar = events.vertical_scrollbar.region
    await pilot.mouse_down(offset=(bar.x, bar.bottom - 1))
    await pilot.mouse_up(offset=(bar.x, bar.bottom - 1))
    await until(pilot, lambda: events.row and events.row.stream_seq >= 4950, "for the end")
    assert events.length == 5000
    # A key during a jump counts from the target of the jump.
    events.scroll_to(y=1000)
    await pilot.press("down")
    await until(pilot, lambda: events.row and events.row.stream_seq == 1001, "for the row after")


async def a_refresh_and_a_resize_stay_where_they_are(app: Explorer, pilot: Pilot[None]) -> None:
    events, before = browse(app).events, app.size
    for _ in range(5):
        await pilot.press("pagedown")
    await until(pilot, lambda: not events.busy)
    row, line = events.row, events.cursor - events.scroll_offset.y
    await pilot.press("r")
    await until(pilot, lambda: not events.busy)
    assert (events.row, events.cursor - events.scroll_offset.y) == (row, line)
    height = events.body_height
    await pilot.resize_terminal(80, 24)
    await until(pilot, lambda: events.body_height < height and events.cursor - events.scroll_offset.y >= 0)
    await until(pilot, lambda: events.cursor - events.scroll_offset.y < events.body_height)
    assert events.row == row
    await pilot.resize_terminal(*before)
    await until(pilot, lambda: events.body_height == height)


async def rows_that_are_let_go_do_not_move_the_cursor(app: Explorer, pilot: Pilot[None]) -> None:
    events = browse(app).events
    await pilot.press("home")
    await until(pilot, lambda: events.row and events.row.stream_seq == 0 and not events.busy)
    assert events.window is not None
    events.window.most = 450
    page = events.body_height - 1
    for key, by in (("pagedown", page), ("pageup", -page)):
        for _ in range(14):
            before = events.row
            assert before is not None
            await pilot.press(key)
            await until(pilot, lambda: not events.busy)
            assert events.row is not None
            assert events.row.stream_seq == max(before.stream_seq + by, 0)
            assert len(events.rows) <= 450
            assert events.scroll_offset.y <= events.cursor < events.scroll_offset.y + events.body_height


async def test_filter_by_prefix_and_glob(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 30, 1)
    await store18.append("order-1", [NewEvent("T")])
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("slash", *"ord")
        await until(pilot, lambda: ids(app) == ["order-1"])
        await pilot.press("enter")
        assert browse(app).streams.has_focus
        await until(pilot, lambda: browse(app).events_panel.stream_id == "order-1")
        await pilot.press("escape")
        await until(pilot, lambda: len(ids(app)) == 31)
        await pilot.press("slash", *"*-0?1")
        await until(pilot, lambda: ids(app) == ["s-001", "s-011", "s-021"])
        await pilot.press("escape", "slash", "[")
        await until(pilot, lambda: "without its" in text_of(app), "for the reason")
        await pilot.press("escape", "slash", *"er-1")
        await until(pilot, lambda: "no id starts with er-1" in text_of(app))
        # If no id starts with the text, some may contain it.
        await pilot.press("enter")
        await until(pilot, lambda: ids(app) == ["order-1"])
        assert "~er-1" in text_of(app)


@pytest.mark.parametrize("order", ["by name", "by activity", "by category"])
async def test_escape_takes_the_filter_away_and_keeps_the_row(order: str, dsn18: str, store18: EventStore) -> None:
    await fill(store18, 250, 1)
    async with explorer(dsn18) as (app, pilot):
        table = browse(app).streams

        def under_the_cursor() -> str | None:
            return None if table.row is None or table.row.summary is None else table.row.summary.stream_id

        if order != "by name":
            await pilot.press("s" if order == "by activity" else "c")
            await until(pilot, lambda: order in text_of(app))
        await pilot.press("slash", *"s-1", "enter")
        await until(pilot, lambda: len(ids(app)) == 100 and table.has_focus)
        await pilot.press("down", "down", "down")
        chosen = under_the_cursor()
        await until(pilot, lambda: browse(app).events_panel.stream_id == chosen)
        await pilot.press("escape")
        await until(pilot, lambda: "s-200" in ids(app) and "s-099" in ids(app), "for the streams around it")
        assert under_the_cursor() == chosen
        assert browse(app).events_panel.stream_id == chosen
        await pilot.press("up")
        await until(pilot, lambda: browse(app).events_panel.stream_id != chosen)
        assert under_the_cursor() == ("s-197" if order == "by activity" else "s-102")


async def test_escape_ends_a_search_in_postgresql_too(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 30, 1)
    connection = await asyncpg.connect(dsn18)
    searches = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%RECURSIVE ids%' AND wait_event_type = 'Lock'"
    async with explorer(dsn18) as (app, pilot):
        table = browse(app).streams
        async with connection.transaction():
            await connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            await pilot.press("slash", *"~-00", "enter")
            await until(pilot, lambda: table.busy)
            while not await connection.fetchval(searches):
                await pilot.pause(0.02)
            await pilot.press("escape")
            await until(pilot, lambda: not table.busy, "for the search to end")
            while await connection.fetchval(searches):
                await pilot.pause(0.02)
        await pilot.press("escape")
        await until(pilot, lambda: len(ids(app)) == 30, "for all streams again")
        await pilot.press("slash", *"~-00")
        await until(pilot, lambda: "10 found" in text_of(app))
        assert len(ids(app)) == 10
    await connection.close()


async def test_categories(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 3, 2)
    await store18.append("order-1", [NewEvent("T")])
    async with explorer(dsn18) as (app, pilot):
        table = browse(app).streams

        def labels() -> list[str]:
            return [row.label for row in table.rows]

        await pilot.press("c")
        await until(pilot, lambda: labels() == ["$all", "▸ order", "▸ s"])
        assert "streams by category" in text_of(app)
        await pilot.press("down", "down", "right")
        await until(pilot, lambda: labels() == ["$all", "▸ order", "▾ s", "  s-000", "  s-001", "  s-002"])
        await pilot.press("down", "down")
        await until(pilot, lambda: browse(app).events_panel.stream_id == "s-001")
        assert table.has_focus
        await pilot.press("left")
        await until(pilot, lambda: labels() == ["$all", "▸ order", "▸ s"] and table.cursor == 2)
        await pilot.press("enter")
        await until(pilot, lambda: len(labels()) == 6)
        await pilot.press("up", "right")
        await until(pilot, lambda: labels()[1:3] == ["▾ order", "  order-1"])
        # A key that has nothing to open moves to the next part, as everywhere.
        await pilot.press("right")
        await until(pilot, lambda: browse(app).events.has_focus)
        await pilot.press("c")
        await until(pilot, lambda: ids(app) == ["order-1", "s-000", "s-001", "s-002"])


async def test_streams_by_activity(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 5, 1)
    await store18.append("s-002", [NewEvent("Late")])
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("s")
        await until(pilot, lambda: ids(app) == ["s-002", "s-004", "s-003", "s-001", "s-000"])
        assert "streams by activity" in text_of(app)
        await until(pilot, lambda: app.follower.listening)
        await pilot.press("down", "down")
        await until(pilot, lambda: browse(app).events_panel.stream_id == "s-004")
        await store18.append("s-000", [NewEvent("Late")])
        await store18.append("s-001", [NewEvent("Late")])
        # It follows by itself while its top is on screen, and the cursor stays on its stream.
        await until(pilot, lambda: ids(app) == ["s-001", "s-000", "s-002", "s-004", "s-003"])
        row = browse(app).streams.row
        assert row is not None
        assert row.label == "s-004"
        assert "newer" not in str(browse(app).streams_panel.border_subtitle)


@pytest.mark.parametrize("keys", ["", "s", "c"], ids=["by name", "by activity", "by category"])
async def test_a_list_follows_at_its_top_and_else_says_what_is_newer(
    keys: str, dsn18: str, store18: EventStore
) -> None:
    await fill(store18, 60, 1)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        streams, panel = browse(app).streams, browse(app).streams_panel
        await pilot.press(*keys)
        await until(pilot, lambda: app.follower.listening and streams.window is not None and streams.window.loaded)
        if keys == "c":
            await until(pilot, lambda: "▸ s" in text_of(app))
            await pilot.press("down", "right")
            await until(pilot, lambda: "s-000" in text_of(app))
        counts = {row.summary.stream_id: row.summary.events for row in streams.rows if row.summary is not None}
        assert counts.get("s-050", 1) == 1
        await store18.append("s-001", [NewEvent("Late"), NewEvent("Late")])
        await until(
            pilot,
            lambda: (
                any(row.summary is not None and row.summary.events == 3 for row in streams.rows_on_screen)
                and streams.lit
            ),
            "for the new count, lit",
        )
        assert all(row.summary is not None and row.summary.stream_id == "s-001" for row in streams.lit)
        await until(pilot, lambda: not streams.lit, "for a second to pass")
        # Away from the top nothing moves, but it is said.
        await pilot.press("pagedown", "pagedown")
        await until(pilot, lambda: streams.scroll_offset.y > 0)
        top = streams.top_row
        await store18.append("s-002", [NewEvent("Late")])
        await until(pilot, lambda: "1 newer, r reads them" in str(panel.border_subtitle), "for what is newer")
        assert streams.top_row == top
        await pilot.press("r")
        await until(pilot, lambda: "newer" not in str(panel.border_subtitle))
        await store18.append("s-003", [NewEvent("Late")])
        await until(pilot, lambda: "1 newer" in str(panel.border_subtitle))
        await pilot.press("home")
        await until(pilot, lambda: "newer" not in str(panel.border_subtitle) and streams.at_top)


@pytest.mark.parametrize("keys", ["", "a"])
async def test_a_list_that_rests_after_a_slow_reading_says_what_is_newer(
    keys: str, dsn18: str, store18: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagedlist, "_STALE", 0.0)
    monkeypatch.setattr(pagedlist, "_FOLLOW", 3600.0)
    monkeypatch.setattr(pagedlist, "_LONGEST_REST", 3600.0)
    await fill(store18, 3, 1)
    async with explorer(dsn18) as (app, pilot):
        table = browse(app).events if keys else browse(app).streams
        panel = browse(app).events_panel if keys else browse(app).streams_panel
        await until(pilot, lambda: app.follower.listening and browse(app).streams.rows)
        await pilot.press(*keys)
        await until(pilot, lambda: table.rows and table.at_top)
        # The first reading after it is the last one for an hour.
        await store18.append("s-001", [NewEvent("Late")])
        await until(pilot, lambda: table.as_of == 4)
        await store18.append("s-002", [NewEvent("Late")])
        await until(pilot, lambda: "1 newer, r reads them" in str(panel.border_subtitle))
        await pilot.press("r")
        await until(pilot, lambda: table.as_of == 5 and "newer" not in str(panel.border_subtitle))


async def test_events_follow_where_their_newest_is_on_screen(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 3)
    async with explorer(dsn18) as (app, pilot):
        events, panel = browse(app).events, browse(app).events_panel
        await until(pilot, lambda: app.follower.listening and len(events.rows) == 3)
        await store18.append("s-000", [NewEvent("Late")])
        await until(pilot, lambda: len(events.rows) == 4 and events.cursor == 0)
        await until(pilot, lambda: browse(app).event_at_hand() == 4, "for the newest in full")
        # While it is read in full, it stays.
        await pilot.press("l", "l")
        await until(pilot, lambda: browse(app).detail.has_focus)
        await store18.append("s-000", [NewEvent("Late")])
        await until(pilot, lambda: "1 newer, r reads them" in str(panel.border_subtitle))
        assert browse(app).event_at_hand() == 4
        # One stream, the oldest first: its end is on screen.
        await pilot.press("h", "h", "end", "enter")
        await until(pilot, lambda: panel.stream_id == "s-000" and len(events.rows) == 5)
        await store18.append("other", [NewEvent("T")])
        await store18.append("s-000", [NewEvent("Late")])
        await until(pilot, lambda: len(events.rows) == 6 and "seq 0 of 5" in str(panel.border_subtitle))


async def test_large_payloads(dsn18: str, store18: EventStore) -> None:
    rows = ", ".join(f'{{"i": {n}, "price": {n}.10}}' for n in range(30_000))
    await store18.append("big", [NewEvent("Huge", JsonText(f'{{"rows": [{rows}]}}'), {"after": "data"})])
    async with explorer(dsn18) as (app, pilot):
        detail = browse(app).detail
        await until(pilot, lambda: detail.event is not None, "for the event")
        assert '"price": 0.10' in text_of(app)
        await until(pilot, lambda: detail.document.laid_out, "for the layout")
        detail.focus()
        await pilot.press("end")
        await until(pilot, lambda: '"after": "data"' in text_of(app))


async def test_all_parts_are_there_at_any_size(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 40, 3)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        await pilot.press("down")
        await until(
            pilot, lambda: browse(app).events_panel.stream_id == "s-000" and browse(app).detail.event is not None
        )
        await until(pilot, lambda: '"of": 0' in text_of(app))
        # At first the feed polls, until its own connection is open.
        await until(pilot, lambda: "● live" in text_of(app) or "● connected, live" in text_of(app))
        for size in ((80, 24), (240, 70)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: len(lines_of(app)) == size[1] and '"of": 0' in text_of(app))  # type: ignore[misc]
            shown = text_of(app)
            for piece in (
                "1 Streams",
                "2 Feed",
                "3 Load",
                "4 Health",
                "s-003",
                "Type1",
                '"at": 0',
                "/ Filter",
                "q Quit",
            ):
                assert piece in shown, piece
            assert "live" in lines_of(app)[0]


async def test_a_list_says_what_is_newer_and_claims_no_events_that_are_none(dsn18: str, store18: EventStore) -> None:
    async with explorer(dsn18) as (app, pilot):
        await until(pilot, lambda: "no events" in text_of(app) and app.follower.listening)
        await store18.append("s-1", [NewEvent("T"), NewEvent("T")])
        await until(pilot, lambda: len(browse(app).events.rows) == 2, "for what came after an empty list")
        # While an event is read in full, its list does not move.
        await pilot.press("l", "l")
        await until(pilot, lambda: browse(app).detail.has_focus)
        connection = await asyncpg.connect(dsn18)
        await connection.execute("SELECT nextval('events_global_seq_seq')")
        await connection.close()
        await store18.append("s-1", [NewEvent("T")])
        await until(pilot, lambda: "up to 2 newer, r reads them" in text_of(app), "for one event and one dead number")


@pytest.mark.parametrize(("events", "title"), [(1, "~5,000"), (60, "more than 2,000")])
async def test_a_number_of_streams_is_told_only_where_it_is_not_far_off(dsn18: str, events: int, title: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) SELECT 's-' || n, m, 'T', '{}' "
        "FROM generate_series(1, $1::int) n, generate_series(1, $2::int) m ORDER BY m, n",
        5000 if events == 1 else 6000,
        events,
    )
    await connection.execute("ANALYZE events")
    await connection.close()
    async with explorer(dsn18) as (app, pilot):
        await until(pilot, lambda: f" {title} " in text_of(app), title)
        await pilot.press("c")
        short = "~5,000" if events == 1 else "2,001+"
        await until(pilot, lambda: re.search(rf"▸ s +{re.escape(short)}", text_of(app)), short)
