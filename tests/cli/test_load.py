"""esx load as a process: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from typing import TYPE_CHECKING

import click
import pytest

from esx.cli.options import as_seconds
from tests.cli.support import ESX, Running, environment, esx, ndjson, one_line_error

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("20", 20),
        ("20s", 20),
        ("1.5s", 1.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("2m30", 150),
        ("1s5ms", 1.005),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    option = click.Option(["--duration"])
    assert as_seconds(click.Context(click.Command("load")), option, text) == pytest.approx(seconds)


SLOW = ("--users", "3", "--rate", "30")
"""A little of a load test, where it only matters how that ends."""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
async def test_a_signal_ends_it_with_the_summary_of_what_ran(dsn18: str, number: int, code: int) -> None:
    load = await Running.start("load", *SLOW, "--duration", "60s", "--json", "-d", dsn18)
    assert json.loads(await load.line())["kind"] == "progress"
    load.process.send_signal(number)
    lines = [json.loads(await load.line())]
    while lines[-1]["kind"] != "summary":
        lines.append(json.loads(await load.line()))
    assert lines[-1]["interrupted"]
    assert lines[-1]["verdict"] == "pass"
    assert await load.process.wait() == code
    assert await load.line() == ""


async def test_sigterm_ends_it_with_the_summary_for_people_too(dsn18: str) -> None:
    load = await Running.start("load", *SLOW, "--duration", "60s", "-d", dsn18)
    while not re.search(r" [1-9][\d,]* appends/s", await load.narration()):
        pass
    load.process.send_signal(signal.SIGTERM)
    told, _ = await load.process.communicate()
    assert load.process.returncode == 143
    assert b"PASS" in told


async def test_a_signal_that_is_ignored_ends_nothing(dsn18: str) -> None:
    command = f"trap '' HUP; exec {' '.join(ESX)} load {' '.join(SLOW)} --duration 1500ms --json -d '{dsn18}'"
    load = await asyncio.create_subprocess_exec(
        "bash", "-c", command, stdout=asyncio.subprocess.PIPE, env=environment(), limit=2**20
    )
    assert load.stdout is not None
    await load.stdout.readline()
    load.send_signal(signal.SIGHUP)
    told, _ = await asyncio.wait_for(load.communicate(), 120)
    assert load.returncode == 0
    assert json.loads(told.splitlines()[-1])["interrupted"] is False


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--duration", "soon"], "use e.g. 20s"),
        (["--streams", "2", "--hot-streams", "3", "--hot-share", "0.5"], "--hot-streams"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str], names: str) -> None:
    assert names in one_line_error(esx("load", *arguments), 2)


async def test_a_database_without_the_table_is_said_before_the_start(empty_dsn18: str) -> None:
    assert "esx init" in one_line_error(esx("load", "--duration", "1s", "-d", empty_dsn18), 1)


def test_a_run_prints_its_verdict_and_is_saved_listed_drawn_and_its_events_deleted(dsn18: str, tmp_path: Path) -> None:
    home = str(tmp_path)
    assert "no run is saved" in esx("load", "runs", ESX_DATA_DIR=home).stderr
    amount = ("--users", "2", "--streams", "1", "--max-appends", "50")
    made = esx("load", *amount, "--notification", "off", "-d", dsn18, ESX_DATA_DIR=home)
    assert made.returncode == 0, made.stderr
    for word in ("appends/s", "conflicts", "p99", "PASS"):
        assert word in made.stdout
    assert re.search(r"rows stored +50\n", made.stdout)
    assert "2 writers on 1 stream" in made.stderr
    [run] = ndjson(esx("load", "runs", "--json", ESX_DATA_DIR=home).stdout)
    assert (run["successes"], run["verdict"], run["options"]["users"]) == (50, "pass", 2)
    assert run["run"] in made.stdout
    page = tmp_path / "page.html"
    assert esx("load", "report", "last", "-o", str(page), ESX_DATA_DIR=home).stdout == f"{page}\n"
    assert run["run"] in page.read_text()
    page.write_text("mine")
    page.chmod(0o600)
    refused = one_line_error(esx("load", "report", "last", "-o", str(page), ESX_DATA_DIR=home), 2)
    assert "replace it with --force" in refused
    assert page.read_text() == "mine"
    assert esx("load", "report", "last", "-o", str(page), "--force", ESX_DATA_DIR=home).returncode == 0
    assert run["run"] in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    full = one_line_error(esx("load", "report", "last", "-o", "/dev/full", ESX_DATA_DIR=home), 1)
    assert "No space left" in full
    text = esx("load", "runs", ESX_DATA_DIR=home).stdout.splitlines()
    assert run["run"] in text[1]
    assert max(map(len, text)) <= 80
    assert "--users stands before 'runs'" in one_line_error(esx("load", "--users", "2", "runs"), 2)

    refused = one_line_error(esx("load", "clean", run["run"], "-d", dsn18), 2)
    assert "50 events" in refused
    assert "--yes" in refused
    done = esx("load", "clean", "last", "--yes", "-d", dsn18, ESX_DATA_DIR=home)
    assert done.stdout == f"deleted 50 events of run {run['run']}\n"
    assert "has no events" in esx("load", "clean", run["run"], "--yes", "-d", dsn18).stdout


async def test_a_sweep_is_saved_shown_again_and_repeated(dsn18: str, tmp_path: Path) -> None:
    home = str(tmp_path)
    page, picture = tmp_path / "sweep.html", tmp_path / "sweep.svg"
    arguments = ("--vary", "strategy=conditional,row-lock", "--users", "2", "--max-appends", "20", "-d", dsn18)
    done = esx("load", "sweep", *arguments, "--html", str(page), "--svg", str(picture), ESX_DATA_DIR=home)
    assert done.returncode == 0, done.stderr
    assert "Best: strategy=" in done.stdout
    assert "2/2" in done.stderr
    assert "<svg" in page.read_text()
    assert picture.read_text().startswith("<svg")
    # What is in the way is said before anything runs.
    for option in ("--html", "--svg", "--markdown"):
        picture.write_text("mine")
        refused = esx("load", "sweep", *arguments, option, str(picture), ESX_DATA_DIR=home)
        assert "replace it with --force" in one_line_error(refused, 2)
        assert picture.read_text() == "mine"
        shown = esx("load", "sweep", "--show", "last", option, str(picture), "--force", ESX_DATA_DIR=home)
        assert shown.returncode == 0, shown.stderr
        assert picture.read_text() != "mine"
    results = ndjson(esx("load", "sweep", "--show", "last", "--json", ESX_DATA_DIR=home).stdout)
    assert [result["point"] for result in results] == [{"strategy": "conditional"}, {"strategy": "row-lock"}]
    [listed] = ndjson(esx("load", "sweep", "--list", "--json", ESX_DATA_DIR=home).stdout)
    assert (listed["sweep"], listed["runs"], listed["planned"]) == (results[0]["sweep"], 2, 2)
    runs = ndjson(esx("load", "runs", "--json", ESX_DATA_DIR=home).stdout)
    assert {run["run"] for run in runs} == {result["run"] for result in results}
    assert "--users and --again exclude each other" in one_line_error(
        esx("load", "sweep", "--again", "last", "--users", "3", ESX_DATA_DIR=home), 2
    )
    assert "no knob" in one_line_error(esx("load", "sweep", "--vary", "luck=1"), 2)

    again = await Running.start("load", "sweep", "--again", "last", "--json", "-d", dsn18, ESX_DATA_DIR=home)
    first = json.loads(await again.line())
    assert first["point"] == {"strategy": "conditional"}
    again.process.send_signal(signal.SIGTERM)
    assert await again.process.wait() == 143
    assert ndjson(esx("load", "sweep", "--show", "last", "--json", ESX_DATA_DIR=home).stdout) == [first]

    compared = ndjson(esx("load", "compare", "last", results[0]["run"], "--json", ESX_DATA_DIR=home).stdout)
    assert [run["run"] for run in compared][1] == results[0]["run"]
    compare = ("load", "compare", "last", results[0]["run"], "--html", str(page))
    assert "replace it with --force" in one_line_error(esx(*compare, ESX_DATA_DIR=home), 2)
    assert esx(*compare, "--force", ESX_DATA_DIR=home).returncode == 0
    assert "name two or more" in one_line_error(esx("load", "compare", "last"), 2)
