"""What could not all be given: said on stderr, exit code 4, and 0 with --allow-partial; the data stay as they are."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest

from esx import EventStore, NewEvent
from tests.cli.support import esx, ndjson
from tests.support.roles import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow

INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('slow', 0, 'T', '{}')"


def partial(*arguments: str, **extra: str) -> tuple[str, str]:
    """Return what an incomplete command prints and says, the same with --allow-partial but for its exit code."""
    done = esx(*arguments, **extra)
    assert done.returncode == 4, (done.returncode, done.stderr)
    assert "esx: " not in done.stderr, "it is no error"
    allowed = esx(*arguments, "--allow-partial", **extra)
    assert (allowed.returncode, allowed.stdout, allowed.stderr) == (0, done.stdout, done.stderr)
    return done.stdout, done.stderr


def whole(*arguments: str, **extra: str) -> str:
    done = esx(*arguments, **extra)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


@pytest.fixture
async def held(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> AsyncIterator[int]:
    """Two events, then a number that an open writer has drawn, and one behind it; yields the writer's pid."""
    await store18.append("s", [NewEvent("T"), NewEvent("T")])
    transaction = sql18.transaction()
    await transaction.start()
    await sql18.execute(INSERT)
    await store18.append("s", [NewEvent("T")])
    try:
        yield sql18.get_server_pid()
    finally:
        await transaction.rollback()


async def test_what_ends_before_a_gap(dsn18: str, held: int, tmp_path: Path) -> None:
    file = tmp_path / "all.ndjson"
    outputs = [
        ("export",),
        ("tail", "--from", "start", "--no-follow", "--json"),
        ("tail", "--from", "start", "--no-follow"),
        ("tail", "--from", "start", "--no-follow", "--json", "--stats"),
    ]
    for arguments in outputs:
        data, said = partial(*arguments, "-d", dsn18)
        assert [line for line in data.splitlines() if " s@" in line or '"s"' in line] == data.splitlines()
        assert len(data.splitlines()) == 2
        reason = said.splitlines()[0]
        assert reason.startswith("ended at the safe position 2: global_seq 3 may still appear, and may be held by ")
        assert f"pid {held} " in reason
        assert reason.endswith("--from 2 goes on")
    said = partial("export", "-o", str(file), "--force", "-d", dsn18)[1]
    assert "ended at the safe position 2" in said
    assert len(ndjson(file.read_text())) == 2, "what was written stays"
    # What is asked for ends before the gap, or is what is visible now.
    whole("read", "$all", "-d", dsn18)
    whole("streams", "-d", dsn18)


async def test_it_is_whole_once_the_writer_has_ended(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    async with sql18.transaction():
        await sql18.execute(INSERT)
        await store18.append("s", [NewEvent("T")])
        assert partial("export", "-d", dsn18)[0] == ""
    assert len(ndjson(whole("export", "-d", dsn18))) == 2
    assert len(ndjson(whole("tail", "--from", "start", "--no-follow", "--json", "-d", dsn18))) == 2


async def test_whoever_has_had_enough_misses_nothing(dsn18: str, held: int) -> None:
    assert held
    read, write = os.pipe()
    os.close(read)
    try:
        for arguments in (["export"], ["tail", "--from", "start", "--no-follow"]):
            done = esx(*arguments, "-d", dsn18, onto=write)
            assert done.returncode == 0, done.stderr
    finally:
        os.close(write)


async def test_a_limit_of_ours_is_incomplete_and_a_limit_given_is_not(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    meta = {"correlation_id": "c"}
    first = UUID(int=1)
    await store18.append("s", [NewEvent("T", {}, meta, event_id=first), *(NewEvent("T", {}, meta) for _ in range(20))])
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data, metadata) "
        "SELECT 'many', n, 'T', '{}', '{\"correlation_id\": \"d\"}' FROM generate_series(0, 10000) n"
    )
    data, said = partial("trail", "d", "--json", "-d", dsn18)
    assert len(ndjson(data)) == 10_000
    assert "there are more than these 10,000: --limit shows them" in said
    done = esx("trail", "d", "--json", "--limit", "10000", "-d", dsn18)
    assert (done.returncode, done.stdout) == (0, data)
    assert "--limit shows them" in done.stderr
    assert len(ndjson(whole("trail", "d", "--json", "--limit", "20000", "-d", dsn18))) == 10_001
    for limit in ("0", "3"):
        assert len(whole("read", "many", "--limit", limit, "--json", "-d", dsn18).splitlines()) == int(limit)
    assert len(whole("streams", "--limit", "1", "--json", "-d", dsn18).splitlines()) == 1
    # Without its index a correlation id is looked for, as far as a bound.
    await sql18.execute("DROP INDEX events_correlation_id_idx")
    data, said = partial("trail", "1", "--scan", "10", "--json", "-d", dsn18)
    assert len(ndjson(data)) == 11
    assert "--scan all looks at all of them" in said
    assert len(ndjson(whole("trail", "1", "--scan", "all", "--json", "-d", dsn18))) == 21
    data, said = partial("trail", "c", "--scan", "10", "-d", dsn18)
    assert data == ""
    assert "nothing among the newest 10 events has the id c" in said
    assert esx("trail", "nowhere", "--scan", "all", "-d", dsn18).returncode == 1


