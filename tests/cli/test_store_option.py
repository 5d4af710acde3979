"""--store and `store` of a connection: a table of another name, a quoted one, a view, and what is none of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from esx.config import Config, Connection
from esx.eventstore import EventStore
from esx.model import NewEvent
from tests.cli.support import esx, ndjson, one_line_error
from tests.support.connections import connected
from tests.support.partitions import COLUMNS
from tests.tui.helpers import explorer, lines_of, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Servers

_QUOTED = '"Odd one"."My ""events"""'
_TABLE = f"({COLUMNS}, PRIMARY KEY (global_seq), UNIQUE (stream_id, stream_seq))"


async def fill(dsn: str) -> None:
    """Make stores with an event in each, of a type that names it."""
    async with EventStore.connect(dsn) as plain:
        await plain.init()
    async with connected(dsn) as connection:
        await connection.execute(
            f'CREATE SCHEMA tenant; CREATE TABLE tenant.events {_TABLE}; CREATE SCHEMA "Odd one"; '
            f"CREATE TABLE {_QUOTED} {_TABLE}; CREATE VIEW shown AS SELECT * FROM tenant.events"
        )
    for store, kind in ((None, "Plain"), ("tenant.events", "Tenant"), (_QUOTED, "Quoted")):
        async with EventStore.connect(dsn, store=store) as opened:
            await opened.append("s-1", [NewEvent(kind, {"n": 1}, metadata={"correlation_id": "c"})])


@pytest_asyncio.fixture
async def stores(servers: Servers) -> str:
    """The address of a database with these stores, which is only read."""
    return await servers.kept(18, "named_stores", fill)


@pytest_asyncio.fixture
async def writable(empty_dsn18: str) -> str:
    await fill(empty_dsn18)
    return empty_dsn18


def types(*arguments: str, **environ: str) -> list[str]:
    done = esx(*arguments, "--json", **environ)
    assert done.returncode == 0, done.stderr
    return [event["event_type"] for event in ndjson(done.stdout)]


@pytest.mark.slow
async def test_another_table_is_read_and_written_by_every_command(writable: str) -> None:
    stores = writable
    for store, kind in (("tenant.events", "Tenant"), (_QUOTED, "Quoted")):
        there = ("-d", stores, "--store", store)
        # It may stand before the command's name as well.
        assert types(*there, "read", "s-1") == types("read", "$all", *there) == [kind]
        assert types("tail", "--no-follow", "--from", "0", *there) == [kind]
        assert [event["event_type"] for event in ndjson(esx("export", *there).stdout)] == [kind]
        assert types("trail", "c", *there) == [kind]
        assert esx("state", "s-1", *there).returncode == 0
        assert [s["last_event_type"] for s in ndjson(esx("streams", "--json", *there).stdout)] == [kind]
        [health] = ndjson(esx("health", "--json", *there).stdout)
        assert (health["head"], health["safe"]) == (1, 1)
        appended = esx("append", "s-2", "More", "{}", *there)
        assert (appended.returncode, appended.stderr) == (0, "")
        line = b'{"stream_id": "s-3", "stream_seq": 0, "event_type": "Brought", "data": {}}\n'
        assert esx("import", "-", *there, stdin=line).returncode == 0
        assert types("read", "$all", *there) == [kind, "More", "Brought"]
        table = next(f for f in ndjson(esx("doctor", "--json", *there).stdout) if f["check"] == "table")
        assert store in table["message"]
    assert types("read", "$all", "-d", stores) == ["Plain"]


@pytest.mark.slow
async def test_a_view_is_read_with_one_line_about_whose_it_is(stores: str) -> None:
    for command in (["read", "s-1"], ["streams"], ["export"], ["tail", "--no-follow", "--from", "0"], ["health"]):
        done = esx(*command, "-d", stores, "--store", "shown")
        assert done.returncode == 0, done.stderr
        [said] = done.stderr.splitlines()
        assert said.startswith("public.shown is a view of user postgres")
        assert said.endswith("what its owner has put into it runs when it is read")
        assert said not in done.stdout
    line = esx("append", "s-1", "T", "-d", stores, "--store", "shown")
    assert (line.returncode, line.stdout) == (1, "")
    assert line.stderr.splitlines()[-1] == "esx: public.shown is a view: esx appends to tables only"
    # A table is nobody's to warn of.
    assert esx("streams", "-d", stores, "--store", "tenant.events").stderr == ""


NOTHING = {
    "tenant.nothing": "has no table or view tenant.nothing: name it as schema.table",
    "nowhere.events": "has no table or view nowhere.events: name it as schema.table",
    "Tenant.Events2": 'quote capitals as SQL does: "Name"',
    "a b c": "has no table or view a b c",
    '"': 'has no table or view "',
    "events; DROP TABLE events": "has no table or view events; DROP TABLE events",
    "stream_locks": "has no column global_seq",
    "events_global_seq_seq": "is neither a table nor a view",
    "events_pkey": "events_pkey of database",
    "x\x1b[31my": "x\u241b[31my",
}


