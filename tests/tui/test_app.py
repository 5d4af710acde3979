from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import asyncpg
import pytest
from textual import events
from textual.command import CommandPalette, Hits
from textual.widgets import OptionList

from esx.database_choice import Database
from esx.eventstore import EventStore
from esx.model import NewEvent
from esx.tui.app import Explorer
from esx.tui.dialogs.help import Help
from esx.tui.palette import Actions
from esx.tui.session.session import SessionState
from tests.tui.helpers import browse, explorer, fill, ids, text_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot

pytestmark = pytest.mark.slow

UNREACHABLE = "postgresql://nobody:secret@127.0.0.1:1/nowhere"
KEYS = {"1": "streams by name", "2": "received", "3": "workload", "4": "last visible"}


def shows(app: Explorer, piece: str) -> Callable[[], bool]:
    return lambda: piece in text_of(app)


async def test_each_screen_has_its_key(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 2, 2)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        for key in "2341":
            await pilot.press(key)
            await until(pilot, shows(app, KEYS[key]), f"for screen {key}")
            assert {app.active_bindings[quits].binding.action for quits in ("q", "ctrl+q")} == {"quit"}
        await pilot.click("#tab-health-screen")
        await until(pilot, lambda: KEYS["4"] in text_of(app))
        await pilot.press("1")
        await until(pilot, lambda: browse(app).streams.has_focus)


async def test_quitting_by_each_key_and_from_each_screen(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    for (key, piece), quit_key in zip(KEYS.items(), ("q", "ctrl+q", "ctrl+c", "q"), strict=True):
        async with explorer(dsn18) as (app, pilot):
            await pilot.press(key)
            await until(pilot, shows(app, piece))
            await pilot.press(quit_key)
            await until(pilot, lambda: app.return_code is not None)
        assert app.return_code == 0
    connection = await asyncpg.connect(dsn18)
    for _ in range(2000):
        names = await connection.fetch(
            "SELECT application_name FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'esx explorer%'"
        )
        if not names:
            break
        await asyncio.sleep(0.05)
    assert not names, "its connections have gone with it"
    await connection.close()


async def test_quitting_from_fields_and_modals(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    for keys in (["slash", "a", "ctrl+q"], ["question_mark", "ctrl+q"], ["question_mark", "q"], ["ctrl+p", "ctrl+q"]):
        async with explorer(dsn18) as (app, pilot):
            await pilot.press(*keys)
            await until(pilot, lambda: app.return_code is not None)
        assert app.return_code == 0


async def test_help_lists_the_keys_of_where_one_is(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, size=(120, 34)) as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Help) and "find" in text_of(app))
        for piece in ("look closer", "copy and keep", "Choose streams by prefix", "Copy the event as JSON"):
            assert piece in text_of(app), piece
        # It scrolls as lists do, and can be searched.
        assert "Page down" not in text_of(app)
        await pilot.press("G")
        await until(pilot, lambda: "Page down" in text_of(app), "for the keys that move, at the end")
        await pilot.press("k", "j", "g")
        await until(pilot, lambda: "Choose streams by prefix" in text_of(app))
        await pilot.press("slash", *"choose events")
        await until(pilot, lambda: "Choose streams by prefix" not in text_of(app))
        assert "Choose events: " in text_of(app)
        await pilot.press("enter", "escape")
        await until(pilot, lambda: "Choose streams by prefix" in text_of(app))
        assert isinstance(app.screen, Help)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Help))


async def test_the_palette_has_every_action(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18) as (app, pilot):
        titles = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Screen Feed", "Copy the event as JSON", "Leave", "Theme", "The keys that work here"} <= titles
        await pilot.press("ctrl+p", *"screen health", "enter")
        await until(pilot, lambda: KEYS["4"] in text_of(app))


