"""`esx conflicts`: pairs of types that collide, and single conflicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx import NO_STREAM, EventStore, NewEvent, WrongVersion
from tests.cli.support import esx, ndjson, on_terminal, one_line_error

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

pytestmark = pytest.mark.slow


async def collide(dsn: str) -> None:
    async with EventStore.connect(dsn, record_conflicts=True) as store:
        await store.append("account-1", [NewEvent("Opened")], expected=NO_STREAM)
        await store.append("account-1", [NewEvent("Deposited", metadata={"user": "ann"})], expected=0)
        for _ in range(3):
            with pytest.raises(WrongVersion):
                await store.append("account-1", [NewEvent("Withdrawn", metadata={"user": "b\x1bb"})], expected=0)
        with pytest.raises(WrongVersion):
            await store.append("account-1", [NewEvent("Opened")], expected=NO_STREAM)


async def test_what_collided(dsn18: str, sql18: asyncpg.Connection, tmp_path: Path) -> None:
    done = esx("conflicts", "-d", dsn18)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("no conflict is recorded: EventStore.connect(record_conflicts=True)")
    await collide(dsn18)
    done = esx("conflicts", "-d", dsn18, "--commutes", "Withdrawn,Depos*")
    assert done.returncode == 0
    assert done.stderr.startswith("4 conflicts of 2 pairs from ")
    assert done.stderr.endswith("; 75% commute\n")
    head, first, second = (line.split() for line in done.stdout.splitlines())
    assert head == ["LOST", "WON", "CONFLICTS", "STREAMS", "MOST", "ON", "WHEN", "LAST", "COMMUTES"]
    assert (first[:5], first[-1]) == (["Withdrawn", "Deposited", "3", "1", "account-1"], "yes")
    assert (second[:4], second[-1]) == (["Opened", "Opened", "1", "1"], "no")
    [pair] = ndjson(esx("conflicts", "type:Withdrawn", "--json", "-d", dsn18).stdout)
    assert (pair["lost"], pair["won"], pair["conflicts"], pair["commutes"]) == ("Withdrawn", "Deposited", 3, None)
    assert esx("conflicts", "--as", "csv", "-d", dsn18).stdout.startswith("lost,won,conflicts,")
    # The rule of the config file counts too.
    config = tmp_path / "config.toml"
    config.write_text('commutes = ["Opened,*"]\n')
    pairs = ndjson(esx("conflicts", "--json", "-d", dsn18, ESX_CONFIG=str(config)).stdout)
    assert {pair["lost"]: pair["commutes"] for pair in pairs} == {"Withdrawn": False, "Opened": True}
    assert 'commutes = ["Opened,*"]' in esx("config", ESX_CONFIG=str(config)).stdout
    config.write_text('commutes = ["Opened"]\n')
    assert "write two" in one_line_error(esx("conflicts", "-d", dsn18, ESX_CONFIG=str(config)), 2)
    code, text = on_terminal("conflicts", "--commutes", "a,b", "--color", "never", "-d", dsn18)
    assert code == 0
    table = [line for line in text.splitlines() if "account-1" in line]
    assert len(table) == 2
    assert all(len(line) <= 80 for line in table)
    await sql18.execute("DROP TABLE conflicts")
    assert "`esx init` adds it" in one_line_error(esx("conflicts", "-d", dsn18), 1)


async def test_each_conflict(dsn18: str) -> None:
    await collide(dsn18)
    done = esx("conflicts", "--each", "--limit", "2", "-d", dsn18)
    rows = done.stdout.splitlines()
    assert len(rows) == 3
    assert rows[0].split() == ["AT", "STREAM", "EXPECTED", "ACTUAL", "LOST", "BY", "WON", "BY", "EVENT", "COMMUTES"]
    assert rows[1].split()[2:6] == ["account-1", "none", "1", "Opened"]
    assert "b␛b" in rows[2]
    one = ndjson(esx("conflicts", "user:ann", "--each", "--json", "-d", dsn18).stdout)[0]
    assert (one["lost_types"], one["won_types"], one["won_user"], one["won_seq"]) == (
        ["Withdrawn"], ["Deposited"], "ann", 2,
    )  # fmt: skip
    assert on_terminal("conflicts", "--each", "-d", dsn18)[0] == 0
    nothing = esx("conflicts", "--since", "2030-01-01", "-d", dsn18)
    assert (nothing.stdout, nothing.stderr) == ("", "no conflict that was recorded passes the filter\n")


async def test_wrong_use_is_one_line(dsn18: str) -> None:
    for arguments, message in (
        (["--commutes", "A"], "write two"),
        (["$.amount", ">", "5"], "keep no data"),
        (["--limit", "-1"], "--limit"),
    ):
        assert message in one_line_error(esx("conflicts", *arguments, "-d", dsn18), 2)


async def test_what_was_dropped_is_said(dsn18: str, sql18: asyncpg.Connection) -> None:
    await sql18.execute(
        "INSERT INTO conflicts (stream_id, expected, actual, lost_types, won_types, stands_for) "
        "SELECT 's', 0, 1, '{L}', '{W}', 2 FROM generate_series(1, 100000)"
    )
    done = esx("conflicts", "-d", dsn18)
    assert done.returncode == 4
    assert "~200,000" in done.stdout
    assert "older conflicts have been dropped: the table keeps the newest" in done.stderr
    assert esx("conflicts", "--since", "-0s", "-d", dsn18).returncode == 0


async def test_load_tests_are_said_to_count(dsn18: str, sql18: asyncpg.Connection) -> None:
    await collide(dsn18)
    assert "load tests" not in esx("conflicts", "-d", dsn18).stderr
    await sql18.execute("UPDATE conflicts SET stream_id = 'load-r1-0' WHERE lost_types[1] = 'Withdrawn'")
    said = esx("conflicts", "-d", dsn18).stderr
    assert "load tests count too: 3 of 4 are on streams load-*; `esx load clean RUN` deletes those of a run\n" in said
