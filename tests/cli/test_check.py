"""esx check: one line, and the exit codes of monitoring plugins, whatever goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import NewEvent
from tests.cli.support import esx

if TYPE_CHECKING:
    from esx import EventStore

pytestmark = pytest.mark.slow


def line(*arguments: str, code: int) -> str:
    done = esx("check", *arguments)
    assert done.returncode == code, done
    [printed] = done.stdout.splitlines()
    assert done.stderr == ""
    return printed


async def test_one_line_and_a_plugins_exit_codes(dsn18: str, store18: EventStore) -> None:
    assert line("-d", dsn18, code=0).startswith("ESX OK - 0 consumers")
    await store18.append("s", [NewEvent("T") for _ in range(20)])
    connection = await asyncpg.connect(dsn18)
    await connection.execute("INSERT INTO consumers (name) VALUES ('p')")
    assert line("-d", dsn18, "--max-age", "1h", code=0).startswith("ESX OK - 1 consumer, at most 20 events behind |")
    warned = line("-d", dsn18, "--max-lag", "10", "--max-age", "1h", code=1)
    assert warned.startswith("ESX WARNING - projection p is waiting, and 20 events behind")
    assert line("-d", dsn18, "--max-lag", "1", "--max-age", "1h", code=2).startswith("ESX CRITICAL - ")
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('w', 0, 'T', '1')"
        )
        held = line("-d", dsn18, "--max-age", "1h", "--max-held", "0s", code=2)
        assert f"pid {connection.get_server_pid()} may hold the feed" in held
    await connection.close()


def test_what_cannot_be_judged_is_unknown() -> None:
    assert line("-d", "postgresql://localhost:1/x", code=3).startswith("ESX UNKNOWN - cannot reach localhost:1/x")
    assert "'x' is not a valid integer" in line("--max-lag", "x", code=3)
    assert "is not a duration" in line("--max-age", "soon", code=3)
    assert line("--bogus", code=3).startswith("ESX UNKNOWN - No such option")


async def test_a_database_without_events_is_unknown(empty_dsn18: str) -> None:
    assert "has no table events" in line("-d", empty_dsn18, code=3)
