"""Rows of other stores as their applications can write them: no row hides others, whatever a column holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from esx import EventStore, OrderUnknown
from esx.model import UNNUMBERED
from esx.payload import Undecoded
from esx.positions import Position
from tests.cli.support import esx
from tests.layouts.foreign.fixtures import AKKA_JDBC, EVENTSOURCING, load
from tests.layouts.foreign.made import AXON_JPA, JOINED, WITHOUT_NUMBERS
from tests.support.connections import NOT_UTC, connected
from tests.support.roles import new_role


@pytest.mark.parametrize("kind", JOINED)
async def test_streams_whose_ids_are_columns(kind: str, empty_dsn18: str) -> None:
    statements, start, first = JOINED[kind]
    async with connected(empty_dsn18) as connection:
        await connection.execute(statements)
    async with EventStore.connect(empty_dsn18) as store:
        listed = [(stream.stream_id, stream.version, stream.events) async for stream in store.streams()]
        assert listed == [(f"{start}{n}", first + 2, 3) for n in range(3)]
        assert [stream.stream_id async for stream in store.streams(prefix=f"{start}1")] == [f"{start}1"]
        assert (await store.count_streams(prefix="CART/")).count == 3
        assert [stream.stream_id async for stream in store.streams(recent=True)] == [f"{start}{n}" for n in (2, 1, 0)]
        assert [category.category async for category in store.categories()] == ["CART"]
        everything = [event async for event in store.read_all()]
        assert [event.global_seq for event in everything] == list(range(1, 10))
        assert everything[0].data_json == "null"
        events = [event async for event in store.read(f"{start}1", backwards=True)]
        assert [(event.stream_seq, event.data["n"]) for event in events] == [(first + n, 1 + 3 * n) for n in (2, 1, 0)]
        assert {event.event_type for event in events} == {"COUNTED"}
        assert {event.created_at for event in everything} == {datetime(2026, 3, 28, 21, 5, 14, 714000, tzinfo=UTC)}
        feed = await store.feed()
        assert [event async for batch in feed.to_safe_position() for event in batch.events] == everything


async def test_an_event_without_a_number_in_its_stream(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(WITHOUT_NUMBERS)
        await connection.execute(
            "INSERT INTO event_store (stream, event, payload, recorded_on, custom_headers) "
            "VALUES ('none', 'counted', '{}', now(), '[]')"
        )
    async with EventStore.connect(empty_dsn18) as store:
        none = await store.summary("none")
        assert none is None or none.events == 0
        assert [stream.events async for stream in store.streams()] == [3, 0]
    async with connected(empty_dsn18) as connection:
        await connection.execute("DELETE FROM event_store WHERE stream = 'none'")
    async with EventStore.connect(empty_dsn18) as store:
        events = [event async for event in store.read_all()]
        assert [event.stream_seq for event in events] == [1, UNNUMBERED, 3]
        assert json.loads(events[1].to_json())["stream_seq"] is None
        assert [event.stream_seq async for event in store.read("cart-1")] == [1, 3]
        assert await store.without_number("cart-1") == 1
        read = esx("read", "cart-1", "-d", empty_dsn18)
        assert (read.returncode, read.stdout.count("\n")) == (4, 2)
        assert "without a number in this stream, and so left out: 1 event; esx read '$all' --stream" in read.stderr
        [stream] = [stream async for stream in store.streams()]
        assert (stream.version, stream.events) == (3, 3)
        assert await store.version("cart-1") == 3
        assert (await store.preview_all_page())[1].stream_seq == UNNUMBERED
        assert await store.event(2**40) is None
        assert (await store.trail(2)).nodes[0].event.stream_seq == UNNUMBERED
        feed = await store.feed()
        assert [event async for batch in feed.to_safe_position() for event in batch.events] == events


_TIMES = {
    "2026-03-28T21:05:14.714Z": "2026-03-28 21:05:14.714000+00:00",
    "2026-03-28T23:05:14+02:00": "2026-03-28 21:05:14+00:00",
    "2026-03-28 21:05:14": "2026-03-28 21:05:14+00:00",
    "2026-13-45T00:00:00Z": "None",
    "+10000-01-01T00:00:00Z": "None",
    "yesterday": "None",
    "infinity": "None",
    "": "None",
}


async def test_a_text_that_is_no_time_is_none(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(
            "CREATE TABLE domainevententry (globalindex bigserial PRIMARY KEY, aggregateidentifier varchar(255) NOT "
            "NULL, sequencenumber bigint NOT NULL, type varchar(255), eventidentifier varchar(255) NOT NULL, metadata "
            "bytea, payload bytea NOT NULL, payloadrevision varchar(255), payloadtype varchar(255) NOT NULL, timestamp "
            "varchar(255) NOT NULL, UNIQUE (aggregateidentifier, sequencenumber))"
        )
        await connection.executemany(
            "INSERT INTO domainevententry VALUES (DEFAULT, 'a', $1, 'A', $2, '{}', '<xml/>', NULL, 'Counted', $3)",
            [(n, f"no uuid {n}", text) for n, text in enumerate(_TIMES)],
        )
        await connection.execute(NOT_UTC)
    async with EventStore.connect(empty_dsn18) as store:
        events = [event async for event in store.read_all()]
        assert [str(event.created_at) for event in events] == [*_TIMES.values()]
        assert {event.event_id for event in events} == {None}
        assert "looks like XML" in json.loads(events[0].to_json())["data_note"]


async def test_a_number_that_is_no_time_is_none(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(AKKA_JDBC)
        await connection.execute(
            "INSERT INTO event_journal (persistence_id, sequence_number, writer, write_timestamp, event_ser_id, "
            r"event_ser_manifest, event_payload) SELECT 'A|1', n, 'w', t, 1, '', '\xaced0005' FROM "
            "unnest(ARRAY[1774731914714, NULL, 9223372036854775807, -9223372036854775808]) WITH ORDINALITY o (t, n)"
        )
    async with EventStore.connect(empty_dsn18) as store:
        times = [event.created_at async for event in store.read_all()]
        assert times == [datetime(2026, 3, 28, 21, 5, 14, 714000, tzinfo=UTC), None, None, None]
        assert [category.category async for category in store.categories()] == ["A"]


async def test_times_within_states(empty_dsn18: str) -> None:
    """The application's own mapper may write the time elsewhere than first, or as a text, or none at all."""
    at = "2026-03-28T21:05:14.714000+00:00"
    states = [
        f'{{"timestamp":{{"_type_":"datetime_iso","_data_":"{at}"}},"n":1}}',
        f'{{"timestamp":"{at}"}}',
        f'{{"n":1,"timestamp":{{"_type_":"datetime_iso","_data_":"{at}"}}}}',
        f'{{"n":{{"timestamp":"2000-01-01T00:00:00Z"}}, "timestamp":"{at}"}}',
        f'{{"timestamp":"{at}","text":"a\\u0000b"}}',
        f'{{"text":"a\\u0000b","timestamp":"{at}"}}',
        '{"timestamp":"soon"}',
        "[1]",
        # Of the length that the tool writes.
        '{"timestamp":{"_type_":"datetime_iso","_data_":"2026-W48-6T20:41:50.966656+00:00"}}',
        '{"timestamp":{"_type_":"datetime_iso","_data_":"2026-13-45T20:41:50.966656+00:00"}}',
    ]
    async with connected(empty_dsn18) as connection:
        await connection.execute(EVENTSOURCING)
        rows = [(n, state.encode()) for n, state in enumerate(states)]
        await connection.executemany(
            "INSERT INTO shop_events VALUES ('order-1', $1, 'm:C', $2)",
            [*rows, (10, b'{"timestamp":"\xff"}'), (11, b""), (12, None), (13, states[0].encode())],
        )
    async with EventStore.connect(empty_dsn18) as store:
        events = [event async for event in store.read("order-1")]
        known = [None if event.created_at is None else event.created_at.isoformat() for event in events]
        assert known == [at] * 5 + [None] * 8 + [at]
        assert [n for n, event in enumerate(events) if isinstance(event.data_json, Undecoded)] == [10, 11]
        assert (await store.locate(Position(moment=datetime.fromisoformat(at)))).first == 1


