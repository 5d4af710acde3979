"""Commands on a store whose payloads are bytes: lists say what they are, --decode decodes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.support import esx, ndjson, one_line_error
from tests.layouts.foreign.fixtures import expected, load_into
from tests.payloads.samples import PAYLOADS, make_store
from tests.support.connections import connected

if TYPE_CHECKING:
    from tests.conftest import Servers

pytestmark = pytest.mark.slow

_DECODERS = """
def known(raw, event_type, stream_id):
    return {"mine": len(raw)} if event_type == "cipher" else None

def bad(raw, event_type, stream_id):
    raise KeyError(event_type)
"""


async def fill(dsn: str) -> None:
    async with connected(dsn) as connection:
        await make_store(connection)


@pytest.fixture
async def packed(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the store, which is only read; the decoders are where the commands run."""
    (tmp_path / "decoders_of_mine.py").write_text(_DECODERS)
    monkeypatch.chdir(tmp_path)
    return await servers.kept(18, "packed", fill)


async def test_a_list_says_what_payloads_are_and_decodes_none(packed: str) -> None:
    shown = esx("read", "pay-1", "-d", packed).stdout.splitlines()
    assert len(shown) == len(PAYLOADS)
    assert shown[1].endswith("zlib  (24 bytes, not JSON (looks like zlib))")
    events = ndjson(esx("read", "pay-1", "--json", "-d", packed).stdout)
    assert [event["data"] for event in events] == [{"amount": 1.5}] + [None] * (len(PAYLOADS) - 1)
    assert events[1]["data_note"] == "24 bytes, not JSON (looks like zlib)"
    assert not [name for event in events for name in event if "decoded" in name]
    # These are made by PostgreSQL.
    assert ndjson(esx("tail", "--from", "start", "--no-follow", "--json", "-d", packed).stdout) == events
    assert ndjson(esx("export", "-d", packed).stdout) == events


async def test_decode_decodes_each_event(packed: str) -> None:
    done = esx("read", "pay-1", "--decode", "--json", "-d", packed)
    events = {event["event_type"]: event for event in ndjson(done.stdout)}
    assert "data_decoded" not in events["json"]
    assert events["zlib"]["data"] is None
    assert events["zlib"]["data_decoded"] == {"amount": 1.5}
    assert events["zlib"]["data_decoded_how"] == "decoded from zlib, JSON"
    assert events["yaml"]["metadata_decoded"]["owner"] == "Ann"
    assert events["xml"]["data_decoded"].startswith("<order>")
    assert events["cipher"]["data_decoded"] is None
    for options in ([], ["--json"]):
        tail = esx("tail", "--from", "start", "--no-follow", "--decode", *options, "-d", packed).stdout
        assert tail == esx("read", "pay-1", "--decode", *options, "-d", packed).stdout
    shown = esx("read", "pay-1", "--decode", "-d", packed).stdout.splitlines()
    assert shown[1].endswith('zlib  {"amount": 1.50}  (decoded from zlib, JSON)')
    assert len(shown) == len(PAYLOADS)


async def test_a_single_event_is_decoded_and_what_is_no_json_is_shown_below(packed: str) -> None:
    order = list(PAYLOADS)
    yaml = esx("read", "pay-1", "--from", str(order.index("yaml")), "--limit", "1", "-d", packed).stdout
    assert '{"owner": "Ann", "currency": "EUR", "limit": null}  (decoded from YAML)' in yaml
    xml = esx("read", "pay-1", "--from", str(order.index("xml")), "--limit", "1", "-d", packed).stdout.splitlines()
    assert [line.strip() for line in xml[1:]] == [line.strip() for line in PAYLOADS["xml"].decode().splitlines()]
    cipher = esx("read", "pay-1", "--from", str(order.index("cipher")), "--limit", "1", "-d", packed).stdout
    head, first, *_ = cipher.splitlines()
    assert head.endswith("cipher  (37 bytes, not JSON)")
    assert first.startswith("          0000  fff8 f1ea ")


async def test_a_decoder_comes_first(packed: str) -> None:
    done = esx("read", "pay-1", "--decoder", "decoders_of_mine:known", "--json", "-d", packed)
    events = {event["event_type"]: event for event in ndjson(done.stdout)}
    assert (events["cipher"]["data_decoded"], done.returncode) == ({"mine": 37}, 0)
    assert events["cipher"]["data_decoded_how"] == "decoded by decoders_of_mine:known"
    assert events["yaml"]["data_decoded_how"] == "decoded from YAML"


