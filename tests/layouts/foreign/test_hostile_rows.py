"""Rows and names of other stores that are made to hide others, or to be taken for others."""

from __future__ import annotations

import pytest

from esx import EventStore, SchemaMissing
from esx.filters import Filter
from tests.conftest import Servers
from tests.layouts.foreign.fixtures import AKKA_JDBC, EVENTSOURCING
from tests.support.connections import connected
from tests.support.oddities import database

_EVTSTORE = """
    CREATE TABLE log (position bigserial PRIMARY KEY, version integer, stream text COLLATE "C", aggregate_id text,
                      timestamp timestamptz, event text);
    CREATE UNIQUE INDEX ON log (stream, aggregate_id, version);
    INSERT INTO log (version, stream, aggregate_id, timestamp, event)
    SELECT 1, stream, id, now(), '{"type": "T"}' FROM (VALUES
        ('a', '1'), ('b', NULL), (NULL, '1'), ('a/b', 'x'), ('a/b', 'y/z'), ('a-b', '1'), ('a%', 'x'), ('f', 'x')
    ) v (stream, id)
"""
_NAMES = ["a/1", "a%25/x", "a-b/1", "a%2Fb/x", "a%2Fb/y/z", "f/x"]


async def test_parts_of_an_id_that_are_missing_or_have_the_separator(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(_EVTSTORE)
    async with EventStore.connect(empty_dsn18) as store:
        listed = [stream async for stream in store.streams()]
        assert [stream.stream_id for stream in listed] == _NAMES
        assert {stream.events for stream in listed} == {1}
        back = await store.streams_page(limit=20, backwards=True)
        assert [stream.stream_id for stream in back.streams] == _NAMES[::-1]
        assert (await store.count_streams()).count == len(_NAMES)
        for name in _NAMES:
            assert [event.stream_id async for event in store.read(name)] == [name]
        for prefix in ("a", "a%", "a%2", "a%2F", "a%2Fb/", "a%2Fb/y/"):
            begun = [stream.stream_id async for stream in store.streams(prefix=prefix)]
            assert begun == [name for name in _NAMES if name.startswith(prefix)]
        categories = [category.category async for category in store.categories()]
        assert categories == ["a", "a%25", "a-b", "a%2Fb", "f"]
        page = await store.categories_page(limit=1)
        paged = [category.category for category in page.categories]
        while page.next_after is not None:
            page = await store.categories_page(after=page.next_after, limit=1)
            paged += [category.category for category in page.categories]
        assert paged == categories
        last = await store.categories_page(backwards=True)
        assert [category.category for category in last.categories] == categories[::-1]


_EVENTUOUS = """
    CREATE SCHEMA {0};
    CREATE TABLE {0}.streams (stream_id int PRIMARY KEY, stream_name varchar UNIQUE);
    CREATE TABLE {0}.messages (message_id uuid, message_type {1}, stream_id int, stream_position int, global_position
        bigserial PRIMARY KEY, json_data jsonb, json_metadata jsonb, created timestamptz, UNIQUE (stream_id,
        stream_position));
    INSERT INTO {0}.streams VALUES (1, 'a');
    INSERT INTO {0}.messages VALUES (gen_random_uuid(), '1', 1, 0, 1, '{{}}', '{{}}', now());
"""


@pytest.mark.parametrize("schema", ['"we{ird}"', '"{}"', "r", "c", '"{0.x"'])
async def test_schemas_whose_names_look_like_something_else(schema: str, empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(_EVENTUOUS.format(schema, "text"))
    async with EventStore.connect(empty_dsn18) as store:
        assert [(event.stream_id, event.stream_seq) async for event in store.read("a")] == [("a", 0)]
        assert [stream.stream_id async for stream in store.streams()] == ["a"]


async def test_a_type_that_is_no_text_is_refused(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(_EVENTUOUS.format("e", "int"))
    async with EventStore.connect(empty_dsn18) as store:
        with pytest.raises(SchemaMissing, match="its column message_type is of type integer"):
            [event async for event in store.read("a")]


_DEEP = "[" * 100_000


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
async def test_json_that_this_database_cannot_read_hides_no_others(encoding: str, servers: Servers) -> None:
    async with database(await servers.get(18), encoding) as dsn:
        await _read_beside_bad_json(dsn)


async def _read_beside_bad_json(dsn: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute(AKKA_JDBC)
        await connection.executemany(
            "INSERT INTO event_journal (persistence_id, sequence_number, writer, write_timestamp, event_ser_id, "
            "event_ser_manifest, event_payload) VALUES ('A|1', $1, 'w', 1, 1, 'm', $2)",
            [*enumerate((b"{}", _DEEP.encode(), '{"a": "€"}'.encode()), 1)],
        )
    async with EventStore.connect(dsn, store="akka_jdbc") as store:
        events = [event async for event in store.read_all()]
        assert [event.global_seq for event in events] == [1, 2, 3]
        assert events[2].data == {"a": "€"}
        assert len(await store.preview_all_page()) == 3


async def test_bytes_that_are_no_text_stop_no_search(empty_dsn18: str) -> None:
    no_text = [b"\xe0\x80\x80", b"\xed\xa0\x80", b"\x00", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xc3"]
    payloads = [b"", *(b'{"a": 1, "b": "' + each + b'"}' for each in no_text), '{"a": 1, "b": "é€😀\ud7ff"}'.encode()]
    async with connected(empty_dsn18) as connection:
        await connection.execute(AKKA_JDBC)
        await connection.executemany(
            "INSERT INTO event_journal (persistence_id, sequence_number, writer, write_timestamp, event_ser_id, "
            "event_ser_manifest, event_payload) VALUES ('A|1', $1, 'w', 1, 1, 'm', $2)",
            [*enumerate(payloads, 1)],
        )
    async with EventStore.connect(empty_dsn18) as store:
        plan = await store.plan_search(Filter(where="$.a == 1"))
        found = [event.global_seq async for part in store.search(plan) for event in part.events]
        assert found == [len(payloads)]


async def test_deep_json_of_which_a_column_is_made_hides_no_others(empty_dsn18: str) -> None:
    large = '{"type": "Large", "all": [' + ",".join(["{}"] * 6000) + "]}"
    async with connected(empty_dsn18) as connection:
        await connection.execute(_EVTSTORE)
        await connection.executemany(
            "INSERT INTO log (version, stream, aggregate_id, event) VALUES ($1, 'g', '1', $2)",
            [*enumerate((_DEEP, large), 1)],
        )
        await connection.execute(EVENTSOURCING)
        await connection.executemany(
            "INSERT INTO shop_events VALUES ('o', $1, 't', $2)", [(1, b"{}"), (2, _DEEP.encode()), (3, b"{}")]
        )
    async with EventStore.connect(empty_dsn18, store="log") as store:
        assert [event.event_type async for event in store.read("g/1")] == ["", "Large"]
    async with EventStore.connect(empty_dsn18, store="shop_events") as store:
        assert len([event async for event in store.read_all()]) == 3
