"""What the benchmarks share: a server of their own, and comparing things that alternate in one run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from esx import EventStore
from esx.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

WRITERS = 32
_LINES = 10_000


@contextlib.contextmanager
def server(keep: Path | None = None) -> Iterator[EmbeddedServer]:
    """Yield an embedded PostgreSQL 18 with everything as users get it: fsync on. It stays in the directory `keep`."""
    with contextlib.ExitStack() as stack:
        directory = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="esx-bench-")))
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        yield stack.enter_context(EmbeddedServer.start(directory))


async def database(running: EmbeddedServer, name: str) -> str:
    """Make a database with the schema and return its DSN."""
    connection = await asyncpg.connect(running.dsn_for("postgres"))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    async with EventStore.connect(running.dsn_for(name)) as store:
        await store.init()
    return running.dsn_for(name)


async def fill(dsn: str, events: int, streams: int) -> None:
    """Store so many small events with COPY, spread evenly over streams, in an order as if appended in turn."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("ALTER TABLE events DISABLE TRIGGER USER")
    await connection.copy_to_table(
        "events",
        source=_lines(events, streams),
        columns=["stream_id", "stream_seq", "event_type", "data", "metadata"],
        timeout=3600,
    )
    await connection.execute("ALTER TABLE events ENABLE TRIGGER USER")
    await connection.execute("VACUUM (ANALYZE) events", timeout=3600)
    await connection.execute("CHECKPOINT", timeout=3600)
    await connection.close()


async def _lines(events: int, streams: int) -> AsyncIterator[bytes]:
    """Yield the events in COPY's text format."""
    text = "x" * 40
    for first in range(0, events, _LINES):
        lines = (
            f's-{n % streams}\t{n // streams}\tType{n % 7}\t{{"n": {n}, "text": "{text}"}}\t{{"user": "ann"}}\n'
            for n in range(first, min(first + _LINES, events))
        )
        yield "".join(lines).encode()


async def compare(
    what: str, measures: dict[str, Callable[[], Awaitable[float]]], *, rounds: int, unit: str, higher: bool = True
) -> dict[str, float]:
    """Measure each in turn, `rounds` times, and print medians and their ratios to the last one; return the medians."""
    seen: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seen[name].append(await measure())
    medians = {name: statistics.median(values) for name, values in seen.items()}
    reference = list(medians)[-1]
    print(f"\n{what} ({unit}, median of {rounds} alternating rounds, {'more' if higher else 'less'} is better)")
    for name, value in medians.items():
        spread = f"{min(seen[name]):,.2f} to {max(seen[name]):,.2f}"
        print(f"  {name:<44} {value:>14,.2f}   x {value / medians[reference]:<8.2f} {spread}", flush=True)
    return medians


async def throughput(turn: Callable[[int], Awaitable[object]], seconds: float) -> float:
    """Return how many turns a second WRITERS concurrent loops get done; each turn is told its loop's number."""
    end = time.perf_counter() + seconds
    done = 0

    async def loop(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await turn(number)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(loop(number) for number in range(WRITERS)))
    return done / (time.perf_counter() - began)


def pgbench(
    running: EmbeddedServer,
    dsn_database: str,
    script: str,
    seconds: float,
    *,
    clients: int = WRITERS,
    settings: Mapping[str, str] | None = None,
) -> float:
    """Return the transactions a second of a pgbench script, prepared, in one thread; `settings` are its sessions'."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                *(running.bin_dir / "pgbench", "-h", str(running.socket_dir), "-U", "postgres", "-n"),
                *("-M", "prepared", "-c", str(clients), "-j", "1", "-T", str(int(seconds)), "-f", file.name),
                dsn_database,
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in (settings or {}).items())},
        )
    if done.returncode:
        raise RuntimeError(f"pgbench failed: {done.stderr}")
    match = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    assert match is not None
    return float(match.group(1))
