"""Stores of other tools are moved into esx's own table by an export and an import."""

from __future__ import annotations

import json
from typing import Any

import pytest

from esx import Event, EventStore
from esx.store.bulk.import_ import ImportFailed
from tests.cli.support import esx, ndjson, one_line_error
from tests.layouts.foreign.fixtures import TABLES, load_into

_MOVED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "messagedb": ({"renumber": True}, {"renumbered"}),  # the first messages of a stream were deleted
    "marten": ({}, {"translated", "linked"}),
    "commanded": ({}, {"translated", "linked"}),
    "eventsourcing": ({}, {"translated", "ids_made", "linked"}),
    "sqlstreamstore": ({"dollar_prefix": "old:"}, {"prefixed"}),
}
"""The stores that are moved: with which options, and what is not as it was."""
_LINKS = ("correlation_id", "causation_id")
_LINE = {"stream_id": "s", "stream_seq": 1, "event_type": "T", "data": {}}


def _contents(event: Event) -> tuple[object, ...]:
    metadata = {name: value for name, value in (event.metadata or {}).items() if name not in _LINKS}
    return event.event_type, event.data, metadata, event.created_at


@pytest.mark.slow
@pytest.mark.parametrize("name", _MOVED)
async def test_a_moved_store_has_the_same_events_in_the_same_order(
    name: str, empty_dsn18: str, store18: EventStore
) -> None:
    options, changed = _MOVED[name]
    await load_into(empty_dsn18, name)
    async with EventStore.connect(empty_dsn18, store=TABLES.get(name)) as old:
        export = await old.export()
        lines = b"".join([piece async for piece in export])
        before = [event async for event in old.read_all()]
        trail = await old.trail(before[0].global_seq)
    done = await store18.import_ndjson([lines], **options)
    assert (done.stored, done.skipped) == (len(before), 0)
    assert done.changes.counted().keys() == changed
    assert done.changes.lost == export.undecoded
    after = [event async for event in store18.read_all()]
    assert [*map(_contents, after)] == [*map(_contents, before)]
    moved = await store18.trail(after[0].global_seq)
    if "linked" in changed:
        assert moved.correlation == trail.correlation
        assert len(moved.nodes) == len(trail.nodes)
    prefix = options.get("dollar_prefix", "")
    versions: dict[str, int] = {}
    for was, event in zip(before, after, strict=True):
        stream = prefix + was.stream_id if was.stream_id.startswith("$") else was.stream_id
        versions[stream] = versions.get(stream, -1) + 1
        assert (event.stream_id, event.stream_seq) == (stream, versions[stream])
        assert event.event_id == was.event_id or "ids_made" in changed
    # What is there is not stored again, also where ids were made.
    again = await store18.import_ndjson([lines], **options)
    assert (again.stored, again.skipped) == (0, len(before))


@pytest.mark.slow
async def test_commands_move_a_store_within_its_database_and_say_what_is_not_as_it_was(
    dsn18: str, store18: EventStore
) -> None:
    await load_into(dsn18, "rails_event_store_yaml")
    export = esx("export", "--store", "rails_event_store", "-d", dsn18)
    assert export.returncode == 4
    assert export.stderr.splitlines()[-1] == (
        "520 payloads are no JSON: null is written instead, and what it is in data_note or metadata_note; "
        "--decode decodes what it can"
    )
    decoded = esx("export", "--decode", "--store", "rails_event_store", "-d", dsn18)
    assert (decoded.returncode, decoded.stderr.splitlines()) == (0, ["520 payloads: decoded from YAML"])
    pairs = zip(ndjson(decoded.stdout), ndjson(export.stdout), strict=True)
    assert all({**one, "data": None, "metadata": None}.items() <= other.items() and one["data"] for one, other in pairs)
    done = esx("import", "-", "-d", dsn18, stdin=export.stdout)
    assert (done.returncode, done.stdout) == (4, "imported 260 events\n")
    assert done.stderr.splitlines() == [
        "260 events had data that are no JSON: null is stored",
        "260 events had metadata that are no JSON: none are stored",
    ]
    assert len([event async for event in store18.read_all()]) == 260
    again = esx("import", "-", "--json", "--allow-partial", "-d", dsn18, stdin=export.stdout)
    assert again.returncode == 0
    assert ndjson(again.stdout) == [{"stored": 0, "skipped": 260, "changed": {"data_lost": 260, "metadata_lost": 260}}]


@pytest.mark.slow
async def test_without_a_global_order_a_snapshot_is_moved_stream_by_stream(
    empty_dsn18: str, dsn18: str, store18: EventStore
) -> None:
    await load_into(empty_dsn18, "cqrs_es")
    export = ["export", "--store", "cqrs_es", "-d", empty_dsn18]
    assert "no global order: choose a stream; --snapshot exports what is there now" in one_line_error(esx(*export), 1)
    assert "--from goes by global_seq" in one_line_error(esx(*export, "--snapshot", "--from", "1"), 2)
    taken = esx(*export, "--snapshot")
    assert taken.returncode == 0
    assert taken.stderr.splitlines()[-1].startswith("a snapshot, stream by stream")
    done = esx("import", "-", "-d", dsn18, stdin=taken.stdout)
    assert "420 events had no time: created_at is the time of the import" in done.stderr
    async with EventStore.connect(empty_dsn18) as old:
        async for stream in old.streams():
            before = [event async for event in old.read(stream.stream_id)]
            after = [event async for event in store18.read(stream.stream_id)]
            assert [event.stream_seq for event in after] == list(range(len(before)))
            assert [event.data for event in after] == [event.data for event in before]
    one = esx(*export, "--snapshot", "--stream", "account/100?").stdout
    assert {event["stream_id"][:-1] for event in ndjson(one)} == {"account/100"}


