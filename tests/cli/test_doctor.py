"""`esx doctor` as a process: what it prints, and how it exits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import EventStore, NewEvent
from esx.embedded import EmbeddedServer
from tests.cli.support import esx, ndjson, one_line_error

if TYPE_CHECKING:
    from pathlib import Path

_COUNTS = re.compile(r"(\d+) errors?, (\d+) warnings?, (\d+) checks? passed in [\d.]+ m?s")


def counts(text: str) -> tuple[int, int, int]:
    match = _COUNTS.fullmatch(text.splitlines()[-1])
    assert match is not None, text
    errors, warnings, passed = map(int, match.groups())
    return errors, warnings, passed


@pytest.mark.slow
def test_the_embedded_store_is_healthy_from_the_first(tmp_path: Path) -> None:
    done = esx("doctor", ESX_DATA_DIR=str(tmp_path))
    with EmbeddedServer.start(tmp_path):  # which the others need not start
        full = esx("doctor", "--full", ESX_DATA_DIR=str(tmp_path))
        as_json = esx("doctor", "--json", ESX_DATA_DIR=str(tmp_path))
    for each in (done, full):
        assert each.returncode == 0, each.stdout + each.stderr
        assert counts(each.stdout)[:2] == (0, 0)
        assert each.stderr == ""
    assert as_json.returncode == 0
    findings = ndjson(as_json.stdout)
    assert all(list(finding) == ["check", "severity", "message", "remedy"] for finding in findings)
    assert {finding["severity"] for finding in findings} == {"ok", "info"}


async def test_findings_are_grouped_aligned_and_counted(dsn18: str, sql18: asyncpg.Connection) -> None:
    await sql18.execute(
        "CREATE INDEX mine ON events (stream_id); CREATE INDEX yours ON events (global_seq); "
        "ALTER SEQUENCE events_global_seq_seq CACHE 20"
    )
    done = esx("doctor", "-d", dsn18)
    assert done.returncode == 1
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    severities = [line.split()[0] for line in lines if re.match(r"(ok|info|warning|error) ", line)]
    assert severities == sorted(severities, key=["ok", "info", "warning", "error"].index)
    # The servers of the tests run without fsync, which is one more error.
    assert counts(done.stdout)[:2] == (2, 2)
    remedy = next(line for line in lines if line.endswith("DROP INDEX CONCURRENTLY mine;"))
    finding = lines[lines.index(remedy) - 1]
    assert finding.startswith("warning  redundant-index")
    assert len(remedy) - len(remedy.lstrip()) == finding.index("index mine")
    findings = ndjson(esx("doctor", "--json", "-d", dsn18).stdout)
    assert {"ALTER SEQUENCE events_global_seq_seq CACHE 1;"} == {
        step for finding in findings if finding["check"] == "sequence-cache" for step in finding["remedy"]
    }


async def test_only_errors_and_warnings_change_the_exit_code(dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("DROP INDEX events_correlation_id_idx")
    findings = ndjson(esx("doctor", "--json", "-d", dsn18).stdout)
    assert [f["check"] for f in findings if f["severity"] in ("warning", "error")] == ["fsync"]
    assert "correlation-index" in [f["check"] for f in findings if f["severity"] == "info"]
    await connection.close()


@pytest.mark.slow
async def test_full_looks_at_every_event(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T") for _ in range(5)])
    connection = await asyncpg.connect(dsn18)
    await connection.execute("DELETE FROM events WHERE stream_seq = 2")
    await connection.close()
    assert "stream-seq" not in esx("doctor", "-d", dsn18).stdout.replace("unique-stream-seq", "")
    full = esx("doctor", "--full", "-d", dsn18)
    assert "s after 1" in full.stdout
    assert full.returncode == 1


async def test_a_database_without_the_schema(empty_dsn18: str) -> None:
    done = esx("doctor", "--full", "--json", "-d", empty_dsn18)
    assert done.returncode == 1
    [finding] = [finding for finding in ndjson(done.stdout) if finding["check"] == "table"]
    assert (finding["severity"], finding["remedy"]) == ("error", ["esx init"])
    async with EventStore.connect(empty_dsn18) as store:
        assert not await store.has_schema()


async def test_a_read_only_database(dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    database = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await connection.close()
    findings = ndjson(esx("doctor", "--full", "--json", "-d", dsn18).stdout)
    assert [f["check"] for f in findings if f["severity"] in ("warning", "error")] == ["fsync"]


@pytest.mark.slow
async def test_hostile_names_are_not_obeyed(dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    name = "mine\x1b[31m\r\u202e"
    await connection.execute(f'CREATE INDEX "{name}" ON events (stream_id)')
    await connection.close()
    text = esx("doctor", "-d", dsn18).stdout
    assert "redundant-index" in text
    assert not any(char in text for char in "\x1b\r\u202e")
    findings = ndjson(esx("doctor", "--json", "-d", dsn18).stdout)
    assert [f'DROP INDEX CONCURRENTLY "{name}";'] in [finding["remedy"] for finding in findings]


def test_a_database_that_cannot_be_reached() -> None:
    assert "127.0.0.1:1" in one_line_error(esx("doctor", "-d", "postgresql://me@127.0.0.1:1/x"), 1)
