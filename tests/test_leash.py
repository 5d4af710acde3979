"""No process of ours outlives the one that started it, however that ended, and none spins."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.cli.support import Running, environment
from tests.support.browser import until
from tests.support.forked_locust import REALLY
from tests.support.pages import serve

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

pytestmark = [pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"), pytest.mark.slow]

_LIMIT = 20.0
"""Seconds within which all have ended: they have 5 to do it in order, and the machine may be busy."""


def started_by(process: psutil.Process) -> list[psutil.Process]:
    """Return what a process has started, and what that has; a server of PostgreSQL is not ours."""
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "postgres" not in child.name():
                found.append(child)
    return found


def runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


async def all_end(processes: Iterable[psutil.Process]) -> None:
    """Wait until they have ended, and kill those that do not."""
    left = list(processes)
    assert left
    deadline = time.monotonic() + _LIMIT
    while left and time.monotonic() < deadline:
        left = [each for each in left if runs(each)]
        await asyncio.sleep(0.05)
    outlived = []
    for each in left:
        with contextlib.suppress(psutil.Error):
            outlived.append(each.cmdline())
            each.kill()
    assert not outlived


async def load_runs(running: Running) -> None:
    assert "progress" in await running.line()


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize(
    ("arguments", "least"),
    [
        (["load", "--processes", "2", "--subscribers", "1", "--users", "4"], 4),
        (["load", "sweep", "--vary", "users=2,4", "--subscribers", "1"], 2),
    ],
    ids=["load", "sweep"],
)
async def test_a_load_test_ends_with_esx(
    dsn18: str, tmp_path: Path, arguments: list[str], least: int, number: str
) -> None:
    running = await Running.start(
        *arguments, "--duration", "60s", *([] if "sweep" in arguments else ["--json"]), "-d", dsn18,
        **{"ESX_DATA_DIR": str(tmp_path), REALLY: "1"},
    )  # fmt: skip
    parent = psutil.Process(running.process.pid)
    await until(lambda: len(started_by(parent)) >= least, "all processes of the load test")
    children = started_by(parent)
    parent.send_signal(getattr(signal, number))
    await running.process.communicate()
    await all_end(children)


async def test_workers_and_subscribers_end_with_locust(dsn18: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "-u", "4", "-t", "60s"),
        *("--processes", "2", "--master-bind-port", port, "--master-port", port, "--subscribers", "1"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(**{"ESX_DSN": dsn18, REALLY: "1"}),
    )
    parent = psutil.Process(process.pid)
    await until(lambda: len(started_by(parent)) >= 3, "two workers and the subscribers")
    children = started_by(parent)
    parent.kill()
    await process.wait()
    await all_end(children)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 2.0])
async def test_explorers_in_a_browser_end_with_the_server(dsn18: str, seconds: float) -> None:
    async with serve("-d", dsn18) as (running, url), url.page():
        parent = psutil.Process(running.process.pid)
        await until(lambda: started_by(parent), "the explorer")
        children = started_by(parent)
        await asyncio.sleep(seconds)
        parent.kill()
        await running.process.wait()
        await all_end(children)


async def test_a_load_test_in_a_browser_ends_with_the_server(dsn18: str) -> None:
    async with serve("-d", dsn18, "--allow-load") as (running, url), url.page() as page:
        parent = psutil.Process(running.process.pid)
        await page.shows("connected", press="3")
        await page.shows("writes events to", press="\x13")  # ctrl+s
        await until(lambda: len(started_by(parent)) >= 2, "the load test")
        children = started_by(parent)
        parent.kill()
        await running.process.wait()
        await all_end(children)


@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        # While it starts, at two moments; and when it is there.
        *(("a signal while nobody reads", 0.2), ("all at once", 0.2), ("the input ends", 0.5)),
        *(("the input ends", 1.5), ("nobody reads", 1.5), ("a signal while nobody reads", 1.5), ("all at once", 1.5)),
    ],
)
async def test_an_explorer_ends_when_its_page_has_gone(dsn18: str, how: str, seconds: float) -> None:
    """By itself: here is no server that would see to it."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "esx"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(
            ESX_DSN=dsn18,
            TEXTUAL_DRIVER="esx.tui.webdriver:BrowserDriver",
            ESX_SERVED="",
            # Where nobody reads, more is drawn than a pipe holds.
            **({"COLUMNS": "500", "ROWS": "200"} if "nobody" in how else {"COLUMNS": "80", "ROWS": "24"}),
        ),
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        await asyncio.sleep(seconds)
        if how in ("the input ends", "all at once"):
            child.stdin.close()
        if how in ("nobody reads", "all at once"):
            child.stdout.close()
        if how == "all at once":
            child.stderr.close()
        if how == "nobody reads":
            child.stdin.write(_packet(b'{"type": "resize", "width": 90, "height": 30}'))
            child.stdin.flush()
        if how == "a signal while nobody reads":
            child.send_signal(signal.SIGTERM)
        await until(lambda: child.poll() is not None, "the explorer to end")
        spent = os.times()
        assert spent.children_user + spent.children_system < 3600
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            with contextlib.suppress(OSError):
                pipe.close()


def _packet(payload: bytes) -> bytes:
    return b"M" + len(payload).to_bytes(4, "big") + payload


async def test_a_process_that_waits_for_its_parent_does_not_spin() -> None:
    """Nor does it mind being busy or stuck when the parent has gone."""
    for body in (
        "time.sleep(60)",
        "[None for _ in iter(int, 1)]",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile 1: pass",
    ):
        code = f"import signal, time\nfrom esx.leash import hold\nhold()\nprint('held', flush=True)\n{body}\n"
        middle = (
            "import os, subprocess, sys\nfrom esx.leash import leashed\n"
            f"print(subprocess.Popen([sys.executable, '-c', {code!r}], env=leashed(os.environ)).pid, flush=True)\n"
            "sys.stdin.read()\n"
        )
        parent = subprocess.Popen([sys.executable, "-c", middle], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert parent.stdout is not None
        assert parent.stdin is not None
        with parent.stdout, parent.stdin:
            said = [await asyncio.to_thread(parent.stdout.readline) for _ in range(2)]
            child = psutil.Process(int(next(line for line in said if line.strip().isdigit())))
            if "sleep" in body:
                before = child.cpu_times()
                await asyncio.sleep(2)
                after = child.cpu_times()
                assert after.user + after.system - before.user - before.system < 0.2
            parent.kill()
            parent.wait()
            await all_end([child])


async def test_a_launcher_may_stand_between_and_a_parent_may_have_gone_before(tmp_path: Path) -> None:
    code = "import time\nfrom esx.leash import hold\nhold()\nprint('held', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "held.py").write_text(code)
    middle = (
        "import os, subprocess, sys\nfrom esx.leash import leashed\n"
        "subprocess.Popen(['sh', '-c', '\"$0\" \"$1\"; true', sys.executable, sys.argv[1]], env=leashed(os.environ))\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", middle, str(tmp_path / "held.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    with parent.stdout, parent.stdin:
        assert await asyncio.to_thread(parent.stdout.readline) == b"held\n"
        [child] = [
            each for each in psutil.Process(parent.pid).children(recursive=True) if "held.py" in each.cmdline()[1]
        ]
        await asyncio.sleep(2.5)
        assert runs(child), "its parent is there"
        parent.kill()
        parent.wait()
        await all_end([child])
    orphan = subprocess.Popen([sys.executable, str(tmp_path / "held.py")], env=environment(ESX_PARENT=str(parent.pid)))
    await until(lambda: orphan.poll() is not None, "the orphan to end")
