"""Finding events by a filter, and going to a place in their list."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from esx import times
from esx.eventstore import EventStore
from esx.model import NewEvent
from esx.store.bulk.copy import ImportedEvent
from esx.store.read.order_check import LOOK
from esx.store.search.plan import SearchLimits
from tests.tui.helpers import browse, explorer, feed_of, text_of, until

if TYPE_CHECKING:
    import pytest
    from textual.pilot import Pilot

    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow

START = datetime(2026, 8, 7, 12, tzinfo=UTC)


async def fill(store: EventStore, events: int = 3000, *, stream: str = "long", at: datetime = START) -> None:
    """Events of a stream, a minute apart, every hundredth of them rare."""
    types = ["Usual"] * 99 + ["Rare"]
    await store.import_events(
        ImportedEvent(stream, n, types[n % 100], f'{{"n": {n}}}', None, at + timedelta(minutes=n), uuid4())
        for n in range(events)
    )


async def find(pilot: Pilot[None], text: str) -> None:
    app = pilot.app
    await pilot.press("f")
    await until(pilot, lambda: browse(app).events_panel.line.line.has_focus)  # type: ignore[arg-type]
    browse(app).events_panel.line.line.value = text  # type: ignore[arg-type]
    await pilot.press("enter")


def numbers(app: Explorer) -> list[int]:
    return [row.global_seq for row in browse(app).events.rows]


async def test_where_no_type_matches_those_like_it_are_named(dsn18: str, store18: EventStore) -> None:
    await fill(store18)
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("a")
        await until(pilot, lambda: len(browse(app).events.rows) >= 100)
        for _ in range(2):
            await find(pilot, "type:Usaul")
            await until(pilot, lambda: "no type that is known is Usaul: did you mean Usual?" in text_of(app))
            await find(pilot, "type:Usual $.n > 9000")
            await until(pilot, lambda: "no event passes the filter" in text_of(app) and "mean" not in text_of(app))


async def test_events_are_found_by_type_and_path_and_shown_again(dsn18: str, store18: EventStore) -> None:
    await fill(store18)
    async with explorer(dsn18) as (app, pilot):
        events = browse(app).events
        await pilot.press("a")
        await until(pilot, lambda: len(events.rows) >= 100)
        await pilot.press("f", *"type:rar")
        await pilot.press("right")
        await until(pilot, lambda: browse(app).events_panel.line.line.value == "type:Rare", "for the completed type")
        await pilot.press("enter")
        await until(pilot, lambda: numbers(app) == list(range(3000, 0, -100)), "for what is rare")
        await until(pilot, lambda: "$all · newest first · type:Rare" in text_of(app) and "30 found" in text_of(app))
        assert events.has_focus
        await find(pilot, "type:R* $.n < 250")
        await until(pilot, lambda: numbers(app) == [200, 100])
        await pilot.press("b")
        await until(pilot, lambda: numbers(app) == [100, 200] and "oldest first · type:R* $.n < 250" in text_of(app))
        # The filter stays when another list is opened, and the event found stays in sight when it goes.
        await pilot.press("left", "down")
        await until(pilot, lambda: browse(app).events_panel.stream_id == "long" and numbers(app) == [100, 200])
        await pilot.press("right", "down", "escape")
        await until(pilot, lambda: len(events.rows) >= 100 and events.row is not None and events.row.global_seq == 200)
        assert "$.n < 250" not in text_of(app)


async def test_a_word_is_a_stream_among_all_events_and_a_type_among_those_of_a_stream(
    dsn18: str, store18: EventStore
) -> None:
    await fill(store18, 200)
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("a")
        await until(pilot, lambda: len(browse(app).events.rows) >= 100)
        await find(pilot, "rar*")
        await until(pilot, lambda: "rar* without a key is a stream: did you mean type:rar*?" in text_of(app))
        await find(pilot, "lon* type:rar*")
        await until(pilot, lambda: numbers(app) == [200, 100])
        await pilot.press("escape", "left", "down")
        await until(pilot, lambda: browse(app).events_panel.stream_id == "long" and len(numbers(app)) >= 100)
        await pilot.press("right", "slash")
        await until(pilot, lambda: browse(app).events_panel.line.line.has_focus, "for the same line by another key")
        await pilot.press(*"rar*", "enter")
        await until(pilot, lambda: numbers(app) == [100, 200])


async def test_all_that_mentions_a_stream_or_a_value_is_found_by_one_key(dsn18: str, store18: EventStore) -> None:
    await store18.append("accounts-1092", [NewEvent("Opened", {"owner": "ann"})])
    await store18.append("carts-1", [NewEvent("Made", {"customer": 1092})])
    await store18.append("carts-2", [NewEvent("Made", {"customer": 21092})])
    await store18.append("mails-1", [NewEvent("Sent", {"n": 1}, {"user": "accounts-1092"})])
    await store18.append("mails-2", [NewEvent("Sent", {"n": 1}, {"user": "Ann"})])
    async with explorer(dsn18) as (app, pilot):
        await until(pilot, lambda: len(browse(app).streams.rows) == 6)
        await pilot.press("A")
        await until(pilot, lambda: "choose a stream, an event, or a value" in text_of(app))
        await pilot.press("down", "A")
        await until(pilot, lambda: numbers(app) == [4, 2, 1] and "$all · newest first · mentions:1092" in text_of(app))
        assert browse(app).events.has_focus
        # The value under the cursor of an event; what the command prints is the same.
        await pilot.press("G", "right")
        await until(pilot, lambda: browse(app).detail.has_focus and '"ann"' in text_of(app))
        await pilot.press("down")
        await until(pilot, lambda: browse(app).detail.text_at_cursor == "ann")
        await pilot.press("A")
        await until(pilot, lambda: numbers(app) == [5, 1] and "mentions:ann" in text_of(app))
        assert browse(app).events_panel.view().arguments([])[-2:] == ["$all", "mentions:ann"]
        # From the feed: the stream of the event under the cursor.
        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 5)
        await pilot.press("g", "A")
        await until(pilot, lambda: numbers(app) == [4, 2, 1])


async def test_what_a_key_would_search_for_long_is_asked_first(
    dsn18: str, store18: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventStore, "search_limits", SearchLimits(large=0.0))
    await fill(store18, 300, stream="long-7")
    async with explorer(dsn18) as (app, pilot):
        await until(pilot, lambda: len(browse(app).streams.rows) == 2)
        await pilot.press("down", "A")
        line = browse(app).events_panel.line
        await until(pilot, lambda: line.line.has_focus and "enter runs it" in text_of(app), "for the question")
        assert "looks at" in text_of(app)
        assert line.line.value == "mentions:7"
        await pilot.press("enter")
        await until(pilot, lambda: browse(app).events.has_focus and "100 found in 100 of 300" in text_of(app))


async def test_what_is_wrong_with_a_filter_is_said_under_it(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 3)
    async with explorer(dsn18) as (app, pilot):
        for text, reason in (
            ("$.a >", "> needs a value"),
            ("$.a > (", "'$.a > (' is not a JSONPath that PostgreSQL takes"),
            ("Rare amount", "a second stream"),
            ("[a", "has a [ without"),
        ):
            await find(pilot, text)
            await until(pilot, lambda: reason in text_of(app), reason)  # noqa: B023
            assert browse(app).events_panel.line.line.has_focus
            await pilot.press("escape")
        await until(pilot, lambda: browse(app).events.has_focus)
        assert len(browse(app).events.rows) == 3


async def test_a_large_search_asks_first_shows_how_far_it_is_and_can_be_stopped(
    dsn18: str, store18: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store18, 20_000)
    may_go_on = asyncio.Event()
    read_slice = EventStore.search_previews

    async def halting(self: EventStore, *given: Any, before: int | None = None, **options: Any) -> Any:
        if before is not None and before < 10_000:
            await may_go_on.wait()
        return await read_slice(self, *given, before=before, **options)

    monkeypatch.setattr(EventStore, "search_previews", halting)
    async with explorer(dsn18) as (app, pilot):
        assert app.session.store is not None
        app.session.store.search_limits = SearchLimits(large=0.01, slice=2_000)
        pane, events = browse(app), browse(app).events
        await pilot.press("a")
        await until(pilot, lambda: len(events.rows) >= 100)
        await find(pilot, "$.n < 5")
        await until(pilot, lambda: "enter runs it" in text_of(app), "for the cost")
        shown = text_of(app)
        assert "this looks at ~" in shown
        assert "CREATE INDEX" in shown
        await pilot.press("escape")
        assert not pane.events_panel.filter
        assert len(events.rows) >= 100
        await find(pilot, "$.n < 5")
        await until(pilot, lambda: "enter runs it" in text_of(app), "for the cost again")
        await pilot.press("enter")
        await until(
            pilot,
            lambda: "esc stops" in text_of(app) and events.window is not None and events.window.looked > 0,
            "for the search to have looked at some",
        )
        await pilot.press("escape")
        await until(pilot, lambda: "stopped: 0 found in" in text_of(app), "for it to stop")
        assert events.window is not None
        assert 0 < events.window.looked < 20_000
        may_go_on.set()
        await pilot.press("r")
        await until(pilot, lambda: numbers(app) == [5, 4, 3, 2, 1], "for the last to be found")
        assert events.window.looked == 20_000
        await pilot.press("escape")
        await until(pilot, lambda: len(events.rows) >= 5 and "where:" not in text_of(app))


async def test_go_to_a_number_a_global_number_and_a_time(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 7, stream="before", at=START - timedelta(days=1))
    await fill(store18)
    times.show_times_in(UTC)
    try:
        async with explorer(dsn18) as (app, pilot):
            events = browse(app).events

            async def go(text: str) -> None:
                await pilot.press("colon")
                await until(pilot, lambda: browse(app).events_panel.line.line.has_focus)
                browse(app).events_panel.line.line.value = text
                await pilot.press("enter")

            def at(number: int) -> bool:
                row = events.row
                shown = events.scroll_offset.y <= events.cursor < events.scroll_offset.y + events.body_height
                return row is not None and row.stream_seq == number and row.stream == "long" and shown

            for key in ("a", "b"):
                # Newest first, then oldest first.
                await pilot.press(key)
                await until(pilot, lambda: events.rows and not events.busy)
                await go("1,500")
                await until(pilot, lambda: at(1500 - 8), "for a global_seq")
                await go("2026-08-07 13:30")
                await until(pilot, lambda: at(90), "for a time")
                assert events.has_focus
            await pilot.press("left", "end")
            await until(pilot, lambda: browse(app).events_panel.stream_id == "long" and not events.busy)
            await go("2999")
            await until(pilot, lambda: at(2999), "for a stream_seq")
            await go("#8")
            await until(pilot, lambda: at(0), "for a global_seq in a stream")
            await go("2030-01-01")
            await until(pilot, lambda: at(2999) and "ends before" in text_of(app), "for the end")
            await go("soon")
            await until(pilot, lambda: "'soon' is neither a position nor a time" in " ".join(text_of(app).split()))
            await pilot.press("escape")
            await until(pilot, lambda: events.has_focus and at(2999))
    finally:
        times.show_times_in(None)


async def test_going_to_a_time_says_what_is_not_certain(dsn18: str, store18: EventStore) -> None:
    """Older events that were imported last: the first event of a time is found, or the answer says it is uncertain."""
    await fill(store18, 1500)
    await fill(store18, 6000, stream="old", at=START - timedelta(days=30))
    times.show_times_in(UTC)
    try:
        async with explorer(dsn18) as (app, pilot):
            events = browse(app).events
            await pilot.press("a")
            await until(pilot, lambda: events.rows and not events.busy)
            assert app.session.store is not None
            for look, said in ((LOOK, False), (0.0, True)):
                app.session.store.search_limits = SearchLimits(look=look)
                await pilot.press("colon")
                await until(pilot, lambda: browse(app).events_panel.line.line.has_focus)
                browse(app).events_panel.line.line.value = "2026-08-07 12:30"
                await pilot.press("enter")
                await until(pilot, lambda: events.has_focus and events.row is not None)
                if said:
                    await until(pilot, lambda: "times do not rise" in text_of(app), "for the doubt")
                else:
                    await until(pilot, lambda: events.row is not None and events.row.global_seq == 31, "for the event")
                    assert "times do not rise" not in text_of(app)
    finally:
        times.show_times_in(None)
