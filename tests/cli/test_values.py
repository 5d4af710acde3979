"""What the commands print of values that Python, JSON or UTF-8 does not have, and that they say so, once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.cli.support import esx, ndjson
from tests.support.oddities import (
    ENCODINGS,
    INSERT,
    SQL_ASCII,
    TIMES,
    Encoding,
    database,
    fill_bytes,
    fill_times,
    run_sql,
)

if TYPE_CHECKING:
    from esx.embedded import EmbeddedServer
    from tests.conftest import Servers

pytestmark = pytest.mark.slow

AS_JSON: tuple[tuple[str, ...], ...] = (
    ("read", "$all", "--json"),
    ("tail", "--from", "start", "--no-follow", "--json"),
    ("tail", "--from", "start", "--no-follow", "--json", "--stats"),  # not by way of an export
    ("read", "$all", "--type", "T*", "--json"),
    ("export",),
)


@pytest_asyncio.fixture
async def server(servers: Servers) -> EmbeddedServer:
    """One version: tests/postgres/test_values.py reads these values from both, and printing them is Python's."""
    return await servers.get(18)


async def test_every_command_prints_odd_times_as_postgresql_calls_them(server: EmbeddedServer) -> None:
    expected = list(TIMES.values())
    async with database(server) as dsn:
        await fill_times(dsn)
        printed = {}
        for command in (*AS_JSON, ("trail", "c", "--json")):
            done = esx(*command, "-d", dsn, TZ="Europe/Berlin")
            assert done.returncode == 0, done.stderr
            told = [line for line in done.stderr.splitlines() if "infinity" in line]
            assert told == [
                "event 2 has a time that few programs can hold, infinity: it is printed as PostgreSQL writes it; "
                "others like it are not reported"
            ], command
            printed[command] = done.stdout
            assert [event["created_at"] for event in ndjson(done.stdout)][1:-1] == expected, command
        assert len({printed[command] for command in AS_JSON}) == 1
        done = esx("streams", "--json", "-d", dsn)
        assert [stream["last_created_at"] for stream in ndjson(done.stdout)][1:-1] == expected
        assert done.stderr.startswith("event 2 has a time")
        for command in (("read", "$all"), ("tail", "--from", "start", "--no-follow"), ("streams",)):
            done = esx(*command, "-d", dsn, TZ="Europe/Berlin")
            assert done.returncode == 0
            for time in expected:
                assert f" {time} " in done.stdout, command
        for n, time in enumerate(expected, 1):
            [state] = ndjson(esx("state", f"t-{n}", "--json", "-d", dsn).stdout)
            assert state["created_at"] == time
        assert (
            esx("read", "t-4", "--diff", "-d", dsn).stdout.splitlines()[0].startswith(f"       5  {expected[3]}  t-4@0")
        )
        await run_sql(dsn, "DELETE FROM events WHERE global_seq <> 8")
        assert json.loads(esx("health", "--json", "-d", dsn).stdout)["last_created_at"] == expected[6]
        assert expected[6] in esx("health", "-d", dsn).stdout
        assert "t-7@0" in esx("doctor", "--full", "-d", dsn).stdout


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
async def test_every_command_prints_bytes_that_are_no_text(server: EmbeddedServer, encoding: Encoding) -> None:
    char, bad = encoding.character, encoding.visible
    name = f"b{bad}-{char} {bad}"
    async with database(server, encoding.name) as dsn:
        await fill_bytes(dsn, encoding)
        note = "event 2 holds bytes that are no text: each is printed as \ufffd\\xNN; others like it are not reported"
        printed = set()
        for command in AS_JSON:
            done = esx(*command, "-d", dsn)
            assert done.returncode == 0, done.stderr
            assert done.stderr.splitlines().count(note) == 1, command
            printed.add(done.stdout)
        [lines] = printed
        events = ndjson(lines)
        assert [event["stream_id"] for event in events] == [f"s-{char}", name, f"s-{char}"]
        assert events[1]["data"] == {"x": f"{char} {bad}"}
        for command in (("read", "$all"), ("streams",), ("tail", "--from", "start", "--no-follow"), ("trail", "2")):
            done = esx(*command, "-d", dsn)
            assert done.returncode == 0, done.stderr
            assert name in done.stdout, command
            assert note in done.stderr, command
        # By the name that is shown, and by its bytes.
        for given in (name, name.replace(bad, encoding.shown)):
            done = esx("read", given, "--json", "-d", dsn)
            assert done.stdout == lines.splitlines(keepends=True)[1], given
            [state] = ndjson(esx("state", given, "--json", "-d", dsn).stdout)
            assert (state["stream_id"], state["state"]) == (name, {"x": f"{char} {bad}"})
            [stream] = ndjson(esx("streams", "--prefix", given, "--json", "-d", dsn).stdout)
            assert stream["stream_id"] == name
        categories = esx("streams", "--categories", "--json", "-d", dsn)
        assert [each["category"] for each in ndjson(categories.stdout)] == [f"b{bad}", "s"]
        for command in (("health",), ("doctor", "--full")):
            assert "Traceback" not in esx(*command, "-d", dsn).stderr


async def test_a_name_that_looks_like_bytes_is_not_taken_for_them(server: EmbeddedServer) -> None:
    plain, shown = r"s-\xff", "s-\ufffd\\xff"
    async with database(server, "SQL_ASCII") as dsn:
        broken = SQL_ASCII.sql("s-", SQL_ASCII.bad)
        rows = f"('{plain}', 0, 'T', '{{}}', NULL, now()), ({broken}, 0, 'T', '{{}}', NULL, now())"
        await run_sql(dsn, INSERT + rows)
        streams = ndjson(esx("streams", "--json", "-d", dsn).stdout)
        assert [(each["stream_id"], each["last_global_seq"]) for each in streams] == [(plain, 1), (shown, 2)]
        for name, number in ((plain, 1), (shown, 2)):
            [event] = ndjson(esx("read", name, "--json", "-d", dsn).stdout)
            assert event["global_seq"] == number
        await run_sql(dsn, f"{INSERT} ('{shown}', 0, 'T', '{{}}', NULL, now())")
        [event] = ndjson(esx("read", shown, "--json", "-d", dsn).stdout)
        assert event["global_seq"] == 3, "a stream that is called so comes first"
    async with database(server) as dsn:
        done = esx("read", shown, "-d", dsn)
        assert (done.returncode, done.stderr) == (
            1,
            f"esx: stream {shown} has no events; `esx streams --match '*{shown}*'` may find the one you mean\n",
        )


async def test_sound_values_are_not_told_of(server: EmbeddedServer) -> None:
    async with database(server) as dsn:
        data = json.dumps({"created_at": "infinity", "event_id": "x"})
        await run_sql(dsn, f"{INSERT} ('é', 0, 'T', '{data}', NULL, now())")
        for command in (*AS_JSON[:2], ("export",), ("streams",)):
            assert esx(*command, "-d", dsn).stderr == "", command
