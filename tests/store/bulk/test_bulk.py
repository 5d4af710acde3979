"""Bulk export and import: nothing is lost on the way, nothing comes twice, and nothing wrong gets in."""

from __future__ import annotations

import asyncio
import json
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esx import EventStore, JsonText, NewEvent, StoreUnavailable
from esx.errors import InvalidQuery
from esx.filters import Filter
from esx.store.bulk.chunks import ChunkBounds, chunks
from esx.store.bulk.import_ import Imported, ImportFailed
from esx.store.bulk.jsontext import split_members
from tests.support.proxy import proxied
from tests.support.rounds import rounds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ID = "3f0b1c9e-52a7-4c39-a6f3-0e5f4a0f9c11"
EMPTY = "TRUNCATE events RESTART IDENTITY"
ROWS = (
    "SELECT stream_id, stream_seq, event_type, data::text, metadata::text, created_at::text, event_id::text "
    "FROM events ORDER BY global_seq"
)


def line(stream: str, seq: int | None = None, **fields: Any) -> bytes:
    """Return one line to import, written as nobody's export would."""
    event: dict[str, Any] = {"stream_id": stream, "event_type": "T", "data": {"n": seq}}
    if seq is not None:
        event["stream_seq"] = seq
    return json.dumps(event | fields, separators=(",", ":")).encode() + b"\n"


async def exported(store: EventStore, **options: Any) -> bytes:
    return b"".join([piece async for piece in await store.export(**options)])


async def rows(sql: asyncpg.Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await sql.fetch(ROWS)]


NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(0, 10**40).map(lambda n: f"{n}.{n:040}"),
    st.sampled_from(["1.10", "-0.0", "1e400", "1E-300", "12345678901234567890123", "9" * 5000, "0.000000000000000001"]),
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["\u2028\u2029", '", "metadata": ', '"}', "\\", "\\\\n", "\t\r\n", "\x7f\x1b[31m", "\U0001f600", "\\u0041"]
)
PAYLOADS = st.recursive(
    NUMBERS | TEXTS.map(json.dumps) | TEXTS.map(lambda text: json.dumps(text, ensure_ascii=False))
    | st.sampled_from(["null", "true", "{}", "[]"]),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: f"[{', '.join(parts)}]")
    | st.lists(st.tuples(TEXTS | st.sampled_from(["metadata", "data"]), inner), max_size=4).map(
        # Names may repeat: the last one wins, in jsonb.
        lambda pairs: "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in pairs) + "}"
    ),
    max_leaves=12,
)  # fmt: skip
NAMES = TEXTS.filter(lambda text: text != "" and not text.startswith("$"))


@pytest.mark.slow
@settings(max_examples=rounds(15, 40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, NAMES, PAYLOADS, st.none() | PAYLOADS), min_size=1, max_size=6))
async def test_a_round_trip_keeps_everything(
    store18: EventStore, sql18: asyncpg.Connection, events: list[tuple[str, str, str, str | None]]
) -> None:
    await sql18.execute(EMPTY)
    for stream, event_type, data, metadata in events:
        kept = None if metadata is None or metadata == "null" else JsonText(metadata)
        await store18.append(stream, [NewEvent(event_type, JsonText(data), kept)])
    before = await rows(sql18)
    text = await exported(store18)
    assert text.decode() == "".join([f"{event.to_json()}\n" async for event in store18.read_all()])
    await sql18.execute(EMPTY)
    assert await store18.import_ndjson([text]) == Imported(len(events), 0, len(text))
    assert await rows(sql18) == before
    assert await exported(store18) == text
    # Written in any other way, a line says the same: here it goes member by member.
    await sql18.execute(EMPTY)
    respaced = [b" " + b"".join((b'{"data" :', member["data"], b',\t"metadata": ', member["metadata"], b"".join(
        b', "%b":%b' % (name.encode(), member[name]) for name in member if name not in ("data", "metadata")), b"}\r\n"))
        for member in map(split_members, text.removesuffix(b"\n").split(b"\n"))]  # fmt: skip
    assert (await store18.import_ndjson(respaced)).stored == len(events)
    assert await rows(sql18) == before


