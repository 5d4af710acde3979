"""What other users of the machine can read of esx's arguments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from esx.eventstore import EventStore
from esx.model import NewEvent
from tests.cli.support import Running, environment, esx, one_line_error
from tests.support.browser import until
from tests.support.forked_locust import REALLY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="only there others can read a process's arguments"),
    pytest.mark.slow,
]


def arguments_of(process: psutil.Process) -> Iterator[str]:
    """Yield the arguments of a process and of its children."""
    for each in (process, *process.children(recursive=True)):
        yield " ".join(each.cmdline())


@pytest.mark.parametrize(
    ("written", "first"),
    [(["-d", "{}"], True), (["--dsn", "{}"], False), (["--dsn={}"], True), (["-d{}"], False)],
    ids=str,
)
async def test_no_password_is_in_the_arguments(
    written: Sequence[str], first: bool, dsn18: str, store18: EventStore
) -> None:
    await store18.append("s", [NewEvent("T")])
    option = [each.format(dsn18.replace("postgres@", "postgres:hunter2@")) for each in written]
    tail = ["tail", "--from", "start", "--json"]
    running = await Running.start(*([*option, *tail] if first else [*tail, *option]))
    try:
        assert json.loads(await running.line())["event_type"] == "T"
        # It is the same process that was started.
        [shown] = arguments_of(psutil.Process(running.process.pid))
        assert "hunter2" not in shown
        assert "postgres:***@" in shown
        assert tail[-1] in shown
    finally:
        await running.end(signal.SIGKILL)


async def test_nor_in_those_of_a_server_and_its_pages(dsn18: str, store18: EventStore) -> None:
    running = await Running.start("serve", "--port", "0", "-d", f"{dsn18}&password=hunter2")
    try:
        assert "http://" in await running.narration()
        assert all("hunter2" not in each for each in arguments_of(psutil.Process(running.process.pid)))
    finally:
        await running.end(signal.SIGKILL)


async def test_nor_in_those_of_a_load_test(dsn18: str, store18: EventStore) -> None:
    address = (
        f"host={dsn18.partition('host=')[2].partition('&')[0]} "
        f"user=postgres dbname={dsn18.partition('@/')[2].partition('?')[0]} port=5432 password=hunter2"
    )
    options = ("--duration", "4", "--users", "1", "--rate", "10")
    running = await Running.start("load", *options, "-d", address, **{REALLY: "1"})
    try:
        process = psutil.Process(running.process.pid)
        await until(lambda: any("locustfile" in each for each in arguments_of(process)), "the load test")
        assert all("hunter2" not in each for each in arguments_of(process))
        assert any("password=***" in each for each in arguments_of(process))
    finally:
        await running.end(signal.SIGINT)


def test_what_is_shown_is_as_before(dsn18: str) -> None:
    line = one_line_error(esx("streams", "-d", "postgresql://u:hunter2@h:70000/d"), 2)
    assert line.startswith("esx: --dsn postgresql://u:***@h:70000/d has a port")


def test_other_arguments_stay_what_they_are(dsn18: str, store18: EventStore) -> None:
    data = '{"url": "postgresql://u:p@h", "d": "ü"}'
    done = esx("append", "s", "T", data, "-d", f"{dsn18}&password=x")
    assert done.returncode == 0, done.stderr
    assert json.loads(esx("read", "s", "--json", "-d", dsn18).stdout)["data"] == json.loads(data)


def test_without_a_way_to_start_again_it_is_refused() -> None:
    arguments = ["esx", "streams", "-d", "postgresql://u:hunter2@h"]
    script = f"import sys; sys.argv = {arguments}\nfrom esx.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr
    assert "put the address into ESX_DSN" in done.stderr


def test_locusts_own_command_refuses_a_password(tmp_path: Path) -> None:
    scenario = Path(__file__).parents[2] / "loadtest" / "locustfile.py"
    done = subprocess.run(
        [*(sys.executable, "-m", "locust", "-f", str(scenario), "--headless", "--run-time", "1s"),
         *("--dsn", "postgresql://u:hunter2@127.0.0.1:1/x")],
        capture_output=True, text=True, check=False, env=environment(), cwd=tmp_path, timeout=200,
    )  # fmt: skip
    assert done.returncode != 0
    assert "hunter2" not in done.stderr
    assert "put the address into ESX_DSN" in done.stderr
