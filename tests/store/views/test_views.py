"""A view as a command, as SQL and as an export: each gives the same rows."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from esx.database_choice import Database, normalise
from esx.embedded import EmbeddedServer
from esx.eventstore import EventStore
from esx.filters import Filter, StreamFilter
from esx.fold.type_shapes import type_shapes
from esx.model import NewEvent
from esx.store.views import (
    ConsumersView,
    EventsView,
    EventView,
    FeedView,
    StreamsView,
    SummaryView,
    TrailView,
    TypesView,
    View,
)
from esx.text import shell_word
from tests.cli.support import environment, esx, ndjson

if TYPE_CHECKING:
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
    return subprocess.run(
        program, input=text.encode(), capture_output=True, env=environment(), timeout=200, check=False
    )


async def run_command(*commands: str) -> list[list[dict[str, Any]]]:
    """Run commands as a shell reads them when they are pasted, with --json, and return the rows of each."""
    script = 'esx() { printf \'%s\\0\' "$#" "$@"; }\n' + "\n".join(commands)
    read = await asyncio.to_thread(piped, script, "bash", "-e", "-o", "pipefail")
    assert read.returncode == 0, read.stderr.decode()
    words = iter(read.stdout.decode().split("\0")[:-1])
    rows = []
    for number in words:
        arguments = [next(words) for _ in range(int(number))]
        done = await asyncio.to_thread(esx, arguments[0], "--json", *arguments[1:])
        assert done.returncode == 0, done.stderr
        rows.append(ndjson(done.stdout))
    assert len(rows) == len(commands)
    return rows


async def run_sql(server: EmbeddedServer, dsn: str, query: str) -> list[dict[str, Any]]:
    """Run a query with psql as it was copied, and return its rows."""
    script = query.rstrip(";\n").join(("SELECT row_to_json(row) FROM (\n", "\n) row;\n"))
    psql = str(server.bin_dir / "psql")
    done = await asyncio.to_thread(piped, script, psql, "-XqAt", "-v", "ON_ERROR_STOP=1", dsn)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def keys(rows: list[dict[str, Any]]) -> list[Any]:
    return [(row["stream_id"], row.get("stream_seq", row.get("version"))) for row in rows]


@pytest.mark.slow
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
        *((StreamsView(StreamFilter(stream)), [(stream, 2)]) for stream in HOSTILE[:2]),
        (StreamsView(StreamFilter(match="*[$]1 {} \\[b\\]\\*[?]"), recent=True), [(HOSTILE[5], 2)]),
        (StreamsView(StreamFilter(contains="'; DROP")), [(HOSTILE[1], 2)]),
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
    commands = [view.command(100, database.options) for view, _ in views]
    printed = await run_command(*commands)
    for (view, expected), command, rows in zip(views, commands, printed, strict=True):
        assert keys(rows) == expected, command
        exported = b"".join([piece async for piece in view.whole.rows(store18)])
        if view == view.whole:
            assert keys([json.loads(line) for line in exported.splitlines()]) == expected
        query = await store18.sql(view, limit=100)
        # Nothing that a terminal would obey or hide, though either is pasted there.
        assert (command + query.replace("\n", "")).isprintable()
        selected = keys(await run_sql(server, dsn18, query))
        assert (sorted(selected) if isinstance(view, StreamsView) else selected) == (
            sorted(expected) if isinstance(view, StreamsView) else expected
        ), query
    feed = FeedView(members[0] - 1, Filter(stream="plain-*"))
    assert keys(await run_sql(server, dsn18, await store18.sql(feed))) == [("plain-1", 0), ("plain-1", 1)]
    assert b"".join([piece async for piece in feed.rows(store18)]).count(b"\n") == 2
    assert feed.command() == f"esx tail --from={members[0] - 1} '--stream=plain-*'"


@pytest.mark.slow
async def test_a_copied_overview_counts_the_same(dsn18: str, store18: EventStore, servers: Servers) -> None:
    for stream in ("orders-1", "orders-2", HOSTILE[0]):
        await store18.append(stream, [NewEvent("Type's", {"at": 1}), NewEvent("B", {"at": 2})])
    now = datetime.now(UTC)
    types = TypesView(tuple(one.to_json() for one in type_shapes(await store18.types())))
    lately = SummaryView(now - timedelta(minutes=5), now + timedelta(minutes=5), Filter(stream="orders-*"))
    consumers = ConsumersView()
    options = Database(dsn18, "", "", embedded=False).options
    printed = await run_command(*(view.command(100, options) for view in (types, lately, consumers)))
    server = await servers.get(18)
    selected = [await run_sql(server, dsn18, await store18.sql(view)) for view in (types, lately, consumers)]
    exported = [json.loads(line) for line in b"".join([piece async for piece in types.rows(store18)]).splitlines()]
    # The rate is that until now, and time goes on.
    assert [{**row, "rate": None} for row in printed[0]] == [{**row, "rate": None} for row in exported]
    for rows in (printed[0], selected[0]):
        assert {row["event_type"]: row["events"] for row in rows} == {"Type's": 3, "B": 3}
    expected = {("orders", "Type's"): (2, 0), ("orders", "B"): (2, 0)}
    exported = [json.loads(line) for line in b"".join([piece async for piece in lately.rows(store18)]).splitlines()]
    for rows in (printed[1][1:], selected[1], exported):
        assert {(row["category"], row["event_type"]): (row["events"], row["before"]) for row in rows} == expected
    assert printed[2] == selected[2] == []


def test_of_all_streams_a_filter_of_streams_is_copied_too() -> None:
    where = Filter(stream="orders-*", event_type="Paid")
    assert EventsView(where=where).command() == "esx read '$all' 'stream:orders-* type:Paid'"
    assert EventsView("orders-1", where=where).command() == "esx read --type=Paid orders-1"


def test_a_copied_command_names_the_database_without_its_password() -> None:
    for dsn, shown in (
        ("postgresql://me:hunter2@h:5/d?sslmode=require", "postgresql://me@h:5/d?sslmode=require"),
        ("host=/run/pg dbname=d password=hunter2", "postgresql:///d?host=/run/pg"),
        ("postgresql://h/d?password=hunter2", "postgresql://h/d"),
    ):
        command = StreamsView().command(database=Database(normalise(dsn), "", "", embedded=False).options)
        assert shlex.split(command) == ["esx", "streams", "-d", shown]
    named = Database("postgresql://me:hunter2@h/d", "", "", embedded=False, name="shop")
    assert StreamsView().command(database=named.options) == "esx streams -d shop"
    embedded = Database(None, "", "", embedded=True)
    assert EventsView().command(database=embedded.options) == "esx read -d embedded '$all'"
    assert shell_word("\x1b's") == "$'\\x1b\\x27s'"
