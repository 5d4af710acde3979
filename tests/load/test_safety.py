"""What a load test may write to."""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from esx.database_choice import BadDatabase
from esx.embedded import is_own
from esx.eventstore import EventStore
from esx.load.errors import LoadFailed
from esx.load.safety import check_may_write
from esx.loadtest.settings import own_dsn
from esx.model import NewEvent
from esx.store.server_activity import ServerPlace, is_local
from tests.cli.support import esx
from tests.conftest import Servers

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]


async def test_a_local_store_of_load_tests_only_may_be_written_to(store: EventStore) -> None:
    await check_may_write(store, None)
    await store.append("load-a-1", [NewEvent("T", {}, {"run_id": "a"})])
    await check_may_write(store, None)


@pytest.mark.parametrize("stream", ["a-1", "loads", "load", "zebra", "load-1", "load-z-1"])
async def test_other_events_are_left_alone_unless_their_store_is_named(store18: EventStore, stream: str) -> None:
    await store18.append("load-a-1", [NewEvent("T", {}, {"run_id": "a"})])
    await store18.append(stream, [NewEvent("T", {}, {"run_id": "b"} if stream == "load-z-1" else None)])
    place = await store18.place()
    name = f"localhost/{place.database}"
    with pytest.raises(LoadFailed) as refusal:
        await check_may_write(store18, None)
    assert str(refusal.value) == (
        f"the store {name} holds events that are not a load test's, e.g. in stream {stream}: "
        f"use another database, or to write to it anyway, give --yes-write-to {name}"
    )
    with pytest.raises(LoadFailed, match="--yes-write-to names localhost/other, but the store is"):
        await check_may_write(store18, "localhost/other")
    await check_may_write(store18, name)
    await check_may_write(store18, store18.address.partition("@")[2])


async def test_a_store_elsewhere_must_be_named(store18: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which addresses are elsewhere is told below; here the store is said to be at one."""

    async def place(_: EventStore) -> ServerPlace:
        return ServerPlace(False, "shop", None, "18")

    monkeypatch.setattr(EventStore, "place", place)
    monkeypatch.setattr(EventStore, "address", "me@db.example.com:5433/shop")
    with pytest.raises(LoadFailed, match=r"^the store db\.example\.com/shop is not on this machine: .*to db"):
        await check_may_write(store18, None)
    await check_may_write(store18, "db.example.com/shop")
    await check_may_write(store18, "db.example.com:5433/shop")
    with pytest.raises(LoadFailed, match="names localhost/shop"):
        await check_may_write(store18, "localhost/shop")


@pytest.mark.parametrize("dialled", ["/tmp", "127.0.0.1", "::1", "localhost"])
async def test_which_addresses_are_local(dialled: str) -> None:
    assert await is_local(dialled)


@pytest.mark.parametrize("dialled", ["10.0.0.7", "fe80::1%lo", "none.invalid"])
async def test_which_addresses_are_elsewhere(dialled: str) -> None:
    assert not await is_local(dialled)


def test_esx_knows_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESX_DATA_DIR", str(tmp_path))
    assert is_own(str(tmp_path / "postgresql-18" / "data"))
    assert not is_own("/var/lib/postgresql/18/data")
    assert not is_own(str(tmp_path / "elsewhere" / "data"))


async def test_esx_s_own_server_may_hold_stores_that_are_not_to_be_played_with(
    dsn18: str, store18: EventStore, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await servers.get(18)
    monkeypatch.setenv("ESX_DATA_DIR", str(server.data_dir.parents[1]))
    assert is_own(str(server.data_dir))
    await store18.append("orders-1", [NewEvent("T")])
    with pytest.raises(LoadFailed, match="holds events that are not a load test's"):
        await check_may_write(store18, None)


async def test_plain_locust_takes_connections_by_their_names(dsn18: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[connections.test]\ndsn = "{dsn18}"\n')
    code, said = await locust("test", ESX_CONFIG=str(config))
    assert code == 0, said
    assert "verdict pass" in said
    code, said = await locust("tset", ESX_CONFIG=str(config))
    assert code == 1
    assert "is no connection of" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_which_database_plain_locust_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[connections.a]\ndsn = 'postgresql://h/a'\n[connections.b]\ndsn = 'h'\nread_only = true\n")
    monkeypatch.setenv("ESX_CONFIG", str(config))
    monkeypatch.delenv("DATABASE_URL", raising=False)

    def told(option: str | None, variable: str = "") -> str | None:
        monkeypatch.setenv("ESX_DSN", variable)
        return own_dsn(Namespace(dsn=option))

    assert told("a") == told(None, "a") == "postgresql://h/a"
    assert told("postgresql://h/x", "a") == "postgresql://h/x"
    assert told(None) is told(None, "  ") is None
    for option, reason in (("b", "is read_only"), ("embedded", "use `esx load -d embedded`"), ("", "--dsn is empty")):
        with pytest.raises(BadDatabase, match=reason):
            told(option, "a")
    config.write_text("nonsense")
    assert told(None, "postgresql://h/x") == "postgresql://h/x", "a config file that is not needed may be broken"


async def test_commands_and_plain_locust_obey(dsn18: str, store18: EventStore) -> None:
    await store18.append("orders-1", [NewEvent("T")])
    name = f"localhost/{(await store18.place()).database}"
    done = esx("load", "--users", "1", "--duration", "1s", "-d", dsn18)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].endswith(f"give --yes-write-to {name}")
    assert "Traceback" not in done.stderr
    code, said = await locust(dsn18)
    assert code == 1
    assert said.splitlines()[-1].endswith(f"give --yes-write-to {name}")
    assert await store18.stream_outside("orders-") is None

    code, said = await locust(dsn18, "--yes-write-to", name)
    assert code == 0, said
    assert "verdict pass" in said


async def locust(dsn: str, *arguments: str, **extra: str) -> tuple[int | None, str]:
    """Run plain Locust to its end; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "-u", "1"),
        *("--max-appends", "20", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env={**os.environ, "ESX_DSN": dsn, **extra},
    )
    _, said = await asyncio.wait_for(process.communicate(), 200)
    return process.returncode, said.decode()
