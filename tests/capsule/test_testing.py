"""esx.testing: an incident as a regression test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from esx import EventStore, NewEvent
from esx.capsule.format import BadCapsule
from esx.capsule.recorder import CapsuleRecorder, RecordOptions
from esx.testing import CapsuleStore, capsule_store
from tests.capsule.made import line, make, moment
from tests.capsule.test_recording import at, story
from tests.support.connections import connected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import asyncpg

    from tests.conftest import Servers

pytestmark = pytest.mark.slow


@pytest.fixture
async def data_dir(servers: Servers) -> Path:
    """The directory of the server that the tests share."""
    return (await servers.get(18)).data_dir.parents[1]


@pytest.fixture
def incident(tmp_path: Path, data_dir: Path) -> Iterator[CapsuleStore]:
    with capsule_store(story(tmp_path / "incident.esx"), data_dir=data_dir) as store:
        yield store


async def test_a_projection_is_run_on_the_events_of_an_incident(incident: CapsuleStore) -> None:
    seen: list[int] = []

    async def handle(_connection: asyncpg.Connection, event: Any) -> None:
        seen.append(event.global_seq)
        if event.global_seq == 8:
            raise ValueError("the bug")

    async with EventStore.connect(incident.dsn) as store:
        with pytest.raises(Exception, match="the bug"):
            await store.project("p", handle)
        assert set(seen) == {1, 2, 3, 4, 5, 6, 8}
        await store.append("a-1", [NewEvent("Mended")], expected=3)
        events = [event async for event in store.read_all()]
    recorded = list(incident.events())
    assert [(each.global_seq, str(each.event_id)) for each in events][:-1] == [
        (each["global_seq"], each["event_id"]) for each in recorded
    ]
    assert incident.info.events == 7


async def test_what_was_seen_is_there_too(incident: CapsuleStore) -> None:
    assert [each.counts.position for each in incident.feed()] == [2, 3, 3, 6, 8]
    assert len(incident.health()) == 2
    assert incident.consumers()[0].problem == "no table consumers"
    async with incident.recording() as recording, await recording.connect() as store:
        await recording.player.jump(at(20))
        assert await store.head() == 6


async def test_a_capsule_of_any_version_of_postgresql_is_a_test(
    store: EventStore, tmp_path: Path, data_dir: Path
) -> None:
    for number in range(3):
        await store.append(f"s-{number % 2}", [NewEvent("T", {"n": number}, metadata={"user": "é"})])
    with (tmp_path / "x.esx").open("wb") as file:
        await CapsuleRecorder(store, RecordOptions()).run(file)
    wanted = [event.to_json() async for event in store.read_all()]
    with capsule_store(tmp_path / "x.esx", data_dir=data_dir) as incident:
        async with EventStore.connect(incident.dsn) as theirs:
            assert [event.to_json() async for event in theirs.read_all()] == wanted
        async with incident.recording() as recording, await recording.connect() as shown:
            assert [event.to_json() async for event in shown.read_all()] == wanted


def test_its_database_is_gone_afterwards(tmp_path: Path, data_dir: Path) -> None:
    async def databases(dsn: str) -> int:
        async with connected(dsn) as connection:
            query = "SELECT count(*) FROM pg_database WHERE datname LIKE 'esx_capsule_%'"
            return int(await connection.fetchval(query))

    with capsule_store(story(tmp_path / "x.esx"), data_dir=data_dir) as store:
        admin = store._server.dsn_for("postgres")
        assert asyncio.run(databases(admin)) == 1
    # The server of the tests runs on.
    assert asyncio.run(databases(admin)) == 0


def test_a_slice_that_has_holes_keeps_its_numbers(tmp_path: Path, data_dir: Path) -> None:
    lines = [line(7, "a-1", 3), line(9, "a-1", 5)]
    with capsule_store(make(tmp_path / "x.esx", lines, [moment(0, 9)], filter="a-*"), data_dir=data_dir) as store:
        assert [(each["global_seq"], each["stream_seq"]) for each in store.events()] == [(7, 3), (9, 5)]


def test_a_capsule_that_cannot_be_restored_is_named(tmp_path: Path, data_dir: Path) -> None:
    path = make(tmp_path / "x.esx", [line(1), line(2, event_id="x")])
    with pytest.raises(BadCapsule, match=r"line 2 of events\.ndjson"), capsule_store(path, data_dir=data_dir):
        pass


def test_the_fixture_in_a_project_of_its_own(tmp_path: Path, data_dir: Path) -> None:
    story(tmp_path / "incident.esx")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["esx.testing"]\n')
    (tmp_path / "test_incident.py").write_text(
        "import asyncio, pytest\n"
        "from esx import EventStore\n"
        "async def streams(dsn):\n"
        "    async with EventStore.connect(dsn) as store:\n"
        "        return [each.stream_id async for each in store.streams()]\n"
        "@pytest.mark.capsule('incident.esx')\n"
        "def test_it(capsule):\n"
        "    assert asyncio.run(streams(capsule.dsn)) == ['a-1', 'b-1', 'c-1']\n"
        "def test_without_a_mark(capsule):\n"
        "    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        # The plugins of this environment are not what is tested, and take long to import.
        env={**os.environ, "ESX_DATA_DIR": str(data_dir), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed, 1 error" in done.stdout or "1 passed, 1 failed" in done.stdout, done.stdout + done.stderr
    assert "needs @pytest.mark.capsule('FILE.esx')" in done.stdout
