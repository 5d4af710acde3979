"""How every screen looks: `pytest --snapshot-update tests/tui/test_pictures.py` updates the snapshots.

A picture is an SVG of 80 by 24 in dark colours, or one of the documents, and a text of larger sizes. What it shows is
also looked at: whether it can be read.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from unittest.mock import patch

import asyncpg
import pytest
import pytest_asyncio
from pytest_textual_snapshot import SVGImageExtension
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from syrupy.location import PyTestLocation

from esx.config import Config, Connection
from esx.eventstore import EventStore
from esx.model import NewEvent
from esx.tui.screens.types import TypesPane
from esx.tui.session.connections import Connections
from esx.tui.session.session import SessionState
from tests.tui import pictures
from tests.tui.helpers import browse, feed_of, text_of, until
from tests.tui.looking import SIZES, texts_of, unreadable
from tests.tui.pictures import (
    LIVE,
    fill_shop,
    find_stream,
    go_to_row,
    let_happen,
    live,
    settled,
    shop,
    shown,
    sitting,
)
from tests.tui.recorded_pictures import take_recording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from syrupy.assertion import SnapshotAssertion
    from textual.pilot import Pilot

    from esx.load.model import LoadOptions, LoadProgress, LoadSummary
    from esx.tui.app import Explorer
    from tests.conftest import Servers

pytestmark = pytest.mark.slow

SMALL = (80, 24)
MAIN = ("streams", "account", "trail", "feed", "load", "load-running", "health", "types", "lately")
"""The pictures that are looked at in all sizes, and in light colours; others in the largest size."""
BETWEEN = f"\n{'═' * 100}\n"
"""Between the texts of a picture in several sizes."""
_DOCS = Path(__file__).parents[2] / "docs"


class Looks(Protocol):
    async def __call__(self, app: Explorer, pilot: Pilot[None], name: str) -> None:
        """Compare what is on screen with the snapshot of that name."""


@pytest.fixture
def clock() -> Iterator[pictures.Clock]:
    with pictures.fixed() as clock:
        yield clock


class TextExtension(SingleFileSnapshotExtension):
    _file_extension = "txt"
    _write_mode = WriteMode.TEXT


@pytest.fixture
def fits(snapshot: SnapshotAssertion, request: pytest.FixtureRequest, clock: pictures.Clock) -> Looks:
    """Compare what is on screen in the larger sizes with the snapshot of that name, and look whether it can be read."""
    assert clock.now
    location = PyTestLocation(request.node)

    async def compare(app: Explorer, pilot: Pilot[None], name: str) -> None:
        path = Path(TextExtension.get_location(test_location=location, index=name))
        expected = path.read_text(encoding="utf-8").split(BETWEEN) if path.exists() else []
        texts = await texts_of(app, pilot, SIZES if name in MAIN else SIZES[-1:], expected)
        assert BETWEEN.join(texts) == snapshot(name=name, extension_class=TextExtension)
        assert unreadable(app) == [], text_of(app)
        if name in MAIN:
            theme, app.theme = app.theme, "textual-light"
            # The colours follow with the next frame.
            await pilot.pause()
            assert unreadable(app) == [], text_of(app)
            app.theme = theme

    return compare


@pytest.fixture
def looks(snapshot: SnapshotAssertion, request: pytest.FixtureRequest, fits: Looks) -> Looks:
    location = PyTestLocation(request.node)

    async def compare(app: Explorer, pilot: Pilot[None], name: str) -> None:
        path = Path(SVGImageExtension.get_location(test_location=location, index=name))
        expected = path.read_text(encoding="utf-8") if path.exists() else None
        picture = await settled(app, pilot, expected)
        assert picture == snapshot(name=name, extension_class=SVGImageExtension), text_of(app)
        if not name.endswith(("-light", "-no-colour")):
            await fits(app, pilot, name)

    return compare


@pytest_asyncio.fixture
async def shop_dsn(dsn18: str) -> AsyncIterator[str]:
    """The demo's history but for its last events."""
    await fill_shop(dsn18, shop()[:-LIVE])
    yield dsn18


