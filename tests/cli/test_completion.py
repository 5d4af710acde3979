"""What a shell is offered, the manual page, and what is suggested for a wrong word."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from esx import NewEvent
from tests.cli.support import ESX, environment, esx, one_line_error

if TYPE_CHECKING:
    from pathlib import Path

    from esx import EventStore


def offered(line: str, **extra: str) -> list[str]:
    done = subprocess.run(
        ESX,
        env=environment(COMP_WORDS=line, _ESX_COMPLETE="bash_complete", **extra),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
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
