"""The explorer on the store of another tool."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from textual.widgets import OptionList

from esx.config import Config, Connection
from esx.filters import Filter
from esx.tui.screens.consumers import ConsumersPane
from esx.tui.widgets.statusbar import StatusBar
from tests.cli.support import esx, ndjson
from tests.layouts.foreign.fixtures import expected, load_into
from tests.layouts.foreign.made import WITHOUT_NUMBERS
from tests.layouts.foreign.own import layout_of, make
from tests.support.connections import connected
from tests.support.roles import new_role
from tests.tui.helpers import browse, explorer, feed_of, lines_of, text_of, until, words

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


# One of each way to find a stream: by text, by UUID, by a number of another table.
SHOWN = {"messagedb": "message_store.messages", "marten": "public.mt_events", "commanded": "stream_events"}


@pytest.mark.parametrize("name", SHOWN)
async def test_every_screen_shows_it(name: str, empty_dsn18: str) -> None:
    await load_into(empty_dsn18, name)
    facts = expected(name)
    stream = min(facts["named_streams"])
    async with explorer(empty_dsn18) as (app, pilot):
        await pilot.press("slash", *stream[:6], "enter")
        await until(pilot, lambda: stream[:13] in text_of(app), "for the stream")
        await pilot.press("enter")
        await until(pilot, lambda: facts["named_streams"][stream]["last_type"][:6] in text_of(app), "for its events")
        await pilot.press("2")
        last = f"safe position {facts['global']['last']}"
        await until(pilot, lambda: last in text_of(app), "for the feed")
        assert "ended" not in text_of(app)
        assert ("as far as is known: Marten can draw" in text_of(app)) is (name == "marten")
        await pilot.press("4")
        await until(pilot, lambda: "which esx only reads" in text_of(app) or "checks passed" in text_of(app))
        await until(pilot, lambda: "consumers ·" in text_of(app), "for the consumers in place of the projections")
        assert "esx init" not in text_of(app)
        assert SHOWN[name] in text_of(app)
        assert app.main.query_one(StatusBar)._names[-1].endswith(SHOWN[name].rpartition(".")[2])


async def test_a_stream_says_which_events_its_pages_leave_out(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(WITHOUT_NUMBERS)
    async with explorer(empty_dsn18, size=(160, 40)) as (app, pilot):
        await until(pilot, lambda: "cart-1" in text_of(app), "for the streams")
        await pilot.press("down", "enter")
        await until(pilot, lambda: "cart-1 · oldest first · 1 without a number, only in $all" in text_of(app))
        await pilot.press("a")
        await until(pilot, lambda: "$all · newest first" in text_of(app) and "without a number" not in text_of(app))


async def test_a_store_without_a_global_order_is_shown_by_its_streams(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "cqrs_es")
    async with explorer(empty_dsn18) as (app, pilot):
        await until(pilot, lambda: "account/1000" in text_of(app), "for the streams")
        assert "$all" not in browse(app).streams_panel.table.rows[0].label
        await pilot.press("down", "enter")
        await until(pilot, lambda: "1 of 18" in text_of(app), "for the events")
        await pilot.press("end", "enter")
        await until(pilot, lambda: "global_seq –" in text_of(app) and "stream_seq 18" in text_of(app), "for it")
        assert browse(app).event_panel.view() is None
        for key in ("a", "s"):
            await pilot.press(key)
            await until(pilot, lambda: "no global order: choose a stream" in text_of(app), "for the reason")
            assert browse(app).events_panel.stream_id == "account/1001"
            app.clear_notifications()
        await pilot.press("2")
        await until(pilot, lambda: "no feed: this store of cqrs-es (Rust)" in text_of(app), "for the reason")


async def test_an_event_of_no_stream_is_shown_without_a_number_in_one(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "spatie")
    async with explorer(empty_dsn18) as (app, pilot):
        await until(pilot, lambda: "$all" in text_of(app), "for the streams")
        await pilot.press("enter", "right")
        await until(pilot, lambda: "global_seq 426" in text_of(app) and "stream_seq –" in text_of(app), "for the event")
        await pilot.press("d")
        await until(pilot, lambda: "an event without a number in a stream" in text_of(app), "for the comparison")


async def test_the_stores_of_a_database_are_offered(empty_dsn18: str) -> None:
    for name in ("messagedb", "marten"):
        await load_into(empty_dsn18, name)
    async with explorer(empty_dsn18, connected=False) as (app, pilot):
        await until(pilot, lambda: "Choose one with ctrl+o" in text_of(app), "for the choice")
        for wanted, stream in (("mt_events", "0000000"), ("message_store.messages", "account-1000")):
            await pilot.press("ctrl+o")
            await until(pilot, lambda wanted=wanted: wanted in text_of(app), "for the stores")  # type: ignore[misc]
            options = app.screen.query_one(OptionList)
            at = next(
                n for n, each in enumerate(options.options) if wanted in str(each.prompt) and "~" in str(each.prompt)
            )
            options.highlighted = at
            await pilot.press("enter")
            await until(pilot, lambda stream=stream: stream in text_of(app), f"for {wanted}")  # type: ignore[misc]


async def test_the_stores_of_a_database_are_offered_before_many_connections(empty_dsn18: str) -> None:
    for name in ("messagedb", "marten"):
        await load_into(empty_dsn18, name)
    many = {f"c{at}": Connection(f"c{at}", f"postgresql:///c{at}?host=/nonexistent") for at in range(30)}
    async with explorer(empty_dsn18, connected=False, config=Config(connections=many), store="nope", size=(80, 24)) as (
        app,
        pilot,
    ):
        await until(pilot, lambda: "The store nope cannot be shown" in text_of(app), "for the reason")
        assert "Choose one with ctrl+o" in text_of(app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "public.mt_events" in text_of(app) and "other connections" in text_of(app))
        # The cursor has stayed on the current one; the headings are passed.
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: "0000000" in text_of(app) and "cannot be shown" not in text_of(app), "for Marten")


async def test_stores_that_a_user_may_not_read_are_not_offered(empty_dsn18: str) -> None:
    async with new_role(empty_dsn18) as role:
        for name, stores in (("marten", "marten"), ("messagedb", "message_store")):
            await load_into(empty_dsn18, name)
            async with explorer(role.dsn(empty_dsn18), connected=False, size=(120, 40)) as (app, pilot):
                await until(pilot, lambda: "No event store here can be read" in text_of(app), "for the reason")
                said = words(app)
                assert "may not" in said if stores == "marten" else "and none of them can be read" in said
                assert "Choose one" not in said
                assert "choose one" not in said
                assert "`esx stores -d 'postgresql://" in said
                assert "lists what is in this database" in said


async def test_a_home_made_store_is_shown_as_its_layout_says(empty_dsn18: str, config: Path) -> None:
    layout = layout_of(config)
    async with connected(empty_dsn18) as connection:
        await make(connection)
    settings = Config(layouts=(layout,))
    async with explorer(empty_dsn18, store="shop", config=settings) as (app, pilot):
        await until(pilot, lambda: "t1:00000005" in text_of(app), "for the streams")
        await pilot.press("end", "enter")
        await until(pilot, lambda: "Opened" in text_of(app), "for the events")
        await pilot.press("2")
        await until(pilot, lambda: "safe position 48" in text_of(app), "for the feed")


async def test_a_filtered_feed_has_the_event_with_the_number_0(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "sqlstreamstore")
    async with explorer(empty_dsn18) as (app, pilot):
        await app.follower.choose(Filter(event_type="AccountOpened"))
        await until(pilot, lambda: app.follower.log.received == expected("sqlstreamstore")["types"]["AccountOpened"])
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.rows and feed_of(app).table.rows[0].global_seq == 0)


async def test_a_trail_says_what_data_are_that_are_no_json(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "rails_event_store_yaml")
    async with explorer(empty_dsn18, size=(120, 40)) as (app, pilot):
        await pilot.press("enter", "t")
        await until(pilot, lambda: "trail of event" in text_of(app) or "trail ·" in text_of(app), "for the trail")
        await until(pilot, lambda: "bytes, YAML" in text_of(app), "for the data")
        assert "(large)" not in text_of(app)


@pytest.mark.parametrize(("name", "size"), [("prooph_single", (80, 24)), ("cqrs_es", (120, 40))])
async def test_where_there_is_no_order_nothing_is_counted_and_nothing_is_wrong(
    name: str, size: tuple[int, int], empty_dsn18: str
) -> None:
    await load_into(empty_dsn18, name)
    async with explorer(empty_dsn18, size=size) as (app, pilot):
        await until(pilot, lambda: "●" in lines_of(app)[0] and "no feed" in lines_of(app)[0], "for the state")
        assert not app._notifications
        await pilot.press("2")
        await until(pilot, lambda: "no feed: this store of" in text_of(app))
        for word in ("safe", "received", "in the last", "ended", "0.0/s", "following", "shown"):
            assert word not in text_of(app), word
        await pilot.press("x")
        await until(pilot, lambda: "there is nothing here to copy" in text_of(app))
        app.clear_notifications()
        await pilot.press("4")
        # The servers of tests have no fsync; nothing else is wrong.
        await until(pilot, lambda: "▲ 1 TO MEND  fsync is off" in text_of(app), "for the doctor")
        await pilot.press("r")
        await until(pilot, lambda: "no order" in text_of(app) and "not known" in text_of(app), "for the figures")
        shown = text_of(app)
        for word in ("head", "last visible", "safe position", "lag", "late, dead", "none yet", "polling", "ended"):
            assert word not in shown, word


@pytest.mark.parametrize(("name", "size"), [("marten", (120, 40)), ("prooph_single", (80, 24))])
async def test_the_consumers_of_another_tool_are_listed_and_left_alone(
    name: str, size: tuple[int, int], empty_dsn18: str
) -> None:
    await load_into(empty_dsn18, name)
    tool, shown = {
        "marten": ("Marten", ["consumers · 3", "OrderView:All", "other", "300", "~126", "at 300, ~126 behind"]),
        "prooph_single": ("prooph or Ecotone", ["consumers · 1", "account_projection", 'at {"account_stream": 12}']),
    }[name]
    async with explorer(empty_dsn18, size=size) as (app, pilot):
        await pilot.press("5")
        await until(pilot, lambda: shown[0] in text_of(app), "for the consumers")
        await pilot.press("end")
        await until(pilot, lambda: all(word in text_of(app) for word in shown), "for what is known of one")
        await pilot.press("enter")
        await until(pilot, lambda: f"is a consumer of {tool} in" in words(app), "for the reason")
        app.clear_notifications()
        view = app.query(ConsumersPane).first().view()
        await pilot.press("x")
        await until(pilot, lambda: "esx consumers -d" in text_of(app) and "SQL for psql" not in text_of(app))
    assert view is not None
    printed = await asyncio.to_thread(esx, "consumers", "--json", "-d", empty_dsn18)
    moves = ("lag_seconds",)
    assert [{key: value for key, value in json.loads(line).items() if key not in moves} for line in view.lines] == [
        {key: value for key, value in line.items() if key not in moves} for line in ndjson(printed.stdout)
    ]


async def test_consumers_that_may_not_be_read_are_told(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "marten")
    async with new_role(empty_dsn18) as role:
        await role.grant("SELECT ON mt_events, mt_streams")
        async with explorer(role.dsn(empty_dsn18), size=(120, 40)) as (app, pilot):
            await pilot.press("5")
            await until(pilot, lambda: "left out" in text_of(app) and "mt_event_progression" in text_of(app))
            assert "none of which the store's own tool keeps" in words(app)
