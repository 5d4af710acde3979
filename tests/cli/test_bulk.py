"""esx export and esx import as processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import EventStore, NewEvent
from esx.cli.writing import target
from esx.files import new_file
from tests.cli.support import Running, environment, esx, ndjson, one_line_error
from tests.support import forked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

FILL = """
    INSERT INTO events (stream_id, stream_seq, event_type, data, metadata)
    SELECT 's-' || n % 1000, n / 1000, 'T', jsonb_build_object('n', n, 'x', 1.10), '{"u": "a"}'
    FROM generate_series(0, $1::int - 1) n ORDER BY n
"""
EMPTY = "TRUNCATE events RESTART IDENTITY"


async def fill(dsn: str, events: int) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(EMPTY)
    await connection.execute(FILL.replace("$1", str(events)))
    await connection.close()


@pytest_asyncio.fixture
async def sql18(dsn18: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn18)
    yield connection
    await connection.close()


async def test_export_and_import_a_whole_store(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await store18.append("s\u2028\x1b", [NewEvent("T", {"n": 1}), NewEvent("T", {"é": "\\"}, {"m": None})])
    await store18.append("b", [NewEvent("U")])
    out = tmp_path / "all.ndjson"
    done = esx("export", "-o", str(out), "-d", dsn18)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = out.read_text()
    assert list(tmp_path.iterdir()) == [out]
    assert esx("export", "-d", dsn18).stdout == esx("export", "-o", "-", "-d", dsn18).stdout == text
    # The same, byte for byte, as the other ways to print events.
    assert esx("tail", "--from", "start", "--no-follow", "--json", "-d", dsn18).stdout == text
    assert esx("read", "$all", "--json", "-d", dsn18).stdout == text
    again = esx("import", str(out), "--json", "-d", dsn18)
    assert ndjson(again.stdout) == [{"stored": 0, "skipped": 3, "changed": {}}]
    connection = await asyncpg.connect(dsn18)
    await connection.execute(EMPTY)
    await connection.close()
    assert esx("import", "-", "-d", dsn18, stdin=text).stdout == "imported 3 events\n"
    assert esx("export", "-d", dsn18).stdout == text
    assert esx("import", str(out), "-d", dsn18).stdout == "imported 0 events, 3 were there already\n"


async def test_a_faithful_import_gives_back_the_store(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    await store18.append("s", [NewEvent("T", {"n": n}) for n in range(9)])
    await sql18.execute("DELETE FROM events WHERE global_seq IN (1, 2, 5); UPDATE events SET created_at = 'infinity'")
    out = tmp_path / "out"
    assert esx("export", "-o", str(out), "-d", dsn18).returncode == 0
    await sql18.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('t', 0, 'T', '{}')")
    await sql18.execute("DELETE FROM events WHERE stream_id = 's'")
    assert "store is not empty" in one_line_error(esx("import", "--faithful", str(out), "-d", dsn18), 1)
    assert "--renumber" in one_line_error(esx("import", "--faithful", "--renumber", str(out), "-d", dsn18), 2)
    await sql18.execute(EMPTY)
    done = esx("import", "--faithful", str(out), "-d", dsn18)
    assert done.stdout == ("imported 6 events; global_seq, stream_seq, created_at and event_id are as they were\n")
    assert esx("export", "-d", dsn18).stdout == out.read_text()
    assert esx("import", "--faithful", "--json", "-", "-d", dsn18, stdin=out.read_text()).stdout == (
        '{"stored": 0, "skipped": 6, "changed": {}}\n'
    )
    far = json.dumps({**json.loads(out.read_text().splitlines()[-1]), "global_seq": 2**63 - 2})
    error = one_line_error(esx("import", "--keep-global-seq", "-", "-d", dsn18, stdin=far), 1)
    assert "global_seq 9223372036854775806 is too high to be kept" in error


async def test_a_slice(dsn18: str, store18: EventStore) -> None:
    for n in range(4):
        await store18.append("ab"[n % 2], [NewEvent("TU"[n // 2], {"n": n})])

    def numbers(*arguments: str) -> list[int]:
        done = esx("export", *arguments, "-d", dsn18)
        assert done.returncode == 0, done.stderr
        return [event["global_seq"] for event in ndjson(done.stdout)]

    assert numbers("--from", "2") == [3, 4]
    assert numbers("--stream", "a") == [1, 3]
    assert numbers("--type", "U", "--where", "$.n > 2") == [4]
    assert numbers("--stream", "none") == []


async def test_an_export_to_a_file_leaves_the_old_one_until_it_is_complete(dsn18: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("old")
    assert "replace it with --force" in one_line_error(esx("export", "-o", str(out), "-d", dsn18), 2)
    assert out.read_text() == "old"
    refused = esx("export", "--where", "$.(", "-o", str(out), "--force", "-d", dsn18)
    assert "JSONPATH" not in one_line_error(refused, 2)
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]
    assert esx("export", "-o", str(out), "--force", "-d", dsn18).returncode == 0
    assert out.read_text() == ""
    missing = tmp_path / "missing" / "out"
    assert str(missing) in one_line_error(esx("export", "-o", str(missing), "-d", dsn18), 1)
    assert "irectory" in one_line_error(esx("export", "-o", str(tmp_path), "-d", dsn18), 1)
    assert esx("export", "-o", "/dev/null", "-d", dsn18).returncode == 0
    assert os.path.exists("/dev/null")


async def test_exports_to_one_file_do_not_get_into_each_others_way(
    dsn18: str, store18: EventStore, tmp_path: Path
) -> None:
    await store18.append("s", [NewEvent("T", {"n": n}) for n in range(3)])
    text = esx("export", "-d", dsn18).stdout
    out, mine = tmp_path / ("x" * 250), tmp_path / f"{'x' * 250}.part"
    mine.write_text("mine")
    with target(out, force=True) as one, new_file(out) as other:
        assert esx("export", "-o", str(out), "-d", dsn18).returncode == 0
        assert out.read_text() == text
        other.write(b"other")
        one.write(b"one")
    assert out.read_text() == "one"
    assert mine.read_text() == "mine"
    assert set(tmp_path.iterdir()) == {out, mine}
    umask = os.umask(0o077)
    os.umask(umask)
    assert out.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
async def test_a_full_disk_is_an_error(dsn18: str) -> None:
    await fill(dsn18, 3000)
    assert "No space left" in one_line_error(esx("export", "-o", "/dev/full", "-d", dsn18), 1)


async def test_an_open_writer_holds_back_an_export_and_is_named(dsn18: str) -> None:
    insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, 0, 'T', '{}')"
    one, other = await asyncpg.connect(dsn18), await asyncpg.connect(dsn18)
    await one.execute(insert, "before")
    await other.execute("BEGIN")
    await other.execute(insert, "held")
    await one.execute(insert, "after")
    done = esx("export", "-d", dsn18)
    assert [event["stream_id"] for event in ndjson(done.stdout)] == ["before"]
    assert "safe position 1: global_seq 2 may still appear" in done.stderr
    assert f"pid {other.get_server_pid()}" in done.stderr
    await other.close()
    await one.close()


async def test_bad_input_is_told_in_one_line(dsn18: str, tmp_path: Path) -> None:
    good = '{"stream_id": "s", "event_type": "T", "data": 1}\n'
    error = one_line_error(esx("import", "-", "-d", dsn18, stdin=good + "\n" + good[:-8]), 1)
    assert "line 3: it is not JSON" in error
    assert "nothing was stored" in error
    bad = tmp_path / "bad"
    bad.write_text(good * 10_000 + "{}\n")
    error = one_line_error(esx("import", str(bad), "-d", dsn18), 1)
    assert "line 10001: stream_id is missing; 10,000 events were stored before: run the same import again" in error
    assert "/no/such" in one_line_error(esx("import", "/no/such", "-d", dsn18), 2)
    assert "irectory" in one_line_error(esx("import", str(tmp_path), "-d", dsn18), 2)
    assert "FILE" in one_line_error(esx("import", "-d", dsn18), 2)
    assert "--from" in one_line_error(esx("export", "--from", "-1", "-d", dsn18), 2)
    assert esx("import", "-", "-d", dsn18, stdin="").stdout == "imported 0 events\n"


async def test_events_of_kurrentdb_are_imported_and_what_is_not_as_it_was_is_said(dsn18: str, tmp_path: Path) -> None:
    answers = Path(__file__).parent.parent / "store/bulk/data/kurrent_client.ndjson"
    done = esx("import", "--from-kurrent", str(answers), "-d", dsn18)
    assert (done.returncode, done.stdout) == (4, "imported 7 events\n")
    assert done.stderr.splitlines() == [
        "1 event had data that are no JSON: null is stored",
        "1 event had metadata that are no JSON: none are stored",
        "1 event belonged to KurrentDB itself, by a type or a stream that begins with $: left out",
        "1 event came by a link of another stream: stored in the stream of the event itself",
        "7 events had a position in KurrentDB's log, which is not kept: global_seq is new",
    ]
    again = esx("import", "--from-kurrent", str(answers), "--json", "--allow-partial", "-d", dsn18)
    assert again.returncode == 0
    [told] = ndjson(again.stdout)
    assert (told["stored"], told["skipped"], told["changed"]["positions"]) == (0, 7, 7)
    bad = tmp_path / "bad.ndjson"
    bad.write_text(answers.read_text().replace("order-2", "order-3") + '{"stream_name": "s"}\n')
    error = one_line_error(esx("import", "--from-kurrent", str(bad), "-d", dsn18), 1)
    assert error == "esx: line 9: type is missing; nothing was stored"
    for option in ("--faithful", "--keep-global-seq"):
        assert f"leave {option} out" in one_line_error(esx("import", "--from-kurrent", option, "-", "-d", dsn18), 2)


async def test_no_table_is_said_with_the_remedy(empty_dsn18: str) -> None:
    assert "esx init" in one_line_error(esx("export", "-d", empty_dsn18), 1)
    assert "esx init" in one_line_error(esx("import", "-", "-d", empty_dsn18), 1)


async def importing(
    dsn: str, text: bytes, stored: int, *, really: bool = False
) -> forked.Process | asyncio.subprocess.Process:
    """Start an import from a pipe that stays open, and return it when it has stored so many events."""
    process = (await Running.fed("import", "-", "-d", dsn, really=really)).process
    assert process.stdin is not None
    process.stdin.write(text)
    connection = await asyncpg.connect(dsn)
    async with asyncio.timeout(120):
        while await connection.fetchval("SELECT count(*) FROM events") < stored:
            await asyncio.sleep(0.01)
    await connection.close()
    return process


async def test_killed_in_the_middle_it_goes_on_without_duplicates(dsn18: str, tmp_path: Path) -> None:
    await fill(dsn18, 25_000)
    out = tmp_path / "out"
    assert esx("export", "-o", str(out), "-d", dsn18).returncode == 0
    connection = await asyncpg.connect(dsn18)
    await connection.execute(EMPTY)
    process = await importing(dsn18, out.read_bytes()[:-1000], 10_000)
    process.kill()
    await process.communicate()
    # What was being stored when it died may still be.
    writers = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'esx' AND datname = current_database()"
    while await connection.fetchval(writers):
        await asyncio.sleep(0.01)
    there = await connection.fetchval("SELECT count(*) FROM events")
    assert there in (10_000, 20_000)
    [done] = ndjson(esx("import", str(out), "--json", "-d", dsn18).stdout)
    assert done == {"stored": 25_000 - there, "skipped": there, "changed": {}}
    await connection.close()

    def without_number(text: str) -> list[str]:
        # A chunk that was rolled back has burned its numbers.
        return [line.partition(", ")[2] for line in text.splitlines()]

    assert without_number(esx("export", "-d", dsn18).stdout) == without_number(out.read_text())


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
async def test_a_signal_ends_an_import_that_waits_for_its_pipe(dsn18: str, number: int, code: int) -> None:
    lines = b"".join(b'{"stream_id": "s", "event_type": "T", "data": %d}\n' % n for n in range(10_000))
    # Once in a Python of its own, as a thread still reads the pipe when that ends.
    process = await importing(dsn18, lines, 10_000, really=number == signal.SIGINT)
    process.send_signal(number)
    assert process.stderr is not None
    told = (await asyncio.wait_for(process.stderr.read(), 120)).decode()
    assert await process.wait() == code
    assert "events were stored before: run the same import again" in told
    assert "Traceback" not in told


async def test_a_signal_ends_an_export(dsn18: str, tmp_path: Path) -> None:
    await fill(dsn18, 30_000)  # more than the pipes take
    for number, code in SIGNALS:
        export = await Running.start("export", "-d", dsn18)
        assert json.loads(await export.line())["global_seq"] == 1
        assert await export.end(number) == code
    # To a file: nothing is left of it.
    held = await asyncpg.connect(dsn18)
    await held.execute("BEGIN; LOCK TABLE events")
    for number, code in SIGNALS:
        export = await Running.start("export", "-o", str(tmp_path / "out"), "-d", dsn18)
        async with asyncio.timeout(120):
            while not list(tmp_path.iterdir()):
                await asyncio.sleep(0.01)
        assert await export.end(number) == code
        assert list(tmp_path.iterdir()) == []
    await held.close()


# Not resource.getrusage: its maximum includes the process that started this one.
PEAK = (
    "import re, sys; from esx.cli.main import main\n"
    "try: main()\n"
    "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)"
)


async def test_memory_stays_the_same_at_any_size(dsn18: str, tmp_path: Path) -> None:
    def peak(*arguments: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *arguments, "-d", dsn18],
            capture_output=True, text=True, env=environment(), check=True,
        )  # fmt: skip
        return int(done.stderr.split()[-1])

    peaks = {}
    out = tmp_path / "out"
    connection = await asyncpg.connect(dsn18)
    for events in (30_000, 75_000):  # several chunks are in flight with both
        await fill(dsn18, events)
        exporting = peak("export", "--force", "-o", str(out))
        await connection.execute(EMPTY)
        peaks[events] = exporting, peak("import", str(out))
        assert await connection.fetchval("SELECT count(*) FROM events") == events
    await connection.close()
    (export_few, import_few), (export_many, import_many) = peaks.values()
    # The file grows by 11 MB, and would come to several times that in objects; what allocators keep varies.
    assert export_many < export_few + 5_000, peaks
    assert import_many < import_few + 20_000, peaks
