"""Reading events and listing streams, page by page."""

from __future__ import annotations

import gc
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from esx import EventStore, NewEvent, StoreUnavailable
from esx.errors import EsxError, InvalidQuery, SchemaMissing
from esx.model import Event, EventPreview
from esx.store.bulk.copy import ImportedEvent, StreamTaken
from esx.store.read.estimates import Estimate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow


async def fill(store: EventStore, streams: dict[str, int]) -> None:
    for stream, count in streams.items():
        await store.append(stream, [NewEvent(f"T{n}", {"n": n}) for n in range(count)])


async def test_large_events_are_read_a_few_at_a_time(store18: EventStore, dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    try:
        # Stored as they are, so that each takes a megabyte in the table as well.
        await connection.execute("ALTER TABLE events ALTER COLUMN data SET STORAGE EXTERNAL")
        await connection.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data) "
            "SELECT 's', n, 'T', jsonb_build_object('n', n, 'text', "
            "    CASE WHEN n >= 20 AND n < 80 THEN repeat('x', 1000000) ELSE '' END) "
            "FROM generate_series(0, 1099) n"
        )
    finally:
        await connection.close()

    most = 0

    async def numbers(events: AsyncIterator[Event]) -> list[int]:
        nonlocal most
        found = []
        async for event in events:
            found.append(event.stream_seq)
            if event.stream_seq % 5 == 0 and len(event.data_json) > 1000:
                most = max(most, sum(len(each.data_json) for each in gc.get_objects() if type(each) is Event))
        return found

    assert await numbers(store18.read("s")) == list(range(1100))
    assert await numbers(store18.read_all()) == list(range(1100))
    assert await numbers(store18.read("s", backwards=True)) == list(range(1099, -1, -1))
    assert await numbers(store18.read_all(backwards=True, limit=1050)) == list(range(1099, 49, -1))
    assert await numbers(store18.read("s", start=30, limit=35)) == list(range(30, 65))
    assert await numbers(store18.read("s", start=79, backwards=True, limit=7)) == list(range(79, 72, -1))
    assert 1_000_000 < most < 12_000_000


async def test_previews_are_the_same_page_without_payloads(store: EventStore) -> None:
    big = {"text": "".join(chr(0x4E00 + n % 5000) for n in range(30_000))}
    await store.append("s", [NewEvent("T", {"n": 1}), NewEvent("U" * 1000, {"x": "y" * 1000}), NewEvent("V", big)])
    await store.append("t", [NewEvent("T")])
    pages: list[tuple[list[EventPreview], list[Event]]] = [
        (await store.preview_all_page(limit=3), await store.read_all_page(limit=3)),
        (
            await store.preview_all_page(position=4, backwards=True),
            await store.read_all_page(position=4, backwards=True),
        ),
        (await store.preview_page("s"), await store.read_page("s")),
        (await store.preview_page("s", start=1, backwards=True), await store.read_page("s", start=1, backwards=True)),
    ]
    for previews, events in pages:
        assert len(previews) == len(events) > 1
        for preview, event in zip(previews, events, strict=True):
            assert preview[:3] == event[:3]
            assert preview.event_type == event.event_type[:401]
            assert preview.created_at == event.created_at
            assert preview.data_start in (None, event.data_json[:401])
    small, cut, large = await store.preview_page("s")
    assert small.data_start == '{"n": 1}'
    assert cut.data_start is not None
    assert len(cut.data_start) == 401
    assert large.data_start is None
    assert large.data_bytes > 8192


async def test_an_event_as_ndjson(store18: EventStore) -> None:
    done = await store18.append("s-1", [NewEvent("T", {"a": 'quote " and \n'}, None)])
    event = await store18.event(done.global_seq)
    assert event is not None
    line = event.to_json()
    assert "\n" not in line
    fields = json.loads(line)
    assert list(fields) == [
        "global_seq", "stream_id", "stream_seq", "event_type", "data", "metadata", "created_at", "event_id",
    ]  # fmt: skip
    assert fields["data"] == {"a": 'quote " and \n'}
    assert fields["created_at"].endswith("Z")
    assert datetime.fromisoformat(fields["created_at"]) == event.created_at
    assert await store18.event(10**12) is None


async def test_streams_by_prefix_glob_and_page(store18: EventStore) -> None:
    names = [f"account-{n:03}" for n in range(450)] + ["accounting-1", "zebra", "ünï-1", "a%_b", "a\\b", "a'b"]
    for name in names:
        await store18.append(name, [NewEvent("T")])
    by_bytes = sorted(names, key=str.encode)

    async def ids(**options: str | int) -> list[str]:
        return [stream.stream_id async for stream in store18.streams(**options)]  # type: ignore[arg-type]

    assert await ids() == by_bytes
    assert await ids(prefix="account-") == names[:450]
    assert await ids(prefix="account-", limit=3) == names[:3]
    assert await ids(match="account-*7") == [name for name in names[:450] if name.endswith("7")]
    assert await ids(match="*-1") == ["accounting-1", "ünï-1"]
    assert await ids(match="a%_b") == ["a%_b"]
    assert await ids(match="a\\\\b") == ["a\\b"]
    assert await ids(match="account-[!0-3]?[02]", limit=3) == ["account-400", "account-402", "account-410"]
    assert await ids(prefix="nothing") == []

    middle = await store18.streams_page(after=None, prefix="account-", limit=10)
    assert middle.next_after is not None
    following = await store18.streams_page(after=middle.next_after, prefix="account-", limit=10)
    assert [stream.stream_id for stream in following.streams] == names[10:20]
    last = await store18.streams_page(prefix="account-", limit=10, backwards=True)
    assert [stream.stream_id for stream in last.streams] == names[449:439:-1]
    back = await store18.streams_page(after=last.next_after, prefix="account-", limit=10, backwards=True)
    assert [stream.stream_id for stream in back.streams] == names[439:429:-1]