async def test_the_first_event_of_a_type_is_looked_for_as_far_as_it_takes(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("Rare", {"n": 1}), *(NewEvent("T") for _ in range(6000))])
    await store18.append("s", [NewEvent("Rare", {"n": 2}), NewEvent("Once")])
    arguments = ("read", "s", "--diff", "--same-type", "--from", "6001", "-d", dsn18)
    rare, once = (event["diff"] for event in ndjson(whole(*arguments, "--json")))
    assert rare == [{"path": "$.n", "op": "changed", "old": 1, "new": 2}]
    assert [change["op"] for change in once] == ["added"]
    assert "(against @0)" in whole(*arguments)
    assert "(the first of this type)" in whole(*arguments)


async def test_categories_that_cannot_be_counted(dsn18: str, sql18: asyncpg.Connection) -> None:
    await sql18.execute("ALTER TABLE events DISABLE TRIGGER events_doorbell")
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT 'long-' || n % 2200, n, 'T', '{}'::jsonb FROM generate_series(0, 131999) n UNION ALL "
        "SELECT 'tiny-' || n, 0, 'T', '{}' FROM generate_series(1, 20000) n UNION ALL "
        "SELECT 'few-' || n, 0, 'T', '{}' FROM generate_series(1, 50) n"
    )
    data, said = partial("streams", "--categories", "--json", "-d", dsn18)
    few, long_, tiny = ndjson(data)
    assert few == {"category": "few", "streams": 50, "exact": True, "at_least": 50}
    assert long_ == {"category": "long", "streams": None, "exact": False, "at_least": 667}
    assert (tiny["category"], tiny["exact"]) == ("tiny", False)
    assert 15_000 < tiny["streams"] < 26_000
    assert said == "how many streams 1 of the categories have is not known: esx streams --prefix lists them\n"
    rows = [line.split() for line in partial("streams", "--categories", "-d", dsn18)[0].splitlines()]
    assert rows[1] == ["few", "50"]
    assert rows[2] == ["long", "more", "than", "666"]
    assert rows[3][1].startswith("~")
    assert len(whole("streams", "--prefix", "long-", "--json", "-d", dsn18).splitlines()) == 2200
    await sql18.execute("DELETE FROM events WHERE stream_id LIKE 'long-%'")
    whole("streams", "--categories", "-d", dsn18)


async def test_checks_that_could_not_be_made(dsn18: str, store18: EventStore, role: Role) -> None:
    await store18.append("s", [NewEvent("T")])
    await role.grant("SELECT, INSERT ON events", "SELECT ON projections")
    done = esx("doctor", "--json", "-d", role.dsn(dsn18))
    assert {"sequence-position", "rights-activity"} <= {finding["check"] for finding in ndjson(done.stdout)}
    # The servers of the tests run without fsync, which is wrong: that counts for more.
    assert done.returncode == 1
    assert "not checked: " in done.stderr
    connection = await asyncpg.connect(dsn18)
    assert "not checked: " not in esx("doctor", "-d", dsn18).stderr
    await connection.close()


