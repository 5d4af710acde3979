"""The commands with nothing configured: esx brings its own PostgreSQL."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from esx.embedded import EmbeddedServer
from tests.cli.support import Running, esx, ndjson
from tests.support.clusters import copy_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


@pytest.fixture
def home() -> Iterator[str]:
    # Not below pytest's own directory, which as root is closed to the server's user.
    directory = tempfile.mkdtemp(prefix="esx-home-")
    Path(directory).chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def test_the_first_command_may_be_one_that_only_reads_and_it_is_said_where_things_go(home: str) -> None:
    first = esx("streams", "--json", ESX_DATA_DIR=home)
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "no streams yet\n")
    where = "in embedded PostgreSQL 18, as no database is named"
    with EmbeddedServer.start(Path(home)):  # which the others need not start
        written = esx("append", "s", "T", ESX_DATA_DIR=home)
        assert (written.returncode, written.stderr) == (0, f"{where}\n")
        missing = esx("read", "nobody", ESX_DATA_DIR=home)
        assert missing.returncode == 1
        assert missing.stderr.splitlines()[0] == where
        assert "nobody has no events" in missing.stderr
        named = esx("append", "s", "T", "-d", "embedded", ESX_DATA_DIR=home)
        assert (named.returncode, named.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
async def test_the_server_stops_with_a_command_whose_terminal_is_closed(home: str) -> None:
    await copy_cluster(Path(home), 18)
    for name in ("SIGHUP", "SIGTERM"):
        number = signal.Signals[name]
        tail = await Running.start("tail", ESX_DATA_DIR=home)
        assert "following" in await tail.narration()
        pid_file = Path(home, "postgresql-18", "data", "postmaster.pid")
        assert pid_file.exists()
        assert await tail.end(number) == 128 + number, name
        assert not pid_file.exists(), name


async def test_the_demo_fills_the_store_once(home: str) -> None:
    await copy_cluster(Path(home), 18)
    first = esx("demo", "--no-tui", ESX_DATA_DIR=home)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("made ")
    assert "embedded PostgreSQL 18" in first.stdout
    with EmbeddedServer.start(Path(home)):
        second = esx("demo", "--no-tui", ESX_DATA_DIR=home, ESX_DSN="postgresql://127.0.0.1:1/elsewhere")
        assert "there already" in second.stdout
        tail = esx("tail", "--from", "start", "--json", "--no-follow", ESX_DATA_DIR=home)
        events = ndjson(tail.stdout)
        assert len(events) >= 5000
        assert {event["stream_id"].partition("-")[0] for event in events} == {"accounts", "orders", "payments", "carts"}
        summary = esx("load", "--users", "4", "--max-appends", "200", "--streams", "3", "--json", ESX_DATA_DIR=home)
        assert summary.returncode == 0, summary.stderr
        last = json.loads(summary.stdout.splitlines()[-1])
        assert last["kind"] == "summary"
        assert last["verdict"] == "pass"
        assert last["successes"] == last["stored"] > 0
        stored = esx("tail", "--from", "start", "--stream", "load-*", "--json", "--no-follow", ESX_DATA_DIR=home)
        assert len(stored.stdout.splitlines()) == last["successes"]