WITHOUT_METADATA = (
    '{{"global_seq": {n}, "stream_id": "s", "stream_seq": {seq}, "event_type": "T", "data": {data}, '
    '"created_at": "2026-01-01T00:00:00.000000Z", "event_id": "3f0b1c9e-52a7-4c39-a6f3-{n:012}"}}\n'
)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_member_metadata_of_the_data_is_not_taken_for_the_events(
    store18: EventStore, sql18: asyncpg.Connection, keep: bool
) -> None:
    datas = ['{"a": 0}', '{"x": 1, "metadata": 2}', '[{"y": 1, "metadata": {}}]', '{"metadata": 3}']
    text = "".join(WITHOUT_METADATA.format(n=n + 5, seq=n, data=data) for n, data in enumerate(datas))
    assert await store18.import_ndjson([text.encode()], keep_global_seq=keep) == Imported(4, 0, len(text))
    stored = [event async for event in store18.read("s")]
    assert [event.data_json for event in stored] == datas
    assert {event.metadata_json for event in stored} == {None}
    if keep:
        assert [event.global_seq for event in stored] == [5, 6, 7, 8]
    # What is wrong even when taken apart exactly is told as before.
    for data, told in (('{"x": 1, "metadata": 2}}', "the end of the line"),
                       ('{"x": 1, "metadata": NaN}', 'data: .*Token "NaN"')):  # fmt: skip
        bad = text + WITHOUT_METADATA.format(n=9, seq=4, data='{"x": 2, "metadata": 3}')
        bad += WITHOUT_METADATA.format(n=10, seq=5, data=data)
        with pytest.raises(ImportFailed, match=f"line 6: .*{told}"):
            await store18.import_ndjson([bad.encode()], keep_global_seq=keep)


