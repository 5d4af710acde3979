"""esx load as a process: what it prints, and how it ends."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.support import Running, esx, ndjson, one_line_error

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_run_prints_its_summary_and_verdict(dsn18: str) -> None:
    done = esx("load", "--users", "3", "--duration", "1s", "--streams", "1", "-d", dsn18)
    assert done.returncode == 0, done.stderr
    for word in ("appends/s", "conflicts", "p99", "rows stored", "PASS"):
        assert word in done.stdout
    assert "3 writers on 1 streams" in done.stderr


async def test_ctrl_c_ends_it_with_the_summary_of_what_ran(dsn18: str) -> None:
    load = await Running.start("load", "--users", "3", "--duration", "60s", "--json", "-d", dsn18)
    assert json.loads(await load.line())["kind"] == "progress"
    load.process.send_signal(signal.SIGINT)
    lines = [json.loads(await load.line())]
    while lines[-1]["kind"] != "summary":
        lines.append(json.loads(await load.line()))
    assert lines[-1]["interrupted"]
    assert lines[-1]["verdict"] == "pass"
    assert await load.process.wait() == 130


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--duration", "soon"], "use e.g. 20s"),
        (["--duration", "0s"], "--duration"),
        (["--users", "0"], "--users"),
        (["--hot-share", "2"], "--hot-share"),
        (["--streams", "2", "--hot-streams", "3", "--hot-share", "0.5"], "--hot-streams"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str], names: str) -> None:
    assert names in one_line_error(esx("load", *arguments), 2)


async def test_a_database_without_the_table_is_said_before_the_start(empty_dsn18: str) -> None:
    assert "esx init" in one_line_error(esx("load", "--duration", "1s", "-d", empty_dsn18), 1)


def test_saved_runs_are_listed_and_options_lost_before_a_subcommand_are_refused(dsn18: str, tmp_path: Path) -> None:
    home = str(tmp_path)
    assert "no run is saved" in esx("load", "runs", ESX_DATA_DIR=home).stderr
    run = ndjson(esx("load", "--users", "2", "--duration", "1s", "--json", "-d", dsn18, ESX_DATA_DIR=home).stdout)[-1]
    [listed] = ndjson(esx("load", "runs", "--json", ESX_DATA_DIR=home).stdout)
    assert (listed["run"], listed["successes"], listed["verdict"]) == (run["run"], run["successes"], "pass")
    assert listed["options"]["users"] == 2
    text = esx("load", "runs", ESX_DATA_DIR=home).stdout.splitlines()
    assert run["run"] in text[1]
    assert max(map(len, text)) <= 80
    assert "--users stands before 'runs'" in one_line_error(esx("load", "--users", "2", "runs"), 2)