async def test_a_payload_around_which_there_is_no_class(empty_dsn18: str) -> None:
    payloads = {
        '{"class": "C", "payload": {"b": 1.50, "a": 2}}': '{"b": 1.50, "a": 2}',
        '{"class": "C"}': '{"class": "C"}',
        '{"class": "C", "payload": {"a": "\\u0000"}}': '{"class": "C", "payload": {"a": "\\u0000"}}',
        "O:1:{}": "null",
    }
    async with connected(empty_dsn18) as connection:
        await connection.execute(
            "CREATE TABLE events (id serial PRIMARY KEY, uuid uuid NOT NULL, playhead int NOT NULL, payload text NOT "
            "NULL, metadata text NOT NULL, recorded_on varchar(32) NOT NULL, type varchar(255) NOT NULL, "
            "UNIQUE (uuid, playhead))"
        )
        await connection.executemany(
            "INSERT INTO events (uuid, playhead, payload, metadata, recorded_on, type) VALUES "
            """(gen_random_uuid(), $1, $2, '{"class": "M", "payload": []}', '2026-03-28T21:05:14.714114+00:00', 'T')""",
            [*enumerate(payloads)],
        )
    async with EventStore.connect(empty_dsn18) as store:
        events = [event async for event in store.read_all()]
        assert [str(event.data_json) for event in events] == [*payloads.values()]
        assert {event.metadata_json for event in events} == {"[]"}


