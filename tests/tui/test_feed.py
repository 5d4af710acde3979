from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from esx.model import NewEvent
from esx.tui.lists.feedlist import short_delay
from tests.tui.helpers import browse, explorer, feed_of, fill, lines_of, text_of, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg
    from textual.pilot import Pilot

    from esx.eventstore import EventStore
    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow


async def test_starts_with_what_was_there_and_shows_what_comes(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 4, 50)
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 100, "for the last hundred")
        assert [row.global_seq for row in feed_of(app).table.rows] == list(range(101, 201))
        assert app.follower.log.rates.known(app.follower.now) < 60, "events before these may be of that minute too"
        await store18.append("new-1", [NewEvent("JustHappened", {"hello": 1})])
        await until(pilot, lambda: "JustHappened" in text_of(app), "for the event")
        assert "safe position 201" in text_of(app)
        assert feed_of(app).table.row == feed_of(app).table.rows[-1]


async def test_what_comes_out_of_sight_and_in_a_pause_is_there_and_moving_up_stops_following(
    dsn18: str, store18: EventStore
) -> None:
    await fill(store18, 1, 3)
    async with explorer(dsn18) as (app, pilot):
        # While another screen is shown.
        await until(pilot, lambda: app.follower.log.received == 3)
        await fill(store18, 2, 10)
        await until(pilot, lambda: app.follower.log.received == 23)
        await pilot.press("2")
        table = feed_of(app).table
        await until(pilot, lambda: len(table.rows) == 23)
        # A pause counts.
        await pilot.press("space")
        await fill(store18, 2, 66)
        await until(pilot, lambda: "132 new" in text_of(app), "for the count")
        assert len(table.rows) == 23
        await pilot.press("space")
        await until(pilot, lambda: len(table.rows) == 155)
        await until(pilot, lambda: "155 received" in text_of(app))
        # Moving up stops following, and end follows again.
        await pilot.press("up", "up")
        row, top = table.row, table.scroll_offset.y
        await fill(store18, 2, 5)
        await until(pilot, lambda: len(table.rows) == 165)
        assert (table.row, table.scroll_offset.y) == (row, top)
        assert "not following" in text_of(app)
        await pilot.press("end")
        await store18.append("x", [NewEvent("T")])
        await until(pilot, lambda: len(table.rows) == 166)
        assert table.row == table.rows[-1]


async def test_an_event_in_full_and_a_type_that_is_not_known(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("OrderPlaced"), NewEvent("T", {"some": "payload"})])
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.rows)
        await pilot.press("enter")
        await until(pilot, lambda: '"some": "payload"' in text_of(app) and "global_seq" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: "global_seq" not in text_of(app))
        await pilot.press("f", *"type:OrderPlacd", "enter")
        await until(pilot, lambda: "did you mean OrderPlaced?" in text_of(app), "for the type like it")


async def test_a_gap_names_the_writer_that_holds_it(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    await fill(store18, 1, 3)
    pid = await sql18.fetchval("SELECT pg_backend_pid()")
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 3)
        transaction = sql18.transaction()
        await transaction.start()
        await sql18.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('held', 0, 'T', '{}')"
        )
        await store18.append("s-001", [NewEvent("T")])
        await until(pilot, lambda: f"waiting for 4, may be held by pid {pid}, open" in text_of(app), "for the gap")
        assert len(feed_of(app).table.rows) == 3
        await transaction.commit()
        await until(pilot, lambda: len(feed_of(app).table.rows) == 5)
        await until(pilot, lambda: "complete and in order" in text_of(app) and "1 late" in text_of(app))
        # The row itself tells for how long it was waited for.
        [delay] = app.follower.log.late.values()
        [line] = [line for line in lines_of(app)[1:] if " held " in line]
        assert short_delay(delay) in line


