"""What a shell is offered, the manual page, and what is suggested for a wrong word."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from esx import NewEvent
from tests.cli.support import ESX, environment, esx, one_line_error

if TYPE_CHECKING:
    from esx import EventStore


def offered(line: str, **extra: str) -> list[str]:
    done = esx(COMP_WORDS=line, _ESX_COMPLETE="bash_complete", **extra)
    assert (done.returncode, done.stderr) == (0, "")
    return [item.partition(",")[2] for item in done.stdout.splitlines() if item]


@pytest.mark.slow
async def test_streams_types_and_connections_are_offered(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    for name, kind in (("orders-1", "OrderPlaced"), ("orders-2", "OrderPaid"), ("carts-1", "CartMade")):
        await store18.append(name, [NewEvent(kind)])
    await store18.append("orders-$(touch x)", [NewEvent("Order`x`")])
    named = {"ESX_DSN": dsn18}
    assert offered("esx read orders-", **named) == ["orders-1", "orders-2"]
    assert offered("esx read --type order", **named) == ["OrderPlaced", "OrderPaid"] or offered(
        "esx read --type order", **named
    ) == ["OrderPaid", "OrderPlaced"]
    assert offered("esx tail --stream or", **named) == ["orders-*"]
    assert offered("esx stre") == ["streams"]
    config = tmp_path / "config.toml"
    config.write_text(f'[connections.shop]\ndsn = "{dsn18}"\n')
    assert offered("esx read -d ", ESX_CONFIG=str(config)) == ["shop", "embedded"]
    assert offered("esx read -d shop carts", ESX_CONFIG=str(config)) == ["carts-1"]


@pytest.mark.slow
def test_a_database_that_does_not_answer_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    assert offered("esx read o", ESX_DSN="postgresql://127.0.0.1:1/x") == []
    config = tmp_path / "config.toml"
    config.write_text("not TOML")
    assert offered("esx read o", ESX_CONFIG=str(config)) == []
    # An address to which nothing leads, and an embedded server that does not run.
    begun = time.monotonic()
    assert offered("esx read o", ESX_DSN="postgresql://192.0.2.1/x") == []
    assert offered("esx read o", ESX_DATA_DIR=str(tmp_path)) == []
    assert time.monotonic() - begun < 60
    assert not list(tmp_path.glob("postgresql*"))


@pytest.mark.slow
async def test_bash_completes_by_the_function(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await store18.append("orders-1", [NewEvent("OrderPlaced")])
    command = tmp_path / "esx"
    command.write_text(f'#!/bin/sh\nexec {" ".join(ESX)} "$@"\n')
    command.chmod(0o755)
    script = esx("completion", "bash").stdout
    asked = f"""
        {script}
        COMP_LINE='esx read ord' COMP_POINT=12
        _esx_completion {command}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", asked], env=environment(ESX_DSN=dsn18), capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("orders-1\n", "")


def command_in(directory: Path) -> str:
    """Put the command esx into a directory, and return a PATH that begins with it."""
    command = directory / "esx"
    command.write_text(f'#!/bin/sh\nexec {" ".join(ESX)} "$@"\n')
    command.chmod(0o755)
    return f"{directory}{os.pathsep}{os.environ['PATH']}"


NAMED = {
    "esx stre": "esx streams",
    "esx read pay": "esx read payments-1",
    # zsh and fish take a colon for the end of a name.
    "esx read ten": "esx read tenant:orders-1",
    "esx read --type Or": "esx read --type OrderPlaced",
    "esx read --sin": "esx read --since",
}
"""What is typed before tab, and what the line is then."""


async def fill(store: EventStore) -> None:
    for name in ("payments-1", "tenant:orders-1", "x$(touch x)-1"):
        await store.append(name, [NewEvent("OrderPlaced")])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
async def test_fish_itself_completes(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await fill(store18)
    path = command_in(tmp_path)
    (tmp_path / "esx.fish").write_text(esx("completion", "fish").stdout)
    ask = "\n".join(f'complete -C"{line}"; echo ==' for line in NAMED)
    done = subprocess.run(
        ["fish", "-c", f"source {tmp_path}/esx.fish\n{ask}"],
        env=environment(ESX_DSN=dsn18, PATH=path, HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )
    found = [part.strip().partition("\t")[0] for part in done.stdout.split("==\n")][:-1]
    assert found == [line.rpartition(" ")[2] for line in NAMED.values()]
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
async def test_zsh_itself_completes(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await fill(store18)
    path = command_in(tmp_path)
    (tmp_path / ".zshrc").write_text(
        f"PS1='> '; cd {tmp_path}; autoload -Uz compinit; compinit -u -D; eval \"$(esx completion zsh)\"; print READY\n"
    )
    extra = {"ESX_DSN": dsn18, "PATH": path, "ZDOTDIR": str(tmp_path), "TERM": "dumb"}

    def ask() -> None:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            ["zsh", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**extra), start_new_session=True
        )
        os.close(theirs)
        try:
            read_until(ours, "READY")
            for line, wanted in NAMED.items():
                os.write(ours, f"{line}\t".encode())
                read_until(ours, wanted)
                # ctrl+u empties the line.
                os.write(ours, b"\x15")
        finally:
            process.kill()
            process.wait()
            os.close(ours)

    await asyncio.to_thread(ask)
    assert not (tmp_path / "x").exists()


def read_until(terminal: int, wanted: str) -> None:
    """Read what a shell writes, until a text has come."""
    seen = ""
    deadline = time.monotonic() + 150
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"no {wanted} in {seen!r}"
        seen += os.read(terminal, 65536).decode(errors="replace")


def test_each_shell_has_its_function() -> None:
    for shell, word in (("bash", "complete -o nosort"), ("zsh", "#compdef esx"), ("fish", "complete --no-files")):
        assert word in esx("completion", shell).stdout
    assert "'powershell' is not one of" in one_line_error(esx("completion", "powershell"), 2)


def test_the_manual_has_every_command() -> None:
    page = esx("man").stdout
    assert page.startswith('.TH ESX 1 "" "esx ')
    for usage in ("esx read [OPTIONS] STREAM", "esx load sweep [OPTIONS]", "esx stores check [OPTIONS] [NAME]"):
        assert f".SS {usage}" in page
    assert not [line for line in page.splitlines() if line.startswith("'")]
    assert Path("docs/esx.1").read_text(encoding="utf-8") == page, "esx man > docs/esx.1 makes it again"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("man") is None, reason="no man here")
def test_man_shows_it_without_a_complaint() -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", "docs/esx.1"],
        env=environment(LC_ALL="C.UTF-8"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["raed"], "no such command 'raed': did you mean read"),
        (["completions"], "did you mean completion?"),
        (["load", "sweap"], "no such command 'sweap': did you mean sweep?"),
        (["xyzzy"], "no such command 'xyzzy' (see"),
        (["read", "--sinse", "-2h"], "no such option --sinse: did you mean --since"),
    ],
)
def test_did_you_mean(words: list[str], hint: str) -> None:
    assert hint in one_line_error(esx(*words), 2)
