"""A partitioned table is a store like any other: what is lost to another writer, kept, counted, and moved."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from esx import ANY, NO_STREAM, EventIdsReused, EventStore, NewEvent, StoreFailed, Strategy, StreamAppend, WrongVersion
from esx.layouts.detection import detect_layout
from esx.store.bulk.copy import ImportedEvent
from esx.store.bulk.erase import Mark
from tests.support.partitions import COLUMNS, HASH, KINDS, LISTED, make

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_DEADLINE = 120.0
_INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, $2, 'Theirs', '{}')"
_KINDS = pytest.mark.parametrize("kind", KINDS)


@contextlib.asynccontextmanager
async def raced(dsn: str, stream: str, place: int) -> AsyncIterator[asyncpg.Connection]:
    """Let another session take a place of a stream, and commit once an append inside waits for that."""
    theirs = await asyncpg.connect(dsn)
    admin = await asyncpg.connect(dsn)

    async def commit() -> None:
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted)"
        while not await admin.fetchval(waiting):
            await asyncio.sleep(0.005)
        await theirs.execute("COMMIT")

    await theirs.execute("BEGIN")
    await theirs.execute(_INSERT, stream, place)
    committing = asyncio.create_task(commit())
    try:
        async with asyncio.timeout(_DEADLINE):
            yield theirs
            await committing
    finally:
        committing.cancel()
        await theirs.close()
        await admin.close()


@pytest.mark.slow
@_KINDS
async def test_a_race_that_is_lost_in_a_partition_is_a_wrong_version(kind: str, empty_dsn: str) -> None:
    await make(empty_dsn, KINDS[kind])
    async with EventStore.connect(empty_dsn) as store:
        async with raced(empty_dsn, "order-1", 0):
            with pytest.raises(WrongVersion) as lost:
                await store.append("order-1", [NewEvent("T")], expected=NO_STREAM)
        assert (lost.value.actual, await store.version("order-1")) == (0, 0)
        async with raced(empty_dsn, "order-1", 1):
            with pytest.raises(WrongVersion):
                await store.append_to_streams(
                    [StreamAppend("order-2", [NewEvent("T")]), StreamAppend("order-1", [NewEvent("T")], expected=0)]
                )
        async with raced(empty_dsn, "order-1", 2):
            with pytest.raises(WrongVersion):
                async with store.lock_stream("order-1") as stream:
                    await stream.append([NewEvent("T")])
        assert await store.version("order-2") == -1


@pytest.mark.one_older
@_KINDS
async def test_an_append_that_any_version_suits_survives_a_lost_race(kind: str, empty_dsn: str) -> None:
    await make(empty_dsn, KINDS[kind])
    connection = await asyncpg.connect(empty_dsn)
    async with EventStore.connect(empty_dsn) as store:
        for strategy in Strategy:
            at = await store.version("order-1")
            async with raced(empty_dsn, "order-1", at + 1):
                done = await store.append("order-1", [NewEvent("T")], expected=ANY, strategy=strategy)
            assert done.version == at + 2
    # Without the right to lock it tries again by itself.
    await connection.execute("DROP FUNCTION esx_lock_stream(text)")
    async with EventStore.connect(empty_dsn) as store, raced(empty_dsn, "order-9", 0):
        assert (await store.append("order-9", [NewEvent("T")])).version == 1
    await connection.close()


async def test_many_writers_of_one_stream_lose_nothing(empty_dsn: str) -> None:
    await make(empty_dsn, HASH)
    async with EventStore.connect(empty_dsn) as store:
        done = await asyncio.gather(*(store.append("s", [NewEvent("T")]) for _ in range(60)))
        assert sorted(result.version for result in done) == list(range(60))
        tried = await asyncio.gather(
            *(store.append("t", [NewEvent("T")], expected=NO_STREAM) for _ in range(30)), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in tried) == ["AppendResult"] + 29 * ["WrongVersion"]


async def test_a_race_in_a_partition_that_was_made_later(empty_dsn: str) -> None:
    await make(empty_dsn, LISTED)
    connection = await asyncpg.connect(empty_dsn)
    async with EventStore.connect(empty_dsn) as store:
        await store.append("order-1", [NewEvent("T")])
        await connection.execute(
            'CREATE SCHEMA "Odd one"; CREATE TABLE "Odd one"."Carts" PARTITION OF events FOR VALUES IN (\'cart\');'
            'ALTER TABLE "Odd one"."Carts" ADD CONSTRAINT "the cart\'s" UNIQUE (stream_id, stream_seq)'
        )
        async with raced(empty_dsn, "cart-1", 0):
            with pytest.raises(WrongVersion):
                await store.append("cart-1", [NewEvent("T")], expected=NO_STREAM)
        async with raced(empty_dsn, "cart-1", 1):
            assert (await store.append("cart-1", [NewEvent("T")])).version == 2
    await connection.close()


async def test_another_unique_index_of_a_partition_is_no_lost_race(empty_dsn: str) -> None:
    await make(empty_dsn, LISTED)
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute("ALTER TABLE events_order ADD UNIQUE (event_id)")
    event = NewEvent("T", event_id=uuid4())
    async with EventStore.connect(empty_dsn) as store:
        await store.append("order-1", [event])
        # Nothing keeps ids unique in all partitions, so none is recognised.
        with pytest.raises((StoreFailed, EventIdsReused)) as refused:
            await store.append("order-2", [event])
        assert not isinstance(refused.value, WrongVersion)
        assert "event_id" in str(refused.value)
    await connection.close()


@pytest.mark.slow
@_KINDS
async def test_export_import_and_erase(kind: str, empty_dsn: str, dsn: str) -> None:
    await make(empty_dsn, KINDS[kind])
    async with EventStore.connect(empty_dsn) as store, EventStore.connect(dsn) as plain:
        for n in range(6):
            await store.append(f"order-{n % 2}", [NewEvent("T", {"n": n}, metadata={"run": "7"})])
        lines = b"".join([piece async for piece in await store.export()])
        assert [json.loads(line)["global_seq"] for line in lines.splitlines()] == [1, 2, 3, 4, 5, 6]
        assert (await store.import_ndjson([lines])).stored == 0
        assert (await plain.import_ndjson([lines], keep_global_seq=True)).stored == 6
        assert (await store.marked("order-", Mark("run", "7"))).events == 6
        assert await store.delete_marked("order-", Mark("run", "7")) == 6
        assert await store.import_ndjson([lines.replace(b'"global_seq": ', b'"global_seq": 1')], keep_global_seq=True)
        back = b"".join([piece async for piece in await store.export()])
        assert back.replace(b'"global_seq": 1', b'"global_seq": ') == lines
        row = ImportedEvent("order-9", 0, "T", "{}", None, datetime(2020, 1, 1, tzinfo=UTC), uuid4())
        assert await store.import_events([row]) == 1


@_KINDS
async def test_an_import_that_meets_a_writer(kind: str, empty_dsn: str) -> None:
    await make(empty_dsn, KINDS[kind])
    theirs = {"stream_id": "order-1", "stream_seq": 0, "event_type": "T", "data": {}, "event_id": str(UUID(int=1))}
    async with EventStore.connect(empty_dsn) as store, raced(empty_dsn, "order-1", 0):
        with pytest.raises(Exception, match="taken by another event"):
            await store.import_ndjson([json.dumps(theirs).encode()])


@pytest.mark.one_older
@pytest.mark.slow
@_KINDS
async def test_the_figures_are_those_of_all_partitions(kind: str, empty_dsn: str) -> None:
    await make(empty_dsn, KINDS[kind])
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) SELECT 'order-' || n % 500, n / 500, "
        """'T' || n % 3, '{"text": "some that fills pages"}' FROM generate_series(0, 19999) n"""
    )
    async with EventStore.connect(empty_dsn) as store:
        health = await store.health()
        assert health.table_bytes > 1_000_000
        assert health.index_bytes > 1_000_000
        assert health.doorbell
        await connection.execute("ANALYZE events")
        events = (await store.health()).events
        assert events.known
        assert 10_000 < events.count < 40_000
        assert await store.name_scale() is not None
        assert (await store.count_streams()).count == 500
        assert set(await store.common_types()) == {"T0", "T1", "T2"}
        await connection.execute("DELETE FROM events WHERE stream_seq > 10")
        await connection.execute("VACUUM ANALYZE events")
        assert (await store.health()).events.count == 5_500
    await connection.close()


@_KINDS
async def test_an_append_rings_the_doorbell_wherever_it_goes(kind: str, empty_dsn: str) -> None:
    await make(empty_dsn, KINDS[kind])
    connection = await asyncpg.connect(empty_dsn)
    heard: asyncio.Queue[int] = asyncio.Queue()

    def note(*notified: Any) -> None:
        heard.put_nowait(json.loads(notified[-1])["global_seq"])

    await connection.add_listener("new_events", note)
    async with EventStore.connect(empty_dsn) as store:
        async with asyncio.timeout(_DEADLINE):
            for n in range(8):
                await store.append(f"order-{n}", [NewEvent("T")])
                assert await heard.get() == n + 1
            feed = await store.feed()
            assert await feed.listen()
    await connection.close()


async def test_children_that_inherit_are_read_but_ids_are_not_taken_for_unique(empty_dsn: str) -> None:
    await make(
        empty_dsn,
        f"CREATE TABLE events ({COLUMNS}, PRIMARY KEY (global_seq), UNIQUE (stream_id, stream_seq), UNIQUE (event_id));"
        "CREATE TABLE old (UNIQUE (stream_id, stream_seq)) INHERITS (events)",
    )
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute("INSERT INTO old (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}')")
    async with EventStore.connect(empty_dsn) as store:
        assert (await store.append("s", [NewEvent("T")])).version == 1
        assert [event.stream_seq async for event in store.read("s")] == [0, 1]
    assert not (await detect_layout(connection)).unique_event_id
    await connection.close()
