"""Every command as a process: what it prints, what it says, and how it exits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import EventStore, NewEvent, __version__
from tests.cli.support import ESX, Running, environment, esx, ndjson, on_terminal, one_line_error

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
async def test_init_says_what_it_changed(empty_dsn: str) -> None:
    first = esx("init", "-d", empty_dsn)
    assert first.returncode == 0
    assert "created table events" in first.stdout
    again = esx("init", "-d", empty_dsn)
    assert (again.returncode, again.stdout) == (0, "nothing to change: the schema is up to date\n")


async def test_append_twice_expecting_no_stream(dsn18: str) -> None:
    first = esx("append", "s", "T", '{"a":1}', "--expected", "none", "-d", dsn18)
    assert (first.returncode, first.stdout) == (0, "s  version 0  global_seq 1\n")
    error = one_line_error(esx("append", "s", "T", '{"a":1}', "--expected", "none", "-d", dsn18), 3)
    assert "stream s" in error
    assert "expected none" in error
    assert "version is 0" in error
    third = esx("append", "s", "T", "--expected", "0", "--json", "-d", dsn18)
    assert ndjson(third.stdout) == [{"stream_id": "s", "version": 1, "global_seq": 2}]


async def test_append_keeps_digits_ids_and_metadata(dsn18: str) -> None:
    event_id = "3f0b1c9e-52a7-4c39-a6f3-0e5f4a0f9c11"
    made = esx(
        "append", "s", "T", "-", "--metadata", '{"rate": 0.10}', "--event-id", event_id, "-d", dsn18,
        stdin='{"n": 123456789012345678901234567890.10}',
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    [line] = esx("read", "s", "--json", "-d", dsn18).stdout.splitlines()
    assert '"data": {"n": 123456789012345678901234567890.10}, "metadata": {"rate": 0.10}' in line
    assert json.loads(line)["event_id"] == event_id


def test_what_cannot_be_appended(dsn18: str) -> None:
    for arguments, code, reason in (
        (["$all", "T"], 2, "$all is no stream"),
        (["", "T"], 2, "STREAM is empty"),
        (["a-1", ""], 2, "Give its TYPE"),
        (["a-1", "T", "--expected", "9" * 20], 2, "the highest is 9223372036854775806"),
        (["a-1", "T", '{"a": "\\u0000"}'], 1, "the event cannot be stored: data: "),
    ):
        assert reason in one_line_error(esx("append", *arguments, "-d", dsn18), code)


@pytest.mark.slow
async def test_append_takes_json_as_deep_as_postgresql_does(dsn18: str, tmp_path: Path, store18: EventStore) -> None:
    deep, deeper = ("[" * depth + "]" * depth for depth in (3000, 20_000))
    assert esx("append", "s", "T", "-", "-d", dsn18, stdin=deep).returncode == 0
    batch = f'{{"event_type": "T", "metadata": {{"a": 1.10}}, "data": {deep}}}\n'
    assert esx("append", "s", "--ndjson", "-", "-d", dsn18, stdin=batch).returncode == 0
    first, second = await store18.read_page("s")
    assert first.data_json == second.data_json == deep
    assert second.metadata_json == '{"a": 1.10}'
    for arguments, stdin, named in (
        (("T", "-"), deeper, "stack depth"),
        (("--ndjson", "-"), batch.replace(deep, deeper), "stack depth"),
        (("--ndjson", "-"), batch.replace(deep, deeper[:-1]), "line 1: it is not JSON"),
    ):
        refused = esx("append", "s", *arguments, "-d", dsn18, stdin=stdin)
        assert named in one_line_error(refused, 2 if "line" in named else 1)


@pytest.mark.slow
async def test_no_metadata_is_the_same_however_it_is_said(dsn18: str, sql18: asyncpg.Connection) -> None:
    esx("append", "s", "T", "--metadata", " null ", "-d", dsn18)
    esx("append", "s", "--ndjson", "-", "-d", dsn18, stdin='{"event_type": "T", "metadata": null}')
    assert await sql18.fetchval("SELECT array_agg(metadata IS NULL) FROM events") == [True, True]


@pytest.mark.slow
async def test_append_a_batch(dsn18: str, tmp_path: Path) -> None:
    batch = tmp_path / "batch.ndjson"
    batch.write_text(
        '{"event_type": "A", "data": {"n": 1.50}}\n\n'
        '{"event_type": "B", "metadata": {"u": "x"}, "event_id": "3f0b1c9e-52a7-4c39-a6f3-0e5f4a0f9c11"}\n'
    )
    made = esx("append", "s", "--ndjson", str(batch), "--expected", "none", "-d", dsn18)
    assert made.stdout == "s  version 1  global_seq 2\n"
    first, second = esx("read", "s", "--json", "-d", dsn18).stdout.splitlines()
    assert '"data": {"n": 1.50}' in first
    assert (json.loads(second)["event_type"], json.loads(second)["metadata"]) == ("B", {"u": "x"})
    torn = esx("append", "s", "--ndjson", "-", "-d", dsn18, stdin='{"event_type": "C"}\n{"event_type": ""}\n')
    assert "event 1 of the batch" in one_line_error(torn, 1)
    assert len(esx("read", "s", "--json", "-d", dsn18).stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "stdin", "names"),
    [
        (["append", "s", "T", "{a:1}"], "", "DATA is not JSON"),
        (["append", "s", "T", "NaN"], "", "NaN"),
        (["append", "s", "T", "{}", "--metadata", "["], "", "--metadata is not JSON"),
        (["append", "s", "T", "--expected", "-1"], "", "use any, none, exists or a number"),
        (["append", "s", "T", "--event-id", "x"], "", "--event-id"),
        (["append", "s"], "", "TYPE"),
        (["append"], "", "STREAM"),
        (["append", "s", "--ndjson", "-"], "", "no events"),
        (["append", "s", "--ndjson", "-"], '{"event_type": "A"}\n{"type": "B"}\n', "line 2: 'type' is unknown"),
        (["append", "s", "--ndjson", "-"], "[]", "line 1: not a JSON object"),
        (["append", "s", "--ndjson", "-"], '{"data": 1}', "event_type must be there"),
        (["append", "s", "--ndjson", "-"], '{"event_type": "A", "event_id": 7}', "line 1"),
        (["append", "s", "--ndjson", "/no/such/file"], "", "/no/such/file"),
        (["append", "s", "T", "--ndjson", "-"], "", "--ndjson takes"),
        (["tail", "--from", "soon"], "", "start, end, or a global_seq"),
        (["read", "s", "--limit", "-1"], "", "--limit"),
        (["streams", "--sort", "size"], "", "'name', 'recent'"),
        (["nonsense"], "", "nonsense"),
        (["streams", "--nonsense"], "", "--nonsense"),
        (["streams", "--contains", "a", "--match", "b"], "", "not by both"),
        (["streams", "--categories", "--prefix", "a"], "", "--categories"),
    ],
)
def test_wrong_usage_is_said_in_one_line(arguments: list[str], stdin: str, names: str) -> None:
    assert names in one_line_error(esx(*arguments, stdin=stdin), 2)


@pytest.mark.slow
async def test_read_forwards_backwards_and_all(dsn18: str, store18: EventStore) -> None:
    for n in range(3):
        await store18.append("a", [NewEvent("T", {"n": n})])
        await store18.append("b", [NewEvent("T", {"n": n})])

    def places(*arguments: str) -> list[tuple[str, int]]:
        done = esx("read", *arguments, "--json", "-d", dsn18)
        assert done.returncode == 0, done.stderr
        return [(event["stream_id"], event["stream_seq"]) for event in ndjson(done.stdout)]

    assert places("a") == [("a", 0), ("a", 1), ("a", 2)]
    assert places("a", "--from", "1", "--limit", "1") == [("a", 1)]
    assert places("a", "--backwards", "--limit", "2") == [("a", 2), ("a", 1)]
    assert places("$all", "--limit", "3") == [("a", 0), ("b", 0), ("a", 1)]
    assert places("$all", "--from", "5") == [("a", 2), ("b", 2)]
    assert places("$all", "--from", "2", "--backwards") == [("b", 0), ("a", 0)]
    for_people = esx("read", "a", "--limit", "1", "-d", dsn18).stdout
    assert 'a@0  T  {"n": 0}' in for_people


async def test_an_event_as_ndjson_has_the_fields_of_the_contract(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T", {"n": 1})])
    [event] = ndjson(esx("read", "s", "--json", "-d", dsn18).stdout)
    fields = ["global_seq", "stream_id", "stream_seq", "event_type", "data", "metadata", "created_at", "event_id"]
    assert list(event) == fields
    assert event["created_at"].endswith("Z")
    assert datetime.fromisoformat(event["created_at"])


@pytest.mark.slow
async def test_streams_as_a_table_and_as_ndjson(dsn18: str, store18: EventStore) -> None:
    for name in ("b-1", "a-1", "a-2"):
        await store18.append(name, [NewEvent("Made"), NewEvent("Changed")])
    listed = ndjson(esx("streams", "--json", "-d", dsn18).stdout)
    assert [stream["stream_id"] for stream in listed] == ["a-1", "a-2", "b-1"]
    assert list(listed[0]) == [
        "stream_id", "version", "events", "last_event_type", "last_created_at", "last_global_seq",
    ]  # fmt: skip
    assert (listed[0]["version"], listed[0]["events"], listed[0]["last_event_type"]) == (1, 2, "Changed")
    recent = ndjson(esx("streams", "--sort", "recent", "--limit", "2", "--json", "-d", dsn18).stdout)
    assert [stream["stream_id"] for stream in recent] == ["a-2", "a-1"]
    table = esx("streams", "--prefix", "a-", "-d", dsn18).stdout.splitlines()
    # Of those inside a stream that were deleted nothing is known without counting.
    assert table[0].startswith("STREAM  VERSION  ≤ EVENTS  LAST TYPE  LAST EVENT AT")
    assert [line.split()[0] for line in table[1:]] == ["a-1", "a-2"]
    assert len(ndjson(esx("streams", "--match", "*-1", "--json", "-d", dsn18).stdout)) == 2
    contained = esx("streams", "--contains", "-1", "-d", dsn18).stdout.splitlines()
    assert len(contained) == 3
    categories = ndjson(esx("streams", "--categories", "--json", "-d", dsn18).stdout)
    assert sum(category["streams"] for category in categories) == len(listed)
    assert all(category["exact"] for category in categories)
    assert esx("streams", "--categories", "-d", dsn18).stdout.split()[:2] == ["CATEGORY", "STREAMS"]


async def test_a_missing_stream_is_an_error_that_helps(dsn18: str) -> None:
    error = one_line_error(esx("read", "account-1", "-d", dsn18), 1)
    assert "account-1" in error
    assert "esx streams" in error


@pytest.mark.slow
async def test_tail_without_following_prints_every_event(dsn18: str, store18: EventStore) -> None:
    await store18.append("a", [NewEvent("T") for _ in range(1500)])
    await store18.append("b-1", [NewEvent("U", {"big": True}) for _ in range(5)])
    done = esx("tail", "--from", "start", "--json", "--no-follow", "-d", dsn18)
    assert [event["global_seq"] for event in ndjson(done.stdout)] == list(range(1, 1506))
    after = esx("tail", "--from", "1504", "--json", "--no-follow", "-d", dsn18)
    assert [event["global_seq"] for event in ndjson(after.stdout)] == [1505]
    chosen = ["--stream", "b-*", "--type", "U", "--where", "$.big"]
    filtered = esx("tail", "--from", "start", *chosen, "--json", "--no-follow", "-d", dsn18)
    assert len(filtered.stdout.splitlines()) == 5
    assert esx("tail", "--no-follow", "-d", dsn18).stdout == ""


@pytest.mark.slow
async def test_tail_ends_before_an_open_writer_and_names_it(dsn18: str, sql18: asyncpg.Connection) -> None:
    insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, 0, 'T', '{}')"
    await sql18.execute(insert, "before")
    other = await asyncpg.connect(dsn18)
    open_writer = other.transaction()
    await open_writer.start()
    await other.execute(insert, "held")
    await sql18.execute(insert, "after")
    done = esx("tail", "--from", "start", "--json", "--no-follow", "-d", dsn18)
    assert [event["stream_id"] for event in ndjson(done.stdout)] == ["before"]
    assert f"pid {other.get_server_pid()}" in done.stderr
    await open_writer.commit()
    await other.close()
    done = esx("tail", "--from", "start", "--json", "--no-follow", "-d", dsn18)
    assert [event["stream_id"] for event in ndjson(done.stdout)] == ["before", "held", "after"]


@pytest.mark.slow
async def test_tail_follows_what_others_append(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    tail = await Running.start("tail", "--json", "-d", dsn18)
    assert "following after global_seq 0" in await tail.narration()
    await sql18.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('psql', 0, 'T', '{}')")
    assert json.loads(await tail.line())["stream_id"] == "psql"
    delays = []
    for n in range(7):
        await store18.append("esx", [NewEvent("T", {"n": n})])
        committed = time.monotonic()
        assert json.loads(await tail.line())["data"] == {"n": n}
        delays.append(time.monotonic() - committed)
    # Without a notification each would wait for a second; a busy machine may delay all but one.
    assert min(delays) < 0.5
    assert await tail.end(signal.SIGINT) == 130


@pytest.mark.slow
async def test_whoever_reads_half_of_it_sees_no_error(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T", {"x": "y" * 1000}) for _ in range(2000)])
    command = f"set -o pipefail; {' '.join(ESX)} read s -d '{dsn18}' | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=False)
    assert (len(done.stdout.splitlines()), done.returncode, done.stderr) == (1, 0, "")
    for arguments in (["tail", "--from", "start", "--json", "--no-follow"], ["read", "s", "--json"], ["read", "s"]):
        running = await Running.start(*arguments, "-d", dsn18)
        assert await running.line()
        assert await running.read_no_further() == (0, "")


@pytest.mark.slow
async def test_closed_and_odd_streams_are_no_reason_for_a_traceback(dsn18: str) -> None:
    for done in (
        esx("streams", "-d", dsn18, closed="stdout"),
        esx("--version", closed="stdout"),
        esx("append", "s", "T", "-", "-d", dsn18, closed="stdin"),
        esx("append", "s", "T", "-", "-d", dsn18, stdin=b"\xff"),
    ):
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr
        assert len(done.stderr.splitlines()) <= 1


async def test_integers_longer_than_python_likes_are_kept(dsn18: str, store18: EventStore) -> None:
    digits = "1" * 5000
    assert esx("append", "s", "T", "-", "-d", dsn18, stdin=f'{{"n":{digits}}}').returncode == 0
    assert f'"n": {digits}' in esx("read", "s", "--json", "-d", dsn18).stdout
    [event] = await store18.read_page("s")
    assert str(event.data["n"]) == digits


async def test_no_table_is_said_with_the_remedy(empty_dsn18: str) -> None:
    assert "esx init" in one_line_error(esx("streams", "-d", empty_dsn18), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "variables", "names", "code"),
    [
        (["-d", "postgresql://me:hunter2@127.0.0.1:1/x"], {}, "me@127.0.0.1:1/x", 1),
        ([], {"ESX_DSN": "postgresql://me:hunter2@127.0.0.1:1/y"}, "127.0.0.1:1/y", 1),
        ([], {"DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/z"}, "127.0.0.1:1/z", 1),
        ([], {"PGHOST": "127.0.0.1", "PGPORT": "1", "PGPASSWORD": "hunter2"}, "127.0.0.1:1", 1),
        ([], {"ESX_DSN": "mysql://me:hunter2@host/x"}, "mysql", 2),
        ([], {"ESX_DSN": "postgresql://me:hunter2@127.0.0.1:notaport/x"}, "127.0.0.1", 2),
        (["-d", ""], {}, "--dsn is empty", 2),
    ],
)
def test_a_configured_database_that_cannot_be_reached_is_an_error(
    arguments: list[str], variables: dict[str, str], names: str, code: int, tmp_path: Path
) -> None:
    error = one_line_error(esx("streams", *arguments, ESX_DATA_DIR=str(tmp_path / "unused"), **variables), code)
    assert names in error
    assert "hunter2" not in error
    assert not (tmp_path / "unused").exists()


async def test_the_dsn_may_stand_before_the_command(dsn18: str) -> None:
    assert esx("-d", dsn18, "streams", "--json").returncode == 0


def test_without_a_terminal_the_explorer_points_to_the_commands() -> None:
    error = one_line_error(esx(), 2)
    assert "terminal" in error
    assert "esx --help" in error
    assert "--no-tui" in one_line_error(esx("demo"), 2)


@pytest.mark.slow
def test_version_and_help() -> None:
    assert esx("--version").stdout == f"esx {__version__}\n"
    text = esx("--help").stdout
    for command in ("demo", "init", "streams", "read", "append", "tail", "load", "doctor"):
        assert command in text
        assert esx(command, "--help").returncode == 0


def test_version_and_help_load_neither_driver_nor_screens() -> None:
    script = (
        "import sys; sys.argv = ['esx', '--help']\n"
        "from esx.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "loaded = {'asyncpg', 'textual', 'locust', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
async def test_nothing_that_a_terminal_obeys_reaches_it(dsn18: str, store18: EventStore) -> None:
    hostile = "\x1b[31m\x9b2J\u202e\r\n[red]\x07"
    await store18.append(f"s{hostile}", [NewEvent(f"T{hostile}", {"k": hostile})])
    for arguments in (["streams"], ["streams", "--json"], ["tail", "--from", "start", "--no-follow"],
                      ["read", "$all", "--json"]):  # fmt: skip
        code, shown = on_terminal(*arguments, "-d", dsn18, NO_COLOR="1")
        assert code == 0
        assert [char for char in shown if (ord(char) < 32 and char != "\n") or char in "\x7f\x9b\u202e"] == []
        assert shown.count("\n") == (1 if "--json" in arguments else 2)
        if "--json" in arguments:
            assert json.loads(shown)["stream_id"] == f"s{hostile}"
