"""A faithful import: an empty store becomes the one that was exported, and goes on like it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import ANY, NO_STREAM, STREAM_EXISTS, EventStore, NewEvent, StoreFailed, Strategy, StreamAppend, WrongVersion
from esx.doctor import Severity
from esx.store.bulk.chunks import ChunkBounds
from esx.store.bulk.faithful import StoreNotEmpty
from esx.store.bulk.import_ import Imported, ImportFailed
from esx.store.bulk.numbers import SequenceNumbers
from tests.store.bulk.test_bulk import EMPTY, ID, exported, line
from tests.support.connections import connected
from tests.support.proxy import proxied

if TYPE_CHECKING:
    from esx.embedded import EmbeddedServer

INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data, metadata, created_at) VALUES ($1, $2, $3, "
ODD = (
    ("a", 0, "T", '{"n": 1.10, "big": 12345678901234567890123, "small": 1e-300}', None, "2026-01-01 00:00:00.000001Z"),
    ("five", 5, "T", '"\\u2028 \\\\ \\""', '{"metadata": 1, "data": null}', "infinity"),
    ("five", 6, "T", "null", "[]", "-infinity"),
    ("five", 9, "T", "[1, 2, 3]", '"x"', "0044-03-15 12:00:00Z BC"),
    ("below", -7, "T", "{}", None, "12026-01-01T00:00:00.5Z"),
    ("below", -5, "T", "{}", None, "2026-01-01Z"),
    ("full", 2**63 - 1, "T", "{}", None, "2026-01-01Z"),
    ("lowest", -(2**63), "T", "{}", None, "2026-01-01Z"),
    ("$odd", 0, "", '{"x": ', None, "2026-01-01Z"),
    ("", 3, "", "{}", None, "2026-01-01Z"),
    ("é\U0001f600\t\n", 0, "T\t", "{}", None, "1970-01-01Z"),
)


async def fill(sql: asyncpg.Connection) -> None:
    """Make a store as it may have become: gaps, deleted events, streams that do not start at 0, odd values."""
    for stream, seq, event_type, data, metadata, at in ODD:
        text = data if data != '{"x": ' else '{"x": ", \\"metadata\\": 2"}'
        await sql.execute(
            INSERT + "$4::text::jsonb, $5::text::jsonb, $6::text::timestamptz)",
            stream,
            seq,
            event_type,
            text,
            metadata,
            at,
        )
        await sql.execute("SELECT nextval('events_global_seq_seq')")
    await sql.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) SELECT 'long', n, 'T', '{}' "
        "FROM generate_series(0, 99) n"
    )
    await sql.execute("DELETE FROM events WHERE stream_id = 'long' AND stream_seq % 3 = 0")
    await sql.execute("SELECT setval('events_global_seq_seq', 5000000000000)")
    await sql.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('far', 3, 'T', '{}')")


ROWS = (
    "SELECT global_seq, stream_id, stream_seq, event_type, data::text, metadata::text, created_at::text, "
    "event_id::text FROM events ORDER BY global_seq"
)


SEVEN, TEN = ChunkBounds(lines=7), ChunkBounds(lines=10)


async def faults(store: EventStore) -> set[tuple[str, str]]:
    """Return which checks of the doctor find something, having looked at every event."""
    return {
        (finding.check, finding.message)
        for finding in await store.doctor(full=True)
        if finding.severity is not Severity.OK
    }


@pytest.mark.slow
async def test_a_store_comes_back_as_it_was(store: EventStore, sql: asyncpg.Connection, server: EmbeddedServer) -> None:
    await fill(sql)
    before, text = await sql.fetch(ROWS), await exported(store)
    found = await faults(store)
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"CREATE DATABASE copy_of_{name} TEMPLATE esx_template")
    try:
        async with EventStore.connect(server.dsn_for(f"copy_of_{name}")) as copy:
            assert await copy.import_ndjson([text], faithful=True, bounds=SEVEN) == Imported(len(before), 0, len(text))
            assert await exported(copy) == text
            async with connected(server.dsn_for(f"copy_of_{name}")) as there:
                assert await there.fetch(ROWS) == before
            assert await faults(copy) <= found
            # Run again, all of it is there.
            assert (await copy.import_ndjson([text], faithful=True, bounds=SEVEN)).skipped == len(before)
            for stream, version in (("a", 1), ("five", 10), ("long", 99), ("far", 4)):
                for one in (store, copy):
                    assert (await one.append(stream, [NewEvent("T")])).version == version
            assert await copy.head() == await store.head() == 5_000_000_000_005
    finally:
        await sql.execute(f"DROP DATABASE copy_of_{name} WITH (FORCE)")


async def test_it_goes_on_where_it_was_cut_short(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    await fill(sql)
    text = await exported(store)
    await sql.execute(EMPTY)
    lines = text.splitlines(keepends=True)
    with pytest.raises(ImportFailed, match="run the same import again"):
        await store.import_ndjson([*lines[:35], b"{\n", *lines[36:]], faithful=True, bounds=TEN)
    assert await sql.fetchval("SELECT count(*) FROM events") == 30
    with tempfile.TemporaryDirectory() as directory:
        async with proxied(dsn, Path(directory)) as (proxy, address), EventStore.connect(address) as through:
            proxy.cut, proxy.about = "before the request", b"COMMIT"
            done: list[Imported] = []
            with pytest.raises(Exception, match="cannot reach"):
                await through.import_ndjson([text], faithful=True, bounds=TEN, on_progress=done.append)
    done = [await store.import_ndjson([text], faithful=True, bounds=TEN)]
    assert (done[0].stored, done[0].skipped) == (len(lines) - 30, 30)
    assert await exported(store) == text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (None, ""),
        ("INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data) VALUES (-4, 'x', 0, 'T', '{}')",
         "holds another event -4, 0 of stream x"),
        ("UPDATE events SET event_id = gen_random_uuid() WHERE global_seq = 2", "another event 2, 1 of stream s"),
        ("UPDATE events SET stream_seq = 7 WHERE global_seq = 2", "another event 2, 7 of stream s"),
        ("UPDATE events SET stream_id = 't' WHERE global_seq = 2", "another event 2, 1 of stream t"),
        ("DELETE FROM events WHERE global_seq = 2", "up to 3, and event 2 is not there"),
        ("DELETE FROM events", "is empty, but its sequence has handed out numbers up to 3"),
        ("TRUNCATE events RESTART IDENTITY; INSERT INTO events (stream_id, stream_seq, event_type, data) "
         "VALUES ('other', 0, 'T', '{}')", "holds another event 1, 0 of stream other"),
        ("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('later', 0, 'T', '{}')",
         "up to 4, and event 4 is not there|holds another event 4, 0 of stream later"),
    ],
)  # fmt: skip
async def test_a_store_that_holds_something_else_is_refused(
    store18: EventStore, sql18: asyncpg.Connection, change: str | None, told: str
) -> None:
    await store18.append("s", [NewEvent("T", {"n": n}) for n in range(5)])
    text = await exported(store18)
    await sql18.execute("DELETE FROM events WHERE global_seq > 3; SELECT setval('events_global_seq_seq', 3)")
    if change is None:
        assert await store18.import_ndjson([text], faithful=True) == Imported(2, 3, len(text))
        return
    await sql18.execute(change)
    before = await sql18.fetch(ROWS)
    with pytest.raises(StoreNotEmpty, match=told) as refused:
        await store18.import_ndjson([text], faithful=True)
    assert len(str(refused.value).splitlines()) == 1
    assert await sql18.fetch(ROWS) == before
    if "TRUNCATE" in str(refused.value):
        remedy = str(refused.value).split("`")[1]
        await sql18.execute(remedy)
        assert (await store18.import_ndjson([text], faithful=True)).stored == 5


@pytest.mark.parametrize("missing", ["global_seq", "stream_seq", "created_at", "event_id"])
async def test_nothing_is_made_up(store18: EventStore, missing: str) -> None:
    whole: dict[str, Any] = {
        "global_seq": 7, "stream_id": "s", "stream_seq": 3, "event_type": "T", "data": {}, "metadata": None,
        "created_at": "2026-01-01T00:00:00Z", "event_id": ID,
    }  # fmt: skip
    for text in ({**whole, missing: None}, {name: whole[name] for name in whole if name != missing}):
        with pytest.raises(ImportFailed, match=f"line 1: {missing} is missing"):
            await store18.import_ndjson([json.dumps(text).encode()], faithful=True)
    twice = {**whole, "global_seq": 8}
    with pytest.raises(ImportFailed, match=r"line 2: duplicate key .*\(stream_id, stream_seq\)=\(s, 3\)"):
        await store18.import_ndjson([json.dumps(whole).encode(), b"\n", json.dumps(twice).encode()], faithful=True)
    with pytest.raises(ValueError, match="cannot renumber"):
        await store18.import_ndjson([], faithful=True, renumber=True)
    assert (await store18.import_ndjson([json.dumps(whole).encode()], faithful=True)).stored == 1


KEPT = 2**63 - 1 - 2**59 + 1
"""The highest global_seq that may be kept: a sixteenth stays free."""


@pytest.mark.parametrize("faithful", [False, True])
async def test_no_number_is_kept_after_which_few_are_left(
    store18: EventStore, sql18: asyncpg.Connection, faithful: bool
) -> None:
    def at(number: int) -> bytes:
        return line("s", 0, global_seq=number, created_at="2026-01-01T00:00:00Z", event_id=ID)

    for number in (2**63 - 2, 2**63 - 3, 2**62 + 2**61 + 2**60 + 2**59 + 1, KEPT + 1):
        with pytest.raises(ImportFailed, match=f"line 1: global_seq {number} is too high.*the highest is {KEPT};"):
            await store18.import_ndjson([at(number)], keep_global_seq=not faithful, faithful=faithful)
    with pytest.raises(ImportFailed, match="is not a number"):
        await store18.import_ndjson([at(2**63 - 1)], keep_global_seq=not faithful, faithful=faithful)
    assert await sql18.fetchval("SELECT is_called FROM events_global_seq_seq") is False
    assert (await store18.import_ndjson([at(KEPT)], keep_global_seq=not faithful, faithful=faithful)).stored == 1
    assert (await store18.append("s", [NewEvent("T")])).global_seq == KEPT + 1


async def test_a_sequence_of_smaller_numbers_leaves_less_room(empty_dsn: str) -> None:
    """It has a name of its own, and does not belong to the column, but goes on behind what is kept all the same."""
    sql = await asyncpg.connect(empty_dsn)
    await sql.execute(
        "CREATE SEQUENCE numbers AS int; CREATE TABLE events (global_seq INT PRIMARY KEY DEFAULT nextval('numbers'), "
        "stream_id TEXT, stream_seq INT, event_type TEXT, data JSONB, metadata JSONB, created_at TIMESTAMPTZ, "
        "event_id UUID, UNIQUE (stream_id, stream_seq))"
    )
    highest = 2**31 - 1 - 2**27 + 1
    async with EventStore.connect(empty_dsn) as store:
        with pytest.raises(ImportFailed, match=f"is too high to be kept.* {highest};"):
            await store.import_ndjson([line("s", 0, global_seq=highest + 1)], keep_global_seq=True)
        await store.import_ndjson([line("s", 0, global_seq=highest)], keep_global_seq=True)
        assert (await store.append("s", [NewEvent("T")])).global_seq == highest + 1
        with pytest.raises(ImportFailed, match=f"sequence is at {highest + 1} already"):
            await store.import_ndjson([line("t", 0, global_seq=highest)], keep_global_seq=True)
        # Used up, it is the store that takes no more, not the event that is wrong.
        await sql.execute("SELECT setval('numbers', 2147483647)")
        locked = StoreFailed, "has handed out its last number"
        for append in (
            store.append("s", [NewEvent("T")]),
            store.append("s", [NewEvent("T"), NewEvent("T")], expected=1),
            store.import_ndjson([line("t", 0)]),
        ):
            with pytest.raises(locked[0], match=locked[1]):
                await append
        await sql.execute("ALTER TABLE events ALTER COLUMN global_seq SET DEFAULT 1")
        with pytest.raises(Exception, match="comes from no sequence"):
            await store.import_ndjson([line("t", 0, global_seq=5)], keep_global_seq=True)
    await sql.close()


async def test_it_is_the_sequence_that_numbers_are_drawn_from_that_goes_on(
    store: EventStore, sql: asyncpg.Connection
) -> None:
    """The column may own another one."""
    await sql.execute("CREATE SEQUENCE other; ALTER TABLE events ALTER COLUMN global_seq SET DEFAULT nextval('other')")
    await store.import_ndjson([line("s", 0, global_seq=5)], keep_global_seq=True)
    assert (await store.append("s", [NewEvent("T")])).global_seq == 6


async def test_numbers_that_are_drawn_by_hand_wait_for_those_that_are_kept(
    dsn: str, store: EventStore, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the sequence would be set back behind them, and hand them out a second time."""
    other = await asyncpg.connect(dsn)
    drawing: list[asyncio.Task[int]] = []
    lock = SequenceNumbers.lock

    async def locking(self: SequenceNumbers, connection: asyncpg.Connection) -> int:
        head = await lock(self, connection)
        drawing.append(asyncio.create_task(other.fetchval("SELECT nextval('events_global_seq_seq')")))
        async with asyncio.timeout(120):
            while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not drawing[0].done()
                await asyncio.sleep(0.01)
        return head

    monkeypatch.setattr(SequenceNumbers, "lock", locking)
    await store.import_ndjson([line("s", 0, global_seq=1)], keep_global_seq=True)
    assert await drawing[0] == 2
    assert (await store.append("s", [NewEvent("T")])).global_seq == 3
    await other.close()


