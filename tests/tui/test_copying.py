"""What is shown, copied as a command and as SQL and exported: each gives the rows on the screen."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from textual.widgets import Input

from esx.database import Database, normalise
from esx.embedded import EmbeddedServer
from esx.store import Event, EventStore, NewEvent
from esx.store.barrier import Filter
from esx.store.views import EventsView, EventView, FeedView, StreamsView, TrailView, View
from esx.tui.copying import command_of, quoted
from esx.tui.widgets.copyas import CopyAs
from esx.tui.widgets.exportdialog import ExportDialog
from tests.cli.support import environment
from tests.tui.helpers import browse, explorer, fill, ids, text_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from textual.pilot import Pilot

    from esx.tui.app import Explorer
    from tests.conftest import Servers

HOSTILE = [
    'it\'s "quoted" $HOME `id` $(id) \\ %s :name',
    "'; DROP TABLE events; --",
    "--help",
    "\x1b[201~\x1b]0;owned\x07 rm\nnext\tline\r",
    "\u202egnp.exe\u200b \ufeffhidden",
    "ünïcødé 🎉 $1 {} [b]*?",
]


def piped(text: str, *program: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(program, input=text.encode(), capture_output=True, env=environment(), timeout=60, check=False)


async def run_command(*commands: str) -> list[list[dict[str, Any]]]:
    """Run commands as they were copied, in one shell, with --json, and return the rows of each."""
    script = f'esx() {{ {shlex.join([sys.executable, "-m", "esx"])} "$1" --json "${{@:2}}"; echo; }}\n'
    done = await asyncio.to_thread(piped, (script + "\n".join(commands)), "bash", "-e", "-o", "pipefail")
    assert done.returncode == 0, done.stderr.decode()
    parts = done.stdout.decode().split("\n\n")
    return [[json.loads(line) for line in part.split("\n") if line] for part in parts[: len(commands)]]


async def run_sql(server: EmbeddedServer, dsn: str, query: str) -> list[dict[str, Any]]:
    """Run a query with psql as it was copied, and return its rows."""
    script = query.rstrip(";\n").join(("SELECT row_to_json(row) FROM (\n", "\n) row;\n"))
    psql = str(server.bin_dir / "psql")
    done = await asyncio.to_thread(piped, script, psql, "-XqAt", "-v", "ON_ERROR_STOP=1", dsn)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def keys(rows: list[dict[str, Any]]) -> list[Any]:
    return [(row["stream_id"], row.get("stream_seq", row.get("version"))) for row in rows]


async def test_a_copied_view_gives_the_same_rows_whatever_streams_are_called(
    dsn18: str, store18: EventStore, servers: Servers
) -> None:
    for number, stream in enumerate(HOSTILE):
        await store18.append(stream, [NewEvent(f"Type's{at}", {"at": at, "of": number}) for at in range(3)])
    await store18.append("plain-1", [NewEvent("T", {"at": 9}, {"correlation_id": "c"}) for _ in range(2)])
    members = tuple([event.global_seq async for event in store18.read("plain-1")])
    in_bytes = sorted([*HOSTILE, "plain-1"], key=str.encode)
    latest = [*HOSTILE, "plain-1"][::-1]
    everything = [(stream, at) for stream in HOSTILE for at in range(3)] + [("plain-1", 0), ("plain-1", 1)]
    odd = Filter(event_type="Type's[12]", where="$.at > 1")
    views: list[tuple[View, list[Any]]] = [
        (StreamsView(), [(stream, 1 if stream == "plain-1" else 2) for stream in in_bytes]),
        (StreamsView(recent=True), [(stream, 1 if stream == "plain-1" else 2) for stream in latest]),
        *((StreamsView(prefix=stream), [(stream, 2)]) for stream in HOSTILE[:2]),
        (StreamsView(match="*[$]1 {} \\[b\\]\\*[?]", recent=True), [(HOSTILE[5], 2)]),
        (StreamsView(contains="'; DROP"), [(HOSTILE[1], 2)]),
        *((EventsView(stream, 1), [(stream, 1), (stream, 2)]) for stream in HOSTILE),
        (EventsView(HOSTILE[0], 1, backwards=True), [(HOSTILE[0], 1), (HOSTILE[0], 0)]),
        (EventsView(HOSTILE[1], where=odd), [(HOSTILE[1], 2)]),
        (EventsView(where=odd, backwards=True), [(stream, 2) for stream in HOSTILE[::-1]]),
        (EventsView(), everything),
        (EventView(members[0]), [("plain-1", 0)]),
        (TrailView(members[0], members, 1000), [("plain-1", 0), ("plain-1", 1)]),
    ]
    server = await servers.get(18)
    database = Database(dsn18, "", "", embedded=False)
    commands = [command_of(view, database, None if isinstance(view, TrailView) else 100) for view, _ in views]
    printed = await run_command(*commands)
    for (view, expected), command, rows in zip(views, commands, printed, strict=True):
        assert keys(rows) == expected, command
        query = await store18.sql(view, limit=100)
        # Nothing that a terminal would obey or hide, though either is pasted there.
        assert (command + query.replace("\n", "")).isprintable()
        selected = keys(await run_sql(server, dsn18, query))
        assert (sorted(selected) if isinstance(view, StreamsView) else selected) == (
            sorted(expected) if isinstance(view, StreamsView) else expected
        ), query
    feed = FeedView(members[0] - 1, Filter(stream="plain-*"))
    assert keys(await run_sql(server, dsn18, await store18.sql(feed))) == [("plain-1", 0), ("plain-1", 1)]
    assert command_of(feed) == f"esx tail --from={members[0] - 1} '--stream=plain-*'"


def test_a_copied_command_names_the_database_without_its_password() -> None:
    for dsn, shown in (
        ("postgresql://me:hunter2@h:5/d?sslmode=require", "postgresql://me@h:5/d?sslmode=require"),
        ("host=/run/pg dbname=d password=hunter2", "postgresql:///d?host=/run/pg"),
        ("postgresql://h/d?password=hunter2", "postgresql://h/d"),
    ):
        command = command_of(StreamsView(), Database(normalise(dsn), "", "", embedded=False))
        assert shlex.split(command) == ["esx", "streams", "-d", shown]
    named = Database("postgresql://me:hunter2@h/d", "", "", embedded=False, name="shop")
    assert command_of(StreamsView(), named) == "esx streams -d shop"
    assert command_of(EventsView(), Database(None, "", "", embedded=True)) == "esx read -d embedded '$all'"
    assert quoted("\x1b's") == "$'\\x1b\\x27s'"


async def copied(app: Explorer, pilot: Pilot[None], *down: str) -> str:
    await pilot.press("x")
    await until(pilot, lambda: isinstance(app.screen, CopyAs) and "esx command" in text_of(app))
    await pilot.press(*down, "enter")
    await until(pilot, lambda: not isinstance(app.screen, CopyAs))
    return app.clipboard


async def test_copying_what_is_shown(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 3, 3)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):
        assert "streams --limit=1000 -d" in await copied(app, pilot)
        await pilot.press("slash", *"s-00?", "enter")
        # With a filter there is no line for all streams.
        await until(pilot, lambda: [row.summary is None for row in browse(app).streams.rows] == [False] * 3)
        await pilot.press("home", "enter")
        await until(pilot, lambda: browse(app).events.has_focus and browse(app).stream_id == "s-000")
        assert (await copied(app, pilot)).endswith(" s-000")
        assert "e.stream_id = 's-000'" in await copied(app, pilot, "down")
        await until(pilot, lambda: browse(app).detail.event is not None)
        assert json.loads(await copied(app, pilot, "down", "down"))["stream_id"] == "s-000"
        await pilot.press("left")
        assert "'--match=s-00?'" in await copied(app, pilot)
        await pilot.press("2")
        await until(pilot, lambda: app.follower.log.received == 9)
        await until(pilot, lambda: "9 shown" in text_of(app))
        assert "esx tail --from=0" in await copied(app, pilot)


async def test_exporting_what_is_shown(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store18, 2, 3)
    monkeypatch.chdir(tmp_path)
    async with explorer(dsn18, size=(80, 24)) as (app, pilot):

        async def export(name: str = "") -> None:
            await pilot.press("e")
            await until(pilot, lambda: isinstance(app.screen, ExportDialog) and app.focused is not None)
            if name:
                app.screen.query_one(Input).value = name
                await pilot.pause()
            await pilot.press("enter")

        await export()
        await until(pilot, lambda: "2 rows" in text_of(app))
        rows = [json.loads(line) for line in (tmp_path / "streams.ndjson").read_text().splitlines()]
        assert [row["stream_id"] for row in rows] == ids(app)
        await pilot.press("down", "enter")
        await until(pilot, lambda: browse(app).events.has_focus and browse(app).stream_id == "s-000")
        # A file that is there is replaced only when asked for again.
        await export("streams.ndjson")
        await until(pilot, lambda: "there already: enter again replaces it" in text_of(app))
        assert len((tmp_path / "streams.ndjson").read_text().splitlines()) == 2
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, ExportDialog))
        rows = [json.loads(line) for line in (tmp_path / "streams.ndjson").read_text().splitlines()]
        assert [(row["stream_id"], row["stream_seq"]) for row in rows] == [("s-000", at) for at in range(3)]
        await export("missing/file")
        await until(pilot, lambda: "No such file" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, ExportDialog))
    assert [path.name for path in tmp_path.iterdir()] == ["streams.ndjson"]


async def test_an_export_can_be_stopped(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store18.append("s-1", [NewEvent("T") for _ in range(2500)])
    monkeypatch.chdir(tmp_path)
    going_on = asyncio.Event()
    read = EventStore.read

    async def halting(self: EventStore, stream_id: str, **options: Any) -> AsyncIterator[Event]:
        async for event in read(self, stream_id, **options):
            if event.stream_seq == 1500:
                going_on.set()
                await asyncio.Event().wait()
            yield event

    async with explorer(dsn18) as (app, pilot):
        await pilot.press("down", "enter")
        await until(pilot, lambda: browse(app).events.has_focus and browse(app).stream_id == "s-1")
        monkeypatch.setattr(EventStore, "read", halting)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, ExportDialog) and app.focused is not None)
        await pilot.press("enter")
        await until(pilot, going_on.is_set)
        [part] = tmp_path.iterdir()
        assert part.match("s-1.ndjson.*.part")
        await pilot.press("escape")
        await until(pilot, lambda: "export stopped, nothing written" in text_of(app))
        await until(pilot, lambda: not list(tmp_path.iterdir()))
