"""Load tests, short but real: Locust in a child process against PostgreSQL, and the judge over what it left."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import psutil
import pytest
from hdrh.histogram import HdrHistogram

from esx.eventstore import EventStore
from esx.load.errors import InvalidOptions, LoadFailed
from esx.load.model import (
    FeedFigures,
    LoadCounts,
    LoadOptions,
    LoadProgress,
    LoadSummary,
    from_dict,
    run_prefix,
    to_dict,
)
from esx.load.options import validate
from esx.load.process import LoadRun
from esx.load.report.describe import workload
from esx.load.report.text import render_progress, render_summary
from tests.support.forked_locust import REALLY

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]
_CALM = LoadOptions(think_time=0.01)
"""Its users leave the machine something, and are many enough to meet."""
_NOBODY = "postgresql://somebody:secret@127.0.0.1:1/nothing"


async def finish(run: LoadRun) -> tuple[list[LoadProgress], LoadSummary]:
    progress: list[LoadProgress] = []
    summary: LoadSummary | None = None
    async for line in run:
        assert summary is None, "the summary is the last line"
        if isinstance(line, LoadSummary):
            summary = line
        else:
            progress.append(line)
    assert summary is not None
    return progress, summary


async def until(condition: Callable[[], Coroutine[Any, Any, bool]], seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


def is_running(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.returncode == 0 and not found.stdout.strip().startswith("Z")


async def test_a_run_stores_what_it_acknowledges_and_counts_conflicts_apart(dsn: str) -> None:
    options = replace(_CALM, users=8, duration=2.2, streams=20, hot_streams=1, hot_share=0.5, seed=7)
    progress, summary = await finish(LoadRun(dsn, options))

    total = summary.total
    assert total.successes > 0
    assert total.conflicts > 0, "eight writers on one hot stream must meet"
    assert (total.errors, total.unknown) == (0, 0)
    assert total.attempts == total.successes + total.conflicts
    assert summary.verdict == "pass"
    assert summary.stored == total.successes
    assert not summary.interrupted
    assert 2.2 <= summary.elapsed < 10
    assert summary.users == 8
    assert summary.goodput == pytest.approx(total.successes / summary.elapsed)
    assert 0 < summary.percentiles["p50"] <= summary.percentiles["p99"] <= summary.percentiles["max"]
    assert len(progress) >= 2
    assert progress[0].users == 8
    assert progress[-1].total.attempts <= total.attempts
    assert progress[0].total.successes < progress[-1].total.successes

    async with EventStore.connect(dsn) as store:
        assert await store.count_events(run_prefix(summary.run)) == total.successes
        event = (await store.read_all_page(limit=1))[0]
        assert event.metadata["run_id"] == summary.run
        hot = await store.version(f"{run_prefix(summary.run)}0") + 1
        assert hot > total.successes / 20 * 2, "the hot stream gets more than an equal share"


@pytest.mark.parametrize("events", [1, 2])
async def test_a_run_whose_writers_append_together_is_judged_the_same(dsn18: str, events: int) -> None:
    options = LoadOptions(users=16, duration=1, streams=8, expected="any", grouping="on", events_per_append=events)
    _, summary = await finish(LoadRun(dsn18, options))
    assert (summary.verdict, summary.total.errors) == ("pass", 0), summary.evidence
    assert summary.appends_per_commit is not None
    assert summary.appends_per_commit > 1.5
    assert "appends that shared a transaction" in render_summary(summary)
    assert workload(options).endswith("grouped")


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_run_tells_which_types_collided_if_it_records_them(dsn18: str, processes: int) -> None:
    options = replace(
        _CALM, users=8, duration=1, streams=4, hot_streams=1, hot_share=0.9, record_conflicts="on", processes=processes
    )
    _, summary = await finish(LoadRun(dsn18, options))
    assert summary.verdict == "pass", summary.evidence
    assert summary.total.conflicts > 0
    counted = summary.total.conflicts + summary.warm_up.conflicts
    assert summary.recording == f"{counted:,} of {counted:,} conflicts recorded"
    [pair] = summary.pairs
    assert (pair.lost, pair.won, pair.most_on) == ("LoadTested", "LoadTested", "stream 0")
    assert pair.conflicts == pytest.approx(counted, abs=len(str(counted)))
    text = render_summary(summary)
    assert "collisions" in text
    assert all(len(line) <= 79 for line in text.splitlines())
    assert from_dict(to_dict(summary)) == summary
    async with EventStore.connect(dsn18) as store:
        before = (await store.conflicts()).recorded
    assert 0 < before <= counted
    # Nothing is recorded unless it is asked for.
    _, silent = await finish(LoadRun(dsn18, replace(options, record_conflicts="off", duration=0.5, processes=1)))
    assert (silent.recording, silent.pairs) == (None, ())
    assert "collisions" not in render_summary(silent)
    async with EventStore.connect(dsn18) as store:
        assert (await store.conflicts()).recorded == before


async def test_a_run_that_cannot_record_says_so_and_is_judged_all_the_same(
    dsn18: str, sql18: asyncpg.Connection
) -> None:
    await sql18.execute("DROP TABLE conflicts")
    options = LoadOptions(users=4, duration=0.5, streams=1, record_conflicts="on")
    _, summary = await finish(LoadRun(dsn18, options))
    assert summary.verdict == "pass"
    assert summary.recording == "they cannot be read: there is no table conflicts: `esx init` adds it"
    assert "`esx init` adds it" in render_summary(summary)


async def test_stopping_early_still_gives_the_summary(dsn18: str) -> None:
    run = LoadRun(dsn18, replace(_CALM, users=4, duration=600))
    lines: list[LoadProgress | LoadSummary] = []
    async for line in run:
        lines.append(line)
        run.stop()
    assert len(lines) <= 3
    summary = lines[-1]
    assert isinstance(summary, LoadSummary)
    assert summary.interrupted
    assert summary.total.unknown == 0, "writers finish the append in progress"
    assert summary.verdict == "pass"
    assert summary.stored == summary.total.successes > 0


async def test_closing_the_generator_ends_the_child(dsn18: str) -> None:
    run = LoadRun(dsn18, replace(_CALM, users=2, duration=600))
    async for _ in run:
        break
    assert run.pid is not None
    assert is_running(run.pid)
    await run.aclose()
    assert not is_running(run.pid)


async def test_cancelling_the_reader_ends_the_child(dsn18: str) -> None:
    run = LoadRun(dsn18, replace(_CALM, users=2, duration=600))
    reader = asyncio.create_task(finish(run))

    async def started() -> bool:
        return run.pid is not None

    await until(started)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert run.pid is not None
    assert not is_running(run.pid)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
async def test_the_child_ends_when_its_parent_is_killed(dsn18: str) -> None:
    script = """
        import asyncio, sys
        from esx.load.model import LoadOptions
        from esx.load.process import LoadRun

        async def main():
            run = LoadRun(sys.argv[1], LoadOptions(users=2, duration=600))
            async for _ in run:
                print(run.pid, flush=True)
        asyncio.run(main())
    """
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(script), dsn18, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 120))
    assert is_running(pid)
    parent.kill()
    await parent.wait()

    async def ended() -> bool:
        return not is_running(pid)

    await until(ended)


async def test_a_database_that_cannot_be_reached_is_one_line(empty_dsn18: str) -> None:
    with pytest.raises(LoadFailed) as unreachable:
        [line async for line in LoadRun(_NOBODY, LoadOptions(users=1, duration=1))]
    message = str(unreachable.value)
    assert message.startswith("cannot reach somebody@127.0.0.1:1/nothing: ")
    assert "\n" not in message
    assert "secret" not in message
    with pytest.raises(LoadFailed, match="has no table events: run `esx init`"):
        [line async for line in LoadRun(empty_dsn18, LoadOptions(users=1, duration=1))]


async def test_a_database_that_goes_away_is_survived(dsn18: str) -> None:
    """Connections cut in mid-run: users pause and go on, and the sums still fit."""
    run = LoadRun(dsn18, replace(_CALM, users=4, duration=60, streams=10))
    cuts = 0
    after: LoadCounts | None = None
    async for line in run:
        if isinstance(line, LoadSummary):
            break
        if after is None and not line.total.unknown + line.total.errors:
            # Again where nobody noticed: an append that was cut is repeated, and its user hears nothing of it.
            connection = await asyncpg.connect(dsn18)
            killed = await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'esx load' AND datname = current_database()"
            )
            await connection.close()
            assert cuts or len(killed) >= 4
            cuts += 1
        elif after is None:
            after = line.total
        elif line.total.successes > after.successes:
            run.stop()
    assert isinstance(line, LoadSummary)
    assert after is not None
    assert line.total.successes > after.successes
    assert 1 <= line.total.unknown + line.total.errors <= 40 * cuts, "no spinning"
    assert line.last_error is not None
    assert "cannot reach" in line.last_error
    assert line.verdict == "pass"
    assert line.stored is not None
    assert line.total.successes <= line.stored <= line.total.successes + line.total.unknown


async def locust(dsn: str, *arguments: str) -> tuple[int | None, str]:
    """Run plain Locust to its end; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env={**os.environ, "ESX_DSN": dsn},
    )
    _, said = await asyncio.wait_for(process.communicate(), 200)
    return process.returncode, said.decode()