async def test_large_objects_are_read_where_the_user_may(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, new_role(empty_dsn18) as role:
        await connection.execute(AXON_JPA.format(step=1))
        await role.grant("SELECT ON domain_event_entry")
        async with EventStore.connect(empty_dsn18) as store:
            events = [event async for event in store.read_all()]
            assert [event.data for event in events] == [{"n": 0}, None, {"n": 2}, {"n": 3}]
            assert events[0].metadata == {"traceId": "t"}
            assert "a large object that cannot be read" in events[1].to_json()
            trail = await store.trail(1)
            assert (trail.field, trail.correlation, len(trail.nodes)) == ("traceId", "t", 4)
            feed = await store.feed()
            assert [event async for batch in feed.to_safe_position() for event in batch.events] == events
        granted, public = await connection.fetchrow(  # type: ignore[misc]
            "SELECT array_agg(payload), array_agg(payload) FILTER (WHERE sequence_number = 3) FROM domain_event_entry "
            "WHERE sequence_number >= 2"
        )
        writable = await connection.fetchval("SELECT payload FROM domain_event_entry WHERE sequence_number = 0")
        await role.grant(f"UPDATE ON LARGE OBJECT {writable}")  # which is no right to read it
        await role.grant(f"SELECT ON LARGE OBJECT {granted[0]}")
        await connection.execute(f"GRANT SELECT ON LARGE OBJECT {public[0]} TO public")
        async with EventStore.connect(role.dsn(empty_dsn18), trust_owner=True) as store:
            assert [event.data async for event in store.read_all()] == [None, None, {"n": 2}, {"n": 3}]
            assert len(await store.preview_all_page()) == 4


async def test_numbers_that_an_application_draws_ahead_have_no_safe_position(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(AXON_JPA.format(step=50))
    async with EventStore.connect(empty_dsn18) as store:
        with pytest.raises(OrderUnknown, match="draws 50 numbers at a time"):
            await store.feed()
        assert [event.global_seq async for event in store.read_all()] == [1, 51, 101, 151]


@pytest.mark.slow
async def test_a_page_reads_its_own_large_objects_alone(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(AXON_JPA.format(step=1))
    checked = esx("stores", "check", "-d", empty_dsn18)
    assert (checked.returncode, "slow" in checked.stdout) == (0, False), checked.stdout


async def test_numbers_drawn_ahead_are_seen_where_axons_tables_have_hibernates_own_names(empty_dsn18: str) -> None:
    """They are those of Axon's tables without Hibernate, whose column draws its numbers itself."""
    async with connected(empty_dsn18) as connection:
        await load(connection, "axon_jdbc")
        await connection.execute(
            "ALTER SEQUENCE domainevententry_globalindex_seq OWNED BY NONE INCREMENT 50;"
            "ALTER TABLE domainevententry ALTER globalindex DROP DEFAULT;"
            "ALTER SEQUENCE domainevententry_globalindex_seq RENAME TO domainevententry_seq"
        )
    async with EventStore.connect(empty_dsn18) as store:
        with pytest.raises(OrderUnknown, match="draws 50 numbers at a time"):
            await store.feed()
