"""esx project run, as a process, with parked events that are listed and tried again while it runs."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import NewEvent
from tests.cli.support import Running, esx, ndjson, one_line_error
from tests.store.consume.test_projection import at, until

if TYPE_CHECKING:
    from pathlib import Path

    from esx import EventStore

pytestmark = pytest.mark.slow

HANDLERS = """
from pathlib import Path

async def handle(connection, event):
    if event.event_type == "Bad" and not Path(__file__).with_name("mended").exists():
        raise ValueError("bad")
    await connection.execute("INSERT INTO seen VALUES ($1)", event.global_seq)

async def many(connection, events):
    for event in events:
        await handle(connection, event)

def plain(connection, event): ...

async def lonely(event): ...
"""


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "seen_handlers.py").write_text(HANDLERS)
    monkeypatch.chdir(tmp_path)  # where they are looked for
    return tmp_path


async def test_it_runs_parks_and_tries_again(dsn18: str, store18: EventStore, handlers: Path) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("CREATE TABLE seen (global_seq bigint)")
    await store18.append("a", [NewEvent("T"), NewEvent("Bad"), NewEvent("T")])
    await store18.append("b", [NewEvent("T")])
    running = await Running.start(
        *("project", "run", "seen_handlers:many", "--batch", "--name", "p", "--on-error", "park", "-d", dsn18)
    )
    assert "begins at the start" in await running.narration()
    await at(store18, 4)
    assert "has parked event 2: ValueError: bad" in await running.narration()
    parked = ndjson(esx("consumers", "parked", "p", "--json", "-d", dsn18).stdout)
    assert [(each["global_seq"], each["error"]) for each in parked] == [
        (2, "ValueError: bad"),
        (3, "waits for event 2"),
    ]
    (handlers / "mended").touch()
    asked = esx("consumers", "retry", "p", "-d", dsn18)
    assert asked.returncode == 2
    assert "tries 2 parked events again" in asked.stderr
    assert esx("consumers", "retry", "p", "--yes", "-d", dsn18).stdout == "2 events to be tried again\n"

    async def all_seen() -> bool:
        return [row[0] for row in await connection.fetch("SELECT global_seq FROM seen ORDER BY 1")] == [1, 2, 3, 4]

    await until(all_seen)
    assert await running.end(signal.SIGTERM) == 128 + signal.SIGTERM
    await connection.close()


async def test_an_event_that_stops_it_is_named_in_one_line(dsn18: str, store18: EventStore, handlers: Path) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("CREATE TABLE seen (global_seq bigint)")
    await connection.close()
    await store18.append("a", [NewEvent("Bad")])
    done = esx("project", "run", "seen_handlers:handle", "--name", "p", "-d", dsn18)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "esx: projection p stopped at event 1: ValueError: bad"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("seen_handlers", "use module:function"),
        ("seen_handlers:nothing", "could not be loaded"),
        ("nowhere:handle", "there is no module nowhere"),
        ("seen_handlers:plain", "is not async"),
        ("seen_handlers:lonely", "has to take (connection, event)"),
    ],
)
def test_what_is_no_handler_is_refused(handlers: Path, function: str, reason: str) -> None:
    done = esx("project", "run", function, "--name", "p", "-d", "postgresql://localhost:1/x")
    assert reason in one_line_error(done, 2)


async def test_a_read_model_is_rebuilt_after_saying_so(dsn18: str, store18: EventStore, handlers: Path) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("CREATE TABLE seen (global_seq bigint); INSERT INTO seen VALUES (99)")
    await store18.append("a", [NewEvent("T"), NewEvent("T")])
    await connection.execute("INSERT INTO consumers (name, position) VALUES ('p', 2)")
    rebuild = ("project", "rebuild", "seen_handlers:many", "--batch", "--name", "p", "-d", dsn18, "--tables")
    asked = esx(*rebuild, "seen")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "the rows of seen are REPLACED" in asked.stderr
    done = esx(*rebuild, "seen", "--yes")
    assert done.stdout == "rebuilt from 2 events, up to 2\npublic.seen  2 rows\n"
    assert [row[0] for row in await connection.fetch("SELECT global_seq FROM seen ORDER BY 1")] == [1, 2]
    refused = esx(*rebuild, "nowhere", "--yes")
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (2, "esx: there is no table nowhere")
    await connection.close()


async def test_an_audit_says_same_or_which_rows_differ(dsn18: str, store18: EventStore, handlers: Path) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("CREATE TABLE seen (global_seq bigint PRIMARY KEY); INSERT INTO seen VALUES (1), (2)")
    await store18.append("a", [NewEvent("T"), NewEvent("T")])
    await connection.execute("INSERT INTO consumers (name, position) VALUES ('p', 2)")
    audit = ("project", "audit", "seen_handlers:handle", "--name", "p", "--tables", "seen", "-d", dsn18)
    same = esx(*audit)
    assert (same.returncode, same.stdout) == (0, "same\n")
    assert "holds back vacuum" in same.stderr
    await connection.execute("DELETE FROM seen WHERE global_seq = 2; INSERT INTO seen VALUES (7)")
    await connection.close()
    differs = esx(*audit, "--json")
    assert differs.returncode == 1
    assert "2 rows differ" in differs.stderr
    assert ndjson(differs.stdout) == [
        {"table": "public.seen", "key": [2], "kept": None, "made": {"global_seq": 2}, "events": [2]},
        {"table": "public.seen", "key": [7], "kept": {"global_seq": 7}, "made": None, "events": []},
    ]
    assert "touched by events 2" in esx(*audit).stdout


async def test_events_are_stepped_through_by_lines_of_stdin(dsn18: str, store18: EventStore, handlers: Path) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("CREATE TABLE seen (global_seq bigint)")
    await store18.append("a", [NewEvent("T"), NewEvent("Other"), NewEvent("T")])
    await connection.execute("INSERT INTO consumers (name, position) VALUES ('p', 3)")
    step = ("project", "step", "seen_handlers:handle", "--name", "p", "--tables", "seen", "-d", dsn18)
    talked = esx(*step, "--break-type", "T", stdin="\nb\nc\nc\n\nwhat\nq\n")
    assert talked.returncode == 0, talked.stderr
    assert [line for line in talked.stdout.splitlines() if not line.startswith(" ")] == [
        *("1  T  a@0  {}", "1  T  a@0  {}", "3  T  a@2  {}")
    ]
    assert 'after   {"global_seq": 3}' in talked.stdout
    assert "took back event 1" in talked.stderr
    assert "that is all, up to 3" in talked.stderr
    steps = ndjson(esx(*step, "--json").stdout)
    assert [(each["global_seq"], each["changes"]) for each in steps] == [
        (n, [{"table": "public.seen", "before": None, "after": {"global_seq": n}}]) for n in (1, 2, 3)
    ]
    assert await connection.fetchval("SELECT count(*) FROM seen") == 0
    await connection.close()
