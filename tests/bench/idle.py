"""What an explorer that is left open costs: queries a second, and the CPU of the explorer and of its backends.

python -m tests.bench.idle [--seconds 15] [--events 200000]

Streams is watched on a store whose events are some seconds old, so that their ages are drawn each second; then each
screen on one in which nothing has happened for hours, and on one to which two events a second are appended.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pty
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import psutil

from esx import EventStore, NewEvent
from tests.bench.common import database, fill, server

if TYPE_CHECKING:
    from esx.embedded import EmbeddedServer

_SIZE = (120, 34)
_SCREENS = {"Streams": b"1", "by activity": b"1s", "Feed": b"2", "Health": b"4", "Consumers": b"5", "Types": b"6"}
_EARLIER = "UPDATE events SET created_at = created_at - interval '3 hours'"


async def main() -> None:
    """Measure, screen by screen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--events", type=int, default=200_000)
    chosen = parser.parse_args()
    with server() as running:
        dsn = await database(running, "idle")
        await fill(dsn, chosen.events, chosen.events // 10)
        # Every statement of the explorer leaves a line in the server's log.
        admin = await asyncpg.connect(running.dsn_for("postgres"))
        await admin.execute("ALTER DATABASE idle SET log_statement = 'all'")
        await admin.close()
        print(f"{'screen':<24} {'queries/s':>10} {'explorer':>10} {'backends':>10}   of a core")
        await _watch(running, dsn, "Streams, new events", {"Streams": b"1"}, 0.0, chosen.seconds)
        connection = await asyncpg.connect(dsn)
        await connection.execute(_EARLIER)
        await connection.execute("VACUUM (ANALYZE) events")
        await connection.close()
        for traffic in (0.0, 2.0):
            await _watch(running, dsn, "", _SCREENS, traffic, chosen.seconds)


async def _watch(
    running: EmbeddedServer, dsn: str, label: str, screens: dict[str, bytes], traffic: float, seconds: float
) -> None:
    """Open an explorer, and watch it on one screen after the other."""
    process, ours = _opened(dsn)
    try:
        await asyncio.sleep(6)
        for name, keys in screens.items():
            os.write(ours, keys)
            await asyncio.sleep(4)
            async with EventStore.connect(dsn) as store:
                figures = await _watched(running, process, store, traffic, seconds)
            shown = label or (f"{name}, {traffic:g} events/s" if traffic else name)
            print(f"{shown:<24} {figures[0]:>10.2f} {figures[1]:>10.2%} {figures[2]:>10.2%}", flush=True)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _opened(dsn: str) -> tuple[subprocess.Popen[bytes], int]:
    """Open the explorer in a terminal that takes what it draws."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "LINES": str(_SIZE[1]), "COLUMNS": str(_SIZE[0])}
    process = subprocess.Popen(
        [sys.executable, "-m", "esx", "-d", dsn], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    threading.Thread(target=_drain, args=(ours,), daemon=True).start()
    return process, ours


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        return


async def _watched(
    running: EmbeddedServer, process: subprocess.Popen[bytes], store: EventStore, traffic: float, seconds: float
) -> tuple[float, float, float]:
    """Return the queries a second of the explorer, its CPU, and that of its backends, as shares of a core."""
    admin = await asyncpg.connect(running.dsn_for("postgres"))
    found = await admin.fetch("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'esx explorer%'")
    await admin.close()
    ours = {row["pid"] for row in found}
    measured = [psutil.Process(process.pid), *(psutil.Process(pid) for pid in ours)]
    at, began = running.log_file.stat().st_size, time.monotonic()
    before = [_cpu(each) for each in measured]
    appended = 0
    while (passed := time.monotonic() - began) < seconds:
        if appended < traffic * passed:
            await store.append(f"stream-{appended % 20}", [NewEvent("Happened", {"at": appended})])
            appended += 1
        await asyncio.sleep(0.02)
    used = [_cpu(each) - earlier for each, earlier in zip(measured, before, strict=True)]
    with running.log_file.open("rb") as log:
        log.seek(at)
        lines = log.read().decode(errors="replace").splitlines()
    queries = sum(any(f"[{pid}]" in line for pid in ours) and "LOG:  " in line for line in lines)
    return queries / passed, used[0] / passed, sum(used[1:]) / passed


def _cpu(process: Any) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    asyncio.run(main())
