"""esx capsule, as a process: recording, looking into what was recorded, and files that are no capsules."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import termios
import zipfile
from typing import TYPE_CHECKING

import pytest

from esx import EventStore, NewEvent
from tests.capsule.test_recording import story
from tests.cli.support import Running, environment, esx, ndjson, one_line_error
from tests.layouts.foreign.fixtures import load_into
from tests.support.connections import connected
from tests.support.forked import OnTerminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Servers

pytestmark = pytest.mark.slow


async def filled(store: EventStore) -> None:
    for number in range(4):
        await store.append(f"order-{number % 2}", [NewEvent("Placed", {"n": number, "email": "ann@example.com"})])


async def test_a_capsule_is_recorded_and_looked_into(dsn: str, store: EventStore, tmp_path: Path) -> None:
    await filled(store)
    path = str(tmp_path / "x.esx")
    done = esx("capsule", "record", "-o", path, "-d", dsn)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("recorded 4 events, 1 to 4, and 2 moments of the feed in ")
    told = esx("capsule", "info", path).stdout
    assert "not followed" in told
    assert "4 events after global_seq 0" in told
    [info] = ndjson(esx("capsule", "info", path, "--json").stdout)
    assert (info["events"], info["first"], info["last"]) == (4, 1, 4)
    assert esx("capsule", "verify", path).stdout == f"{path} is whole: 4 events, all sums are right\n"
    events = esx("capsule", "events", path).stdout
    assert events == esx("export", "-d", dsn).stdout
    assert [each["global_seq"] for each in ndjson(esx("capsule", "events", path, "--stream", "*-1").stdout)] == [2, 4]
    [first, *_] = ndjson(esx("capsule", "events", path, "--of", "feed").stdout)
    assert first["counts"][0] == 4


async def test_the_events_of_a_capsule_can_be_imported(
    dsn18: str, store18: EventStore, empty_dsn18: str, tmp_path: Path
) -> None:
    await filled(store18)
    path = str(tmp_path / "x.esx")
    esx("capsule", "record", "-o", path, "-d", dsn18)
    assert esx("init", "-d", empty_dsn18).returncode == 0
    lines = esx("capsule", "events", path).stdout
    assert esx("import", "-", "--faithful", "-d", empty_dsn18, stdin=lines).returncode == 0
    assert esx("export", "-d", empty_dsn18).stdout == lines


async def test_ctrl_c_keeps_what_was_recorded(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await filled(store18)
    path = tmp_path / "x.esx"
    recording = await Running.start(
        *("capsule", "record", "-o", str(path), "--from", "start", "--follow", "10m", "-d", dsn18, "--json")
    )
    assert "Ctrl-C ends it early" in await recording.narration()
    assert not path.exists()
    recording.process.send_signal(signal.SIGINT)
    info = json.loads(await recording.line())
    assert await recording.process.wait() == 0
    assert (info["events"], info["followed"]) == (4, True)
    assert esx("capsule", "verify", str(path)).returncode == 0


async def test_masked_values_are_nowhere(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await filled(store18)
    path = tmp_path / "x.esx"
    done = esx("capsule", "record", "-o", str(path), "-d", dsn18, "--mask", "$.email", "--mask-ids")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(path) as archive:
        assert all(b"ann@example.com" not in archive.read(name) for name in archive.namelist())
    assert (
        "masked      $.email, and ids of streams and correlations: 3 values" in esx("capsule", "info", str(path)).stdout
    )


async def test_what_cannot_be_masked_leaves_no_file(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await store18.append("of-ann@example.com", [NewEvent("Placed", {"email": "ann@example.com"})])
    path = tmp_path / "x.esx"
    refused = one_line_error(esx("capsule", "record", "-o", str(path), "-d", dsn18, "--mask", "$.email"), 1)
    assert "$.email" in refused
    assert "--mask-ids" in refused
    assert "ann@" not in refused
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from", "end"], "--follow"),
        (["--follow", "1s", "--to", "now"], "--to and --follow"),
        (["--follow", "soon"], "is not a duration"),
        (["--mask", "email"], "is no path that can be masked"),
        (["--from", "sometime"], "'sometime' is not a time"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = esx(
        "capsule", "record", "-o", str(tmp_path / "x.esx"), "-d", "postgresql:///x?host=/nonexistent", *arguments
    )
    assert told in one_line_error(done, 2)


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.esx"
    path.write_text("mine")
    done = esx("capsule", "record", "-o", str(path), "-d", "postgresql:///x?host=/nonexistent")
    assert "--force" in one_line_error(done, 2)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("command", ["info", "verify", "events"])
def test_what_is_no_capsule_is_named_in_a_line(tmp_path: Path, command: str) -> None:
    path = tmp_path / "x\x1b[2J.esx"
    assert "No such file" in one_line_error(esx("capsule", command, str(path)), 1)
    path.write_bytes(b"x" * 1000)
    told = one_line_error(esx("capsule", command, str(path)), 1)
    assert "it is no zip" in told
    assert "\x1b" not in told
    assert one_line_error(esx("capsule", command, str(tmp_path)), 1)


async def test_a_store_without_an_order_is_refused(empty_dsn18: str, tmp_path: Path) -> None:
    await load_into(empty_dsn18, "cqrs_es")
    done = esx("capsule", "record", "-o", str(tmp_path / "x.esx"), "-d", empty_dsn18)
    assert done.returncode == 1
    assert "has no global order" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


async def test_a_store_of_another_tool_is_recorded(empty_dsn18: str, tmp_path: Path) -> None:
    await load_into(empty_dsn18, "messagedb")
    path = str(tmp_path / "x.esx")
    done = esx("capsule", "record", "-o", path, "--from", "start", "-d", empty_dsn18)
    assert done.returncode == 0, done.stderr
    assert esx("capsule", "events", path).stdout == esx("export", "-d", empty_dsn18).stdout
    assert "Message DB" in esx("capsule", "info", path).stdout
    assert esx("capsule", "verify", path).returncode == 0


async def test_a_capsule_is_opened_on_a_terminal(servers: Servers, tmp_path: Path) -> None:
    path = story(tmp_path / "incident.esx")
    server = await servers.get(18)
    data_dir = str(server.data_dir.parents[1])
    refused = one_line_error(esx("capsule", "open", str(path), ESX_DATA_DIR=data_dir), 2)
    assert "needs a terminal" in refused
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
    given = environment(TERM="xterm-256color", ESX_DATA_DIR=data_dir)
    command = ["capsule", "open", str(path), "--at", "#5"]
    process = OnTerminal(theirs, command, environment=given, session=True, explorer=True)
    assert "14:00:20" in await asyncio.to_thread(_until_shown, ours)
    assert await asyncio.to_thread(process.wait, 120) == 0
    os.close(ours)
    async with connected(server.dsn_for("postgres")) as admin:
        assert await admin.fetchval("SELECT count(*) FROM pg_database WHERE datname LIKE 'esx_capsule_%'") == 0


def _until_shown(terminal: int) -> str:
    """Read what a terminal gets until the recording is shown, then quit, and read the rest."""
    got = b""
    asked = False
    try:
        while piece := os.read(terminal, 65536):
            got += piece
            if not asked and b"RECORDING" in got and b"14:00:20" in got:
                asked = True
                os.write(terminal, b"q")
    except OSError:  # how Linux tells that the other end is closed
        pass
    return got.decode(errors="replace")
