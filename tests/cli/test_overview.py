"""`esx types` with its check for CI, and `esx summary`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from esx import NewEvent
from tests.cli.support import esx, ndjson, on_terminal, one_line_error

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from esx import EventStore


async def fill(store: EventStore) -> None:
    await store.append("orders-1", [NewEvent("OrderPlaced", {"total": 1.5, "items": [{"sku": "x"}]}), NewEvent("Paid")])
    await store.append("carts-1", [NewEvent("CartMade", {"n": 1})])


@pytest.mark.slow
async def test_types_and_the_shape_of_their_data(dsn18: str, store18: EventStore) -> None:
    assert esx("types", "-d", dsn18).stderr == "no events yet\n"
    await fill(store18)
    done = esx("types", "-d", dsn18)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == [
        "TYPE",
        "EVENTS",
        "RATE",
        "FIRST",
        "LAST",
        "PATHS",
        "CHANGED",
        "CATEGORIES",
    ]
    assert len(done.stdout.splitlines()) == 4
    shape = esx("types", "order*", "-d", dsn18).stdout
    assert "OrderPlaced  1 events" in shape
    assert any(line.split() == ["$.items[*].sku", "string", "all", '"x"'] for line in shape.splitlines())
    found = {one["event_type"]: one for one in ndjson(esx("types", "--json", "-d", dsn18).stdout)}
    assert found["OrderPlaced"]["events"] == 1
    assert found["OrderPlaced"]["paths"][-1] == {
        "path": "$.total", "types": {"number": 1}, "present": 1, "example": "1.5", "appeared": None, "vanished": None,
    }  # fmt: skip
    assert "no type that was found is like nix" in esx("types", "nix", "-d", dsn18).stderr
    code, text = on_terminal("types", "OrderPlaced", "-d", dsn18)
    assert (code, "$.items[*].sku" in text) == (0, True)


@pytest.mark.slow
async def test_types_whose_shape_changed(dsn18: str, store18: EventStore) -> None:
    await fill(store18)
    assert esx("types", "--changed", "-d", dsn18).stderr == "none of 3 types changed shape\n"
    for number in range(30):
        data = {"total": number, **({"channel": "app"} if number >= 20 else {})}
        await store18.append(f"orders-new-{number}", [NewEvent("OrderPlaced", data)])
    done = esx("types", "--changed", "-d", dsn18)
    assert (done.returncode, done.stderr) == (0, "1 of 3 types changed shape\n")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["TYPE", "OrderPlaced"]
    assert "1 path, " in done.stdout
    [found] = ndjson(esx("types", "--changed", "--json", "-d", dsn18).stdout)
    assert (found["event_type"], found["changed"], found["changed_at"]["global_seq"]) == ("OrderPlaced", 1, 24)
    detail = esx("types", "order*", "--changed", "-d", dsn18).stdout
    assert any(line.startswith("$.channel") and "since 24" in line for line in detail.splitlines())
    assert "leave GLOB and --changed out" in one_line_error(esx("types", "--changed", "--save", "x", "-d", dsn18), 2)


@pytest.mark.slow
async def test_drift_from_a_saved_shape_is_an_exit_code(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await fill(store18)
    file = tmp_path / "shapes.json"
    assert esx("types", "--save", str(file), "-d", dsn18).returncode == 0
    assert json.loads(file.read_text())["complete"] is True
    assert "is there already" in one_line_error(esx("types", "--save", str(file), "-d", dsn18), 2)
    same = esx("types", "--check", str(file), "-d", dsn18)
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "the shapes are as they were saved\n")
    await store18.append("carts-1", [NewEvent("CartMade", {"n": "2", "m": 1}), NewEvent("CartLost")])
    drifted = esx("types", "--check", str(file), "-d", dsn18)
    assert drifted.returncode == 1
    assert sorted(drifted.stdout.splitlines()) == [
        "CartLost is a new type",
        "CartMade $.m is new: number, in 1 of 2",
        "CartMade $.n is now also string, it was number",
    ]
    assert ndjson(esx("types", "--check", str(file), "--json", "-d", dsn18).stdout)[0]["event_type"].startswith("Cart")
    file.write_text("[]")
    assert "has no shapes" in one_line_error(esx("types", "--check", str(file), "-d", dsn18), 2)
    gone = one_line_error(esx("types", "--check", str(tmp_path / "gone"), "-d", dsn18), 1)
    assert "No such file" in gone


@pytest.mark.slow
async def test_a_sample_is_said_and_incomplete(dsn18: str, sql18: asyncpg.Connection, tmp_path: Path) -> None:
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT 's-' || n, 0, 'T', '{}' FROM generate_series(1, 11000) n"
    )
    done = esx("types", "-d", dsn18)
    assert done.returncode == 4
    assert "can be missing (--full counts all)" in done.stderr
    assert esx("types", "--allow-partial", "-d", dsn18).returncode == 0
    full = esx("types", "--full", "--json", "-d", dsn18)
    assert (full.returncode, ndjson(full.stdout)[0]["events"]) == (0, 11_000)
    file = str(tmp_path / "shapes.json")
    assert esx("types", "--save", file, "-d", dsn18).returncode == 0
    checked = esx("types", "--check", file, "-d", dsn18)
    assert checked.returncode == 0
    assert "looked at" in checked.stderr


async def test_what_happened_in_the_last_ten_minutes(dsn18: str, store18: EventStore) -> None:
    await fill(store18)
    done = esx("summary", "-d", dsn18)
    assert done.returncode == 0
    assert done.stderr.startswith("3 events in 10 min, ")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["CATEGORY", "TYPE", "EVENTS", "BEFORE", "CHANGE"],
        ["carts", "CartMade", "1", "0", "new"],
        ["orders", "OrderPlaced", "1", "0", "new"],
        ["orders", "Paid", "1", "0", "new"],
    ]
    head, *rows = ndjson(esx("summary", "carts-* since:-1h", "--json", "-d", dsn18).stdout)
    assert (head["events"], head["before"], [row["event_type"] for row in rows]) == (1, 0, ["CartMade"])
    for arguments, reason in (
        (["--since", "-1h", "--until", "-2h"], "--since is not before --until"),
        (["since:-1h", "--since", "-1h"], "are the same"),
    ):
        assert reason in one_line_error(esx("summary", *arguments, "-d", dsn18), 2)
