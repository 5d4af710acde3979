"""Standard streams that are closed, full, or read no further.

How Python starts where one is closed, one command of each kind shows, which a shell starts.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from esx import NewEvent
from tests.cli.support import ESX, environment, esx

if TYPE_CHECKING:
    from pathlib import Path

    from esx import EventStore

pytestmark = pytest.mark.slow

PRINTING = [
    "export", "streams", "read s", "read $all --json", "tail --no-follow --from start", "state s", "trail 1", "health",
    "doctor", "append s T",
]  # fmt: skip
WITHOUT_STORE = ["config", "config --example", "--version", "--help", "streams --help", "load runs --help"]


def shell(command: str, redirection: str, **extra: str) -> subprocess.CompletedProcess[str]:
    line = f'exec {" ".join(ESX)} "$@" {redirection}'
    return subprocess.run(
        ["bash", "-c", line, "bash", *command.split()],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, env=environment(**extra), check=False,
    )  # fmt: skip


def refusals(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("esx: ")]


async def test_a_closed_stdout_is_an_error(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T")])
    by_a_shell = {command: shell(command, ">&-", ESX_DSN=dsn18) for command in ("read s", "--version")}
    forked = {command: esx(*command.split(), closed="stdout", ESX_DSN=dsn18) for command in [*PRINTING, *WITHOUT_STORE]}
    for done in (by_a_shell, forked):
        for command, each in done.items():
            assert each.returncode == 1, command
            assert ["stdout is closed" in line for line in refusals(each)] == [True], command


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
async def test_a_full_stdout_is_an_error(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T")])
    for command in [*PRINTING, *WITHOUT_STORE]:
        done = esx(*command.split(), onto="/dev/full", ESX_DSN=dsn18)
        assert done.returncode == 1, command
        assert ["No space left" in line for line in refusals(done)] == [True], command


async def test_a_closed_stdin_is_an_error_where_it_is_read(dsn18: str, store18: EventStore) -> None:
    by_a_shell = shell("append s T -", "<&-", ESX_DSN=dsn18)
    assert (by_a_shell.returncode, by_a_shell.stdout) == (1, "")
    assert ["stdin is closed" in line for line in refusals(by_a_shell)] == [True]
    for command, code in {"import -": 2, "append s T -": 1, "append s --ndjson -": 1}.items():
        done = esx(*command.split(), closed="stdin", ESX_DSN=dsn18)
        assert (done.returncode, done.stdout) == (code, ""), command
        assert ["stdin is closed" in line for line in refusals(done)] == [True], command
    assert await store18.head() == 0
    assert esx("streams", closed="stdin", ESX_DSN=dsn18).returncode == 0


async def test_a_closed_stderr_changes_no_exit_code(dsn18: str, store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T")])
    done = esx("export", closed="stderr", ESX_DSN=dsn18)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert esx("export", "--where", "$.(", closed="stderr", ESX_DSN=dsn18).returncode == 2
    assert shell("read nobody", "2>&- >&- <&-", ESX_DSN=dsn18).returncode == 1


async def test_nothing_goes_into_a_file_that_got_the_number_of_a_closed_stream(
    dsn18: str, store18: EventStore, tmp_path: Path
) -> None:
    await store18.append("s", [NewEvent("T")])
    out = tmp_path / "out"
    done = shell(f"export -o {out}", ">&- 2>&- <&-", ESX_DSN=dsn18)
    assert done.returncode == 0
    assert out.read_text().count("\n") == 1
