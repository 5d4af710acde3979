"""Filters, types and summaries of a store of another tool."""

from __future__ import annotations

import pytest

from tests.cli.support import esx, ndjson, one_line_error
from tests.layouts.foreign.fixtures import load_into


@pytest.mark.slow
async def test_a_store_of_another_tool_is_looked_over(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "messagedb")

    def of(*arguments: str) -> list[dict[str, object]]:
        done = esx(*arguments, "--json", "-d", empty_dsn18)
        assert done.returncode == 0, done.stderr
        return ndjson(done.stdout)

    opened = of("read", "$all", "type:accountopened account-*")
    assert {event["event_type"] for event in opened} == {"AccountOpened"}
    [kind] = [one for one in of("types") if one["event_type"] == "AccountOpened"]
    assert kind["events"] == len(of("read", "$all", "type:AccountOpened"))
    assert "account" in str(kind["categories"])
    assert of("types", "accountopened")[0]["paths"]
    head, *_ = of("summary", "--since", "2000-01-01", "--until", "2100-01-01")
    assert head["events"] == len(of("read", "$all"))
    for command in (["read", "$all"], ["tail", "--no-follow", "--from=start"], ["export"], ["summary"]):
        done = esx(*command, "corr:x", "-d", empty_dsn18, "--store", "messagedb")
        assert "this is a store of Message DB: `esx trail ID`" in one_line_error(done, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["marten", "axon_jdbc"])
async def test_streams_that_are_uuids_have_no_category(name: str, empty_dsn18: str) -> None:
    await load_into(empty_dsn18, name)
    types = ndjson(esx("types", "--json", "-d", empty_dsn18).stdout)
    assert {tuple(one["categories"]) for one in types if "categories" in one} == {()}
    whole = ("summary", "--since", "2000-01-01", "--until", "2100-01-01", "-d", empty_dsn18)
    assert {one["category"] for one in ndjson(esx(*whole, "--json").stdout) if "category" in one} == {""}
    assert "(none)" in esx(*whole).stdout


async def test_a_store_with_tags_alone_says_that_it_lists_none(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "eventsourcing_dcb")
    for command in (["streams"], ["streams", "--categories"]):
        done = esx(*command, "-d", empty_dsn18)
        assert (done.returncode, done.stdout) == (0, "")
        assert "has tags and no streams: a tag is read as one" in done.stderr
    missing = esx("read", "nosuch", "-d", empty_dsn18)
    assert missing.returncode == 1
    assert "nothing has the tag: this store of" in missing.stderr


async def test_data_that_are_no_json_are_not_compared(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "rails_event_store_yaml")
    done = esx("read", "account-1000", "--diff", "--limit", "3", "-d", empty_dsn18)
    assert done.returncode == 0
    assert done.stdout.count("not compared: the data are no JSON") == 3
    assert "null" not in done.stdout


async def test_a_type_is_found_without_its_namespace_and_a_kind_that_is_not_there_is_named(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "axon_jdbc")
    done = esx("read", "$all", "--type", "OrderPlaced", "-d", empty_dsn18)
    assert "did you mean com.example.shop.order.OrderPlaced?" in done.stderr
    assert "has no store of Marten" in esx("streams", "--store", "marten", "-d", empty_dsn18).stderr