async def test_a_filter_is_refused_or_begins_anew_and_is_taken_away(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 3, 20)
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 60)
        await pilot.press("f", *"where:nonsense(", "enter")
        await until(pilot, lambda: "PostgreSQL does not accept" in text_of(app), "for the refusal")
        assert len(feed_of(app).table.rows) == 60
        await pilot.press(*["backspace"] * 15, *"s-001 $.at>9", "enter")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 10 and feed_of(app).table.has_focus)
        await until(pilot, lambda: "10 received of 60 looked at" in text_of(app), "for the counts")
        assert "stream:s-001 $.at > 9" in text_of(app)
        await store18.append("s-001", [NewEvent("T", {"at": 99}), NewEvent("T", {"at": 1})])
        await until(pilot, lambda: "11 received of 62 looked at" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 62)
        assert "looked at" not in text_of(app)


async def test_a_filter_is_completed_and_an_earlier_one_comes_back(dsn18: str, store18: EventStore) -> None:
    await store18.append("orders-1", [NewEvent("Placed", {"total": 9}), NewEvent("Placed", {"total": 1})])
    await store18.append("carts-1", [NewEvent("Made", {"n": 1})])
    async with explorer(dsn18) as (app, pilot):
        line = feed_line(app, pilot)
        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 3)
        await pilot.press("f")
        await until(pilot, lambda: app.session.words.known.data)
        await pilot.press(*"or")
        await line("orders-*")
        await pilot.press(*" type:pl")
        await line("orders-* type:Placed")
        await pilot.press(*" $.")
        await line("orders-* type:Placed $.total")
        await pilot.press(*" > 5", "enter")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 1 and feed_of(app).table.has_focus)
        await pilot.press("escape")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 3)
        await pilot.press("f", *"ca", "up")
        typed = feed_of(app)._line.line
        await until(pilot, lambda: typed.value == "orders-* type:Placed $.total > 5")
        await pilot.press("down")
        await until(pilot, lambda: typed.value == "ca")
        # The list of all events takes the same, the list of one stream a word for a type.
        await pilot.press("escape", "1", "a", "f", "up")
        assert browse(app).events_panel.line.line.value == "orders-* type:Placed $.total > 5"
        await pilot.press("escape", "left", "down")
        await until(pilot, lambda: browse(app).events_panel.stream_id == "carts-1" and browse(app).events.rows)
        await pilot.press("f", "up")
        assert browse(app).events_panel.line.line.value == ""


def feed_line(app: Explorer, pilot: Pilot[None]) -> Callable[[str], Awaitable[None]]:
    """Return what takes the completion that is offered, once it is the wanted one."""

    async def take(wanted: str) -> None:
        line = feed_of(app)._line.line
        await until(pilot, lambda: line._suggestion == wanted, f"for {wanted}")
        await pilot.press("right")
        await until(pilot, lambda: line.value == wanted)

    return take


async def test_the_rates_of_the_last_minute_outlast_a_filter(dsn18: str, store18: EventStore) -> None:
    await store18.append("a", [NewEvent("Wanted") for _ in range(7)])
    await store18.append("b", [NewEvent("Other") for _ in range(6)])
    async with explorer(dsn18) as (app, pilot):

        def counted() -> dict[str, int]:
            top = app.follower.log.rates.top(9, app.follower.now)
            return {rate.name: rate.events for rate in top}

        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 13)
        assert counted() == {"Wanted": 7, "Other": 6}, "also what came before the explorer"
        await pilot.press("f", *"a", "enter")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 7)
        assert counted() == {"Wanted": 7}
        assert "no events in the last" not in text_of(app)
        await until(pilot, lambda: feed_of(app).table.has_focus)
        await pilot.press("escape")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 13)
        assert counted() == {"Wanted": 7, "Other": 6}
        assert len(app.follower.log.rates.series(app.follower.now)) == 60


async def test_the_types_of_the_last_minute_with_their_rates(dsn18: str, store18: EventStore) -> None:
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "no events in the last minute" in text_of(app))
        await store18.append("s", [NewEvent("[b]Rare[/b]\x1b[2J")])
        await store18.append("s", [NewEvent("Frequent") for _ in range(6)])
        await until(pilot, lambda: text_of(app).count("/s ") == 3 and "█" in text_of(app), "for the bars")
        lines = [line for line in text_of(app).splitlines() if "/s " in line]
        assert ["Frequent" in lines[1], "[b]Rare[/b]␛[2J" in lines[2]] == [True, True]
        assert all(cell_len(line) == 80 for line in lines_of(app))