@pytest.mark.slow
async def test_a_name_of_nothing_is_one_line(stores: str) -> None:
    streams, *others = [["streams"], ["append", "s", "T"], ["tail", "--no-follow"], ["export"], ["health"]]
    every = [(name, streams) for name in NOTHING] + [("tenant.nothing", command) for command in others]
    for name, command in every:
        line = one_line_error(esx(*command, "-d", stores, "--store", name), 1)
        assert NOTHING[name] in line, (name, command)
        assert "\x1b" not in line, (name, command)


def test_an_empty_name_is_wrong_usage() -> None:
    for name in ("", " "):
        done = esx("streams", "-d", "postgresql://127.0.0.1:1/x", "--store", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--store" in done.stderr
        assert "Traceback" not in done.stderr


async def test_the_doctor_tells_of_a_name_of_nothing_too(stores: str) -> None:
    done = esx("doctor", "--json", "-d", stores, "--store", "tenant.nothing")
    assert done.returncode == 1
    table = next(finding for finding in ndjson(done.stdout) if finding["check"] == "table")
    assert (table["severity"], table["remedy"]) == ("error", ["esx doctor --store public.events"])
    assert "has no table or view tenant.nothing, but public.events" in table["message"]


@pytest.mark.slow
async def test_what_belongs_to_events_is_refused_elsewhere(writable: str) -> None:
    tables = "SELECT relname FROM pg_class WHERE relnamespace = 'tenant'::regnamespace ORDER BY 1"
    async with connected(writable) as connection:
        before = await connection.fetch(tables)
    there = ("-d", writable, "--store", "tenant.events")
    assert "leave the store's name out" in one_line_error(esx("init", *there), 1)
    for command in (["load", "--duration", "1"], ["load", "sweep", "--vary", "users=1,2"]):
        line = one_line_error(esx(*command, *there), 1)
        assert "a load test goes to the table events" in line
        assert "tenant.events" in line
    assert "leave --store out" in one_line_error(esx("demo", "--no-tui", *there), 2)
    async with connected(writable) as connection:
        assert await connection.fetch(tables) == before
        assert await connection.fetchval("SELECT count(*) FROM tenant.events") == 1
        assert await connection.fetchval("SELECT count(*) FROM events") == 1


@pytest.mark.slow
async def test_the_config_file_names_a_store_and_the_option_goes_first(tmp_path: Path, stores: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        f"[connections.tenant]\ndsn = '{stores}'\nstore = 'tenant.events'\n"
        f"[connections.odd]\ndsn = '{stores}'\nstore = '{_QUOTED}'\n"
        f"[connections.plain]\ndsn = '{stores}'\n"
        f"[connections.gone]\ndsn = '{stores}'\nstore = 'tenant.nothing'\n",
        encoding="utf-8",
    )
    environ = {"ESX_CONFIG": str(path)}
    read = ("read", "$all", "-d")
    assert [types(*read, name, **environ) for name in ("tenant", "odd", "plain")] == [["Tenant"], ["Quoted"], ["Plain"]]
    assert types(*read, "tenant", "--store", _QUOTED, **environ) == ["Quoted"]
    assert types("--store", "public.events", *read, "tenant", **environ) == ["Plain"]
    # Of two, the one nearer to the command.
    assert types("--store", "tenant.events", *read, "plain", "--store", _QUOTED, **environ) == ["Quoted"]
    assert "tenant.nothing" in one_line_error(esx("streams", "-d", "gone", **environ), 1)
    assert "a load test goes to the table events" in one_line_error(esx("load", "-d", "tenant", **environ), 1)
    assert "leave the store's name out" in one_line_error(esx("init", "-d", "tenant", **environ), 1)
    assert "store = 'tenant.events'".replace("'", '"') in esx("config", **environ).stdout


@pytest.mark.slow
async def test_the_explorer_says_which_store_it_shows(stores: str) -> None:
    async with explorer(stores, store="tenant.events") as (app, _):
        assert "tenant.events in test database" in lines_of(app)[0]
    async with explorer(stores, size=(90, 30), store="tenant.events", label="x" * 80) as (app, _):
        assert "tenant.events" in lines_of(app)[0]
    async with explorer(stores) as (app, _):
        assert " in test database" not in lines_of(app)[0]


@pytest.mark.slow
async def test_the_explorer_says_so_of_a_connection_it_goes_to(stores: str) -> None:
    from tests.tui.test_connections import choose

    config = Config(connections={"elsewhere": Connection("elsewhere", stores, store=_QUOTED)})
    async with explorer(stores, config=config) as (app, pilot):
        await choose(app, pilot, "elsewhere")
        await until(pilot, lambda: f"{_QUOTED} in elsewhere" in lines_of(app)[0])