async def test_there_is_nothing_to_browse(dsn18: str, empty_dsn18: str, looks: Looks) -> None:
    async with sitting(dsn18, SMALL) as (app, pilot):
        await until(pilot, lambda: "no events" in text_of(app) and "● live" in text_of(app))
        await looks(app, pilot, "empty-store")
    async with sitting(empty_dsn18, SMALL) as (app, pilot):
        await until(pilot, lambda: app.session.state is SessionState.NO_SCHEMA)
        await looks(app, pilot, "no-schema")
    async with sitting("postgresql:///shop?host=/nonexistent", SMALL, embedded=False) as (app, pilot):
        await until(pilot, lambda: app.session.state is SessionState.UNREACHABLE)
        await looks(app, pilot, "unreachable")


async def test_the_database_takes_its_time(dsn18: str, looks: Looks) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    with patch.object(Connections, "open", never):
        async with sitting(dsn18, SMALL) as (app, pilot):
            await until(pilot, lambda: "connecting" in text_of(app))
            await looks(app, pilot, "connecting")


async def test_streams_and_dialogs(shop_dsn: str, looks: Looks) -> None:
    config = Config(connections={"live": Connection("live", dsn="postgresql://ann:secret@db.example/shop")})
    async with sitting(shop_dsn, SMALL, config=config) as (app, pilot):
        await live(app, pilot)
        await looks(app, pilot, "streams")
        await pilot.press("question_mark")
        await until(pilot, lambda: "esc closes" in text_of(app))
        await looks(app, pilot, "help")
        await pilot.press("escape", "ctrl+o")
        await until(pilot, lambda: "shop_test" in text_of(app))
        await looks(app, pilot, "connections")
        await pilot.press("escape", "x")
        await until(pilot, lambda: "esx command" in text_of(app))
        await looks(app, pilot, "copy-as")
        await pilot.press("escape", "c")
        await until(pilot, lambda: "▸ orders" in text_of(app))
        await go_to_row(app, pilot, "carts")
        await pilot.press("right")
        await until(pilot, lambda: "carts-30002" in text_of(app))
        await looks(app, pilot, "categories")
        await pilot.press("slash", *"*1017", "enter")
        await until(pilot, lambda: "1 found" in text_of(app) and "MoneyDeposited" in text_of(app))
        await looks(app, pilot, "streams-filtered")
        await pilot.press("5")
        await until(pilot, lambda: "no consumers" in text_of(app))
        await looks(app, pilot, "consumers")


async def test_types_and_what_happened_lately(shop_dsn: str, looks: Looks) -> None:
    async with sitting(shop_dsn, SMALL) as (app, pilot):
        await live(app, pilot)
        await pilot.press("6")
        # The rate is that until now by the server's clock.
        await until(pilot, lambda: "$.name" in text_of(app) and app.query(TypesPane).first().types.has_focus)
        await looks(app, pilot, "types")
        await pilot.press("1", "W", "W", "W", "W")
        await until(pilot, lambda: "in the 1 d before" in text_of(app))
        await looks(app, pilot, "lately")
        await pilot.press("escape", "right", "M")
        await until(pilot, lambda: "enter keeps it" in text_of(app))
        await pilot.press(*"who paid twice?", "enter")
        await until(pilot, lambda: "lists the bookmarks" in text_of(app))
        app.clear_notifications()
        await until(pilot, lambda: "lists the bookmarks" not in text_of(app))
        await pilot.press("apostrophe")
        await until(pilot, lambda: "who paid twice?" in text_of(app) and "y copies" in text_of(app))
        await looks(app, pilot, "bookmarks")


