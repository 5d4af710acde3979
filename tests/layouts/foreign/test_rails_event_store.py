"""Rails Event Store: the order in a stream is that of its links, of which only some have a position."""

from __future__ import annotations

import pytest

from esx import EventStore
from tests.layouts.foreign.fixtures import load
from tests.support.connections import connected

_FIRST = "Shopping::Cart$1812c677-900b-557e-a566-b37ef88d79fb"


async def test_links_without_a_position_are_in_the_order_of_their_ids(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "rails_event_store")
        links = "SELECT id FROM event_store_events_in_streams WHERE stream = $1 ORDER BY id"
        ids = [row[0] for row in await connection.fetch(links, _FIRST)]
        assert [event.stream_seq async for event in store.read(_FIRST)] == ids
        assert [event.stream_seq async for event in store.read(_FIRST, start=ids[2], limit=2)] == ids[2:4]
        everything = {event.stream_seq async for event in store.read_all() if event.stream_id == _FIRST}
        assert everything == set(ids)
        # One such link among those with a position, and the ids number all of them.
        stream = "Banking::Account$f0633af8-9cdd-5ba7-8322-6f7993d311a9"
        assert [event.stream_seq async for event in store.read(stream)] == [*range(31)]
        await connection.execute(
            "UPDATE event_store_events_in_streams SET position = NULL WHERE stream = $1 AND position = 3", stream
        )
        ids = [row[0] for row in await connection.fetch(links, stream)]
        assert [event.stream_seq async for event in store.read(stream)] == ids
        assert await store.version(stream) == ids[-1]


async def test_streams_of_links_are_read_by_name_and_not_listed(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "rails_event_store")
        before = [stream.stream_id async for stream in store.streams()]
        assert len(before) == 135
        await connection.execute(
            "INSERT INTO event_store_events_in_streams (stream, event_id, created_at) "
            "SELECT 'Linked$1', event_id, now() FROM event_store_events ORDER BY id LIMIT 5"
        )
        assert [stream.stream_id async for stream in store.streams()] == before
        assert [stream.stream_id async for stream in store.streams(prefix="L")] == []
        assert (await store.count_streams()).count == 135
        assert (await store.count_streams(prefix="$")).count == 0
        categories = [category.category async for category in store.categories()]
        assert categories == ["Banking::Account", "Ordering::Order", "Payments::Payment", "Shopping::Cart"]
        linked = [event async for event in store.read("Linked$1")]
        assert [event.global_seq for event in linked] == [1, 2, 3, 4, 5]
        assert {event.stream_id for event in linked} == {"Linked$1"}
        assert (await store.event(1)) == linked[0]._replace(
            stream_id="Banking::Account$f0633af8-9cdd-5ba7-8322-6f7993d311a9", stream_seq=0
        )
        by_type = [event.event_type async for event in store.read("$by_type_Shopping::ItemAdded")]
        assert set(by_type) == {"Shopping::ItemAdded"}
        back = [stream.stream_id for stream in (await store.streams_page(backwards=True, limit=200)).streams]
        assert back == before[::-1]


async def test_an_event_is_in_the_stream_of_its_first_link_whether_an_index_has_the_links_of_events_or_not(
    empty_dsn18: str,
) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "rails_event_store")
        # Links of five events, made later with ids from before; and one of another's event in a stream of its own ones.
        await connection.execute(
            "INSERT INTO event_store_events_in_streams (stream, event_id, created_at) "
            "SELECT stream, event_id, now() FROM (VALUES ('Earlier$1'), ('$by_what')) v (stream), event_store_events "
            "WHERE id <= 5;"
            "UPDATE event_store_events_in_streams SET id = -id WHERE stream IN ('Earlier$1', '$by_what');"
            "INSERT INTO event_store_events_in_streams (stream, event_id, created_at) "
            f"SELECT '{_FIRST}', event_id, now() FROM event_store_events WHERE id = 1"
        )
        seen = []
        for _ in range(2):
            async with EventStore.connect(empty_dsn18) as store:
                listed = {stream.stream_id async for stream in store.streams()}
                seen.append([event async for event in store.read_all()])
            await connection.execute("DROP INDEX IF EXISTS index_event_store_events_in_streams_on_event_id")
    assert seen[0] == seen[1]
    assert {event.stream_id for event in seen[0][:5]} == {"Earlier$1"}
    assert listed > {"Earlier$1", _FIRST}


@pytest.mark.slow
async def test_names_are_listed_where_they_do_not_sort_by_bytes(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "rails_event_store")
        await connection.execute(
            'ALTER TABLE event_store_events_in_streams ALTER COLUMN stream TYPE varchar COLLATE "pg_unicode_fast"'
        )
        assert len([stream async for stream in store.streams()]) == 135
        assert len([stream async for stream in store.streams(match="*Cart*")]) == 56
