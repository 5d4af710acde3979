"""A hidden screen does not act: it gets no focus and no keys, starts nothing, and reads nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import string
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio
from textual import events
from textual.widgets import Button, ContentSwitcher, Input

from esx.config import Config, Connection
from esx.errors import EsxError, StoreUnavailable
from esx.eventstore import EventStore
from esx.load.model import LoadOptions, LoadProgress, LoadSummary
from esx.load.process import LoadRun
from esx.model import NewEvent
from esx.tui.dialogs.copy_as import CopyAs
from esx.tui.dialogs.export import ExportDialog
from esx.tui.dialogs.picker import ConnectionPicker
from esx.tui.keymap import actions
from esx.tui.panels.load_watch import LoadWatch
from esx.tui.panes import pane_of
from esx.tui.screens.feed import FeedPane
from esx.tui.screens.health import HealthPane
from esx.tui.screens.load import LoadPane
from esx.tui.screens.streams import StreamsPane
from esx.tui.screens.trail import TrailPane
from esx.tui.session.session import SessionState
from esx.tui.tuning import Tuning
from tests.support.rounds import rounds
from tests.tui.helpers import browse, explorer, feed_of, fill, lines_of, text_of, until
from tests.tui.test_load import SUMMARY, second

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable
    from pathlib import Path

    from textual.pilot import Pilot

    from esx.tui.app import Explorer
    from tests.support.roles import Role

pytestmark = pytest.mark.slow

SCREENS = {"1": "Streams", "2": "Feed", "3": "Load", "4": "Health"}
QUITS = {"q", "ctrl+q", "ctrl+c"}
KEYS = sorted(
    {key for keys, _what in actions().values() for key in keys.split(",")}
    | {*string.ascii_letters, *string.digits, "enter", "escape", "tab", "shift+tab", "space", "ctrl+p"}
    | {"up", "down", "left", "right", "home", "end", "pageup", "pagedown", "delete", "backspace"} - QUITS
)
KEYS = [key for key in KEYS if key not in QUITS]


class Runs:
    """Replaces the start of load tests: notes on which screen each was started, and returns a fake run."""

    def __init__(self, *runs: Callable[[str | None, LoadOptions], AsyncIterable[LoadProgress | LoadSummary]]) -> None:
        self.app: Explorer | None = None
        self.started_on: list[str] = []
        self._runs = list(runs)

    def __call__(self, dsn: str | None, options: LoadOptions) -> AsyncIterable[LoadProgress | LoadSummary]:
        assert self.app is not None
        self.started_on.append(shown(self.app))
        return self._runs.pop(0)(dsn, options) if self._runs else _at_once()


async def _at_once() -> AsyncIterator[LoadProgress | LoadSummary]:
    yield SUMMARY


class Told:
    """A load test that reports one second, and then waits until the test ends it."""

    def __init__(self, *_: object) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __aiter__(self) -> AsyncIterator[LoadProgress | LoadSummary]:
        yield second(1)
        problem = await self.end
        if problem:
            raise EsxError(problem)
        yield SUMMARY

    def stop(self) -> None:
        if not self.end.done():
            self.end.set_result("")


def shown(app: Explorer) -> str:
    """Return the name of the screen that is shown, empty if there is none."""
    pane = app.main.pane
    return "" if pane is None else pane.TITLE


def check(app: Explorer) -> None:
    """Fail if keys could act on anything but the screen that is shown, or a dialog over it."""
    main = app.main
    visible = [child.id for child in main.query_one(ContentSwitcher).children if child.display]
    assert visible == [main.pane.id if main.pane is not None else "notice"]
    assert main.focused is None or pane_of(main.focused) is main.pane, (shown(app), main.focused)
    for active in main.active_bindings.values():
        assert pane_of(active.node) in (None, main.pane), active


async def press(app: Explorer, key: str) -> None:
    """Press a key and wait until it has been handled: faster than the pilot, which waits for every widget."""
    way = [app, *(app.focused or app.screen).ancestors_with_self]
    app.post_message(events.Key(key, key if len(key) == 1 else None))
    # Up to the application as the key goes, and once more for what that puts off.
    for node in (*way, app):
        handled = asyncio.Event()
        if node.call_later(handled.set):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(handled.wait(), 5)


async def go(app: Explorer, key: str) -> None:
    """Go to a screen from any other, closing dialogs and fields."""
    for _ in range(20):
        if len(app.screen_stack) > 1 or isinstance(app.focused, Input):
            await press(app, "escape")
        elif shown(app) != SCREENS[key]:
            await press(app, key)
        else:
            return
    raise AssertionError(f"no way to {SCREENS[key]}:\n{text_of(app)}")


async def count(store: EventStore) -> int:
    return len([event async for event in store.read_all()])


def pane(app: Explorer) -> LoadPane:
    return app.query(LoadPane).first()


@contextlib.asynccontextmanager
async def opened(dsn: str, runs: Runs, **options: Any) -> AsyncIterator[tuple[Explorer, Pilot[None]]]:
    async with explorer(dsn, run_load=runs, size=options.pop("size", (80, 24)), **options) as (app, pilot):
        runs.app = app
        await until(pilot, lambda: browse(app).detail.event is not None)
        yield app, pilot


async def start_load(app: Explorer, pilot: Pilot[None]) -> None:
    await go(app, "3")
    await pilot.press("escape", "ctrl+s")
    await until(pilot, lambda: pane(app).running, "for the load test to run")


@pytest_asyncio.fixture
async def sql18(dsn18: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn18)
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def events_locked(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Lock the events, so that queries wait until this ends."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        yield connection
    finally:
        await connection.close()


async def waits(pilot: Pilot[None], lock: asyncpg.Connection, query: str) -> None:
    """Wait until a query of the explorer waits for the lock; `query` is a part of it."""
    for _ in range(2000):
        # Within a transaction PostgreSQL reads the activity only once.
        await lock.execute("SELECT pg_stat_clear_snapshot()")
        if await lock.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'esx explorer%' "
            "AND wait_event_type = 'Lock' AND query ILIKE $1",
            f"%{query}%",
        ):
            return
        await pilot.pause(0.01)
    others = await lock.fetch(
        "SELECT state, wait_event_type, query FROM pg_stat_activity WHERE application_name LIKE 'esx explorer%'"
    )
    raise AssertionError(f"nothing waits for {query}: {others}; the screen shows\n{text_of(pilot.app)}")


# -- a load test out of sight ------------------------------------------------------------------------------------------


async def test_a_load_test_that_ends_out_of_sight_leaves_the_keys_where_they_are(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await fill(store18, 3, 3)
    runs = Runs(LoadRun)
    async with opened(dsn18, runs) as (app, pilot):
        await go(app, "3")
        fields = {
            "users": "1",
            "duration": "1",
            "streams": "3",
            "yes-write-to": f"localhost/{await sql18.fetchval('SELECT current_database()')}",
        }
        for field, value in fields.items():
            pane(app).query_one(f"#load-{field}", Input).value = value
        await start_load(app, pilot)
        await go(app, "1")
        await until(pilot, lambda: lines_of(app)[-1].startswith("/ Filter s Sort c Group"))
        footer = lines_of(app)[-1]
        await until(pilot, lambda: not pane(app).running, "for its end")
        assert pane(app).summary is not None
        await pilot.pause()
        assert browse(app).streams.has_focus
        assert lines_of(app)[-1] == footer
        stored = await count(store18)
        assert stored > 9
        await pilot.press("s")
        await until(pilot, lambda: browse(app).streams_panel.recent, "for the other order")
        for key in "124":
            for each in ("s", "x", "S", "e", "w", "l", "enter", "space", "tab", "ctrl+s", "ctrl+x"):
                await go(app, key)
                await press(app, each)
                check(app)
        await go(app, "4")
        assert runs.started_on == ["Load"]
        assert await count(store18) == stored
        # The focus that it asked for while hidden, it has now.
        await pilot.press("3")
        await until(pilot, lambda: app.screen.query("#load-start:focus"))
        await until(pilot, lambda: lines_of(app)[-1].startswith("^s Start"))


@pytest.mark.parametrize("key", SCREENS)
async def test_every_key_acts_on_the_screen_that_is_shown_alone(dsn18: str, store18: EventStore, key: str) -> None:
    await fill(store18, 3, 3)
    tests: list[Told] = []

    def told(*_: object) -> Told:
        tests.append(Told())
        return tests[-1]

    # While the screen Load is shown, events arrive for the hidden screens.
    behind = key != "3"
    runs = Runs(told, told) if behind else Runs()
    async with opened(dsn18, runs) as (app, pilot):
        for each in "2341":
            await go(app, each)
        appended = 0

        async def come() -> None:
            nonlocal appended
            while True:
                await store18.append(f"more-{appended % 5}", [NewEvent("More", {"at": appended})])
                appended += 1
                await asyncio.sleep(0.2)

        coming = asyncio.create_task(come())
        try:
            # By default each key is pressed on every second screen, in .ci/full on all.
            step, first = rounds(4, 2), int(key) % 2 * rounds(1, 0)
            for problem, keys in (("", KEYS[first::step]), ("the child died", KEYS[first + step // 2 :: step])):
                if behind:
                    await start_load(app, pilot)
                    await until(pilot, lambda: "24/s" in text_of(app))
                await go(app, key)
                await pilot.pause()
                focused, footer = app.focused, lines_of(app)[-1]
                assert focused is not None
                if behind:
                    tests[-1].end.set_result(problem)
                    await until(pilot, lambda: not pane(app).running)
                    await pilot.pause()
                    assert (app.focused, lines_of(app)[-1]) == (focused, footer)
                for each in keys:
                    await go(app, key)
                    await press(app, each)
                    check(app)
                await go(app, "3")
                if behind:
                    assert runs.started_on == ["Load"] * len(tests)
                    how = problem or "PASS"
                    await until(pilot, lambda how=how: how in text_of(app), "for how it ended, drawn when it is seen")  # type: ignore[misc]
                    await press(app, "u")
        finally:
            coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        assert set(runs.started_on) == {"Load"}
        assert 9 + appended <= await count(store18) <= 10 + appended


async def test_keys_that_were_typed_ahead_are_for_the_screen_that_comes(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 2, 2)
    runs = Runs()

    def type_ahead(app: Explorer, *keys: str) -> None:
        for key in keys:
            app.post_message(events.Key(key, key))

    async with opened(dsn18, runs) as (app, pilot):
        await go(app, "3")
        type_ahead(app, "1", "s")
        await until(pilot, lambda: shown(app) == "Streams" and browse(app).streams_panel.recent, "for the other order")
        assert not runs.started_on
        type_ahead(app, "3", "ctrl+s")
        await until(pilot, lambda: runs.started_on == ["Load"], "for the load test")
        assert browse(app).streams_panel.recent
        # The message of a pressed button may come when its screen is hidden already.
        await until(pilot, lambda: not pane(app).running)
        await go(app, "1")
        pane(app).post_message(Button.Pressed(pane(app).query_one("#load-start", Button)))
        await pilot.pause()
        assert not pane(app).running
        assert runs.started_on == ["Load"]
        # So may a request for a trail.
        type_ahead(app, "t", "2")
        await until(pilot, lambda: shown(app) == "Feed")
        await pilot.pause()
        assert shown(app) == "Feed"
        assert not app.query(TrailPane)


async def test_another_database_waits_for_the_load_test_unless_chosen_twice(
    dsn18: str, store18: EventStore, empty_dsn18: str
) -> None:
    await fill(store18, 1, 1)
    config = Config(connections={"other": Connection("other", empty_dsn18)})
    tests: list[Deaf] = []

    class Deaf(Told):
        stopped = False

        def stop(self) -> None:
            self.stopped = True

    def deaf(*_: object) -> Deaf:
        tests.append(Deaf())
        return tests[-1]

    async def choose(app: Explorer, pilot: Pilot[None], name: str) -> None:
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, ConnectionPicker))
        at = next(index for index, each in enumerate(app.connections.choices) if each.name == name)
        await pilot.press("home", *["down"] * at, "enter")
        await until(pilot, lambda: len(app.screen_stack) == 1)

    async with opened(dsn18, Runs(deaf, deaf), config=config) as (app, pilot):
        await start_load(app, pilot)
        await choose(app, pilot, "other")
        await until(pilot, lambda: tests[0].stopped and "ctrl+o again" in text_of(app))
        assert pane(app).running
        tests[0].end.set_result("")
        await until(pilot, lambda: app.session.state is SessionState.NO_SCHEMA, "for the other database")
        check(app)
        await choose(app, pilot, "test database")
        await go(app, "3")
        await start_load(app, pilot)
        await choose(app, pilot, "other")
        await choose(app, pilot, "other")
        await until(pilot, lambda: app.session.state is SessionState.NO_SCHEMA, "for the other database, at once")
        await until(pilot, lambda: not app.query(LoadPane))
        check(app)


# -- what comes late ---------------------------------------------------------------------------------------------------


async def test_what_ends_after_its_screen_was_left_keeps_the_focus_until_one_comes_back(
    dsn18: str, store18: EventStore
) -> None:
    await fill(store18, 4, 4)
    async with opened(dsn18, Runs()) as (app, pilot):
        events_of = browse(app).events_panel
        # A filter, and a place to go to.
        for keys, query, done in (
            (("f", *"type:Type1", "enter"), "events", lambda: events_of.filter.event_type == "Type1"),
            (("colon", *"#2", "enter"), "events", lambda: not events_of.line.shown),
        ):
            await go(app, "1")
            events_of.table.focus()
            await until(pilot, lambda: events_of.table.has_focus)
            async with events_locked(dsn18) as lock:
                await pilot.press(*keys)
                await waits(pilot, lock, query)
                await pilot.click("#tab-health-screen")
                await until(pilot, lambda: shown(app) == "Health" and lines_of(app)[-1].startswith("r Refresh enter"))
                footer = lines_of(app)[-1]
            await until(pilot, done, "for the answer")
            await pilot.pause()
            check(app)
            assert lines_of(app)[-1] == footer
            await pilot.press("1")
            await until(pilot, lambda: events_of.table.has_focus and not events_of.line.shown)
        # The filter of the feed.
        await go(app, "2")
        async with events_locked(dsn18) as lock:
            await pilot.press("f", *"s-001", "enter")
            await waits(pilot, lock, "events")
            await pilot.click("#tab-streams-screen")
            await until(pilot, lambda: shown(app) == "Streams")
        await until(pilot, lambda: app.follower.where.stream == "s-001")
        await pilot.pause()
        check(app)
        await pilot.press("2")
        await until(pilot, lambda: feed_of(app).table.has_focus and len(feed_of(app).table.rows) == 4)
        # A trail that was left is gone.
        await go(app, "1")
        async with events_locked(dsn18) as lock:
            await pilot.press("t")
            await until(pilot, lambda: shown(app) == "Trail")
            await waits(pilot, lock, "events")
            await pilot.press("4")
            await until(pilot, lambda: shown(app) == "Health" and not app.query(TrailPane))
        check(app)


async def test_the_dialog_for_copying_opens_at_once_or_not_at_all(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 2)
    async with opened(dsn18, Runs()) as (app, pilot):
        async with events_locked(dsn18):
            await pilot.press("x")
            await until(pilot, lambda: isinstance(app.screen, CopyAs) and "reading" in text_of(app))
            await pilot.press("enter", "escape", "4")
            await until(pilot, lambda: shown(app) == "Health" and len(app.screen_stack) == 1)
        await until(pilot, lambda: "last visible" in text_of(app), "for the figures")
        assert len(app.screen_stack) == 1
        assert app.clipboard == ""
        await pilot.press("1", "x")
        await until(pilot, lambda: "esx command" in text_of(app))
        # Twice, as a fast user does: the second key has nothing left to close.
        for _ in range(2):
            app.post_message(events.Key("enter", None))
        await until(pilot, lambda: app.clipboard and len(app.screen_stack) == 1)
        await pilot.pause()
        check(app)


async def test_a_dialog_that_ends_under_another_takes_only_itself_away(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store18, 2, 2)
    monkeypatch.chdir(tmp_path)
    async with opened(dsn18, Runs()) as (app, pilot):
        async with events_locked(dsn18) as lock:
            await pilot.press("e")
            await until(pilot, lambda: isinstance(app.screen, ExportDialog))
            await pilot.press("enter")
            await waits(pilot, lock, "events")
            await pilot.press("ctrl+p")
            await until(pilot, lambda: len(app.screen_stack) == 3)
        written = tmp_path / "streams.ndjson"
        await until(pilot, lambda: written.exists() and written.read_text().count("\n") == 2, "for the file")
        await pilot.pause()
        assert [isinstance(screen, ExportDialog) for screen in app.screen_stack] == [False, True, False]
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await until(pilot, lambda: "written to streams.ndjson" in text_of(app))
        assert {json.loads(line)["stream_id"] for line in written.read_text().splitlines()} == {"s-000", "s-001"}
        check(app)


async def test_the_palette_does_nothing_for_a_screen_that_has_gone(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection, role: Role
) -> None:
    await fill(store18, 2, 2)
    await role.grant("SELECT ON events")
    async with opened(role.dsn(dsn18), Runs()) as (app, pilot):
        await pilot.press("ctrl+p", *"most recent activity")
        await until(pilot, lambda: "Streams by name, or by most recent" in text_of(app))
        await sql18.execute(f"REVOKE SELECT ON events FROM {role.name}")

        def refused() -> bool:
            # A query that runs in an open group of queries does not notice the REVOKE.
            app.session.report(StoreUnavailable("looked at again"))
            return app.session.state is SessionState.NOT_ALLOWED

        await until(pilot, refused, "for the store to be gone")
        await pilot.press("enter")
        await until(pilot, lambda: "Streams is no longer shown: nothing was done" in text_of(app))
        assert not browse(app).streams_panel.recent
        check(app)
        for key in ("s", "f", "e", "x", "t", "z", "slash", "tab", "enter", "2", "3", "4", "1"):
            await pilot.press(key)
            check(app)
            while len(app.screen_stack) > 1:
                await pilot.press("escape")
        await role.grant("SELECT ON events")
        app.session.retry()
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED and browse(app).streams.has_focus)
        check(app)


async def test_a_part_that_fills_the_screen_makes_way_for_another_screen(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 2, 2)
    async with opened(dsn18, Runs()) as (app, pilot):
        app.screen.action_maximize()
        await until(pilot, lambda: app.screen.maximized is browse(app).streams)
        await pilot.press("2")
        await until(pilot, lambda: "received" in text_of(app), "for the feed")
        check(app)


# -- connections and data ----------------------------------------------------------------------------------------------


async def test_no_screen_feels_that_the_connection_is_lost_and_found(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await fill(store18, 3, 3)
    runs = Runs()
    admin = await asyncpg.connect(dsn18, database="postgres")
    database = await sql18.fetchval("SELECT current_database()")
    async with opened(dsn18, runs) as (app, pilot):
        await until(pilot, lambda: app.follower.listening)
        for key in "2341":
            await go(app, key)
        number = 9
        for key in "4123":
            await go(app, key)
            await pilot.pause()
            focused = app.focused
            assert focused is not None
            await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'esx explorer%'"
            )
            await until(pilot, lambda: app.session.state is SessionState.LOST and "reconnecting" in text_of(app))
            check(app)
            assert app.focused is focused
            for each in ("s", "tab", "x", "f", "enter", "t", "r"):
                await press(app, each)
                check(app)
                await go(app, key)
            await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
            await store18.append("s-000", [NewEvent("Again")])
            app.session.retry()
            await until(pilot, lambda: app.session.state is SessionState.CONNECTED, "for the connection")
            number += 1
            await until(pilot, lambda number=number: app.follower.position == number, "for the event")  # type: ignore[misc]
            await pilot.pause()
            check(app)
            assert shown(app) == SCREENS[key]
        assert set(runs.started_on) <= {"Load"}
    await admin.close()


async def test_a_screen_that_is_not_shown_asks_the_store_nothing(
    dsn18: str, store18: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store18, 3, 3)
    asked: list[str] = []
    for name in ("health", "doctor", "projections", "streams_page", "event", "trail", "search_previews"):
        real = getattr(EventStore, name)

        def counted(*arguments: Any, _name: str = name, _real: Any = real, **options: Any) -> Any:
            asked.append(_name)
            return _real(*arguments, **options)

        monkeypatch.setattr(EventStore, name, counted)
    drawn: list[str] = []
    for part, name in ((FeedPane, "_write"), (StreamsPane, "_age"), (LoadWatch, "_draw_now")):
        real = getattr(part, name)

        def noted(*arguments: Any, _name: str = part.__name__, _real: Any = real) -> None:
            drawn.append(_name)
            _real(*arguments)

        monkeypatch.setattr(part, name, noted)
    told: list[Told] = []

    def tell(*_: object) -> Told:
        told.append(Told())
        return told[0]

    runs = Runs(tell)
    async with opened(dsn18, runs, tuning=Tuning(read_health=0.02)) as (app, pilot):

        async def come(number: int) -> None:
            await store18.append("s-000", [NewEvent("More")])
            await until(pilot, lambda: app.follower.position == number)

        await go(app, "2")
        await start_load(app, pilot)
        await until(pilot, lambda: "24/s" in text_of(app))
        await go(app, "4")
        health = app.query(HealthPane).first()
        asked.clear()
        drawn.clear()
        await until(pilot, lambda: asked.count("health") > 3, "for figures that are read again and again")
        assert set(asked) <= {"health", "doctor", "projections"}
        # After a reconnection hidden lists are read again, but only when they are shown.
        browse(app).connected()
        for number in range(10, 20):
            await come(number)
        told[0].end.set_result("")
        await until(pilot, lambda: not pane(app).running)
        # Nothing is drawn either, although the clocks go on.
        asked.clear()
        await until(pilot, lambda: asked.count("health") > 40, "for some time")
        assert not drawn
        assert set(asked) <= {"health", "doctor", "projections"}
        await go(app, "2")
        await until(pilot, lambda: not [worker for worker in app.workers if worker.node is health])
        asked.clear()
        health.connected()
        for number in range(20, 30):
            await come(number)
        assert not asked
        assert app.follower.log.received == 29
        await until(pilot, lambda: len(feed_of(app).table.rows) == 29, "for what was counted")
        await go(app, "1")
        await until(pilot, lambda: "streams_page" in asked, "for the list to be read again")
        assert "health" not in asked