async def test_the_palette_runs_what_was_typed_and_closes_once(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    found = asyncio.Event()

    class Slow(Actions):
        async def search(self, query: str) -> Hits:
            await found.wait()
            async for hit in super().search(query):
                yield hit

    async def opened(app: Explorer, pilot: Pilot[None]) -> CommandPalette:
        await pilot.press("ctrl+p")
        await until(pilot, lambda: app.screen.query("CommandList.--visible"), "for what there is before a key")
        assert isinstance(app.screen, CommandPalette)
        return app.screen

    async with explorer(dsn18) as (app, pilot):
        app.COMMANDS = {Slow}  # type: ignore[misc]
        await opened(app, pilot)
        for key in (*"keys", *"that", "enter"):
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        asyncio.get_running_loop().call_later(0.3, found.set)
        await until(pilot, lambda: isinstance(app.screen, Help), "for what was typed, and not the first of all")
        await pilot.press("escape")
        # Enter and escape at once: what lies below would be closed too, and the last screen cannot be.
        palette = await opened(app, pilot)
        palette.query_one(OptionList).action_select()
        palette.dismiss()
        palette.dismiss()
        await until(pilot, lambda: not isinstance(app.screen, CommandPalette))
        await pilot.press("4")
        await until(pilot, shows(app, KEYS["4"]))


async def test_an_unreachable_database_is_an_error_with_a_remedy() -> None:
    async with explorer(UNREACHABLE, connected=False) as (app, pilot):
        await until(pilot, lambda: app.session.state is SessionState.UNREACHABLE)
        await until(pilot, lambda: "No connection" in text_of(app) and "--dsn" in text_of(app))
        shown = text_of(app)
        assert "127.0.0.1:1" in shown
        assert "secret" not in shown
        assert "Traceback" not in shown
        for key in "2r41":
            await pilot.press(key)
        await pilot.press("q")
        await until(pilot, lambda: app.return_code is not None)
    assert app.return_code == 0


async def test_a_database_without_the_schema_goes_on_once_it_is_there(empty_dsn18: str) -> None:
    async with explorer(empty_dsn18, connected=False) as (app, pilot):
        await until(pilot, lambda: "esx init -d" in text_of(app), "for the remedy, as it reaches this database")
        async with EventStore.connect(empty_dsn18) as store:
            await store.init()
            await store.append("first-1", [NewEvent("T")])
        await pilot.press("r")
        await until(pilot, lambda: ids(app) == ["first-1"])


async def test_an_empty_store(dsn18: str) -> None:
    async with explorer(dsn18) as (app, pilot):
        await until(pilot, lambda: "no events" in text_of(app))
        for key in "2341":
            await pilot.press(key)
            await until(pilot, shows(app, KEYS[key]))


async def test_a_lost_connection_is_shown_and_found_again(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 2, 2)
    admin = await asyncpg.connect(dsn18, database="postgres")
    connection = await asyncpg.connect(dsn18)
    database = await connection.fetchval("SELECT current_database()")
    await connection.close()
    async with explorer(dsn18) as (app, pilot):
        await until(pilot, lambda: app.follower.listening)
        await pilot.press("4")
        await until(pilot, lambda: "last visible" in text_of(app) and "as of" not in text_of(app))
        await pilot.press("1")
        await until(pilot, lambda: browse(app).streams.has_focus)
        await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'esx explorer%'"
        )
        await until(
            pilot, lambda: app.session.state is SessionState.LOST and "reconnecting · r tries now" in text_of(app)
        )
        assert ids(app) == ["s-000", "s-001"]
        await pilot.press("4")
        await until(pilot, lambda: "as of 2" in text_of(app), "for figures that say of when they are")
        await pilot.press("1")
        await until(pilot, lambda: browse(app).streams.has_focus)
        await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
        await store18.append("s-001", [NewEvent("Again")])
        await pilot.press("r")
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED and "Again" in text_of(app))
        await until(pilot, lambda: app.follower.log.received == 5)
    await admin.close()


async def test_background_work_runs_and_may_fail(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)

    async def background() -> None:
        await store18.append("traffic-1", [NewEvent("T")])
        raise RuntimeError("[b]no more\x1b[31m")

    async with explorer(dsn18, background=background) as (app, pilot):
        await until(pilot, lambda: "[b]no more␛[31m" in text_of(app), "for the notification")
        await pilot.press("r")
        await until(pilot, lambda: ids(app) == ["s-000", "traffic-1"])


async def test_the_embedded_database_is_named() -> None:
    app = Explorer(Database(UNREACHABLE, "embedded", "demo", embedded=True))
    async with app.run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: "embedded PostgreSQL 18" in text_of(app).splitlines()[0])


@pytest.mark.parametrize("enabled", [True, False])
async def test_it_decides_on_the_collection_of_garbage_where_that_is_disabled(enabled: bool) -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    if not enabled:
        gc.disable()
    try:
        async with explorer(UNREACHABLE, connected=False) as (app, pilot):
            await until(pilot, lambda: "No connection" in text_of(app))
            assert gc.isenabled()
            assert (gc.get_threshold() != before, gc.get_freeze_count() > frozen) == (not enabled, not enabled)
        assert gc.get_threshold() == before
    finally:
        gc.enable()
        if not enabled:
            gc.freeze()


async def test_themes_and_narrow_terminals(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 3, 3)
    async with explorer(dsn18, size=(40, 12)) as (app, pilot):
        for theme in ("textual-light", "nord", "textual-ansi", "gruvbox"):
            if theme in app.available_themes:
                app.theme = theme
                await until(pilot, lambda: "s-000" in text_of(app))
