"""Every command, run by a superuser on the store of somebody hostile."""

from __future__ import annotations

import asyncio
import tempfile
from functools import partial
from typing import TYPE_CHECKING

import click
import pytest
import pytest_asyncio

from esx.cli.main import cli
from tests.cli.support import esx
from tests.conftest import Servers
from tests.support.hostile import hostile_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.hostile import Hostile

pytestmark = pytest.mark.slow

READING = {
    "streams": ["streams", "--match", "ord*", "--json"],
    "categories": ["streams", "--categories", "--json"],
    "read": ["read", "order-1", "--json"],
    "read by a filter": ["read", "$all", "ord* type:pl* $.n > 1 user:ann corr:x"],
    "read all": ["read", "$all", "--backwards"],
    "state": ["state", "order-1"],
    "tail": ["tail", "--from", "start", "--no-follow", "--where", "$.n > 1", "--type", "Pl*", "--json"],
    "types": ["types", "--json"],
    "summary": ["summary", "--since", "-1d"],
    "trail": ["trail", "3", "--json"],
    "export": ["export"],
    "health": ["health", "--json"],
    "consumers": ["consumers", "--json"],
    "doctor": ["doctor", "--full"],
    "conflicts": ["conflicts", "--json"],
    "capsule": ["capsule", "record", "--force", "-o", f"{tempfile.gettempdir()}/hostile.esx"],
}
WRITING = {
    "append": ["append", "order-1", "Paid", "{}"],
    "import": ["import", "-"],
    "init": ["init"],
    "load": ["load", "--users", "1", "--duration", "1s"],
}
OF_CONSUMERS = {"check", "metrics", "project", "relay"}
"""Those that are tested with the consumers, and go on or answer a monitor."""
OTHER = {"demo", "serve", "config", "stores", "completion", "man", "open", "bookmarks"}
"""Those that start the explorer, open no other database than that which comes with esx, or read the catalogs alone."""


@pytest_asyncio.fixture
async def hostile(servers: Servers) -> AsyncIterator[Hostile]:
    async with hostile_database(await servers.get(18)) as database:
        yield database


def test_each_command_is_tried() -> None:
    tried = {arguments[0] for arguments in (*READING.values(), *WRITING.values())}
    assert set(cli.list_commands(click.Context(cli))) == tried | OTHER | OF_CONSUMERS


async def test_no_command_that_reads_runs_what_is_planted(hostile: Hostile) -> None:
    before = {name: await run(hostile, arguments) for name, arguments in READING.items()}
    assert {code for code, _ in before.values()} <= {0, 1}
    assert before["read"][0] == before["tail"][0] == before["export"][0] == 0
    await hostile.plant_everywhere()
    after = {name: await run(hostile, arguments) for name, arguments in READING.items()}
    assert not hostile.sprung
    assert {name: code for name, (code, _) in after.items()} == {name: code for name, (code, _) in before.items()}
    for name in ("streams", "categories", "read", "read all", "state", "tail", "trail", "export"):
        assert after[name] == before[name]


async def test_each_command_names_the_owner_whose_code_would_run(hostile: Hostile) -> None:
    await hostile.plant_in_an_index()
    for arguments in (*READING.values(), WRITING["append"], WRITING["import"]):
        done = await asyncio.to_thread(partial(esx, "-d", hostile.dsn, *arguments, stdin='{"stream_id": "s"}\n'))
        assert done.returncode == 1, arguments
        [line] = done.stderr.splitlines()
        assert line.startswith("esx: index "), arguments
        assert hostile.owner.bare in line
        assert "--trust-owner" in line
    assert not hostile.sprung
    assert (await run(hostile, ["--trust-owner", *READING["streams"]]))[0] == 0


async def run(hostile: Hostile, arguments: list[str]) -> tuple[int, str]:
    done = await asyncio.to_thread(partial(esx, "-d", hostile.dsn, *arguments))
    return done.returncode, done.stdout
