"""Events of KurrentDB get into esx's own table.

`data/kurrent_client.ndjson` was printed by the program of docs/eventstoredb.md, with kurrentdbclient 1.3.5, from
messages of KurrentDB's protocol; `data/kurrent_atom.ndjson` are entries as its HTTP interface writes them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from esx import EventStore
from esx.store.bulk.chunks import ChunkBounds
from esx.store.bulk.import_ import Imported, ImportFailed

_DATA = Path(__file__).parent / "data"
_CLIENT, _ATOM = (_DATA / f"kurrent_{name}.ndjson" for name in ("client", "atom"))
_LINE: dict[str, Any] = json.loads(_CLIENT.read_text(encoding="utf-8").partition("\n")[0])
_ENTRY: dict[str, Any] = json.loads(_ATOM.read_text(encoding="utf-8").partition("\n")[0])


async def taken(store: EventStore, *lines: dict[str, Any] | bytes, **options: Any) -> Imported:
    pieces = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
    return await store.import_ndjson(pieces, from_kurrent=True, **options)


async def stored(store: EventStore) -> list[tuple[str, int, str, str, str | None]]:
    return [
        (event.stream_id, event.stream_seq, event.event_type, str(event.data_json), event.metadata_json)
        async for event in store.read_all()
    ]


async def test_events_of_the_python_client_keep_ids_types_times_order_and_versions(store: EventStore) -> None:
    done = await taken(store, _CLIENT.read_bytes())
    assert (done.stored, done.skipped) == (7, 0)
    assert done.changes.counted() == {
        "data_lost": 1,
        "metadata_lost": 1,
        "system": 1,
        "resolved": 1,
        "positions": 7,
    }
    assert await stored(store) == [
        (
            *("order-1", 0, "OrderPlaced"),
            *('{"city": "Ulm", "note": "Grüße", "total": 12.50}', '{"user": "ann", "$correlationId": "c-1"}'),
        ),
        (
            *("order-1", 1, "OrderPaid", '{"amount": 12.500000000000000001}'),
            '{"$causationId": "7a1e0000-0000-4000-8000-000000000589", "$correlationId": "c-1"}',
        ),
        ("account-7", 0, "Opened", '"a text"', None),
        ("account-7", 1, "Photo", "null", None),
        ("order-2", 0, "OrderPlaced", '{"total": 7}', None),
        ("order-2", 1, "OrderPaid", '{"amount": 7}', None),
        ("account-7", 2, "Closed", "null", None),
    ]
    first = await anext(aiter(store.read("order-1")))
    assert first.event_id == UUID("7a1e0000-0000-4000-8000-000000000589")
    assert first.created_at == datetime(2026, 1, 4, 12, 0, 1, 417992, tzinfo=UTC)
    trail = await store.trail(first.global_seq)
    assert (trail.correlation, len(trail.nodes)) == ("c-1", 2)


async def test_an_import_is_repeated_and_goes_on_with_later_events(store18: EventStore) -> None:
    text = _CLIENT.read_bytes()
    lines = text.splitlines(keepends=True)
    assert (await taken(store18, b"".join(lines[:3]))).stored == 2
    done = await taken(store18, text)
    assert (done.stored, done.skipped) == (5, 2)
    done = await taken(store18, _LINE | {"stream_position": 2, "id": str(UUID(int=1)), "commit_position": 99_000})
    assert done.changes.counted() == {"positions": 1}
    assert (await store18.version("order-1")) == 2


async def test_entries_of_an_atom_feed_are_taken(store18: EventStore) -> None:
    done = await taken(store18, _ATOM.read_bytes())
    assert done.stored == 5
    assert done.changes.counted() == {"data_lost": 2, "system": 1, "resolved": 1}
    assert await stored(store18) == [
        ("order-1", 0, "OrderPlaced", '{"total": 12.50}', '{"user": "ann"}'),
        ("order-1", 1, "OrderPaid", '{"amount": 12.500000000000000001}', None),
        ("order-2", 0, "Scanned", "null", None),
        ("order-2", 1, "OrderPaid", '{"amount": 7}', None),
        ("order-2", 2, "Redacted", "null", None),
    ]
    times = [event.created_at async for event in store18.read("order-1")]
    # Seven digits: what is below a microsecond is cut off.
    assert times == [datetime(2026, 1, 4, 12, 0, 1, 417991, tzinfo=UTC), datetime(2026, 1, 4, 12, 0, 2, tzinfo=UTC)]


async def test_what_is_kurrentdbs_own_is_left_out_and_counted(store18: EventStore) -> None:
    nowhere = _LINE | {"id": str(UUID(int=0)), "stream_name": "", "type": "", "data": ""}
    lines = [
        _LINE | {"type": "$>", "data": "0@order-1", "stream_name": "$ce-order"},
        _LINE | {"stream_name": "$persistentSubscriptionConfig", "type": "PersistentConfig1"},
        _LINE | {"type": "$streamDeleted"},
        nowhere,
    ]
    done = await taken(store18, *lines)
    assert (done.stored, done.skipped, done.changes.counted()) == (0, 0, {"system": 4})
    # Streams that begin with $ can be wanted all the same; types never.
    result = _LINE | {"stream_name": "$projections-sums-result", "type": "Result"}
    done = await taken(store18, *lines, result, dollar_prefix="k:")
    assert done.changes.counted() == {"system": 3, "prefixed": 2, "positions": 2}
    assert [event[0] for event in await stored(store18)] == [
        "k:$persistentSubscriptionConfig",
        "k:$projections-sums-result",
    ]


async def test_a_truncated_stream_is_refused_or_counted_anew(store18: EventStore) -> None:
    later = _LINE | {"stream_position": 5}
    with pytest.raises(ImportFailed, match=r"line 1: stream order-1 has no events, so its next .* 0, not 5.*--renum"):
        await taken(store18, later)
    done = await taken(store18, later, renumber=True)
    assert done.changes.counted() == {"renumbered": 1, "positions": 1}


async def test_lines_out_of_the_order_of_the_log_are_counted(store18: EventStore) -> None:
    other = _LINE | {"stream_name": "a", "id": str(UUID(int=1)), "commit_position": 5}
    third = other | {"stream_name": "b", "commit_position": 6}
    done = await taken(store18, _LINE, other, third)
    assert done.changes.counted() == {"positions": 3, "disordered": 2}
    assert [event[0] for event in await stored(store18)] == ["order-1", "a", "b"]


PAYLOADS: list[tuple[object, str | None, int]] = [
    ('{"a": 1.10}', '{"a": 1.10}', 0),
    ({"a": 1}, '{"a": 1}', 0),  # a program of one's own has decoded it
    (None, "null", 0),
    (" [1,\r\n2] ", "[1, 2]", 0),
    ("{} {}", "null", 1),
    ("NaN", "null", 1),
    ('{"a": "\n"}', "null", 1),
    ("\udcff", "null", 1),
    # PostgreSQL judges what Python does not.
    ("[" * 100_000, None, 0),
    ("[1" + " " * 2**24, None, 0),
    ('{"a": "\\u0000"}', None, 0),
]


async def test_payloads_are_json_or_counted_as_lost(store18: EventStore) -> None:
    for number, (data, kept, lost) in enumerate(PAYLOADS):
        given = _LINE | {"stream_name": f"s-{number}", "id": str(UUID(int=number)), "data": data}
        if kept is None:
            with pytest.raises(ImportFailed, match=r"line 2: .*data"):
                await taken(store18, b"\n", given)
            continue
        done = await taken(store18, given)
        assert done.changes.data_lost == lost, data
        assert [event.data_json for event in await store18.read_page(f"s-{number}")] == [kept], data


async def test_binary_is_lost_unless_it_is_an_object_or_an_array(store18: EventStore) -> None:
    for data, kept in (("12", "null"), ('{"a": 1}', '{"a": 1}'), (" [1]", "[1]"), ("{", "null")):
        stream = f"s{data}"
        given = _LINE | {"stream_name": stream, "id": str(uuid4()), "data": data}
        done = await taken(store18, given | {"content_type": "application/octet-stream"})
        assert done.changes.data_lost == (kept == "null"), data
        assert [event.data_json for event in await store18.read_page(stream)] == [kept], data


async def test_an_event_without_a_content_type_may_be_json(store18: EventStore) -> None:
    plain = {name: value for name, value in _LINE.items() if name != "content_type"} | {"data": "12"}
    done = await taken(store18, plain, plain | {"stream_name": "s", "content_type": ""})
    assert (done.stored, done.changes.data_lost) == (2, 0)


BAD_LINES: list[tuple[dict[str, Any] | bytes, str]] = [
    (b"{\n", "it is not JSON"),
    (b"[]\n", "it is not a JSON object"),
    (b"{}\n", "it is no event of KurrentDB"),
    (json.dumps(_LINE).encode().replace(b"order-1", b"\xff") + b"\n", "it is not UTF-8"),
    ({"entries": []}, "it is a whole page of a feed: jq"),
    ({"stream_id": "s", "event_type": "T", "data": 1}, ".* leave out --from-kurrent"),
    (_LINE | {"extra": 1}, "'extra' is unknown"),
    (_LINE | {"id": "7"}, "id '7' is not a UUID"),
    (_LINE | {"id": 7}, "id is not a string"),
    (_LINE | {"stream_position": -1}, "stream_position '-1' is not a number"),
    (_LINE | {"stream_position": None}, "stream_position is missing"),
    (_LINE | {"stream_name": None}, "stream_name is missing"),
    (_LINE | {"stream_name": 1}, "stream_name is not a string"),
    (_LINE | {"type": ""}, "event_type is empty: --no-type"),
    (_LINE | {"commit_position": "x"}, "commit_position .* is not a number"),
    (_LINE | {"recorded_at": "2026-01-04 12:00:00"}, "recorded_at .* is not ISO 8601 with an offset"),
    (_LINE | {"recorded_at": "2026-13-04T12:00:00Z", "stream_name": "t"}, ".*created_at.*2026-13-04"),
    (_LINE | {"data": "b'{}'"}, r"data is what Python shows of bytes: write them as text, with decode\(\)"),
    ({name: value for name, value in _LINE.items() if name != "data"}, "data is missing"),
    ({name: value for name, value in _ENTRY.items() if name != "data"}, "it has no data: .* embed=body"),
    (_ENTRY | {"eventNumber": 1.5}, "eventNumber '1.5' is not a number"),
    (_ENTRY | {"updated": "yesterday"}, "updated 'yesterday' is not ISO 8601"),
]


async def test_a_bad_line_is_named_with_the_reason(store18: EventStore) -> None:
    for line, reason in BAD_LINES:
        with pytest.raises(ImportFailed, match=rf"line 3: {reason}") as failed:
            await taken(store18, _LINE, _LINE | {"type": "$metadata"}, line)
        assert "\n" not in str(failed.value), reason
        assert await stored(store18) == [], reason


async def test_lines_are_counted_where_some_are_left_out(store18: EventStore) -> None:
    system = _LINE | {"type": "$metadata"}
    with pytest.raises(ImportFailed, match="line 6: id 'x' is not a UUID; 1 event was stored before"):
        await taken(store18, system, system, _LINE, system, system, _LINE | {"id": "x"}, bounds=ChunkBounds(lines=2))


async def test_numbers_of_a_log_are_not_kept(store18: EventStore) -> None:
    for option in ("faithful", "keep_global_seq"):
        with pytest.raises(ValueError, match="cannot be kept"):
            await taken(store18, _LINE, **{option: True})


async def test_without_the_option_the_error_names_it(store18: EventStore) -> None:
    for line in (_LINE, _ENTRY):
        with pytest.raises(ImportFailed, match=r"line 1: .* is unknown: --from-kurrent takes events of KurrentDB"):
            await store18.import_ndjson([json.dumps(line).encode()])