async def test_recent_streams_behind_a_hot_one_are_found_in_steps(store18: EventStore) -> None:
    await store18.append("cold", [NewEvent("T")])
    for _ in range(6):
        await store18.append("hot", [NewEvent("T") for _ in range(1000)])
    assert [stream.stream_id async for stream in store18.streams(recent=True)] == ["hot", "cold"]


async def test_the_summary_counts_from_the_first_event_there(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await fill(store18, {"s": 10})
    await sql18.execute("DELETE FROM events WHERE stream_seq < 4")
    [stream] = [stream async for stream in store18.streams()]
    assert (stream.version, stream.events) == (9, 6)


async def test_a_table_that_does_not_promise_byte_order_is_read_right(empty_dsn: str) -> None:
    """A classic table in the database's own collation, that knows no event ids."""
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(
        "CREATE TABLE events (global_seq BIGSERIAL PRIMARY KEY, stream_id TEXT NOT NULL, stream_seq BIGINT NOT NULL, "
        "event_type TEXT NOT NULL, data JSONB NOT NULL, metadata JSONB, created_at TIMESTAMPTZ DEFAULT now(), "
        "CONSTRAINT one_version UNIQUE (stream_id, stream_seq))"
    )
    await connection.close()
    async with EventStore.connect(empty_dsn) as store:
        await fill(store, {"b-1": 2, "a-1": 1, "B-1": 1, "a-2": 1})
        assert {stream.stream_id async for stream in store.streams()} == {"b-1", "a-1", "B-1", "a-2"}
        assert [stream.stream_id async for stream in store.streams(prefix="a-")] == ["a-1", "a-2"]
        assert [event.event_id async for event in store.read("a-1")] == [None]
        assert await store.count_events("a-") == 2


async def test_import_keeps_places_and_times(store: EventStore) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    rows = [
        ImportedEvent("s", n, "T", '{"x": 1.10}', None if n else '{"u": 1}', when + timedelta(n), uuid4())
        for n in range(3)
    ]
    assert await store.import_events(rows) == 3
    events = [event async for event in store.read("s")]
    assert [event.created_at for event in events] == [row.created_at for row in rows]
    assert [event.event_id for event in events] == [row.event_id for row in rows]
    assert events[0].data_json == '{"x": 1.10}'
    with pytest.raises(StreamTaken):
        await store.import_events([rows[0]._replace(stream_id="new"), rows[1]])
    assert await store.version("new") == -1


async def test_bad_questions_are_refused_in_one_line(store18: EventStore) -> None:
    with pytest.raises(InvalidQuery, match="limit"):
        _ = [event async for event in store18.read("s", limit=-1)]
    with pytest.raises(InvalidQuery, match="newest"):
        await store18.streams_page(recent=True, backwards=True)


async def test_no_table_and_no_server_are_told_apart(empty_dsn: str) -> None:
    async with EventStore.connect(empty_dsn) as store:
        assert not await store.has_schema()
        with pytest.raises(SchemaMissing, match="esx init"):
            await store.version("s")
    with pytest.raises(StoreUnavailable, match=r"someone@127\.0\.0\.1:1/none"):
        await EventStore.connect("postgresql://someone:secret@127.0.0.1:1/none")
    for address in (
        "host=/nonexistent user=ann password=secret dbname=shop",
        "postgresql://ann:sec/ret@localhost:1/shop",
        "postgresql://ann:secret@[x/shop",
        "postgresql://ann:secret@localhost:99999/shop",
    ):
        with pytest.raises(EsxError) as refused:
            await EventStore.connect(address)
        assert "sec" not in str(refused.value)


async def test_health_in_figures(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await fill(store18, {"s": 5})
    await sql18.execute("SELECT nextval('events_global_seq_seq')")
    health = await store18.health()
    assert (health.first, health.last, health.head) == (1, 5, 6)
    # Nobody has analysed the table yet, and there cannot be more between the first and the last.
    assert health.events == Estimate.counted(5)
    grow = (
        "INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT 'grown', n, 'T', '{\"n\": 1}' FROM generate_series($1::bigint, $2::bigint) n"
    )
    await sql18.execute(grow, 0, 1999)
    await sql18.execute("ANALYZE events")
    # Twice as many as when it was analysed: the growth shows at once, and rolled-back numbers do not count.
    await sql18.execute("SELECT setval('events_global_seq_seq', 100000)")
    await sql18.execute(grow, 2000, 3999)
    assert (await store18.health()).events.count == 4005
    await sql18.execute("DELETE FROM events WHERE stream_id = 'grown'")
    health = await store18.health()
    assert health.doorbell
    assert health.writers == ()
    assert health.table_bytes > 0
    await sql18.execute("DROP TRIGGER events_doorbell ON events")
    async with sql18.transaction():
        await sql18.execute("DELETE FROM events WHERE false")
        health = await store18.health()
    assert not health.doorbell
    assert [writer.pid for writer in health.writers] == [sql18.get_server_pid()]