async def test_an_export_whose_data_has_a_member_metadata_is_cut_right_at_once(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    datas = [{"a": 1}, {"x": 1, "metadata": 2}, {"x": 1, "metadata": {"x": 2, "metadata": 3}}]
    await store18.append("s", [NewEvent("T", data, {"m": 1, "metadata": None}) for data in datas])
    before, text = await rows(sql18), await exported(store18)
    await sql18.execute(EMPTY)
    await store18.import_ndjson([text])
    assert await rows(sql18) == before
    # An attempt that PostgreSQL refused would have burned numbers.
    assert await sql18.fetchval("SELECT array_agg(global_seq ORDER BY 1) FROM events") == [1, 2, 3]


async def test_order_and_places_survive_with_new_or_kept_numbers(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    for n in range(6):
        await store18.append(f"s{n % 2}", [NewEvent("T", {"n": n})])
        await sql18.execute("SELECT nextval('events_global_seq_seq')")  # a number that nobody has
    text = await exported(store18)
    numbers = [json.loads(one)["global_seq"] for one in text.splitlines()]
    before = await rows(sql18)
    await sql18.execute(EMPTY)
    await store18.import_ndjson([text])
    assert await rows(sql18) == before
    assert await sql18.fetchval("SELECT array_agg(global_seq ORDER BY 1) FROM events") == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ImportFailed, match=r"line 2: .*already, but as global_seq 2, not 3"):
        await store18.import_ndjson([text], keep_global_seq=True)
    await sql18.execute(EMPTY)
    await store18.import_ndjson([text], keep_global_seq=True)
    assert await exported(store18) == text
    assert (await store18.append("s0", [NewEvent("T")])).global_seq == numbers[-1] + 1
    assert (await store18.import_ndjson([text], keep_global_seq=True)).skipped == 6
    with pytest.raises(ImportFailed, match="global_seq 12 cannot be kept: the store's sequence is at 12 already"):
        await store18.import_ndjson([line("new", 0, global_seq=12)], keep_global_seq=True)
    with pytest.raises(ImportFailed, match="line 2: global_seq 20 does not ascend"):
        await store18.import_ndjson([line("a", 0, global_seq=20) + line("a", 1, global_seq=20)], keep_global_seq=True)
    with pytest.raises(ImportFailed, match="global_seq is missing"):
        await store18.import_ndjson([line("a", 0)], keep_global_seq=True)


async def test_no_number_is_kept_that_readers_may_have_passed(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await store18.append("s", [NewEvent("T") for _ in range(5)])
    await sql18.execute("DELETE FROM events WHERE global_seq > 3")
    await sql18.execute("SELECT nextval('events_global_seq_seq')")
    for number in (4, 6):
        with pytest.raises(ImportFailed, match=f"global_seq {number} cannot be kept: the store's sequence is at 6"):
            await store18.import_ndjson([line("new", 0, global_seq=number)], keep_global_seq=True)
    assert (await store18.import_ndjson([line("new", 0, global_seq=7)], keep_global_seq=True)).stored == 1


async def test_kept_numbers_wait_for_the_writers_that_have_drawn_some(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    writer = sql18.transaction()
    await writer.start()
    await sql18.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}')")
    importing = asyncio.create_task(
        store18.import_ndjson([line("new", 0, global_seq=1), line("new", 1, global_seq=2)], keep_global_seq=True)
    )
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted"
    async with asyncio.timeout(120):
        while not await sql18.fetchval(waits):
            assert not importing.done()
            await asyncio.sleep(0.01)
    await writer.commit()
    with pytest.raises(ImportFailed, match="line 1: global_seq 1 cannot be kept"):
        await importing


async def test_times_that_python_does_not_know_survive(store18: EventStore, sql18: asyncpg.Connection) -> None:
    for n, moment in enumerate(["infinity", "-infinity", "0044-03-15 12:00:00Z BC", "12026-01-01T00:00:00.5Z"]):
        await sql18.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data, created_at) "
            "VALUES ('s', $1, 'T', '{}', $2::text::timestamptz)", n, moment,
        )  # fmt: skip
    before = await rows(sql18)
    text = await exported(store18)
    await sql18.execute(EMPTY)
    await store18.import_ndjson([text])
    assert await rows(sql18) == before


async def test_early_times_survive_in_whatever_zone_the_server_is(dsn18: str, sql18: asyncpg.Connection) -> None:
    name = await sql18.fetchval("SELECT current_database()")
    await sql18.execute(f"ALTER DATABASE {name} SET TimeZone = 'America/New_York'")
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data, created_at) "
        "VALUES ('s', 0, 'T', '{}', '0044-03-15 12:00:00Z BC')"
    )
    before = await rows(sql18)
    async with EventStore.connect(dsn18) as store:
        text = await exported(store)
        await sql18.execute(EMPTY)
        await store.import_ndjson([text])
    assert await rows(sql18) == before


