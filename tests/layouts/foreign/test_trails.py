"""Trails in other tools' stores: by the ids where each tool keeps them, along its own indexes where they serve."""

from __future__ import annotations

import asyncpg
import pytest

from esx import EventStore, FieldNames, NotFound
from esx.filters import Filter
from tests.cli.support import esx
from tests.layouts.foreign.fixtures import TABLES, expected, load, load_into
from tests.support.connections import connected

_ACT_PG = """
    CREATE TABLE events (id serial PRIMARY KEY, name varchar(100) NOT NULL, data jsonb, stream varchar(100) NOT NULL,
        version int NOT NULL, created timestamptz NOT NULL DEFAULT now(), meta {});
    CREATE UNIQUE INDEX ON events (stream, version);
    CREATE INDEX ON events ((meta ->> 'correlation') COLLATE pg_catalog."default");
"""


async def _append_act_pg(connection: asyncpg.Connection, metadata: list[str]) -> None:
    await connection.executemany(
        "INSERT INTO events (name, stream, version, meta) VALUES ('T', 's', $1, $2::text::json)",
        list(enumerate(metadata)),
    )


def _caused_by(number: int, correlation: str = "") -> str:
    shared = f'"correlation": "{correlation}", ' if correlation else ""
    return f'{{{shared}"causation": {{"event": {{"id": {number}, "name": "T", "stream": "s"}}}}}}'


async def _tree(store: EventStore, of: int | str) -> list[tuple[int, int | None]]:
    """Return the number of each event of a trail, and that of its cause."""
    nodes = (await store.trail(of)).nodes
    return [
        (node.event.global_seq, None if node.parent is None else nodes[node.parent].event.global_seq) for node in nodes
    ]


async def test_causes_that_are_named_by_their_number_are_found_along_the_tools_own_indexes(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await connection.execute(_ACT_PG.format("jsonb"))
        await _append_act_pg(
            connection, ['{"correlation": "c"}', _caused_by(1, "c"), "{}", _caused_by(3), _caused_by(4)]
        )
        trail = await store.trail("c")
        assert (trail.field, trail.correlation, trail.scan) == ("correlation", "c", None)
        for of in (1, 2, "c"):
            assert await _tree(store, of) == [(1, None), (2, 1)]
        for of in (3, 4, 5):
            assert await _tree(store, of) == [(3, None), (4, 3), (5, 4)]
        # Whoever looks for an id beside the numbers has looked at nothing.
        with pytest.raises(NotFound, match="nothing has the id nowhere"):
            await store.trail("nowhere", scan=1)


async def test_metadata_that_postgresql_cannot_look_into_hide_no_others(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await connection.execute(_ACT_PG.format("json").rpartition("CREATE INDEX")[0])
        await _append_act_pg(
            connection, ['{"correlation": "c"}', r'{"odd": "\u0000", "correlation": "c"}', _caused_by(1, "c")]
        )
        assert await _tree(store, "c") == await _tree(store, 1) == [(1, None), (3, 1)]
        assert await _tree(store, 2) == [(2, None)]


async def test_a_cause_in_message_db_is_a_number_or_an_id(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "messagedb")
        first, second, third = [
            await connection.fetchval(
                "INSERT INTO message_store.messages (stream_name, position, type, data, metadata) "
                f"SELECT 'caused-1', $1, 'T', '{{}}', jsonb_build_object($2::text, m.{cause}) "
                "FROM message_store.messages m ORDER BY global_position DESC LIMIT 1 RETURNING global_position",
                position,
                name,
            )
            for position, (name, cause) in enumerate(
                (("other", "id"), ("causationMessageGlobalPosition", "global_position"), ("causationId", "id"))
            )
        ]
        chain = [(first, None), (second, first), (third, second)]
        for number, _ in chain:
            assert await _tree(store, number) == chain
        # The stream in which it all began is what Eventide's messages share.
        trail = await store.trail(27)
        assert (trail.field, trail.correlation) == ("correlationStreamName", "checkout-6fc01560")


async def test_without_an_index_it_is_told_how_many_events_were_looked_at(empty_dsn18: str) -> None:
    correlation = "6fc01560-05b9-54b7-8cb2-b123cf69d04e"
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "marten")
        trail = await store.trail(27, scan=10)
        assert trail.scan is not None
        assert (trail.scan.looked, trail.scan.whole, trail.scan.indexes) == (10, False, ())
        with pytest.raises(NotFound, match=r"among the newest 10 events .*; to look further takes a larger bound$"):
            await store.trail(correlation, scan=10)
        # To find an event with the id, and then the others, counts no event twice.
        trail = await store.trail(correlation)
        assert trail.scan is not None
        assert (trail.scan.looked, trail.scan.whole, len(trail.nodes)) == (expected("marten")["events"], True, 6)
        # Names that the user gives win over the columns.
        named = await store.trail(27, fields=FieldNames(correlation=("user",)))
        assert (named.field, named.correlation) == ("user", "shop")
        await connection.execute("CREATE INDEX ON mt_events (correlation_id)")
        trail = await store.trail(correlation)
        assert (trail.field, len(trail.nodes), trail.scan) == ("correlation_id", 6, None)


async def test_ids_of_events_that_are_texts_are_looked_up(empty_dsn18: str) -> None:
    """Emmett keeps them so, and one of the adapters of Rails Event Store."""
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "emmett")
        await connection.execute("CREATE INDEX ON emt_messages (message_id)")
        trail = await store.trail("C39B3C10-5CDE-4413-B355-95637953D0B6")
        assert (trail.anchor, trail.correlation) == (27, "6fc01560-05b9-54b7-8cb2-b123cf69d04e")
        assert len(trail.nodes) == 6


async def test_ids_that_are_uuids_in_texts_are_found_along_the_tools_own_index(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "axon_jdbc")
        event = await store.event(27)
        assert event is not None
        await connection.execute("UPDATE domainevententry SET metadata = NULL WHERE globalindex = 27")
        # With nothing to look at, only the index can have found it.
        assert (await store.trail(str(event.event_id).upper(), scan=1)).anchor == 27
        assert (await store.trail(str(event.event_id), scan=1)).anchor == 27


async def test_what_conditions_and_trails_cannot_look_into_is_said(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "rails_event_store_yaml")
    found = esx("read", "$all", "--where", "$.amount > 10", "-d", empty_dsn18)
    assert found.returncode == 4
    assert "payloads that are no JSON were passed over" in found.stderr
    trail = esx("trail", "27", "-d", empty_dsn18)
    assert trail.returncode == 4
    assert "the metadata of event 27 are no JSON" in trail.stderr
    assert esx("read", "$all", "--type", "nope", "-d", empty_dsn18).returncode == 0
    async with EventStore.connect(empty_dsn18) as store:
        assert not await store.passes_over(Filter(event_type="T"))
        assert await store.passes_over(Filter(where="$.a"))


async def test_conditions_look_into_all_that_is_json(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "eventsourcing")
    async with EventStore.connect(empty_dsn18, store=TABLES["eventsourcing"]) as store:
        assert not await store.passes_over(Filter(where="$.a"))