@pytest.mark.parametrize(
    ("metadata", "links", "moved", "changed"),
    [
        ('{"a": 1.50}', '"correlation_id": "é"', '{"a": 1.50, "correlation_id": "é"}', {"linked": 1}),
        ("null", '"causation_id": "c"', '{"causation_id": "c"}', {"linked": 1}),
        ("{ }", '"correlation_id": "b", "causation_id": null', '{"correlation_id": "b"}', {"linked": 1}),
        ("[]", '"correlation_id": "b"', '{"correlation_id": "b"}', {"linked": 1}),
        ('{"correlation_id": "a"}', '"correlation_id": "b"', '{"correlation_id": "a"}', {"linked": 1}),
        ('"text"', '"correlation_id": "b"', '"text"', {"links_lost": 1}),
    ],
)
async def test_the_ids_of_a_trail_get_into_the_metadata(
    store18: EventStore, metadata: str, links: str, moved: str, changed: dict[str, int]
) -> None:
    line = f'{{"stream_id": "s", "event_type": "T", "data": 1, "metadata": {metadata}, {links}}}'
    done = await store18.import_ndjson([line.encode()])
    assert {name: count for name, count in done.changes.counted().items() if name.startswith("link")} == changed
    [event] = [event async for event in store18.read_all()]
    assert event.metadata_json == moved


@pytest.mark.parametrize(
    ("odd", "refusal", "options", "moved"),
    [
        ({"first": 1}, None, {}, ("s", 0, "T")),
        ({"first": 1, "stream_seq": 0}, "stream_seq 0 comes before 1", {}, None),
        ({}, "its next stream_seq is 0, not 1; --renumber", {"renumber": True}, ("s", 0, "T")),
        ({"first": 1, "stream_seq": 3}, "is 0, not 2, counted from 0; --renumber", {"renumber": True}, ("s", 0, "T")),
        ({"first": 1}, "it has first, as events of another tool", {}, ("s", 0, "T")),
        ({"stream_id": None, "stream_seq": None}, "--no-stream NAME", {"no_stream": "none"}, ("none", 0, "T")),
        ({"stream_id": "", "stream_seq": 7}, "--no-stream NAME", {"no_stream": "none"}, ("none", 0, "T")),
        ({"stream_id": "$s", "first": 1}, "--dollar-prefix TEXT", {"dollar_prefix": "of"}, ("of$s", 0, "T")),
        ({"event_type": None, "first": 1}, "--no-type NAME", {"no_type": "U"}, ("s", 0, "U")),
    ],
)
async def test_a_line_that_does_not_fit_names_the_option_that_helps(
    store18: EventStore, odd: dict[str, Any], refusal: str | None, options: dict[str, Any], moved: object
) -> None:
    text = json.dumps({**_LINE, **odd}).encode()
    whole = json.dumps({"global_seq": 1, **_LINE, **odd, "created_at": "2026-01-01T00:00:00Z", "event_id": "1" * 32})
    if refusal is not None:
        faithful = "it has" in refusal
        with pytest.raises(ImportFailed, match=refusal):
            await store18.import_ndjson([whole.encode() if faithful else text], faithful=faithful)
    if moved is not None:
        assert (await store18.import_ndjson([text], **options)).stored == 1
        [event] = [event async for event in store18.read_all()]
        assert (event.stream_id, event.stream_seq, event.event_type) == moved


@pytest.mark.slow
@pytest.mark.parametrize("name", ["messagedb", "axon_jdbc"])
async def test_a_moved_trail_is_the_same_by_the_names_that_the_export_tells(
    name: str, empty_dsn18: str, store18: EventStore
) -> None:
    await load_into(empty_dsn18, name)
    async with EventStore.connect(empty_dsn18, store=TABLES.get(name)) as old:
        export = await old.export()
        await store18.import_ndjson([b"".join([piece async for piece in export])], renumber=True, keep_global_seq=True)
        assert export.fields is not None
        trails = 0
        async for event in old.read_all(limit=60):
            before = await old.trail(event.global_seq)
            after = await store18.trail(event.global_seq, fields=export.fields)
            trails += len(before.nodes) > 1
            assert [(node.event.global_seq, node.link, node.parent) for node in after.nodes] == [
                (node.event.global_seq, node.link, node.parent) for node in before.nodes
            ]
        assert trails
    done = esx("export", "-d", empty_dsn18, "-o", "/dev/null")
    assert f"esx trail NUMBER --correlation-field {export.fields.correlation[0]}" in done.stderr
