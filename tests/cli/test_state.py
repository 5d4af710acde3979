"""`esx state` and `esx read --diff`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from esx.model import JsonText, NewEvent
from esx.store.bulk.copy import ImportedEvent
from tests.cli.support import esx, ndjson, one_line_error

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from esx.eventstore import EventStore

pytestmark = pytest.mark.slow


async def order(store: EventStore) -> None:
    await store.append(
        "order-1",
        [
            NewEvent("Placed", JsonText('{"status": "open", "total": 12345678901234567890123.10, "items": [1, 2]}')),
            NewEvent("Changed", JsonText('{"items": [1, 2, 3], "note": "x"}')),
            NewEvent("Changed", JsonText('{"status": "paid", "note": null}')),
        ],
    )


async def test_state(dsn18: str, store18: EventStore) -> None:
    await order(store18)
    last = esx("state", "order-1", "-d", dsn18)
    assert last.stdout.splitlines() == [
        "{",
        '  "items": [',
        "    1,",
        "    2,",
        "    3",
        "  ],",
        '  "total": 12345678901234567890123.10,',
        '  "status": "paid"',
        "}",
    ]
    assert "order-1 at version 2 of 2, by JSON merge" in last.stderr
    [line] = esx("state", "order-1", "--at", "1", "--json", "-d", dsn18).stdout.splitlines()
    assert '"total": 12345678901234567890123.10' in line
    found = json.loads(line)
    assert (found["stream_id"], found["version"], found["event_type"]) == ("order-1", 1, "Changed")
    assert found["state"]["note"] == "x"
    each = ndjson(esx("state", "order-1", "--each", "--json", "-d", dsn18).stdout)
    assert [(row["version"], row["state"]["status"]) for row in each] == [(0, "open"), (1, "open"), (2, "paid")]
    assert len(esx("state", "order-1", "--each", "--at", "1", "-d", dsn18).stdout.splitlines()) == 2
    assert "no version 9: its version is 2" in one_line_error(esx("state", "order-1", "--at", "9", "-d", dsn18), 1)
    missing = one_line_error(esx("state", "nope", "-d", dsn18), 1)
    assert "stream nope has no events; `esx streams --match '*nope*'`" in missing
    assert "`esx streams --match 'order-*'`" in one_line_error(esx("state", "order-*", "-d", dsn18), 1)
    assert "'$all'" in one_line_error(esx("read", "all", "-d", dsn18), 1)


async def test_state_at_a_place(dsn18: str, store18: EventStore) -> None:
    at = datetime(2024, 8, 7, 12, tzinfo=UTC)
    await store18.append("other", [NewEvent("T")])
    await store18.import_events(
        ImportedEvent("s", n, "T", f'{{"n": {n}}}', None, at + timedelta(hours=n), uuid4()) for n in range(3)
    )

    def version(*options: str) -> int:
        [found] = ndjson(esx("state", "s", *options, "--json", "-d", dsn18).stdout)
        return int(found["version"])

    assert version("--at", "2024-08-07T13:30Z") == 1
    assert version("--at", "2024-08-07T13:00Z") == 0
    assert version("--at", "now") == 2
    assert version("--at", "#3") == 1
    assert version("--at", "#99") == 2
    for early in ("#1", "2024-08-07T12:00Z"):
        assert "had no events yet" in one_line_error(esx("state", "s", "--at", early, "-d", dsn18), 1)
    assert "neither a position nor a time" in one_line_error(esx("state", "s", "--at", "x", "-d", dsn18), 2)


@pytest.mark.parametrize("options", [[], ["--each"]])
async def test_a_state_without_the_first_events_says_so(
    dsn18: str, store18: EventStore, sql18: asyncpg.Connection, options: list[str]
) -> None:
    await store18.append("s", [NewEvent("T", {"a": 1}), NewEvent("T", {"b": 2}), NewEvent("T", {"c": 3})])
    assert esx("state", "s", *options, "-d", dsn18).returncode == 0
    await sql18.execute("DELETE FROM events WHERE stream_seq < 2")
    done = esx("state", "s", *options, "-d", dsn18)
    assert done.returncode == 4
    assert "the stream begins at version 2 here: the state is without what was before" in done.stderr


async def test_state_by_a_reducer(
    dsn18: str, store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await order(store18)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "def types(state, event):\n    state.append(event.event_type)\n    return state\n"
        "types.initial = []\ndef bad(state, event):\n    return {}[event.event_type]\n"
    )
    done = esx("state", "order-1", "--reducer", "mine:types", "--json", "-d", dsn18)
    assert ndjson(done.stdout)[0]["state"] == ["Placed", "Changed", "Changed"]
    error = one_line_error(esx("state", "order-1", "--reducer", "mine:bad", "-d", dsn18), 1)
    assert "reducer mine:bad failed at event 1 (order-1@0, Placed): KeyError" in error
    assert "no module nowhere" in one_line_error(esx("demo", "--no-tui", "--reducer", "nowhere:f", "-d", dsn18), 2)
    assert "after the command" in one_line_error(esx("--reducer", "mine:types", "state", "order-1", "-d", dsn18), 2)
    assert "no module nowhere" in one_line_error(esx("state", "order-1", "--reducer", "nowhere:f", "-d", dsn18), 2)


async def test_read_with_differences(dsn18: str, store18: EventStore) -> None:
    await order(store18)
    first, second, third = ndjson(esx("read", "order-1", "--diff", "--json", "-d", dsn18).stdout)
    assert [change["path"] for change in first["diff"]] == ["$"]
    assert second["diff"][0] == {"path": "$.note", "op": "added", "old": None, "new": "x"}
    assert {"path": "$.items[2]", "op": "added", "old": None, "new": 3} in second["diff"]
    assert {"path": "$.note", "op": "changed", "old": "x", "new": None} in third["diff"]
    [typed] = ndjson(
        esx("read", "order-1", "--diff", "--same-type", "--from", "1", "--limit", "1", "--json", "-d", dsn18).stdout
    )
    assert [change["path"] for change in typed["diff"]] == ["$"]
    backwards = ndjson(esx("read", "order-1", "--diff", "--backwards", "--json", "-d", dsn18).stdout)
    assert backwards == [third, second, first]
    text = esx("read", "order-1", "--diff", "--from", "2", "-d", dsn18).stdout
    assert '  ~ $.note  "x" → null' in text
    assert "--diff" in one_line_error(esx("read", "$all", "--diff", "-d", dsn18), 2)
    assert "--same-type" in one_line_error(esx("read", "order-1", "--same-type", "-d", dsn18), 2)
