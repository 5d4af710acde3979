"""The load test itself: against pgbench and a psycopg user in Locust, its policies, and its latencies.

    python -m tests.bench.load [--seconds 4] [--rounds 5] [--only against|policies|latency]

The embedded PostgreSQL 18, fsync on. The psycopg user takes part where psycopg is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import uvloop

from esx.load.model import LoadOptions, LoadSummary
from esx.load.process import LoadRun
from tests.bench.common import WRITERS, compare, database, pgbench, server
from tests.bench.statements import APPEND, VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.embedded import EmbeddedServer

_STREAMS = 10_000
_STREAM = "'load-pgbench-' || :s"
_SAME_APPEND = APPEND.format(
    stream=_STREAM,
    version=":version",
    data="""'{"n":1}'""",
    metadata="""'{"run_id":"pgbench"}'""",
    id="gen_random_uuid()",
)
# Each client keeps to its own share of the streams, because pgbench gives up at the first conflict.
_PGBENCH = f"""
\\set s random(0, 311) * 32 + :client_id
{VERSION.format(_STREAM)} \\gset
{_SAME_APPEND};
"""


async def main(seconds: float, rounds: int, only: str | None) -> None:
    """Run all comparisons, or one."""
    parts: dict[str, Callable[[EmbeddedServer, str, float, int], Awaitable[None]]] = {
        "against": _against,
        "policies": _policies,
        "latency": _latency,
    }
    with server() as running:
        dsn = await database(running, "load")
        for name, part in parts.items():
            if only in (None, name):
                await part(running, dsn, seconds, rounds)


async def run(dsn: str, options: LoadOptions) -> LoadSummary:
    """Run the scenario in Locust, as `esx load` does."""
    async for line in LoadRun(dsn, options):
        summary = line
    assert isinstance(summary, LoadSummary)
    assert summary.verdict == "pass", summary.evidence
    return summary


async def _against(running: EmbeddedServer, dsn: str, seconds: float, rounds: int) -> None:
    options = LoadOptions(users=WRITERS, duration=seconds, warm_up=1, streams=_STREAMS)

    async def scenario() -> float:
        return (await run(dsn, options)).goodput

    async def same_sql() -> float:
        return await asyncio.to_thread(pgbench, running, "load", _PGBENCH, seconds)

    measures: dict[str, Callable[[], Awaitable[float]]] = {"Locust, the bundled scenario": scenario}
    if importlib.util.find_spec("psycopg") is not None:
        measures["Locust, a psycopg user on gevent"] = lambda: _psycopg(dsn, seconds)
    measures["pgbench, the same statements"] = same_sql
    await compare("read, decide, append; 32 users on 10,000 streams", measures, rounds=rounds, unit="appends/s")


async def _psycopg(dsn: str, seconds: float) -> float:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "locust", "-f", "tests/bench/gevent_locustfile.py", "--headless"),
            *("-u", str(WRITERS), "-r", str(WRITERS), "-t", f"{seconds + 1:g}s", "--reset-stats", "--only-summary"),
            *("--json-file", file.name.removesuffix(".json")),
            env={**os.environ, "ESX_DSN": dsn},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        await process.wait()
        [entry] = json.loads(Path(file.name).read_text(encoding="utf-8"))
    succeeded = entry["num_requests"] - entry["num_failures"]
    return float(succeeded / (entry["last_request_timestamp"] - entry["start_time"]))


async def _policies(_running: EmbeddedServer, dsn: str, seconds: float, rounds: int) -> None:
    def goodput(**how: str) -> Callable[[], Awaitable[float]]:
        async def measure() -> float:
            options = LoadOptions(
                users=WRITERS,
                duration=seconds,
                warm_up=1,
                streams=1,
                max_tries=1_000_000,
                **how,  # type: ignore[arg-type]
            )
            return (await run(dsn, options)).goodput

        return measure

    await compare(
        "read, decide, append until it succeeds; 32 users on one stream",
        {
            "any version, row lock (nothing is decided)": goodput(expected="any", strategy="row-lock"),
            "take turns in the process (single-writer)": goodput(on_conflict="single-writer"),
            "lock first": goodput(strategy="row-lock"),
            "queue on the lock after a conflict": goodput(on_conflict="queue"),
            "retry with backoff": goodput(on_conflict="backoff"),
            "retry at once": goodput(on_conflict="retry"),
        },
        rounds=rounds,
        unit="appends/s",
    )


async def _latency(_running: EmbeddedServer, dsn: str, seconds: float, rounds: int) -> None:
    """Both at the same time, each at that rate: what disturbs one of them disturbs the other as well."""
    for rate in (100, 250):
        options = LoadOptions(users=WRITERS, duration=seconds * 5, warm_up=1, streams=_STREAMS, rate=rate)
        seen: dict[str, dict[str, list[float]]] = {"p50": {}, "p99": {}}
        for _ in range(rounds):
            halt = asyncio.Event()
            bare = asyncio.create_task(_bare(dsn, rate, halt))
            lines: list[float] = []
            async for line in LoadRun(dsn, options):
                if isinstance(line, LoadSummary):
                    summary = line
                    assert summary.verdict == "pass", summary.evidence
                elif line.total.attempts:
                    lines.append(time.perf_counter())
            halt.set()
            took = sorted(took for at, took in await bare if lines[0] <= at <= lines[-1])
            for rank, share in (("p50", 0.5), ("p99", 0.99)):
                seen[rank].setdefault("locust", []).append(summary.percentiles[rank])
                seen[rank].setdefault("bare", []).append(took[int(len(took) * share)] * 1000)
        print(f"\nservice time of an append at {rate}/s each (ms, medians of {rounds} rounds of {seconds * 5:g} s)")
        for rank, both in seen.items():
            locust, plain = (statistics.median(both[name]) for name in ("locust", "bare"))
            apart = statistics.median(a - b for a, b in zip(both["locust"], both["bare"], strict=True))
            print(
                f"  {rank}: Locust {locust:.3f}, a bare asyncpg loop at the same time {plain:.3f}; "
                f"difference {apart:+.3f}, {apart / plain:+.0%}",
                flush=True,
            )


async def _bare(dsn: str, rate: float, halt: asyncio.Event) -> list[tuple[float, float]]:
    """Return what a loop of nothing but asyncpg measures at that rate until the halt: when, and how many seconds."""
    append = APPEND.format(stream="$1", version="$2", data="$3", metadata="$4", id="$5")
    version = VERSION.format("$1")
    taken: list[tuple[float, float]] = []

    async def loop() -> None:
        connection = await asyncpg.connect(dsn)
        due = time.perf_counter()
        while not halt.is_set():
            due += random.expovariate(rate / WRITERS)
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            stream = f"load-bare-{random.randrange(_STREAMS)}"
            at = await connection.fetchval(version, stream)
            began = time.perf_counter()
            with contextlib.suppress(asyncpg.UniqueViolationError):  # a conflict takes its time too
                await connection.fetchrow(append, stream, at, '{"n":1}', '{"run_id":"bare"}', uuid4())
            taken.append((began, time.perf_counter() - began))
        await connection.close()

    await asyncio.gather(*(loop() for _ in range(WRITERS)))
    return taken


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["against", "policies", "latency"])
    chosen = parser.parse_args()
    uvloop.run(main(chosen.seconds, chosen.rounds, chosen.only))