def locust_counts(table: str) -> dict[str, list[str]]:
    """Return the numbers of requests that Locust's console tables show, by name."""
    rows = re.findall(r"^esx +(append(?: \(conflict\))?) +(\d+) +(\d+)\(", table, re.MULTILINE)
    return {name: [requests, failures] for name, requests, failures in rows}


async def test_plain_locust_runs_the_scenario(dsn18: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REALLY, "1")
    options = ("-u", "4", "-r", "4", "--max-appends", "300", "--hot-streams", "1", "--hot-share", "1")
    code, said = await locust(dsn18, *options, "--run-id", "plain")
    assert code == 0, said
    assert "Traceback" not in said
    shown = locust_counts(said)
    assert int(shown["append (conflict)"][0]) > 0
    async with EventStore.connect(dsn18) as store:
        stored = await store.count_events(run_prefix("plain"))
    assert stored > 0
    assert shown["append"] == [str(stored), "0"]


_ENDED_TWICE = """
import signal, sys
import gevent
from locust import events
from esx.loadtest.locustfile import StreamWriter

@events.init.add_listener
def _(environment, **_):
    # As --stop-after and Locust's own time limit do.
    gevent.signal_handler(signal.SIGUSR1, lambda: [gevent.spawn(environment.runner.quit) for _ in range(2)])

@events.test_stopping.add_listener
def _(**_):
    print("stopping", file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs SIGUSR1")
async def test_a_run_that_is_ended_twice_still_gives_its_verdict(dsn18: str, tmp_path: Path) -> None:
    """Locust's time limit comes while the last appends hang in a lock: they are waited for."""
    file = tmp_path / "locustfile.py"
    file.write_text(_ENDED_TWICE, encoding="utf-8")
    connection = await asyncpg.connect(dsn18)
    lock = connection.transaction()
    await lock.start()
    await connection.execute("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", str(file), "--headless", "--only-summary", "-u", "2", "-r", "2"),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env={**os.environ, "ESX_DSN": dsn18},
    )
    assert process.stderr is not None

    async def hang() -> bool:
        assert process.returncode is None
        hanging = "SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted"
        return bool(await connection.fetchval(hanging) == 2)

    await until(hang)
    process.send_signal(signal.SIGUSR1)
    for _ in range(2):
        while b"stopping" not in (line := await process.stderr.readline()):
            assert line
    await lock.rollback()
    await connection.close()
    _, said = await process.communicate()
    assert process.returncode == 0
    assert b"verdict pass" in said