async def test_an_export_is_in_global_order_however_the_rows_lie(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await sql18.execute(
        "INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data) "
        "SELECT n, 's-' || n, 0, 'T', '{}' FROM generate_series(50, 1, -1) n"
    )
    text = await exported(store18)
    assert [json.loads(one)["global_seq"] for one in text.splitlines()] == list(range(1, 51))


MIXED = """
    INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data, metadata, created_at)
    SELECT n, chr(34) || 's ' || n % 7, n / 7, E'T\\\\é', jsonb_build_object('n', n, 'text', repeat('x', length)),
           CASE WHEN n % 3 = 0 THEN jsonb_build_object('note', repeat('y', length % 90)) END,
           CASE WHEN n = 40 THEN 'infinity' WHEN n = 41 THEN '0044-03-15 12:00:00Z BC'
                ELSE '2026-08-07 14:00:00.5Z'::timestamptz + n * interval '1 us' END
    FROM (SELECT n, CASE WHEN n = ANY($1) THEN 60000 ELSE n % 11 END AS length
          FROM generate_series(1, 9000) n) numbered
    WHERE n % 50 > 3
"""


@pytest.mark.parametrize("large", [[], [1], [5604], [8990], [*range(3000, 5400, 4), 7000]], ids=len)
async def test_lines_are_the_same_whether_they_are_read_by_pages_or_copied(
    store18: EventStore, sql18: asyncpg.Connection, large: list[int]
) -> None:
    await sql18.execute(MIXED, [n + 4 for n in large])
    lines = [event.to_json() async for event in store18.read_all()]
    pieces = [piece async for piece in await store18.export()]
    assert b"".join(pieces).decode().splitlines() == lines
    assert all(piece.endswith(b"\n") and len(piece) < 400_000 for piece in pieces)
    assert (await exported(store18, after=7_003)).decode().splitlines() == [
        line for line in lines if json.loads(line)["global_seq"] > 7_003
    ]


async def test_a_column_that_is_not_as_esx_makes_it_is_exported_all_the_same(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await store18.append("s", [NewEvent("T", {"n": 1}, {"user": "ann"})])
    await sql18.execute(
        "ALTER TABLE events ALTER data TYPE json USING E'{\\n  \"n\":\\t1 }', ALTER event_type DROP NOT NULL"
    )
    await sql18.execute("INSERT INTO events (stream_id, stream_seq, data) VALUES ('s', 1, '{\n}')")
    read = [json.loads(one) for one in (await exported(store18)).splitlines()]
    assert [(one["event_type"], one["data"]) for one in read] == [("T", {"n": 1}), (None, {})]


async def test_what_is_missing_in_a_table_that_others_made_leaves_no_hole_in_an_export(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await connection.execute(
        "CREATE TABLE events (global_seq BIGSERIAL PRIMARY KEY, stream_id TEXT, stream_seq INT, event_type TEXT, "
        "data JSONB, metadata JSONB, created_at TIMESTAMPTZ, UNIQUE (stream_id, stream_seq));"
        "INSERT INTO events (stream_id, stream_seq) VALUES ('s', 0), (NULL, NULL)"
    )
    await connection.close()
    nothing = dict.fromkeys(("event_type", "data", "metadata", "created_at", "event_id"))
    async with EventStore.connect(empty_dsn18) as store:
        assert [json.loads(one) for one in (await exported(store)).splitlines()] == [
            {"global_seq": 1, "stream_id": "s", "stream_seq": 0, **nothing},
            {"global_seq": 2, "stream_id": None, "stream_seq": None, **nothing},
        ]


async def test_what_a_line_leaves_out_is_filled_in_the_same_every_time(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    text = line("a") + b"\n" + line("b", metadata=None, created_at=None) + line("a", created_at="2026-01-01T01:00+01")
    with pytest.raises(ImportFailed, match=r"line 4: created_at .* is not ISO 8601"):
        await store18.import_ndjson([text])
    text = text.replace(b"01:00+01", b"01:00:00+01")
    done = await store18.import_ndjson([b"\xef\xbb\xbf" + text])
    assert done[:3] == (3, 0, len(text))
    assert done.changes.counted() == {"ids_made": 3, "times_made": 2}
    first, second, third = [event async for event in store18.read_all()]
    assert [(event.stream_id, event.stream_seq) for event in (first, second, third)] == [("a", 0), ("b", 0), ("a", 1)]
    assert third.to_json().split('"created_at": ')[1].startswith('"2026-01-01T00:00:00.000000Z"')
    assert first.created_at == second.created_at
    assert first.created_at is not None
    assert third.created_at is not None
    assert first.created_at > third.created_at
    assert first.metadata_json is None
    assert len({first.event_id, second.event_id, third.event_id}) == 3
    assert (await store18.import_ndjson([text])).skipped == 3
    with pytest.raises(ImportFailed, match="line 1: place 0 of stream a is taken by another event"):
        await store18.import_ndjson([line("a", data=2)])
    for mixed, told in ((line("x") + line("x", 1), "the first line has none"),
                        (line("x", 0) + line("x"), "the first line has one")):  # fmt: skip
        with pytest.raises(ImportFailed, match=f"line 2: .*{told}"):
            await store18.import_ndjson([mixed])


async def test_an_import_goes_on_in_a_store_that_has_events(store: EventStore, sql: asyncpg.Connection) -> None:
    await store.append("other", [NewEvent("T")])
    await store.append("s", [NewEvent("T", {"n": n}) for n in range(3)])
    text = await exported(store, where=Filter(stream="s"))
    *_, last = text.splitlines()
    more = last.replace(b'"stream_seq": 2', b'"stream_seq": 3').replace(last[-38:-2], ID.encode()) + b"\n"
    # Lines may overlap, here and with what is stored.
    assert await store.import_ndjson([text, more, text, more]) == Imported(1, 7, 2 * len(text + more))
    assert [event.stream_seq async for event in store.read("s")] == [0, 1, 2, 3]
    # A place that was emptied is filled again, in the order of the lines.
    await sql.execute("DELETE FROM events WHERE stream_id = 's' AND stream_seq = 1")
    assert (await store.import_ndjson([line("x", 0), text, line("y", 0)])).stored == 3
    assert [event.stream_seq async for event in store.read("s")] == [0, 1, 2, 3]
    newest = [(event.stream_id, event.stream_seq) async for event in store.read_all()][-3:]
    assert newest == [("x", 0), ("s", 1), ("y", 0)]


async def test_a_place_taken_and_a_hole_are_errors_that_name_the_line(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T") for _ in range(3)])
    theirs = (await store18.read_page("s"))[1].event_id
    for text, told in (
        (
            line("new", 0) + line("s", 1, event_id=ID),
            f"line 2: place 1 of stream s is taken by another event, {theirs}",
        ),
        (line("s", 4), "line 1: stream s ends at 2, so its next stream_seq is 3, not 4"),
        (line("s", 3) + line("s", 5), "line 2: stream s ends at 3, so its next stream_seq is 4, not 5"),
        (line("new", 1), "line 1: stream new has no events, so its next stream_seq is 0, not 1"),
        (line("new", 0) + line("new", 0, data=7), "line 2: place 0 of stream new is taken by another event"),
    ):
        with pytest.raises(ImportFailed) as caught:
            await store18.import_ndjson([text])
        assert told in str(caught.value)
        assert "nothing was stored" in str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert await store18.head() == 3


BAD_LINES = [
    (b"nonsense", "not a JSON object"),
    (b"[]", "not a JSON object"),
    (line("s", 1)[:-9], "cut short"),
    (line("s", 1)[:20], "cut short"),
    (b'{"stream_id": "s" x "data": 1}', "a comma or a closing brace is expected at byte 19"),
    (b'{"stream_id": "s",}', "a name in double quotes"),
    (b'{"data": }', "a value is expected at byte 10"),
    (line("s", 1)[:-1] + b"{}", "the end of the line is expected"),
    (line("s", 1, extra=1), "'extra' is unknown: use global_seq, stream_id"),
    (b'{"data": 1, "data": 2}', "'data' is there twice"),
    (b'{"stream_id": "s", "data": 1}', "event_type is missing"),
    (line("s", 1, event_type=7), "event_type is not a string"),
    (line("", 1), "stream_id is empty"),
    (line("$all", 1), "starts with $"),
    (line("s\0", 1), "\\u0000"),
    (line("\ud800", 1), "surrogate"),
    (line("s", -1), "stream_seq '-1' is not a number"),
    (line("s", 1, stream_seq=2**63), "is not a number from 0"),
    (line("s", 1, stream_seq=1.0), "'1.0' is not a number"),
    (line("s", 1, event_id="7"), "event_id '7' is not a UUID"),
    (line("s", 1, created_at="yesterday"), "created_at 'yesterday' is not ISO 8601"),
    (line("s", 1, created_at="2026-02-30T00:00:00Z"), "created_at: "),
    (line("s", 1, data="\0"), "data: unsupported Unicode escape sequence"),
    (line("s", 1, data="\ud800"), "data: invalid input syntax for type json"),
    (line("s", 1).replace(b'{"n":1}', b"NaN"), 'data: invalid input syntax for type json (Token "NaN" is invalid)'),
    (line("s", 1).replace(b'{"n":1}', b"1e200000"), "data: "),
    (line("s", 1).replace(b'{"n":1}', b"[" * 20_000 + b"]" * 20_000), "data: stack depth limit exceeded"),
    (line("s", 1, metadata=1).replace(b'a":1', b'a":{]}'), "the end of the line is expected"),
    (line("s", 1, data="x").replace(b'"x"', b'"\xff"'), "invalid byte sequence"),
    (line("s", 1).replace(b'"s"', b'"\xff"'), "UTF-8"),
]  # fmt: skip


async def test_a_bad_line_is_named_and_nothing_of_its_chunk_is_stored(store18: EventStore) -> None:
    for bad, told in BAD_LINES:
        with pytest.raises(ImportFailed) as caught:
            await store18.import_ndjson([line("s", 0) + b"\n" + bad.rstrip(b"\n") + b"\n" + line("s", 2)])
        assert (caught.value.line, told in caught.value.reason) == (3, True), (bad[:80], told, caught.value.reason)
        assert len(str(caught.value).splitlines()) == 1, told
        assert await store18.head() == 0, told


async def test_without_other_bounds_chunks_have_ten_thousand_lines_or_eight_megabytes() -> None:
    async def lengths(pieces: list[bytes]) -> list[int]:
        return [len(lines) async for lines in chunks(pieces, ChunkBounds())]

    assert await lengths([b"{}\n" * 23_000]) == [10_000, 10_000, 3_000]
    assert await lengths([(b"x" * 2**10 + b"\n") * 2**11] * 9) == [2**13, 2**13, 2**11]


@pytest.mark.slow
async def test_chunks_before_a_bad_line_stay_and_the_import_goes_on_once_it_is_mended(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    lines = [line(f"s{n % 7}", n // 7, event_id=str(ID[:-5]) + f"{n:05}") for n in range(4_600)]
    bounds = ChunkBounds(lines=2_000)
    with pytest.raises(ImportFailed) as caught:
        await store18.import_ndjson([*lines[:4_400], b"{\n", *lines[4_401:]], bounds=bounds)
    assert (caught.value.line, caught.value.done.stored) == (4_401, 4_000)
    assert "4,000 events were stored before: run the same import again" in str(caught.value)
    assert await store18.head() == 4_000
    text = b"".join(lines)
    # Cut into pieces without regard to lines.
    done = await store18.import_ndjson((text[at : at + 9_991] for at in range(0, len(text), 9_991)), bounds=bounds)
    assert done[:3] == (600, 4_000, len(text))
    stored = [(row[0], row[1]) for row in await rows(sql18)]
    assert stored == [(f"s{n % 7}", n // 7) for n in range(4_600)]


@pytest.mark.slow
async def test_writers_of_the_same_streams_do_not_spoil_an_import(store18: EventStore) -> None:
    """Two imports of one file and appends besides: everything once, in order."""
    lines = [line(f"s{n % 3}", n // 3, event_id=str(ID[:-5]) + f"{n:05}") for n in range(3_000)]
    bounds = ChunkBounds(lines=750)

    async def append() -> None:
        for _ in range(50):
            await store18.append("other", [NewEvent("T")])

    one, other, _ = await asyncio.gather(
        store18.import_ndjson([b"".join(lines)], bounds=bounds), store18.import_ndjson(lines, bounds=bounds), append()
    )
    assert one.stored + other.stored == 3_000
    for n in range(3):
        assert [event.stream_seq async for event in store18.read(f"s{n}")] == list(range(1000))


@pytest.mark.slow
async def test_a_stream_that_moved_between_two_chunks_is_looked_up_anew(store18: EventStore) -> None:
    stored = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield line("s", 0, data="x" * 9_000_000)  # fills a chunk
        await stored.wait()
        await store18.append("s", [NewEvent("Other")], expected=0)
        yield line("s", 2)

    async with asyncio.timeout(120):
        done = await store18.import_ndjson(pieces(), on_progress=lambda _: stored.set())
    assert done.stored == 2
    assert [event.event_type async for event in store18.read("s")] == ["T", "Other", "T"]


@pytest.mark.slow
async def test_an_import_that_keeps_numbers_goes_on_after_a_lost_commit(dsn18: str, store18: EventStore) -> None:
    """What a sequence has handed out is not undone with a transaction, so it must not count as handed out."""
    lines = [line("s", 0, data="x" * 9_000_000, global_seq=10), line("s", 1, global_seq=11)]  # the first fills a chunk
    with tempfile.TemporaryDirectory() as directory:
        async with proxied(dsn18, Path(directory)) as (proxy, address), EventStore.connect(address) as store:
            proxy.about = b"COMMIT"

            def lose_the_next_commit(_: Imported) -> None:
                proxy.cut = "before the request"

            with pytest.raises(StoreUnavailable):
                await store.import_ndjson(lines, keep_global_seq=True, on_progress=lose_the_next_commit)
            assert proxy.losses == 1
    done = await store18.import_ndjson(lines, keep_global_seq=True)
    assert (done.stored, done.skipped) == (1, 1)
    assert (await store18.append("t", [NewEvent("T")])).global_seq == 12


@pytest.mark.slow
async def test_a_deadlock_with_another_writer_is_a_lost_race(store18: EventStore, sql18: asyncpg.Connection) -> None:
    insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, 0, 'T', '{}')"
    await sql18.execute("SET deadlock_timeout = '1min'")  # so that the import is the one to be ended
    writer = sql18.transaction()
    await writer.start()
    await sql18.execute(insert, "b")
    importing = asyncio.create_task(store18.import_ndjson([line("a", 0), line("b", 0)]))
    async with asyncio.timeout(120):
        while not await sql18.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        await sql18.execute(insert, "a")
        await writer.rollback()
        assert (await importing).stored == 2


async def test_a_byte_order_mark_may_be_cut(store18: EventStore) -> None:
    text = b"\xef\xbb\xbf" + line("s", 0) + line("s", 1)
    assert (await store18.import_ndjson(text[at : at + 1] for at in range(len(text)))).stored == 2
    alone = b"\xef\xbb\xbf" + line("t", 0).rstrip()
    assert (await store18.import_ndjson([alone[:2], b"", alone[2:]])).stored == 1


async def test_a_slice_with_holes_can_be_renumbered(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("AB"[n % 2], {"n": n}) for n in range(6)])
    text = await exported(store18, where=Filter(event_type="B"))
    renamed = text.replace(b'"stream_id": "s"', b'"stream_id": "slice"')
    with pytest.raises(ImportFailed, match="its next stream_seq is 0, not 1"):
        await store18.import_ndjson([renamed])
    assert (await store18.import_ndjson([renamed], renumber=True)).stored == 3
    assert [(event.stream_seq, event.data["n"]) async for event in store18.read("slice")] == [(0, 1), (1, 3), (2, 5)]
    assert (await store18.import_ndjson([renamed], renumber=True)).skipped == 3


async def test_filters_choose_what_the_feed_would(store18: EventStore) -> None:
    for n in range(30):
        stream = ("account-1", "account-22", "order")[n % 3]
        await store18.append(stream, [NewEvent("ABC"[n % 3], {"n": n}, {"user": "ab"[n % 2]})])
    for where in (
        Filter(stream="account-*"),
        Filter(event_type="[AB]"),
        Filter(where="$.n > 10"),
        Filter(where='$metadata.user == "a"'),
        Filter("account-?", "A", "$.n ? (@ > 3)"),
        Filter(stream="none"),
    ):
        for after in (0, 17):
            feed = await store18.feed(after=after, where=where)
            wanted = [event.to_json() async for batch in feed.to_safe_position() for event in batch.events]
            assert (await exported(store18, after=after, where=where)).decode().splitlines() == wanted, (where, after)


async def test_a_filter_that_makes_no_sense_is_refused(store18: EventStore) -> None:
    for where in (Filter(where="$.("), Filter(stream="[")):
        with pytest.raises(InvalidQuery):
            await exported(store18, where=where)


async def test_an_export_ends_before_a_gap_that_may_be_filled(
    store: EventStore, dsn: str, sql: asyncpg.Connection
) -> None:
    insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, 0, 'T', '{}')"
    await sql.execute(insert, "before")
    other = await asyncpg.connect(dsn)
    writer = other.transaction()
    await writer.start()
    await other.execute(insert, "held")
    await sql.execute(insert, "after")
    export = await store.export(patience=0.01)
    assert export.gap is not None
    assert (export.until, export.gap.first, export.gap.last) == (1, 2, 2)
    assert [held.pid for held in export.gap.writers] == [other.get_server_pid()]
    assert [json.loads(one)["stream_id"] for one in b"".join([piece async for piece in export]).splitlines()] == [
        "before"
    ]
    assert (await store.export(after=1, patience=0.01)).until == 1
    # Nothing is missing above 2, so that writer holds back nothing there.
    assert (await store.export(after=2, patience=0.01)).until == 3
    waiting = asyncio.create_task(exported(store, patience=60))
    await writer.commit()
    assert [json.loads(one)["stream_id"] for one in (await waiting).splitlines()] == ["before", "held", "after"]
    await other.close()


@pytest.mark.slow
async def test_whoever_stops_reading_an_export_gets_the_connection_back(dsn18: str) -> None:
    async with EventStore.connect(dsn18, max_connections=1) as store:
        await store.append("s", [NewEvent("T", {"x": "y" * 1000}) for _ in range(5000)])
        pieces = aiter(await store.export())
        assert (await anext(pieces)).endswith(b"}\n")
        await pieces.aclose()  # type: ignore[attr-defined]
        assert await store.version("s") == 4999
        export = await store.export()
        assert sum([piece.count(b"\n") async for piece in export]) == export.events == 5000
        assert export.position == export.until == 5000


async def test_one_store_streams_into_another(store18: EventStore, sql18: asyncpg.Connection, dsn18: str) -> None:
    await store18.append("s", [NewEvent("T", {"n": n}) for n in range(3000)])
    export = await store18.export()
    done = await store18.import_ndjson(export)
    assert done.skipped == export.events == 3000


@pytest.mark.slow
async def test_20_mb_in_one_event(store18: EventStore, sql18: asyncpg.Connection) -> None:
    """Appended, read, fed, exported and imported, and the same after each."""
    data = JsonText('{"x": "' + 'é\\"' * 1000 + "x" * 20_000_000 + '"}')
    await store18.append("s", [NewEvent("Large", data)])
    before = await sql18.fetchval("SELECT md5(data::text) FROM events")
    assert len(data.encode()) > 20_000_000
    [read] = await store18.read_page("s")
    assert read.data_json == data
    feed = await store18.feed()
    assert [event.data_json == data async for batch in feed.to_safe_position() for event in batch.events] == [True]
    pieces = [piece async for piece in await store18.export()]
    await sql18.execute(EMPTY)
    assert sum(map(len, pieces)) > 20_000_000
    await store18.import_ndjson(pieces)
    assert await sql18.fetchval("SELECT md5(data::text) FROM events") == before