async def test_a_stream_is_left_numbers_to_go_on_with(store18: EventStore, sql18: asyncpg.Connection) -> None:
    last = 2**63 - 1 - 2**59
    await sql18.execute(INSERT + "'{}', NULL, now())", "s", last - 1, "T")
    assert (await store18.import_ndjson([line("s", last)])).stored == 1
    with pytest.raises(ImportFailed, match=f"line 1: stream_seq {last + 1} is too high.*--renumber"):
        await store18.import_ndjson([line("s", last + 1)])


async def test_a_stream_that_is_full_says_so(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute(INSERT + "'{}', NULL, now())", "s", 2**63 - 1, "T")
    await sql18.execute(INSERT + "'{}', NULL, now())", "t", 2**63 - 3, "T")
    one, three = [NewEvent("T")], [NewEvent("T") for _ in range(3)]

    async def under_lock(stream: str, events: list[NewEvent]) -> None:
        async with store18.lock_stream(stream) as locked:
            await locked.append(events)

    for expected in (ANY, STREAM_EXISTS):
        for strategy in Strategy:
            for stream, events in (("s", one), ("s", three), ("t", three)):
                with pytest.raises(StoreFailed, match=f"stream {stream} is full: its version is 92233"):
                    await store18.append(stream, events, expected=expected, strategy=strategy)
    for stream, events in (("s", three), ("t", three)):
        with pytest.raises(StoreFailed, match=f"stream {stream} is full"):
            await store18.append_to_streams([StreamAppend("other", one), StreamAppend(stream, events)])
    with pytest.raises(StoreFailed, match="stream t is full"):
        await store18.append("t", three, expected=2**63 - 3)
    with pytest.raises(StoreFailed, match="stream t is full"):
        await under_lock("t", three)
    for stream in "st":
        with pytest.raises(WrongVersion, match="expected none, but its version is 92233"):
            await store18.append(stream, one, expected=NO_STREAM)
    assert (await store18.append("t", one)).version == 2**63 - 2
    assert (await store18.append("t", one)).version == 2**63 - 1
    assert await sql18.fetchval("SELECT count(*) FROM events") == 4


async def test_of_smaller_numbers_a_stream_is_full_earlier(empty_dsn18: str) -> None:
    sql = await asyncpg.connect(empty_dsn18)
    await sql.execute(
        "CREATE TABLE events (global_seq BIGSERIAL PRIMARY KEY, stream_id TEXT, stream_seq INT, event_type TEXT, "
        "data JSONB, metadata JSONB, created_at TIMESTAMPTZ DEFAULT now(), UNIQUE (stream_id, stream_seq));"
        "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 2147483646, 'T', '{}')"
    )
    async with EventStore.connect(empty_dsn18) as store:
        with pytest.raises(StoreFailed, match=r"stream s is full: its version is 2147483646.* above 2147483647"):
            await store.append("s", [NewEvent("T"), NewEvent("T")])
        assert (await store.append("s", [NewEvent("T")])).version == 2**31 - 1
        with pytest.raises(StoreFailed, match="stream s is full"):
            await store.append("s", [NewEvent("T")])
    await sql.close()


async def test_a_stream_of_numbers_below_0_is_neither_missing_nor_taken_on(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    for highest in (-1, -2, -5, -(2**63)):
        stream = f"s{highest}"
        await sql18.execute(INSERT + "'{}', NULL, now())", stream, highest, "T")
        told = rf"s{highest} has only events .* below 0, the highest {highest}, and esx"
        for strategy in Strategy:
            for events in ([NewEvent("T")], [NewEvent("T"), NewEvent("T")]):
                for any_suits in (ANY, STREAM_EXISTS):
                    with pytest.raises(StoreFailed, match=told):
                        await store18.append(stream, events, expected=any_suits, strategy=strategy)
                for exact in (NO_STREAM, 0):
                    with pytest.raises(WrongVersion, match=f"has events .* below 0, the highest {highest}") as conflict:
                        await store18.append(stream, events, expected=exact, strategy=strategy)
                    assert conflict.value.below
        with pytest.raises(StoreFailed, match="below 0"):
            await store18.append_to_streams([StreamAppend(stream, [NewEvent("T")])])
        with pytest.raises(WrongVersion, match="below 0"):
            async with store18.lock_stream(stream) as locked:
                await locked.append([NewEvent("T")])
        assert await sql18.fetchval("SELECT count(*) FROM events WHERE stream_id = $1", stream) == 1
        # One event from 0 on, and it is a stream like others.
        await sql18.execute(INSERT + "'{}', NULL, now())", stream, 0, "T")
        assert (await store18.append(stream, [NewEvent("T")], expected=0)).version == 1, highest
