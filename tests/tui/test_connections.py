"""The config file in the explorer: connections, keys, theme, timeouts."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg
import pytest
from textual.widgets import OptionList

from esx.config import BadConfig, Config, Connection, add_connection, load
from esx.database_choice import Database
from esx.errors import StoreUnavailable
from esx.eventstore import EventStore
from esx.fold.reducer import MERGE
from esx.layouts.foreign.own import OwnLayout
from esx.model import NewEvent
from esx.tui.app import Explorer
from esx.tui.dialogs.help import Help, groups_of
from esx.tui.dialogs.picker import ConnectionPicker
from esx.tui.keymap import actions
from esx.tui.session.connections import ConnectionChoice, local_servers
from esx.tui.session.session import ExplorerSession, SessionState
from esx.tui.tuning import Tuning
from esx.tui.widgets.askline import AskLine
from tests.support.connections import connected
from tests.tui.helpers import browse, explorer, fill, ids, text_of, until, words

if TYPE_CHECKING:
    from pathlib import Path

    from textual.pilot import Pilot

pytestmark = pytest.mark.slow

BROKEN = Connection("broken", "postgresql://me:hunter2@127.0.0.1:1/shop")


async def choose(app: Explorer, pilot: Pilot[None], name: str) -> None:
    await pilot.press("ctrl+o")
    await until(pilot, lambda: isinstance(app.screen, ConnectionPicker))
    wanted = next(each for each in app.connections.choices if each.name == name)
    picker = app.screen
    assert isinstance(picker, ConnectionPicker)
    # The cursor stays on its line when the stores that are found come above it.
    picker.query_one(OptionList).highlighted = next(at for at, each in enumerate(picker._lines) if each is wanted)
    await pilot.press("enter")
    await until(pilot, lambda: not isinstance(app.screen, ConnectionPicker))


async def test_another_database_is_shown_without_restarting(
    dsn18: str, store18: EventStore, empty_dsn18: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill(store18, 2, 2)
    config = Config(connections={"broken": BROKEN, "new": Connection("new", empty_dsn18)})
    async with explorer(dsn18, config=config) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: app.follower.log.received == 4)
        await choose(app, pilot, "broken")
        # One that cannot be reached says so, and can be left.
        await until(pilot, lambda: app.session.state is SessionState.UNREACHABLE and "cannot reach" in text_of(app))
        assert "broken (me@127.0.0.1:1/shop)" in text_of(app).splitlines()[0]
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "offline" in text_of(app).split("connections", 1)[1])
        assert "hunter2" not in text_of(app)
        await pilot.press("escape")
        await choose(app, pilot, "new")
        await until(pilot, lambda: app.session.state is SessionState.NO_SCHEMA and "esx init" in text_of(app))
        await choose(app, pilot, "test database")
        await pilot.press("1")
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED and ids(app) == ["s-000", "s-001"])
        await store18.append("s-002", [NewEvent("T")])
        await until(pilot, lambda: app.follower.log.received == 5)


def test_servers_on_this_machine_are_found_by_their_sockets(tmp_path: Path) -> None:
    for name in (".s.PGSQL.5433", ".s.PGSQL.5433.lock", ".s.PGSQL.5432", "other"):
        (tmp_path / name).touch()
    found = local_servers([str(tmp_path), str(tmp_path / "."), "/nonexistent"])
    assert found == [(str(tmp_path), 5432), (str(tmp_path), 5433)]


async def test_services_are_offered_and_opened(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store18, 1, 1)
    given = urlsplit(dsn18)
    host = parse_qs(given.query)["host"][0]
    (tmp_path / "services").write_text(
        f"# ours\n[shop]\nhost={host}\nport=5432\ndbname={given.path[1:]}\nuser=postgres\nsslmode=disable\n[second]\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    async with explorer("postgresql:///shop?host=/nonexistent", connected=False) as (app, pilot):
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "service second" in text_of(app), "for the services")
        options = app.screen.query_one(OptionList)
        at = next(
            at for at in range(options.option_count) if "service shop" in str(options.get_option_at_index(at).prompt)
        )
        options.highlighted = at
        await pilot.press("enter")
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED and "s-000" in text_of(app))


async def test_an_address_is_typed_tried_and_saved(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await fill(store18, 1, 1)
    path = tmp_path / "config.toml"
    path.write_text('theme = "nord"\n')
    async with explorer("postgresql:///x?host=/nonexistent", connected=False, config=Config(path)) as (app, pilot):
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "type an address" in text_of(app))
        options = app.screen.query_one(OptionList)
        prompts = [str(options.get_option_at_index(at).prompt) for at in range(options.option_count)]
        options.highlighted = next(at for at, prompt in enumerate(prompts) if "type an address" in prompt)
        await pilot.press("enter")
        line = app.screen.query_one(AskLine).line
        await until(pilot, lambda: line.has_focus)

        async def enter(text: str) -> None:
            line.value = text
            await pilot.press("enter")

        await enter("postgresql://nobody@127.0.0.1:1/shop as kept")
        await until(pilot, lambda: "connection refused" in text_of(app), "for what the try said")
        assert "kept" not in path.read_text()
        await enter(dsn18.replace("postgres@", "postgres:secret@") + " as kept")
        await until(pilot, lambda: "passwords are not saved" in text_of(app))
        assert "secret" not in path.read_text()
        await enter(f"{dsn18} as kept")
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED and "s-000" in text_of(app))
    saved = load({"ESX_CONFIG": str(path)})
    assert (saved.theme, saved.connections["kept"].dsn) == ("nord", dsn18)
    with pytest.raises(BadConfig, match="has a connection kept already"):
        add_connection(saved, "kept", dsn18)


async def type_address(app: Explorer, pilot: Pilot[None], text: str) -> None:
    await pilot.press("ctrl+o")
    await until(pilot, lambda: isinstance(app.screen, ConnectionPicker) and "type an address" in text_of(app))
    options = app.screen.query_one(OptionList)
    prompts = [str(options.get_option_at_index(at).prompt) for at in range(options.option_count)]
    options.highlighted = next(at for at, prompt in enumerate(prompts) if "type an address" in prompt)
    await pilot.press("enter")
    line = app.screen.query_one(AskLine).line
    await until(pilot, lambda: line.has_focus)
    line.value = text
    await pilot.press("enter")


async def test_what_health_prints_can_be_typed(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await fill(store18, 1, 1)
    path = tmp_path / "config.toml"
    config = Config(path, connections={"kept": Connection("kept", dsn18)})
    async with explorer("postgresql:///x?host=/nonexistent", connected=False, config=config) as (app, pilot):
        await type_address(app, pilot, "me:pass/word@h")
        await until(pilot, lambda: "is not understood" in text_of(app))
        assert "config file" not in text_of(app).split("is not understood")[1]
        await pilot.press("escape", "escape")
        await until(pilot, lambda: not isinstance(app.screen, ConnectionPicker))
        await type_address(app, pilot, f"{store18.address} as shop")
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED and "s-000" in text_of(app))
        assert load({"ESX_CONFIG": str(path)}).connections["shop"].dsn.startswith("postgresql://postgres@")
        await type_address(app, pilot, "kept")
        await until(pilot, lambda: app.session.database is not None and app.session.database.name == "kept")


async def test_the_other_databases_of_the_server_are_offered(dsn18: str, store18: EventStore, empty_dsn18: str) -> None:
    await fill(store18, 1, 1)
    own, other = (urlsplit(each).path[1:] for each in (dsn18, empty_dsn18))
    async with EventStore.connect(empty_dsn18) as there:
        await there.init()
        await there.append("elsewhere-1", [NewEvent("T")])
    names = await store18.databases()
    assert other in names
    assert not {own, "template0", "template1"} & set(names)
    async with connected(empty_dsn18) as connection:
        # As the user of another application, to whom a database of the server is closed.
        await connection.execute(f'REVOKE CONNECT ON DATABASE "{other}" FROM PUBLIC')
        await connection.execute(f"CREATE ROLE outsider_{other} LOGIN")
    async with EventStore.connect(dsn18.replace("postgres@", f"outsider_{other}@")) as outside:
        assert other not in await outside.databases()
    async with explorer(dsn18, size=(120, 50)) as (app, pilot):
        await until(pilot, lambda: ids(app) == ["s-000"])
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "other databases of this server" in text_of(app))
        picker = app.screen
        assert isinstance(picker, ConnectionPicker)
        at = next(
            at for at, line in enumerate(picker._lines) if isinstance(line, ConnectionChoice) and line.name == other
        )
        picker.query_one(OptionList).highlighted = at
        await pilot.press("enter")
        await until(pilot, lambda: ids(app) == ["elsewhere-1"], "for the other database")
    async with connected(empty_dsn18) as connection:
        await connection.execute(f"DROP ROLE outsider_{other}")


async def test_a_store_that_is_elsewhere_is_named(dsn18: str, store18: EventStore) -> None:
    async with explorer(f"{dsn18}&search_path=pg_catalog", connected=False) as (app, pilot):
        await until(pilot, lambda: "use --store public.events, or set search_path" in text_of(app))
        assert "esx init" not in text_of(app)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("No pe(", 'has no table or view No pe(: name it as schema.table, and quote capitals as SQL does: "Name"'),
        ("a.b.c.d", "a.b.c.d is no name of a table: write it as SQL does, such as schema.table"),
        ("marten", "has no store of Marten"),
    ],
)
async def test_a_name_that_is_no_store_is_told_and_others_are_offered(
    dsn18: str, store18: EventStore, name: str, reason: str
) -> None:
    await fill(store18, 1, 1)
    async with explorer(dsn18, connected=False, store=name, size=(120, 40)) as (app, pilot):
        await until(pilot, lambda: f"The store {name} cannot be shown" in words(app), "for the title")
        await until(pilot, lambda: reason in words(app))
        assert "Run `esx init" not in words(app)
        assert "Choose one with ctrl+o, or start esx with another --store" in words(app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "public.events" in text_of(app), "for the store of the database")
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED and ids(app) == ["s-000"])


async def test_a_name_in_a_database_without_stores_is_told_as_well(empty_dsn18: str) -> None:
    layout = OwnLayout("shop", "public.orders", stream_id=("r.s",), stream_seq="r.n", event_type="r.t", data="r.d")
    for name, reason in (
        ("nope", "has no table or view nope"),
        ("shop", "there is no public.orders in this database, which layouts.shop in the config file names"),
    ):
        config = Config(layouts=(layout,))
        async with explorer(empty_dsn18, connected=False, store=name, config=config, size=(120, 40)) as (app, pilot):
            await until(pilot, lambda name=name: f"The store {name} cannot be shown" in words(app))  # type: ignore[misc]
            await until(pilot, lambda reason=reason: reason in words(app))  # type: ignore[misc]
            assert "Run `esx init" not in words(app)
            assert "Choose one" not in words(app)
            assert "`esx stores -d 'postgresql://" in words(app)
            assert "lists what is in this database" in words(app)


async def test_a_view_that_nobody_named_is_no_server_that_is_away(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    connection = await asyncpg.connect(dsn18)
    await connection.execute("CREATE SCHEMA shown; CREATE VIEW shown.events AS SELECT * FROM public.events")
    await connection.close()
    async with explorer(f"{dsn18}&search_path=shown", connected=False, size=(120, 40)) as (app, pilot):
        await until(pilot, lambda: "This database has other event stores" in words(app))
        assert "to read it all the same, name it with --store shown.events" in words(app)
        assert "Is the server running" not in words(app)
        # The only other store is offered too.
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "public.events" in text_of(app), "for the table")


async def test_the_config_file_gives_other_keys(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    config = Config(keymap={"streams.sort": "f7", "app.help": "f1"}, theme="nord")
    async with explorer(dsn18, config=config) as (app, pilot):
        assert app.theme == "nord"
        await pilot.press("s", "question_mark")
        assert not browse(app).streams_panel.recent
        await pilot.press("f7")
        await until(pilot, lambda: browse(app).streams_panel.recent)
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, Help) and "f7" in text_of(app))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(keymap={"streams.sotr": "f"}), r"keymap.streams.sotr is no action: did you mean streams.sort\?"),
        (Config(keymap={"app.help": "f1,q"}), "keymap.app.help takes the key q from app.quit: give that another"),
        (Config(theme="nrod"), "theme nrod is unknown: use one of .*nord"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: Config, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        Explorer(Database(None, "embedded", "x", embedded=False), config=config)


def test_every_key_of_ours_can_be_changed() -> None:
    known = actions()
    assert {"app.help", "streams.filter", "list.page-up", "feed.pause"} <= known.keys()
    import importlib
    import pkgutil

    from textual.dom import DOMNode

    import esx.tui

    for module in pkgutil.walk_packages(esx.tui.__path__, "esx.tui."):
        for part in vars(importlib.import_module(module.name)).values():
            if isinstance(part, type) and issubclass(part, DOMNode) and part.__module__ == module.name:
                for binding in part.__dict__.get("BINDINGS", []):
                    assert binding.id is not None, f"{part.__name__}: {binding.key} has no name: use keymap.named"


async def test_a_query_that_takes_too_long_is_a_message(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    lock = await asyncpg.connect(dsn18)
    async with explorer(dsn18, config=Config(statement_timeout=1.0)) as (app, pilot):
        async with lock.transaction():
            await lock.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            await pilot.press("r")
            await until(pilot, lambda: "took longer than the statement timeout" in text_of(app))
        assert app.session.state is SessionState.CONNECTED
    await lock.close()


async def test_what_the_focus_is_on_comes_first(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store18, 1, 1)
    monkeypatch.chdir(tmp_path)
    async with explorer(dsn18, size=(120, 40)) as (app, pilot):
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert titles.index("Streams by name, or by most recent activity") < titles.index("Leave")
        groups = [group.title for group in groups_of(app.screen)]
        assert (groups[0], groups[-1]) == ("this list", "everywhere")
        assert "screen Streams" in groups
        await pilot.press("ctrl+p", *"screenshot", "enter")
        await until(pilot, lambda: "screenshot saved" in text_of(app))
    [picture] = tmp_path.glob("*.svg")
    assert "s-000" in picture.read_text(encoding="utf-8")


async def test_a_refused_login_is_said_and_not_tried_again_by_itself(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1, 1)
    wrong = dsn18.replace("//postgres@", "//nobody@")
    async with explorer(wrong, connected=False, tuning=Tuning(retry=0.0)) as (app, pilot):
        await until(pilot, lambda: "The server refuses the login" in text_of(app), "for the reason")
        assert app.session.state is SessionState.REFUSED
        assert 'role "nobody" does not exist' in app.session.reason
        await until(pilot, lambda: "r tries again" in " ".join(text_of(app).split()), "for the remedy")
        assert "Is the server running" not in " ".join(text_of(app).split())


async def test_a_server_without_that_database_is_not_asked_for_as_if_it_did_not_run(dsn18: str) -> None:
    missing = urlunsplit(urlsplit(dsn18)._replace(path="/nowhere"))
    async with explorer(missing, connected=False, tuning=Tuning(retry=0.01)) as (app, pilot):
        await until(pilot, lambda: 'database "nowhere" does not exist' in text_of(app), "for the reason")
        said = " ".join(text_of(app).replace("│", " ").split())
        assert "The server runs, and this is its answer" in said
        assert "Is the server running" not in said
        assert app.session.state is SessionState.UNREACHABLE


async def test_after_a_refused_login_only_a_key_tries_again() -> None:
    tries = 0
    tried = asyncio.Event()

    async def resolve() -> Database:
        nonlocal tries
        tries += 1
        tried.set()
        refusal = StoreUnavailable("no")
        refusal.refused = tries < 3
        raise refusal

    session = ExplorerSession(
        resolve,
        changed=lambda: None,
        told=lambda _text: None,
        statement_timeout=1.0,
        reducer=MERGE,
        tuning=Tuning(retry=0.0),
    )
    running = asyncio.create_task(session.run())
    for expected in (1, 2):
        await tried.wait()
        tried.clear()
        for _turn in range(50):
            await asyncio.sleep(0)
        assert (tries, session.state) == (expected, SessionState.REFUSED)
        session.retry()
    await tried.wait()
    # One that is only away is tried again at once.
    while tries < 5:
        await asyncio.sleep(0)
    assert session.state is SessionState.UNREACHABLE
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_nothing_is_left_of_the_connection_before(dsn18: str, store18: EventStore, empty_dsn18: str) -> None:
    await fill(store18, 2, 1)
    async with EventStore.connect(empty_dsn18) as other:
        await other.init()
        await other.append("t-000", [NewEvent("T")])
    config = Config(connections={"new": Connection("new", empty_dsn18)})
    async with explorer(dsn18, config=config, at=("s-001", None), connected=False) as (app, pilot):
        await until(pilot, lambda: browse(app).events_panel.stream_id == "s-001", "for the place that was asked for")
        app.notify("about the store before", timeout=600)
        await until(pilot, lambda: "about the store before" in text_of(app))
        await choose(app, pilot, "new")
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED and "t-000" in ids(app))
        await until(pilot, lambda: "s-001" not in text_of(app) and "about the store before" not in text_of(app))
        # A dialog that was opened while a load test was being stopped.
        app.action_help()
        await until(pilot, lambda: isinstance(app.screen, Help) and "look closer" in text_of(app))
        app._picked(next(each for each in app.connections.choices if each.name == "test database"))
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED and ids(app) == ["s-000", "s-001"])
        assert app.screen is app.main
        assert browse(app).streams.cursor == 0