async def test_it_is_readable_in_a_light_theme_and_without_colours(
    shop_dsn: str, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sitting(shop_dsn, SMALL, config=Config(theme="textual-light")) as (app, pilot):
        await live(app, pilot)
        await looks(app, pilot, "streams-light")
        await pilot.press("x")
        await until(pilot, lambda: "esx command" in text_of(app))
        # Muted text under the cursor is read too.
        await looks(app, pilot, "copy-as-light")
        await pilot.press("escape", "4")
        await until(pilot, lambda: "checks passed" in text_of(app) and "complete and in order" in text_of(app))
        await looks(app, pilot, "health-light")
    monkeypatch.setenv("NO_COLOR", "1")
    async with sitting(shop_dsn, SMALL) as (app, pilot):
        await live(app, pilot)
        await looks(app, pilot, "streams-no-colour")
        await pilot.press("4")
        await until(pilot, lambda: "checks passed" in text_of(app) and "complete and in order" in text_of(app))
        await looks(app, pilot, "health-no-colour")


async def test_events_and_their_detail(shop_dsn: str, looks: Looks) -> None:
    async with sitting(shop_dsn, SMALL) as (app, pilot):
        await live(app, pilot)
        await find_stream(app, pilot, "accounts-1092")
        await pilot.press("f", *"Money* $.amount > 110", "enter")
        await until(pilot, lambda: len(browse(app).events.rows) == 2 and browse(app).events.has_focus)
        await until(pilot, lambda: shown(app) == ("accounts-1092", 3))
        await looks(app, pilot, "events-filtered")
        await pilot.press("escape", "right", "z")
        await until(pilot, lambda: browse(app).detail.has_focus and browse(app).has_class("-zoomed"))
        await pilot.press("d")
        await until(pilot, lambda: "changed" in text_of(app))
        await looks(app, pilot, "diff")
        await pilot.press("d", "d", "v")
        await until(pilot, lambda: "state at version" in text_of(app))
        await looks(app, pilot, "state")


async def test_the_feed_is_paused_and_held(dsn18: str, looks: Looks, clock: pictures.Clock) -> None:
    rows = shop()[:60]
    await fill_shop(dsn18, rows[:20])
    async with sitting(dsn18, SMALL) as (app, pilot), EventStore.connect(dsn18) as store:
        await live(app, pilot)
        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 20)
        await let_happen(app, pilot, clock, store, rows[20:40], 3)
        await pilot.press("space")
        await let_happen(app, pilot, clock, store, rows[40:], 3)
        billing = await asyncpg.connect(dsn18, server_settings={"application_name": "billing"})
        try:
            await billing.execute("BEGIN; INSERT INTO events VALUES (DEFAULT, 'held', 0, 'T', '{}')")
            await store.append("next", [NewEvent("T")])
            await until(pilot, lambda: app.follower.gap is not None)
            clock.now += 1
            await until(pilot, lambda: "waiting for 61" in text_of(app) and "20 new" in text_of(app))
            await looks(app, pilot, "feed-held")
        finally:
            await billing.close()


async def test_a_load_test_is_set_up(shop_dsn: str, looks: Looks) -> None:
    async with sitting(shop_dsn, SMALL, run_load=lambda *_: None) as (app, pilot):
        await live(app, pilot)
        await pilot.press("3")
        await until(pilot, lambda: "earlier runs" in text_of(app) and "33%" in text_of(app))
        await looks(app, pilot, "load")
        await pilot.press("R", "asterisk", "asterisk", "equals_sign")
        await until(pilot, lambda: "B / A" in text_of(app))
        await looks(app, pilot, "load-compared")


async def test_a_load_test_runs(dsn18: str, looks: Looks) -> None:
    async def run(_dsn: str | None, _options: LoadOptions) -> AsyncIterator[LoadProgress | LoadSummary]:
        for at in range(1, 13):
            yield pictures.second(at)
        await asyncio.Event().wait()

    async with sitting(dsn18, SMALL, run_load=run) as (app, pilot):
        await until(pilot, lambda: "● live" in text_of(app))
        await pilot.press("3", "ctrl+s")
        await until(pilot, lambda: "12 of" in text_of(app))
        await looks(app, pilot, "load-running")


def expected(name: str) -> str:
    """Return a picture of the documents as it is there."""
    path = _DOCS / f"{name}.svg"
    return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.mark.parametrize("name", pictures.OTHER_STORES)
async def test_the_documents_pictures_of_other_stores_are_up_to_date(
    name: str, empty_dsn18: str, clock: pictures.Clock
) -> None:
    assert clock.now
    taken: dict[str, str] = {}
    await pictures.take_other_store(empty_dsn18, name, taken.__setitem__, expected)
    assert taken == {name: expected(name)}, "python -m docs.screenshots makes them again"


async def test_the_documents_pictures_are_up_to_date(shop_dsn: str, clock: pictures.Clock, fits: Looks) -> None:
    stale = []

    def compare(name: str, picture: str) -> None:
        if picture != expected(name):
            stale.append(name)

    await pictures.take_all(shop_dsn, clock, compare, expected, fits)
    assert not stale, f"{stale}: python -m docs.screenshots makes them again"


async def test_the_documents_picture_of_a_recording_is_up_to_date(servers: Servers, clock: pictures.Clock) -> None:
    assert clock.now
    taken: dict[str, str] = {}
    await take_recording(await servers.get(18), taken.__setitem__, expected)
    assert taken == {"capsule": expected("capsule")}, "python -m docs.screenshots makes them again"