async def test_a_master_and_two_workers_judge_as_one_process_does(dsn18: str) -> None:
    """Three processes that talk over a socket; the summary's histograms are the sums of the workers'."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    async def start(*arguments: str, dsn: str = "") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--master-port", port, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            env={**{key: value for key, value in os.environ.items() if key != "ESX_DSN"}, "PGHOST": "", "ESX_DSN": dsn},
        )

    master = await start(
        *("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2"),
        *("--headless", "--only-summary", "-u", "6", "-r", "6", "--stop-after", "60", "--progress-ndjson"),
        *("--max-appends", "301"),
        *("--streams", "4", "--on-conflict", "retry", "--subscribers", "1", "--run-id", "spread"),
        dsn=dsn18,
    )
    # They are told the database by the master.
    workers = [await start("--worker") for _ in range(2)]
    told, narrated = await asyncio.wait_for(master.communicate(), 120)
    assert master.returncode == 0, narrated.decode()
    for worker in workers:
        _, said = await asyncio.wait_for(worker.communicate(), 120)
        assert b"Traceback" not in said, said.decode()

    summary = from_dict(json.loads(told.splitlines()[-1]))
    assert isinstance(summary, LoadSummary)
    assert summary.verdict == "pass", summary.evidence
    assert summary.stored == summary.total.successes > 0
    assert "the feed gave 1 subscriber all" in summary.evidence[-1]
    assert len(summary.parts) == 2
    assert sorted(part.total.successes for part in summary.parts) == [150, 151], "each has its share of what is allowed"
    assert buckets(summary.histograms) == sum((buckets(part.histograms) for part in summary.parts), Counter())
    assert sum(part.total.conflicts for part in summary.parts) == summary.total.conflicts
    assert sum(stream.successes for stream in summary.streams) == summary.total.successes
    assert sum(stream.conflicts for stream in summary.streams) == summary.total.conflicts
    assert locust_counts(narrated.decode())["append"] == ["301", "0"], "Locust's own table has all too"


def buckets(histograms: dict[str, str]) -> Counter[tuple[str, int]]:
    """Return how many times are in each bucket of each histogram."""
    counts: Counter[tuple[str, int]] = Counter()
    for kind, encoded in histograms.items():
        for item in HdrHistogram.decode(encoded).get_recorded_iterator():
            counts[kind, item.value_iterated_to] += item.count_at_value_iterated_to
    return counts


async def test_forked_workers_share_one_run(dsn18: str) -> None:
    _, summary = await finish(LoadRun(dsn18, LoadOptions(users=4, duration=60, processes=2, max_appends=200)))
    assert summary.verdict == "pass", summary.evidence
    assert [part.total.successes for part in summary.parts] == [100, 100]
    assert buckets(summary.histograms) == sum((buckets(part.histograms) for part in summary.parts), Counter())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
async def test_a_worker_that_dies_leaves_the_run_without_a_verdict(dsn18: str) -> None:
    """What its writers were told has died with it, so nobody can say what must be stored."""
    run = LoadRun(dsn18, replace(_CALM, users=2, duration=600, processes=2))
    killed = False
    async for line in run:
        if isinstance(line, LoadProgress) and line.users == 2 and line.total.successes > 0 and not killed:
            [worker, _] = await children(run.pid)
            os.kill(worker, signal.SIGKILL)
            killed = True
        elif killed:
            run.stop()
    assert isinstance(line, LoadSummary)
    assert line.verdict is None
    assert "workers ended without telling their figures" in line.evidence[-1]


async def children(pid: int | None) -> list[int]:
    found = await asyncio.to_thread(psutil.Process(pid).children)
    return [child.pid for child in found if "follow" not in " ".join(child.cmdline())]


async def test_a_run_with_everything(dsn18: str) -> None:
    options = LoadOptions(
        users=6,
        duration=1.2,
        warm_up=1.5,
        streams=3,
        events_per_append=2,
        payload_bytes=100,
        on_conflict="backoff",
        notification="every",
        subscribers=2,
        rate=150,
        seed=1,
        run_id="all",
    )
    rung: set[str] = set()
    connection = await asyncpg.connect(dsn18)
    await connection.add_listener("new_events", lambda *told: rung.add(told[3]))
    progress, summary = await finish(LoadRun(dsn18, options))

    assert summary.verdict == "pass", summary.evidence
    assert summary.run == "all"
    assert summary.options == replace(options, spawn_rate=6.0)
    assert summary.warm_up.successes > 0
    appends = summary.total.successes + summary.warm_up.successes
    assert summary.stored == 2 * appends
    assert 1.19 <= summary.elapsed < 5
    assert summary.goodput == pytest.approx(summary.total.successes / summary.elapsed)
    assert summary.total.successes / 1.2 < 400, "it keeps to its rate"
    assert summary.tries_per_success == pytest.approx(summary.total.attempts / summary.total.successes)
    assert sum(stream.conflicts for stream in summary.streams) == summary.total.conflicts
    for times in (summary.percentiles, summary.response, summary.time_to_success):
        assert 0 < times["p50"] <= times["p99"] <= times["max"]
    assert summary.response["p99"] >= summary.percentiles["p50"]
    assert summary.feed is not None
    assert (summary.feed.subscribers, summary.feed.duplicates, summary.feed.disordered) == (2, 0, 0)
    assert summary.feed.delivered == 2 * summary.stored
    assert summary.feed.lag["p50"] > 0
    assert "the feed gave 2 subscribers all" in summary.evidence[-1]
    assert summary.database is not None
    assert summary.database.wal_bytes > 100 * summary.stored
    assert summary.database.commits >= appends
    assert summary.environment["postgresql"].startswith("18")
    assert 0 < summary.generator_cpu < 2
    assert progress[0].warming_up != progress[-1].warming_up
    assert progress[-1].response_p50_ms is not None
    assert any(line.streams for line in progress)
    assert progress[-1].database is not None
    assert progress[-1].feed is not None

    async def all_rang() -> bool:
        return len(rung) == summary.stored

    await until(all_rang)
    await connection.close()

    with pytest.raises(LoadFailed, match="--run-id is all, but there is a run of that name already"):
        await finish(LoadRun(dsn18, options))


async def test_plain_locust_says_in_one_line_what_is_wrong() -> None:
    for arguments, message in (
        ((), "esx: cannot reach somebody@127.0.0.1:1/nothing: "),
        (("--hot-share", "0.5"), "esx: --hot-share is 0.5 but no stream is hot"),
    ):
        code, said = await locust(_NOBODY, "-t", "1s", *arguments)
        assert code == 1
        assert "Traceback" not in said
        assert said.splitlines()[-1].startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (LoadOptions(users=0), "--users is 0: use a number from 1"),
        (LoadOptions(duration=0), "--duration is 0 s: use more than 0"),
        (LoadOptions(duration=float("nan")), "--duration is nan s"),
        (LoadOptions(spawn_rate=0), "--spawn-rate is 0: use"),
        (LoadOptions(streams=0), "--streams is 0: use a number from 1"),
        (LoadOptions(streams=3, hot_streams=4, hot_share=1), "--hot-streams is 4, more than the --streams of 3"),
        (LoadOptions(hot_streams=-1), "--hot-streams is -1: use 0"),
        (LoadOptions(hot_streams=1, hot_share=80), "--hot-share is 80: use a share from 0 to 1, e.g. 0.8"),
        (LoadOptions(hot_share=0.5), "--hot-share is 0.5 but no stream is hot: add --hot-streams"),
        (LoadOptions(hot_streams=2), "--hot-streams is 2 but they have no share: add --hot-share"),
        (LoadOptions(zipf=-1), "--zipf is -1: use an exponent from 0"),
        (LoadOptions(zipf=1, hot_streams=1, hot_share=1), "--zipf and --hot-streams exclude each other"),
        (LoadOptions(zipf=1, streams=10**7), "--streams is 10000000 with --zipf: use at most 1000000"),
        (LoadOptions(expected="some"), "--expected is 'some': use exact, any or none"),
        (LoadOptions(on_conflict="cry"), "--on-conflict is 'cry': use give-up, retry, backoff, queue or single-writer"),
        (LoadOptions(expected="none", on_conflict="retry"), "--on-conflict is retry with --expected none"),
        (LoadOptions(rate=0), "--rate is 0: use a number of appends a second above 0"),
        (LoadOptions(rate=5, think_time=1), "--think-time and --rate exclude each other"),
        (LoadOptions(warm_up=-1), "--warm-up is -1 s: use from 0"),
        (LoadOptions(max_appends=0), "--max-appends is 0: use a number from 1"),
        (LoadOptions(users=2, processes=3), "--processes is 3: use a number from 1 to 2"),
        (LoadOptions(run_id="a b"), "--run-id is 'a b': use up to 64 letters"),
        (LoadOptions(run_id=".."), "--run-id is '..': use"),
    ],
)
def test_options_that_make_no_sense_are_named_with_the_remedy(options: LoadOptions, message: str) -> None:
    with pytest.raises(InvalidOptions) as refusal:
        validate(options)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
    with pytest.raises(InvalidOptions):
        LoadRun(None, options)


def test_lines_survive_the_way_between_processes_and_read_well() -> None:
    counts = LoadCounts(attempts=12_345, successes=12_000, conflicts=300, errors=44, unknown=1)
    progress = LoadProgress(3.0, 20, counts, 4000.4, 0.025, 0.412, 1.5, 20.25)
    percentiles = {"p50": 0.412, "p90": 0.8, "p95": 1.0, "p99": 2.5, "p99.9": 12.345, "max": 1234.5}
    summary = LoadSummary(
        "r1", 20.04, 20, counts, 598.8, 0.0243, percentiles, 12_001, "pass", ("as it should be",), "gone\nfor good"
    )
    for line in (progress, summary):
        assert from_dict(json.loads(json.dumps(to_dict(line)))) == line
    with pytest.raises(ValueError, match="not a line of a load test"):
        from_dict({"kind": "other"})

    text = render_progress(progress)
    assert "4,000 appends/s" in text
    assert "2.5% conflicts" in text
    assert "44 errors" in text
    assert "\n" not in text
    text = render_summary(replace(summary, interrupted=True))
    for part in ("run r1: 20 users, 20.0 s, interrupted", "598.8", "12,345", "p99.9", "0.412", "gone␊for good"):
        assert part in text
    assert all(len(line) <= 80 for line in text.splitlines())
    # A verdict says what it judged, and beside it what it did not judge.
    assert "verdict                PASS  stored exactly once; 2.4% conflicts\n" in text
    told = replace(summary, feed=FeedFigures(2, 12_001))
    assert "PASS  stored and delivered exactly once; 2.4% conflicts\n" in render_summary(told)
    assert "FAIL  for the reasons below; 2.4% conflicts\n" in render_summary(replace(summary, verdict="fail"))
    late = replace(summary, options=LoadOptions(rate=100), commands=1000)
    assert "rate            not reached: 50 of 100 commands/s were made" in render_summary(late)
    assert "rate" not in render_summary(replace(late, commands=1930)), "within chance"
    assert "not known" in render_summary(replace(summary, stored=None, verdict=None, evidence=()))