async def test_damaged_files_of_runs(tmp_path: Path) -> None:
    runs, sweeps = tmp_path / "runs", tmp_path / "sweeps"
    runs.mkdir()
    sweeps.mkdir()
    data = {"ESX_DATA_DIR": str(tmp_path)}
    whole("load", "runs", **data)
    (runs / "250101000000.ndjson").write_text("{")
    stdout, said = partial("load", "runs", "--json", **data)
    assert stdout == ""
    assert "250101000000.ndjson is left out" in said
    (sweeps / "s250101000000.json").write_text("{")
    assert "s250101000000" in partial("load", "sweep", "--list", **data)[1]
    done = esx("load", "report", "last", **data)
    assert (done.returncode, done.stdout) == (1, "")
    assert "250101000000.ndjson" in done.stderr


# -- times ----------------------------------------------------------------------------------------------------

HOUR = timedelta(hours=1)


async def blocks(sql: asyncpg.Connection, *each: tuple[int, datetime, str]) -> None:
    """Store so many events of a stream, a second apart, from a time on."""
    await sql.execute("ALTER TABLE events DISABLE TRIGGER events_doorbell")
    for events, begin, stream in each:
        await sql.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data, created_at) "
            "SELECT $3, (SELECT count(*) FROM events WHERE stream_id = $3) + n, 'T', '{}', "
            "$2::timestamptz + n * interval '1 second' FROM generate_series(0, $1::int - 1) n",
            events,
            begin,
            stream,
        )
    await sql.execute("ANALYZE events")


async def test_older_events_that_were_imported_hide_none(dsn18: str, sql18: asyncpg.Connection) -> None:
    now = datetime.now(UTC)
    await blocks(sql18, (3001, now - HOUR, "new"), (20_000, now - 24 * HOUR, "old"), (5, now - 30 * HOUR, "new"))
    for arguments, events in (
        (("$all", "--since", "-2h"), 3001),
        (("$all", "--until", "-2h"), 20_005),
        (("$all", "--since", "-23h", "--until", "-22h"), 3600),
        (("new", "--since", "-2h"), 3001),
        (("new", "--until", "-2h"), 5),
    ):
        done = esx("read", *arguments, "--json", "-d", dsn18)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert len(done.stdout.splitlines()) == events, arguments
    # From the first event of that time on, with all that stands behind it.
    assert len(whole("read", "$all", "--at", "-2h", "--json", "-d", dsn18).splitlines()) == 23_006
    tail = whole("tail", "--from", "-2h", "--no-follow", "--json", "-d", dsn18)
    assert len(tail.splitlines()) == 23_006
    # What a stream was at that time cannot be said where its events are out of order.
    done = esx("state", "new", "--at", "-2h", "-d", dsn18)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the events of stream new are out of order: up to version 3005 some are before it" in done.stderr
    data, said = partial("state", "new", "--at", (now - HOUR / 2).isoformat(), "--json", "-d", dsn18)
    assert json.loads(data)["version"] == 1799
    assert "up to version 3005 some are before it, and the first one after it is version 1800" in said
    whole("state", "old", "--at", "-23h", "-d", dsn18)


async def test_where_that_is_too_dear_to_look_through(dsn18: str, sql18: asyncpg.Connection) -> None:
    """As in a store of many millions, which a setting makes PostgreSQL take this one for."""
    now = datetime.now(UTC)
    await blocks(
        sql18, (4_000, now - 30 * HOUR, "old"), (3, now, "new"), (9_000, now - 20 * HOUR, "old"), (9, now, "new")
    )
    database = await sql18.fetchval("SELECT current_database()")
    await sql18.execute(f"ALTER DATABASE {database} SET cpu_tuple_cost = 1e6")
    # Three of thirteen thousand are not found, and that this may be is said, with what helps.
    done = esx("read", "$all", "--since", "-1h", "--json", "-d", dsn18)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 9)
    assert "found by bisection" in done.stderr
    assert "CREATE INDEX CONCURRENTLY ON events USING brin (created_at)" in done.stderr
    await sql18.execute("DELETE FROM events")
    # Out of order for all to see: then all are looked at, or what is missing is incomplete.
    await blocks(sql18, (1001, now - HOUR, "new"), (10_000, now - 24 * HOUR, "old"))
    done = esx("read", "$all", "--since", "-2h", "--json", "-d", dsn18)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1001)
    for arguments in (("tail", "--from", "-2h", "--no-follow"), ("read", "$all", "--at", "-2h")):
        _, said = partial(*arguments, "-d", dsn18)
        assert said.startswith("times do not rise along this list: ")
        assert "CREATE INDEX CONCURRENTLY ON events (created_at)" in said
