"""What watching a load test on the Load screen costs: the same test there and as `esx load`, in turn.

python -m tests.bench.loadscreen [--rounds 8] [--seconds 6] [--users 10] [--size 120x34]

The explorer is a process of its own, headless, with everything that a terminal would be sent rendered and thrown away,
and with its Feed following what the test writes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial

import psutil
from textual.widgets import Input

from esx.database_choice import Database
from esx.load.process import LoadRun
from esx.tui.screens.load import LoadPane
from esx.tui.session.session import SessionState
from tests.bench.common import compare, database, server
from tests.bench.feedscreen import DrawnExplorer, until


async def screen(dsn: str, users: int, seconds: float, size: tuple[int, int]) -> None:
    """Run a test on the Load screen; print its goodput, and the share of a core that the explorer used meanwhile."""
    gc.disable()  # as the command does: the explorer decides on it
    app = DrawnExplorer(
        Database(dsn, "--dsn", "bench", embedded=False), run_load=lambda dsn, options, **_: LoadRun(dsn, options)
    )
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.session.state is SessionState.CONNECTED)
        await pilot.press("3")
        await until(pilot, lambda: app.query(LoadPane) and app.follower.started)
        pane = app.query(LoadPane).first()
        pane.query_one("#load-users", Input).value = str(users)
        pane.query_one("#load-duration", Input).value = f"{seconds:g}"
        process = psutil.Process()
        cpu, began = process.cpu_times(), time.perf_counter()
        await pilot.press("ctrl+s")
        # Nothing here may take part in what is measured.
        await asyncio.sleep(seconds)
        used = process.cpu_times()
        share = (used.user + used.system - cpu.user - cpu.system) / (time.perf_counter() - began)
        await until(pilot, lambda: pane.summary is not None and not pane.running)
        assert pane.summary is not None
        assert pane.summary.verdict == "pass", pane.summary.evidence
        print(f"{pane.summary.goodput} {share} {app.frames}")


async def main(rounds: int, users: int, seconds: float, size: str) -> None:
    """Take turns, and print the figures."""
    shares: list[float] = []
    with server() as running, tempfile.TemporaryDirectory() as data:
        dsn = await database(running, "loadscreen")
        environment = {**os.environ, "ESX_DATA_DIR": data}

        def on_screen() -> float:
            arguments = ["--screen", dsn, "--users", str(users), "--seconds", str(seconds), "--size", size]
            goodput, share, _frames = _run("tests.bench.loadscreen", *arguments).split()
            shares.append(float(share))
            return float(goodput)

        def as_command() -> float:
            arguments = ["load", "--users", str(users), "--duration", f"{seconds:g}s", "--json", "-d", dsn]
            return float(json.loads(_run("esx", *arguments).splitlines()[-1])["goodput"])

        def _run(module: str, *arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", module, *arguments], capture_output=True, text=True, env=environment, check=True
            )
            return done.stdout

        await compare(
            f"a load test of {users} users",
            {
                "watched on the Load screen": partial(asyncio.to_thread, on_screen),
                "esx load": partial(asyncio.to_thread, as_command),
            },
            rounds=rounds,
            unit="appends/s",
        )
    print(f"  the explorer used {sorted(shares)[len(shares) // 2]:.0%} of a core meanwhile, its start included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--size", default="120x34")
    parser.add_argument("--screen", metavar="DSN", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.screen:
        width, height = options.size.split("x")
        asyncio.run(screen(options.screen, options.users, options.seconds, (int(width), int(height))))
    else:
        asyncio.run(main(options.rounds, options.users, options.seconds, options.size))
