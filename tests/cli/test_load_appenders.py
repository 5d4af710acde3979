"""esx load on the stores of other tools, as a process: how they are named, what it says of them, what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx import EventStore
from esx.load.archive import Archive
from esx.load.errors import LoadFailed
from esx.load.safety import check_may_write
from tests.cli.support import esx, ndjson, one_line_error
from tests.layouts.foreign.fixtures import load_into
from tests.support.appenders import MARTEN, QUICK_APPEND, WRITE_MESSAGE
from tests.support.connections import connected

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from tests.support.roles import Role

pytestmark = pytest.mark.slow

_SHORT = ("--users", "3", "--streams", "2", "--max-appends", "100")
_COUNT = "SELECT count(*) FROM message_store.messages"


async def test_message_db_is_tested_only_by_its_own_way_of_appending(empty_dsn18: str, tmp_path: Path) -> None:
    await load_into(empty_dsn18, "messagedb")
    async with connected(empty_dsn18) as connection:
        await connection.execute(WRITE_MESSAGE)
        before = await connection.fetchval(_COUNT)
        for named in ((), ("--store", "messagedb")):
            line = one_line_error(esx("load", *_SHORT, "-d", empty_dsn18, *named), 1)
            assert "--appender" in line
            assert "--append-sql" in line
        async with EventStore.connect(empty_dsn18) as store:
            with pytest.raises(LoadFailed, match="holds events that are not a load test's"):
                await check_may_write(store, None)
            assert await connection.fetchval(_COUNT) == before, "nothing was written"
            await connection.execute("TRUNCATE message_store.messages")

            environ = {"ESX_DATA_DIR": str(tmp_path)}
            by = ("--appender", "messagedb", "--subscribers", "1", "--json")
            done = esx("load", *_SHORT, *by, "-d", empty_dsn18, **environ)
            assert done.returncode == 0, done.stderr
            assert "appends by message_store.write_message: events of streams load-RUN-N" in done.stderr
            summary = ndjson(done.stdout)[-1]
            assert summary["verdict"] == "pass"
            assert summary["options"]["appender"] == "messagedb"
            of_run = f"{_COUNT} WHERE stream_name ~ '^load-{summary['run']}-[01]$'"
            assert await connection.fetchval(of_run) == summary["stored"] > 0
            await check_may_write(store, None)  # the next test finds only events of this one
    page = tmp_path / "page.html"
    assert esx("load", "report", "last", "-o", str(page), **environ).returncode == 0
    assert "messagedb" in page.read_text()


async def test_a_sweep_turns_knobs_of_another_stores_appends(empty_dsn18: str, tmp_path: Path) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(MARTEN + QUICK_APPEND)
    environ = {"ESX_DATA_DIR": str(tmp_path)}
    sweep = ("load", "sweep", "--json", "-d", empty_dsn18)
    by = ("--appender", "marten", "--expected", "any", "--vary", "users=2", "--max-appends", "50")
    done = esx(*sweep, *by, **environ)
    assert done.returncode == 0, done.stderr
    assert [result["verdict"] for result in ndjson(done.stdout)] == ["pass"]
    [saved] = ndjson(esx("load", "sweep", "--list", "--json", **environ).stdout)
    assert "--appender marten" in saved["command"]


async def test_an_appender_that_loses_events_makes_the_command_fail(dsn18: str, tmp_path: Path) -> None:
    file = tmp_path / "lossy.sql"
    file.write_text(
        "-- conflict: none\n"
        "INSERT INTO events (stream_id, stream_seq, event_type, data, metadata, event_id)\n"
        "VALUES (:stream, :version + 1, :type, :data, :metadata, :event_id) ON CONFLICT DO NOTHING;\n"
    )
    environ = {"ESX_DATA_DIR": str(tmp_path)}
    load = ("load", "--users", "8", "--streams", "1", "--max-appends", "300", "--append-sql", str(file))
    done = esx(*load, "-d", dsn18, **environ)
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert " lost: load-" in done.stderr
    assert f"appends by the statement of {file}" in done.stderr
    summary = Archive.of(environ).load("last").summary
    assert summary is not None
    assert summary.environment["statement"] == file.read_text(), "the file may change, and the run is kept"


def test_a_file_that_cannot_be_used_is_refused_before_the_database(tmp_path: Path) -> None:
    file = tmp_path / "bad.sql"
    file.write_text("-- conflict: none\nSELECT append(:stream, :event)")
    nowhere = ("-d", "postgresql://nobody@127.0.0.1:1/nothing", "--append-sql", str(file))
    for command in (("load",), ("load", "sweep", "--vary", "users=1,2")):
        assert "line 2: :event is no parameter: use :stream" in one_line_error(esx(*command, *nowhere), 1)


async def test_an_owner_who_is_trusted_is_trusted_by_the_test_too(
    dsn18: str, sql18: asyncpg.Connection, role: Role, tmp_path: Path
) -> None:
    await sql18.execute(
        "CREATE FUNCTION shorter(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.left($1, 9)'; "
        f"CREATE INDEX ON events (shorter(event_type)); ALTER FUNCTION shorter OWNER TO {role.name}"
    )
    load = ("load", "--users", "1", "--max-appends", "20", "--subscribers", "1", "-d", dsn18)
    assert "trust the owner with --trust-owner" in one_line_error(esx(*load), 1)
    done = esx(*load, "--trust-owner", ESX_DATA_DIR=str(tmp_path))
    await sql18.execute("DROP FUNCTION shorter CASCADE")
    assert done.returncode == 0, done.stderr
