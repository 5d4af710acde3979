from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from esx import EventStore, NewEvent
from esx.store.bulk.copy import ImportedEvent
from tests.cli.support import Running, esx, one_line_error

if TYPE_CHECKING:
    import asyncpg

pytestmark = pytest.mark.slow

_INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('slow', 0, 'T', '{}')"


async def test_says_who_holds_the_feed_and_what_came_late(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    tail = await Running.start("tail", "--json", "--stats", "-d", dsn18)
    assert "following after global_seq 0" in await tail.narration()
    transaction = sql18.transaction()
    await transaction.start()
    await sql18.execute(_INSERT)
    await store18.append("s", [NewEvent("T")])
    pid = await sql18.fetchval("SELECT pg_backend_pid()")
    held = await tail.narration()
    assert "global_seq 1 may still appear" in held
    assert f"pid {pid}" in held
    await transaction.commit()
    assert await tail.narration() == "the feed goes on\n"
    assert [json.loads(await tail.line())["stream_id"] for _ in range(2)] == ["slow", "s"]
    tail.process.send_signal(signal.SIGINT)
    summary = await tail.narration()
    assert "2 events printed of 2 looked at, up to global_seq 2; 1 came late (the longest by " in summary
    assert "0 numbers are dead" in summary
    assert await tail.process.wait() == 130


async def test_counts_what_a_filter_left_out(dsn18: str, store18: EventStore) -> None:
    await store18.append("a-1", [NewEvent("T"), NewEvent("U")])
    await store18.append("b-1", [NewEvent("T")])
    done = esx("tail", "--from", "start", "--no-follow", "--stats", "--type", "T", "--stream", "a-*", "-d", dsn18)
    assert len(done.stdout.splitlines()) == 1
    assert "1 event printed of 3 looked at, up to global_seq 3" in done.stderr


async def test_begins_at_a_time(dsn18: str, store18: EventStore) -> None:
    at = datetime(2024, 8, 7, 12, tzinfo=UTC)
    await store18.import_events(
        ImportedEvent("s", n, "T", "{}", None, at + timedelta(hours=n), uuid4()) for n in range(6)
    )
    for output in ((), ("--json",)):
        done = esx("tail", "--from", "2024-08-07T15:00Z", "--no-follow", *output, "-d", dsn18)
        assert len(done.stdout.splitlines()) == 3
    assert esx("tail", "--from", "-1s", "--no-follow", "-d", dsn18).stdout == ""
    for wrong in ("soon", "9" * 5000):
        assert "start, end, or a global_seq" in one_line_error(esx("tail", "--from", wrong, "-d", dsn18), 2)


async def test_what_commits_late_is_printed_though_it_began_below_the_time(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    at = datetime(2024, 8, 7, 12, tzinfo=UTC)
    await store18.import_events(
        ImportedEvent("s", n, "T", "{}", None, at + timedelta(hours=n), uuid4()) for n in range(3)
    )
    transaction = sql18.transaction()
    await transaction.start()
    await sql18.execute(_INSERT)
    await store18.import_events([ImportedEvent("s", 3, "T", "{}", None, at + timedelta(hours=3), uuid4())])
    tail = await Running.start("tail", "--json", "--from", "2024-08-07T15:00Z", "-d", dsn18)
    await tail.narration()
    await transaction.commit()
    assert [json.loads(await tail.line())["stream_id"] for _ in range(2)] == ["slow", "s"]
    tail.process.send_signal(signal.SIGINT)
    await tail.process.wait()
