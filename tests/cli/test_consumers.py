"""esx consumers, as a process: it says first what will happen, and does nothing without a yes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import EventStore, NewEvent, ProjectionFailed
from tests.cli.support import esx, ndjson, one_line_error

if TYPE_CHECKING:
    from esx import Event

pytestmark = pytest.mark.slow


async def refuse_bad(connection: asyncpg.Connection, event: Event) -> None:
    if event.event_type == "Bad":
        raise ValueError("bad\x1b[2J")
    await connection.execute("INSERT INTO seen VALUES ($1)", event.global_seq)


async def failed(dsn: str, store: EventStore) -> asyncpg.Connection:
    """Leave a projection behind that failed at event 2 of 3."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE seen (global_seq bigint)")
    await store.append("s", [NewEvent("T"), NewEvent("Bad"), NewEvent("T")])
    with pytest.raises(ProjectionFailed):
        await store.project("p", refuse_bad)
    return connection


async def test_the_list_for_people_and_for_programs(dsn18: str, store18: EventStore) -> None:
    none = esx("consumers", "-d", dsn18)
    assert (none.returncode, none.stdout) == (0, "")
    assert "no consumers" in none.stderr
    await (await failed(dsn18, store18)).close()
    shown = esx("consumers", "-d", dsn18).stdout.splitlines()
    assert shown[0].split()[:5] == ["CONSUMER", "KIND", "STATE", "POSITION", "LAG"]
    assert shown[1].split()[:5] == ["p", "projection", "failed", "1", "2"]
    assert shown[1].endswith("at event 2: ValueError: bad␛[2J")
    [found] = ndjson(esx("consumers", "--json", "-d", dsn18).stdout)
    wanted: dict[str, Any] = {"name": "p", "state": "failed", "lag": 2, "error_seq": 2, "pid": None, "parked": 0}
    assert wanted.items() <= found.items()


async def test_nothing_is_done_without_a_yes(dsn18: str, store18: EventStore) -> None:
    connection = await failed(dsn18, store18)
    for name, effect in (
        ("pause", "projection p stops after 1"),
        ("reset", "handles the events after 0 AGAIN"),
        ("skip", "NEVER handles event 2 (Bad of s)"),
        ("delete", "is FORGOTTEN"),
    ):
        asked = esx("consumers", name, "p", "-d", dsn18)
        assert (asked.returncode, asked.stdout) == (2, ""), name
        assert effect in asked.stderr
        assert "say with --yes" in asked.stderr
    row = await connection.fetchrow("SELECT position, paused, last_error IS NOT NULL FROM consumers")
    assert row is not None
    assert tuple(row) == (1, False, True)
    await connection.close()


async def test_with_a_yes_each_is_done(dsn18: str, store18: EventStore) -> None:
    connection = await failed(dsn18, store18)
    assert esx("consumers", "pause", "p", "--yes", "-d", dsn18).stdout == "paused at 1\n"
    assert esx("consumers", "resume", "p", "--yes", "-d", dsn18).stdout == "goes on after 1\n"
    assert esx("consumers", "skip", "p", "--yes", "-d", dsn18).stdout == "skipped 2\n"
    [skipped] = ndjson(esx("consumers", "parked", "p", "--json", "-d", dsn18).stdout)
    assert (skipped["global_seq"], skipped["state"], skipped["stream_id"]) == (2, "skipped", "s")
    assert "skipped" in esx("consumers", "parked", "p", "-d", dsn18).stdout
    emptied = esx("consumers", "reset", "p", "--to", "1", "--truncate", "seen", "--yes", "-d", dsn18)
    assert emptied.stdout == "goes on after 1\n"
    assert "table seen is EMPTIED" in emptied.stderr
    assert await connection.fetchval("SELECT count(*) FROM seen") == 0
    assert esx("consumers", "reset", "p", "--to", "end", "--yes", "-d", dsn18).stdout == "goes on after 3\n"
    assert esx("consumers", "delete", "p", "--yes", "-d", dsn18).stdout == "deleted\n"
    assert "no consumer p" in one_line_error(esx("consumers", "delete", "p", "--yes", "-d", dsn18), 1)
    await connection.close()


async def test_what_makes_no_sense_is_refused(dsn18: str, store18: EventStore) -> None:
    await (await failed(dsn18, store18)).close()
    assert "belongs after" in one_line_error(esx("consumers", "--json", "parked", "p", "-d", dsn18), 2)
    assert "is not a time" in one_line_error(esx("consumers", "reset", "p", "--to", "x", "--yes", "-d", dsn18), 2)
    assert "has not parked event 9" in esx("consumers", "skip", "p", "--event", "9", "--yes", "-d", dsn18).stderr
