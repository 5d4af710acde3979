"""Every store of another kind that esx reads, with the same contents as its own tool shows."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from esx import EventStore, InvalidQuery, OrderUnknown, SchemaMissing, StoreFailed
from esx.filters import Filter, StreamFilter
from esx.layouts.detection import detect_layout
from esx.model import category_of
from esx.postgres.connection import Connector
from esx.postgres.pool import Pool
from esx.store.bulk.erase import Mark
from esx.store.views.events import FeedView
from esx.store.views.streams import StreamsView
from tests.layouts.foreign.contract import check_all
from tests.layouts.foreign.fixtures import NAMES, TABLES, expected, load, load_into
from tests.support.connections import NOT_UTC, connected


@pytest.mark.parametrize("name", NAMES)
async def test_a_store_shows_what_its_own_tool_shows(name: str, empty_dsn: str) -> None:
    async with connected(empty_dsn) as connection:
        await connection.execute(NOT_UTC)
    async with connected(empty_dsn) as connection:
        await load(connection, name)
        layout = await detect_layout(connection, TABLES.get(name))
    async with EventStore.connect(empty_dsn, store=TABLES.get(name)) as store:
        await check_all(store, layout, expected(name))


async def test_categories(empty_dsn18: str) -> None:
    facts = expected("messagedb")
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "messagedb")
        found = {category.category: category.streams.count async for category in store.categories()}
        assert found == {name: category["streams"] for name, category in facts["categories"].items()}
        assert {category_of(stream.stream_id) async for stream in store.streams()} == set(found)


async def test_ids_that_are_uuids_have_no_categories(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "spatie")
        with pytest.raises(InvalidQuery, match="no categories"):
            await store.categories_page()


async def test_the_feed_waits_for_a_writer_that_has_drawn_its_number_and_inserts_later(empty_dsn: str) -> None:
    """Marten draws numbers by a statement of its own; then nothing but the lock of the sequence tells of the writer."""
    async with connected(empty_dsn) as slow, connected(empty_dsn) as fast, EventStore.connect(empty_dsn) as store:
        await load(slow, "marten")
        layout = await detect_layout(slow)
        assert layout.base_sequence is not None
        columns = await slow.fetchrow(
            f"SELECT * FROM {layout.called} ORDER BY {layout.stored('global_seq')} DESC LIMIT 1"
        )
        assert columns is not None

        async def insert(connection: asyncpg.Connection, number: int, version: int) -> None:
            values = {
                **columns,
                layout.stored("global_seq"): number,
                layout.stored("stream_seq"): version,
                layout.stored("event_id"): uuid4(),
            }
            row = f"jsonb_populate_record(NULL::{layout.called}, $1::jsonb)"
            await connection.execute(
                f"INSERT INTO {layout.called} SELECT * FROM {row}", json.dumps(values, default=str)
            )

        draw = f"SELECT nextval({layout.base_sequence}::regclass)"
        feed = await store.feed(after=await store.head())
        async with slow.transaction():
            number = await slow.fetchval(draw)
            await insert(fast, await fast.fetchval(draw), 10_001)
            held = [batch async for batch in feed.to_safe_position(patience=0.1)]
            assert [event for batch in held for event in batch.events] == []
            await insert(slow, number, 10_000)
        events = [event async for batch in feed.to_safe_position() for event in batch.events]
        assert [event.global_seq for event in events] == [number, number + 1]


async def test_a_table_of_act_pg_is_read(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await connection.execute(
        "CREATE TABLE public.events (id serial PRIMARY KEY, name varchar(100) NOT NULL, data json, "
        "stream varchar(100) NOT NULL, version int NOT NULL, created timestamptz NOT NULL DEFAULT now(), meta json, "
        "UNIQUE (stream, version));"
        "INSERT INTO events (name, data, stream, version, meta) "
        """SELECT 'Counted', '{"n": 1.50}', 'counter-' || n % 3, n / 3, '{"correlation": "c"}' """
        "FROM generate_series(0, 8) n"
    )
    await connection.close()
    async with EventStore.connect(empty_dsn18) as store:
        events = [event async for event in store.read("counter-1")]
        assert [(event.global_seq, event.stream_seq) for event in events] == [(2, 0), (5, 1), (8, 2)]
        assert (events[0].data_json, events[0].metadata, events[0].event_id) == (
            '{"n": 1.50}',
            {"correlation": "c"},
            None,
        )
        streams = [stream.stream_id async for stream in store.streams(prefix="counter-")]
        assert streams == ["counter-0", "counter-1", "counter-2"]
        feed = await store.feed()
        assert sum([len(batch.events) async for batch in feed.to_safe_position()]) == 9


async def test_an_event_without_a_stream_or_a_type_hides_no_others(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await load(connection, "marten")
    await connection.execute(
        "INSERT INTO mt_events (seq_id, id, stream_id, version, data, type) "
        "VALUES (1000, gen_random_uuid(), NULL, 1, '{}', 'orphan')"
    )
    await connection.close()
    async with EventStore.connect(empty_dsn18) as store:
        events = [event async for event in store.read_all()]
        assert len(events) == expected("marten")["events"] + 1
        assert (events[-1].stream_id, events[-1].event_type) == ("", "orphan")
        assert (await store.preview_all_page(limit=1, backwards=True))[0].stream_id == ""
        assert (await store.trail(1000)).nodes


async def test_what_was_opened_stays_what_is_read_when_another_store_comes(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await load(connection, "messagedb")
    connector = Connector(empty_dsn18, "esx")
    pool = Pool(connector.open, 2, connector.where)
    async with EventStore(pool, connector, retry_for=1, read_only=False, look_again_after=0.0) as store:
        head = await store.head()
        async with EventStore.connect(empty_dsn18) as other:
            await other.init(beside_others=True)
        await connection.execute("CREATE TABLE public.messages (LIKE message_store.messages INCLUDING ALL)")
        assert await store.head() == head
    await connection.close()


async def test_a_store_in_which_a_place_can_be_taken_twice_is_refused(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "marten")
        await connection.execute("DROP INDEX pk_mt_events_stream_and_version")
        with pytest.raises(SchemaMissing, match="no unique index on tenant_id and stream_id and version"):
            await store.head()


async def test_without_a_sequence_no_position_is_safe_where_numbers_are_drawn_apart(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await load(connection, "marten")
    await connection.execute("ALTER SEQUENCE mt_events_sequence OWNED BY NONE")
    await connection.close()
    async with EventStore.connect(empty_dsn18) as store:
        with pytest.raises(OrderUnknown, match="no sequence belongs"):
            await store.feed()


async def test_uuids_are_the_same_in_capitals_and_their_prefixes_are_counted(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "marten")
    async with EventStore.connect(empty_dsn18) as store:
        ids = [stream.stream_id async for stream in store.streams()]
        named = next(each for each in ids if re.search("[a-f]", each[:4]))
        start = named[:4].upper()
        wanted = [each for each in ids if each.startswith(start.lower())]
        assert await store.version(named.upper()) == await store.version(named) > 0
        assert [event async for event in store.read(named.upper())] == [event async for event in store.read(named)]
        for recent in (False, True):
            chosen: list[dict[str, Any]] = [{"prefix": start}, {"match": f"{start}*"}, {"contains": start}]
            for options in chosen:
                found = [stream.stream_id async for stream in store.streams(**options, recent=recent)]
                assert set(found) >= set(wanted)
                assert "contains" in options or sorted(found) == sorted(wanted)
        assert (await store.count_streams(prefix=start)).count == len(wanted)
        assert (await store.count_streams(prefix="no uuid")).count == 0
        chosen_events = Filter(stream=f"{start}*")
        numbers = [event.global_seq async for event in store.read_all() if event.stream_id in wanted]
        feed = await store.feed(where=chosen_events)
        assert [event.global_seq async for batch in feed.to_safe_position() for event in batch.events] == numbers
        found_events = store.search(await store.plan_search(chosen_events))
        assert [event.global_seq async for part in found_events for event in part.events] == numbers
        assert b"".join([piece async for piece in await store.export(where=chosen_events)]).count(b"\n") == len(numbers)
        async with connected(empty_dsn18) as connection:
            rows = await connection.fetch(await store.sql(StreamsView(StreamFilter(prefix=start))))
            of_events = await connection.fetch(await store.sql(FeedView(where=chosen_events)))
        assert [str(row[0]) for row in rows] == wanted
        assert [row[0] for row in of_events] == numbers


async def test_ids_and_strangers_are_found_where_ids_are_uuids(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "marten")
    async with EventStore.connect(empty_dsn18) as store:
        events = [event async for event in store.read_all()]
        places = [place async for page in store.stored_ids("", page=100) for place in page]
        assert places == sorted((e.stream_id, e.stream_seq, e.global_seq, e.event_id) for e in events)
        assert await store.count_events(places[0].stream_id.upper()) == await store.version(places[0].stream_id)
        assert await store.stream_outside(places[0].stream_id) not in (None, places[0].stream_id)
        assert await store.stream_outside("") is None
        with pytest.raises(StoreFailed, match="esx only reads it"):
            await store.marked("", Mark("run_id", "r"))
