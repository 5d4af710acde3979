"""Stores without a database that their tool wrote: tables as the tool's own source makes them."""

from __future__ import annotations

import pytest

from esx import EventStore, SchemaMissing
from esx.layouts.foreign.own import OwnLayout
from tests.layouts.foreign.fixtures import load, load_into
from tests.layouts.foreign.made import EVENTUOUS, PG_EVENTSTORE
from tests.support.connections import connected


async def test_a_store_of_eventuous_is_read(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(EVENTUOUS)
    async with EventStore.connect(empty_dsn18) as store:
        streams = [(stream.stream_id, stream.version, stream.events) async for stream in store.streams()]
        assert streams == [("cart-1", 2, 3), ("cart-2", 2, 3)]
        events = [event async for event in store.read("cart-1")]
        assert [(event.global_seq, event.stream_seq, event.data) for event in events] == [
            (2, 0, {"n": 1}),
            (4, 1, {"n": 3}),
            (6, 2, {"n": 5}),
        ]
        assert str(events[0].created_at) == "2026-03-28 21:05:14.714114+00:00"
        assert events[0].metadata == {"eventuous.correlation-id": "c"}
        everything = [event async for event in store.read_all()]
        assert [event.stream_id for event in everything] == ["cart-2", "cart-1"] * 3
        assert len((await store.trail("c")).nodes) == 6
        feed = await store.feed()
        assert [event async for batch in feed.to_safe_position() for event in batch.events] == everything


@pytest.mark.parametrize("kind", ["eventuous", "commanded"])
async def test_a_name_that_could_mean_two_streams_is_refused(kind: str, empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        if kind == "commanded":
            await load(connection, kind)
            await connection.execute("DROP INDEX ix_streams_stream_uuid")
        else:
            await connection.execute(EVENTUOUS)
            await connection.execute("ALTER TABLE eventuous.streams DROP CONSTRAINT streams_stream_name_key")
        with pytest.raises(
            SchemaMissing, match=r"no unique index on stream_\w+ alone, so a name could mean two streams"
        ):
            await store.head()


async def test_an_event_with_the_number_0_is_the_first_of_all(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await connection.execute(
            "CREATE SEQUENCE messages_seq START 0 MINVALUE 0;"
            "CREATE TABLE streams (id char(42) UNIQUE, id_original varchar(1000), id_internal serial PRIMARY KEY);"
            "CREATE TABLE messages (stream_id_internal int NOT NULL, stream_version int NOT NULL, "
            "position bigint PRIMARY KEY DEFAULT nextval('messages_seq'), message_id uuid NOT NULL, "
            "created_utc timestamp NOT NULL, type varchar(128) NOT NULL, json_data jsonb NOT NULL, "
            "json_metadata jsonb, UNIQUE (stream_id_internal, stream_version));"
            "ALTER SEQUENCE messages_seq OWNED BY messages.position;"
            "INSERT INTO streams VALUES ('x', 'account-1', 1)"
        )
        at_end = await store.feed_from_end()
        for version in range(2):
            await connection.execute(
                "INSERT INTO messages (stream_id_internal, stream_version, message_id, created_utc, type, json_data) "
                "VALUES (1, $1, gen_random_uuid(), now(), 'T', '{}')",
                version,
            )
        for feed in (at_end, await store.feed()):
            numbers = [event.global_seq async for batch in feed.to_safe_position() for event in batch.events]
            assert numbers == [0, 1]
        after = await store.feed(after=0)
        assert [event.global_seq async for batch in after.to_safe_position() for event in batch.events] == [1]
        lines = b"".join([piece async for piece in await store.export()])
        assert lines.count(b"\n") == 2
        assert [event.global_seq async for event in store.read_all()] == [0, 1]


_MARTEN = """
    CREATE TABLE mt_streams (id {type} NOT NULL, type varchar, version bigint, timestamp timestamptz DEFAULT now(),
                             tenant_id varchar DEFAULT '*DEFAULT*', PRIMARY KEY (tenant_id, id));
    CREATE TABLE mt_events (
        seq_id bigint PRIMARY KEY, id uuid NOT NULL, stream_id {type}, version bigint NOT NULL, data jsonb NOT NULL,
        type varchar(500) NOT NULL, timestamp timestamptz NOT NULL DEFAULT now(), tenant_id varchar DEFAULT '*DEFAULT*',
        is_archived boolean DEFAULT false);
    CREATE UNIQUE INDEX pk_mt_events_stream_and_version ON mt_events (tenant_id, stream_id, version);
    CREATE SEQUENCE mt_events_sequence OWNED BY mt_events.seq_id;
    INSERT INTO mt_events (seq_id, id, stream_id, version, data, type, tenant_id)
    SELECT nextval('mt_events_sequence'), gen_random_uuid(), stream::{type}, version, '{{}}', 'counted', tenant
    FROM generate_series(1, 3) version, unnest('{{red,blue}}'::text[]) tenant, unnest($1::text[]) stream
"""


@pytest.mark.parametrize(
    ("type_", "ids"),
    [
        ("varchar", ["account-1000", "account-1001"]),
        ("uuid", ["4db41981-e622-53de-a25f-cc52cfc17c0e", "f0633af8-9cdd-5ba7-8322-6f7993d311a9"]),
    ],
)
async def test_a_stream_of_marten_is_that_of_a_tenant(type_: str, ids: list[str], empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        *tables, rows = _MARTEN.format(type=type_).split(";")
        await connection.execute(";".join(tables))
        await connection.execute(rows, ids)
        names = [f"{tenant}/{stream}" for tenant in ("blue", "red") for stream in ids]
        assert [stream.stream_id async for stream in store.streams()] == names
        assert [stream.stream_id async for stream in store.streams(prefix=f"red/{ids[0]}")] == [names[2]]
        assert [(event.stream_id, event.stream_seq) async for event in store.read(names[3])] == [
            (names[3], 1),
            (names[3], 2),
            (names[3], 3),
        ]
        assert await store.version("green/" + ids[0]) == await store.version(ids[0]) == -1
        feed = await store.feed()
        assert {event.stream_id async for batch in feed.to_safe_position() for event in batch.events} == set(names)
        categories = [(category.category, category.streams.count) async for category in store.categories()]
        assert categories == [("blue", 2), ("red", 2)]


async def test_archived_events_of_marten_may_be_in_a_partition_of_their_own(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "marten")
        await connection.execute(
            "ALTER TABLE mt_events RENAME TO before;"
            "CREATE TABLE mt_events (LIKE before INCLUDING DEFAULTS, PRIMARY KEY (seq_id, is_archived)) "
            "PARTITION BY LIST (is_archived);"
            "CREATE UNIQUE INDEX ON mt_events (stream_id, version, is_archived);"
            "CREATE TABLE mt_events_default PARTITION OF mt_events DEFAULT;"
            "CREATE TABLE mt_events_archived PARTITION OF mt_events FOR VALUES IN (true);"
            "ALTER SEQUENCE mt_events_sequence OWNED BY mt_events.seq_id;"
            "UPDATE before SET is_archived = coalesce(is_archived, false);"
            "INSERT INTO mt_events SELECT * FROM before; DROP TABLE before"
        )
        assert len([event async for event in store.read_all()]) == 422
        assert len([stream async for stream in store.streams()]) == 138


async def test_a_store_of_pg_eventstore_is_read(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await connection.execute(PG_EVENTSTORE)
        assert "of two in one place a page can leave one out" in str(await store.warning())
        names = ["Bank/Account/1", "Bank/Account/2", "Shop/Cart/1", "Shop/Cart/2"]
        assert [stream.stream_id async for stream in store.streams()] == names
        assert [stream.stream_id async for stream in store.streams(prefix="Shop/C")] == names[2:]
        events = [event async for event in store.read("Shop/Cart/2")]
        assert [(event.stream_seq, event.data) for event in events] == [(r, {"r": r}) for r in range(3)]
        assert [event async for event in store.read("Shop/Cart/2", backwards=True)] == events[::-1]
        feed = await store.feed()
        everything = [event async for batch in feed.to_safe_position() for event in batch.events]
        assert [event.global_seq for event in everything] == [*range(1, 13)]
        assert len([stream async for stream in store.streams(recent=True)]) == 4


async def test_archived_events_of_emmett_belong_to_their_stream(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "emmett")
        archived = "SELECT DISTINCT stream_id FROM emt_messages WHERE is_archived"
        assert await connection.fetchval(archived) == "account-1005"
        assert await store.version("account-1005") == (await store.summary("account-1005")).events  # type: ignore[union-attr]
        assert await store.doctor()
        cautions = [finding.message for finding in await store.doctor() if finding.check == "order"]
        assert "by transaction first" in cautions[0]


_PROOPH = OwnLayout(
    "accounts",
    "public._c3aa733a1445aeb1ad67bb094f1e158ca55b0aa3",
    stream_id=("r.metadata ->> '_aggregate_id'",),
    stream_seq="(r.metadata ->> '_aggregate_version')::int",
    event_type="event_name",
    data="payload",
    global_seq="no",
    metadata="metadata",
    created_at="r.created_at AT TIME ZONE 'UTC'",
    event_id="event_id",
    first=1,
)
"""The table of a stream, as docs/stores.md describes one."""


async def test_a_stream_of_prooph_is_read_by_a_layout(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "prooph_single")
    async with EventStore.connect(empty_dsn18, store="accounts", layouts=(_PROOPH,)) as store:
        events = [event async for event in store.read("f0633af8-9cdd-5ba7-8322-6f7993d311a9")]
        assert [event.stream_seq for event in events] == [*range(1, 33)]
        assert len([stream async for stream in store.streams()]) == 12
        feed = await store.feed()
        everything = [event async for batch in feed.to_safe_position() for event in batch.events]
        assert everything == [event async for event in store.read_all()]
        assert len(everything) == 88


async def test_the_events_with_a_tag_are_read_as_a_stream(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "eventsourcing_dcb")
        tagged = [event async for event in store.read("student-3")]
        assert [event.global_seq for event in tagged] == [4, 66, 85, 99, 172]
        assert [event.stream_seq for event in tagged] == [4, 66, 85, 99, 172]
        assert [event async for event in store.read("student-3", start=66, limit=2)] == tagged[1:3]
        assert await store.version("student-3") == 172
        assert [stream async for stream in store.streams()] == []
        assert (await store.event(4)) == tagged[0]._replace(stream_id="", stream_seq=-1)