async def test_the_decoder_of_the_config_file_is_used(packed: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('decoder = "decoders_of_mine:known"\n')
    config = {"ESX_CONFIG": str(tmp_path / "config.toml")}
    done = esx("read", "pay-1", "--decode", "--json", "-d", packed, **config)
    assert ndjson(done.stdout)[-1]["data_decoded"] == {"mine": 37}
    alone = esx("read", "pay-1", "--backwards", "--limit", "1", "-d", packed, **config).stdout
    assert alone.endswith('cipher  {"mine": 37}  (decoded by decoders_of_mine:known)\n')
    assert 'decoder = "decoders_of_mine:known"' in esx("config", **config).stdout


async def test_a_decoder_that_fails_hides_no_event(packed: str) -> None:
    done = esx("read", "pay-1", "--decoder", "decoders_of_mine:bad", "--json", "-d", packed)
    assert len(ndjson(done.stdout)) == len(PAYLOADS)
    assert ndjson(done.stdout)[1]["data_decoded"] == {"amount": 1.5}
    assert done.returncode == 4
    [line] = [line for line in done.stderr.splitlines() if "decoder" in line]
    assert line == (
        "event pay-1@1: decoder decoders_of_mine:bad failed: KeyError: 'zlib'; others like it are not reported"
    )


async def test_states_are_folded_of_what_was_decoded(packed: str) -> None:
    last = str(list(PAYLOADS).index("erlang"))
    state = ndjson(esx("state", "pay-1", "--at", last, "--json", "-d", packed).stdout)[0]["state"]
    assert (state["owner"], state["amount"], state["2"]) == ("Ann", 256, "message")
    error = esx("state", "pay-1", "-d", packed).stderr.splitlines()[-1]
    assert error.startswith(
        "esx: reducer JSON merge failed at event 8 (pay-1@7, xml): ValueError: its data are 76 bytes"
    )
    error = esx("state", "pay-1", "--decoder", "decoders_of_mine:bad", "-d", packed).stderr.splitlines()[-1]
    assert "decoder decoders_of_mine:bad failed: KeyError: 'zlib'" in error


async def test_wrong_use_is_told(packed: str) -> None:
    assert "no module nowhere" in one_line_error(esx("tail", "--decoder", "nowhere:f", "-d", packed), 2)
    assert "after the command" in one_line_error(esx("--decoder", "a:b", "read", "pay-1", "-d", packed), 2)
    assert "leave --decode" in one_line_error(esx("read", "pay-1", "--diff", "--decode", "-d", packed), 2)
    assert "the data are no JSON" in esx("read", "pay-1", "--diff", "-d", packed).stdout


async def test_a_store_of_commanded_with_json_in_bytes_needs_no_decoding(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "commanded_bytea")
    events = ndjson(esx("read", "$all", "--limit", "20", "--decode", "--json", "-d", empty_dsn18).stdout)
    assert len(events) == 20
    named = [each for each in expected("commanded_bytea")["named_events"] if each["global"] == 1]
    assert [event["data"] for event in events if event["global_seq"] == 1] == [each["data"] for each in named]
    assert not [name for event in events for name in event if "decoded" in name]


async def test_payloads_of_rails_event_store_are_ruby_s_yaml(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "rails_event_store_yaml")
    facts = expected("rails_event_store_yaml")
    events = ndjson(esx("read", "$all", "--decode", "--json", "-d", empty_dsn18).stdout)
    assert len(events) == facts["events"]
    assert events[0]["data"] is None
    assert events[0]["data_decoded"] == facts["decoded_first_event"]
    assert list(events[0]["metadata_decoded"]) == ["correlation_id"]
    assert {event["data_decoded_how"] for event in events} == {"decoded from YAML"}
    state = ndjson(esx("state", "account-1000", "--json", "-d", empty_dsn18).stdout)[0]["state"]
    assert state["owner"] == "Ann"


async def test_an_encrypted_store_is_shown_as_bytes_and_read_by_its_user_s_decoder(
    empty_dsn18: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load_into(empty_dsn18, "eventsourcing_encrypted")
    (tmp_path / "cipher_of_mine.py").write_text("def size(raw, *_): return {'size': len(raw)}\n")
    monkeypatch.chdir(tmp_path)
    options = ["--store", "public.shop_events", "--json", "-d", empty_dsn18]
    events = ndjson(esx("read", "$all", "--decode", *options).stdout)
    assert len(events) == expected("eventsourcing_encrypted")["events"]
    assert all(event["data_decoded"] is None for event in events)
    events = ndjson(esx("read", "$all", "--decoder", "cipher_of_mine:size", *options).stdout)
    assert [f"{event['data_decoded']['size']:,} bytes, not JSON" for event in events] == [
        event["data_note"].partition(" (")[0] for event in events
    ]


async def test_akka_s_payloads_are_told_as_far_as_they_can_be_without_their_classes(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "akka_jdbc")
    events = ndjson(esx("read", "$all", "--decode", "--json", "-d", empty_dsn18).stdout)
    told = [event for event in events if "data_decoded" in event]
    assert len(told) == 68
    assert {"1": "acme", "2": 1} in [event["data_decoded"] for event in told]
    java = [event["data_decoded_how"] for event in told if event["data_decoded"] is None]
    assert len(java) == 34
    assert all("(looks like Java serialization of com.example." in how for how in java)
