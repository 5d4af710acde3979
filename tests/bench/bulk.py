"""Bulk: import against a bare COPY into the same table, export and `esx tail --json` against COPY of row_to_json.

    python -m tests.bench.bulk [--events 1000000] [--rounds 3]

Each is a process of its own, as users run them: the esx commands, and for the reference one that does nothing but
hand COPY's bytes from PostgreSQL to a file, or from a file to PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

from tests.bench.common import compare, database, fill, server

_STREAMS = 10_000
_COLUMNS = ["stream_id", "stream_seq", "event_type", "data", "metadata", "created_at", "event_id"]
_IN = """
import asyncio, sys, asyncpg, uvloop
async def main(dsn, path, columns):
    connection = await asyncpg.connect(dsn)
    await connection.copy_to_table("events", source=path, columns=columns.split(","))
uvloop.run(main(*sys.argv[1:]))
"""
_OUT = """
import asyncio, sys, asyncpg, uvloop
async def main(dsn, path):
    connection = await asyncpg.connect(dsn)
    query = "SELECT row_to_json(events) FROM events ORDER BY global_seq"
    await connection.copy_from_query(query, output=path)
uvloop.run(main(*sys.argv[1:]))
"""


async def main(events: int, rounds: int) -> None:
    """Run all comparisons."""
    with server() as running, tempfile.TemporaryDirectory(prefix="esx-bench-") as scratch:
        full = await database(running, "bulk_out")
        await fill(full, events, _STREAMS)
        empty = await database(running, "bulk_in")
        directory = Path(scratch)
        await _out(full, directory, events, rounds)
        await _in(full, empty, directory, events, rounds)


async def _out(dsn: str, directory: Path, events: int, rounds: int) -> None:
    file = directory / "out"
    tail = ("-m", "esx", "tail", "--from", "start", "--no-follow", "--json", "--dsn", dsn)
    await compare(
        f"{events:,} events out",
        {
            "esx tail --from start --no-follow --json": lambda: _rate(events, *tail, to=file),
            "esx export": lambda: _rate(events, "-m", "esx", "export", "--dsn", dsn, to=file),
            "COPY (SELECT row_to_json(events))": lambda: _rate(events, "-c", _OUT, dsn, str(file)),
        },
        rounds=rounds,
        unit="events/s",
    )


async def _in(full: str, empty: str, directory: Path, events: int, rounds: int) -> None:
    lines, rows = directory / "events.ndjson", directory / "events.copy"
    await _rate(events, "-m", "esx", "export", "--dsn", full, to=lines)
    connection = await asyncpg.connect(full)
    await connection.copy_from_query(f"SELECT {', '.join(_COLUMNS)} FROM events ORDER BY global_seq", output=rows)
    await connection.close()

    async def into(*command: str) -> float:
        connection = await asyncpg.connect(empty)
        await connection.execute("TRUNCATE events RESTART IDENTITY")
        await connection.execute("CHECKPOINT")
        rate = await _rate(events, *command)
        assert await connection.fetchval("SELECT count(*) FROM events") == events
        await connection.close()
        return rate

    await compare(
        f"{events:,} events in",
        {
            "esx import": lambda: into("-m", "esx", "import", str(lines), "--dsn", empty),
            "COPY events FROM": lambda: into("-c", _IN, empty, str(rows), ",".join(_COLUMNS)),
        },
        rounds=rounds,
        unit="events/s",
    )


async def _rate(events: int, *command: str, to: Path | None = None) -> float:
    """Return how many events a second a Python process gets through, its start included."""
    with open(to or os.devnull, "wb") as output:
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=output, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        took = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{command[:3]} failed: {said.decode()}")
    return events / took


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asyncio.run(main(options.events, options.rounds))
