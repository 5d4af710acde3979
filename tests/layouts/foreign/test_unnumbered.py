"""Stores without a global order: what needs the order says so in one line, and all else works."""

from __future__ import annotations

import pytest

from esx import EventStore
from tests.cli.support import esx, ndjson, one_line_error
from tests.layouts.foreign.fixtures import load_into
from tests.support.connections import connected

_REFUSED = [
    ["read", "$all"],
    ["read", "$all", "--type", "AccountOpened"],
    ["tail"],
    ["streams", "--sort", "recent"],
    ["trail", "1"],
    ["types"],
    ["summary"],
]


@pytest.mark.slow
async def test_commands_that_need_the_order_say_so_and_others_work(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "eventually_rs")
    for command in _REFUSED:
        done = esx(*command, "-d", empty_dsn18, "--store", "eventually_rs")
        assert one_line_error(done, 1) == ("esx: this store of eventually-rs has no global order: choose a stream"), (
            command
        )
    [health] = ndjson(esx("health", "--json", "-d", empty_dsn18).stdout)
    assert (health["head"], health["first"], health["last"], health["safe"]) == (None, None, None, None)
    assert health["estimated_events"] == 420
    shown = esx("health", "-d", empty_dsn18).stdout
    assert "safe position  unknown: this store of eventually-rs has no global order" in shown
    assert "\nhead " not in shown
    read = ["read", "account-1000", "--type", "AccountOpened", "-d", empty_dsn18]
    assert esx(*read).stdout.startswith("       -  2026-03-28T21:05:14.714114Z  account-1000@1  AccountOpened  {")
    [event] = ndjson(esx(*read, "--json").stdout)
    assert (event["global_seq"], event["data"]["owner"]) == (None, "Ann")
    assert esx("streams", "--limit", "1", "-d", empty_dsn18).stdout.rstrip().endswith(" -")


async def test_only_the_variant_around_the_data_is_taken_off(empty_dsn18: str) -> None:
    payloads = {
        '{"Opened": {"a": 1.50}}': '{"a": 1.50}',
        '{"Renamed": "b"}': '{"Renamed": "b"}',
        '{"T": "b"}': '"b"',
        '{"a": {"b": 1}}': '{"a": {"b": 1}}',
        '{"A": {}, "B": {}}': '{"A": {}, "B": {}}',
        '"Closed"': '"Closed"',
        '{"Odd": {"a": "\\u0000"}}': '{"Odd": {"a": "\\u0000"}}',
    }
    async with connected(empty_dsn18) as connection:
        await connection.execute(
            "CREATE TABLE events (aggregate_type text, aggregate_id text, sequence bigint, event_type text, "
            "event_version text, payload json, metadata json, PRIMARY KEY (aggregate_type, aggregate_id, sequence))"
        )
        await connection.executemany(
            "INSERT INTO events VALUES ('a', '1', $1, 'T', '1', $2, '{}')", list(enumerate(payloads, 1))
        )
    async with EventStore.connect(empty_dsn18) as store:
        assert [event.data_json async for event in store.read("a/1")] == list(payloads.values())
