"""Other event stores are recognised by the columns of their tables, each as what it is and as nothing else."""

from __future__ import annotations

import re

import asyncpg
import pytest

from esx.eventstore import EventStore
from esx.layouts.foreign import kinds
from esx.layouts.foreign.recognition import OWN, lookalikes, read_tables, recognise
from tests.cli.support import esx, ndjson, one_line_error
from tests.layouts.foreign.fixtures import NAMES, expected, load, load_into
from tests.support.connections import connected

KINDS = {
    "axon5_jpa": "axon5",
    "commanded_bytea": "commanded",
    "eventsourcing_encrypted": "eventsourcing",
    "prooph_aggregate": "prooph",
    "prooph_single": "prooph",
    "rails_event_store_yaml": "rails_event_store",
}
"""The kinds of those that are not called like their kind."""


@pytest.mark.parametrize("name", NAMES)
async def test_each_store_is_recognised_as_its_kind(name: str, empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await load(connection, name)
    found = recognise(await read_tables(connection))
    await connection.close()
    assert {store.kind.name for store in found} == {KINDS.get(name, name)}
    assert all(store.kind.first == expected(name)["version_base"] for store in found)


async def test_tables_are_found_whatever_they_are_called_and_wherever_they_are(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await load(connection, "messagedb")
    await connection.execute(
        'CREATE SCHEMA "Odd ""schema"""; ALTER TABLE message_store.messages RENAME TO "My log";'
        'ALTER TABLE message_store."My log" SET SCHEMA "Odd ""schema"""'
    )
    [found] = recognise(await read_tables(connection))
    assert (found.kind.name, found.table.quoted, found.table.rows) == ("messagedb", '"Odd ""schema"""."My log"', 457)
    await connection.close()
    async with EventStore.connect(empty_dsn18, store=found.table.quoted) as store:
        assert len([event async for event in store.read_all()]) == 457


async def test_a_table_that_lacks_a_column_is_none_and_what_it_lacks_is_told(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await load(connection, "messagedb")
    await connection.execute("ALTER TABLE message_store.messages DROP COLUMN metadata")
    tables = await read_tables(connection)
    await connection.close()
    assert recognise(tables) == []
    [near] = lookalikes(tables)
    assert (near.kind.name, near.missing) == ("messagedb", ("metadata",))


async def test_the_parts_of_a_store_are_those_of_its_own_schema(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "prooph_single")
        [found] = recognise(await read_tables(connection))
        names = [found.table.name, *(part.name for part in found.parts)]
        await connection.execute(
            "CREATE SCHEMA copy;" + "".join(f"CREATE TABLE copy.{name} (LIKE public.{name});" for name in names[:2])
        )
        copied, first = recognise(await read_tables(connection))
        assert [part.quoted for part in copied.parts] == [f"copy.{names[1]}"]
        assert [part.oid for part in first.parts] == [part.oid for part in found.parts]


async def test_of_many_tables_that_look_like_one_ten_are_named(dsn18: str) -> None:
    async with connected(dsn18) as connection:
        for n in range(12):
            await connection.execute(f"CREATE TABLE t{n} (LIKE events); ALTER TABLE t{n} DROP COLUMN created_at")
        near = lookalikes(await read_tables(connection))
        assert (len(near), {each.missing for each in near}) == (10, {(), ("created_at",)})


async def test_events_of_partitions_that_postgresql_has_not_counted_are_none_yet(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(
            "CREATE TABLE log (global_position bigserial, position bigint, time timestamp, stream_name text, "
            "type text, data jsonb, metadata jsonb, id uuid) PARTITION BY LIST (type);"
            "CREATE TABLE log_a PARTITION OF log FOR VALUES IN ('a'); CREATE TABLE log_b PARTITION OF log DEFAULT;"
            "INSERT INTO log (type) SELECT 'a' FROM generate_series(1, 5)"
        )
        [found] = recognise(await read_tables(connection))
        assert found.rows is None
        await connection.execute("ANALYZE log_a")
        [found] = recognise(await read_tables(connection))
        assert found.rows == 5


async def test_a_table_without_those_beside_it_is_none(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "marten")
        await connection.execute("ALTER TABLE mt_streams RENAME TO other")
        tables = await read_tables(connection)
        assert recognise(tables) == []
        assert [(near.kind.name, near.missing) for near in lookalikes(tables)] == [("marten", ("table mt_streams",))]


async def test_partitions_temporary_tables_and_tables_of_the_system_are_no_stores(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await load(connection, "emmett")
    await connection.execute("CREATE TEMPORARY TABLE mine AS SELECT * FROM emt_messages")
    assert [store.table.name for store in recognise(await read_tables(connection))] == ["emt_messages"]
    await connection.close()


async def test_stores_are_listed_with_what_esx_makes_of_them(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    for name in ("messagedb", "prooph_single"):
        await load(connection, name)
    await connection.execute("DROP TABLE projections")  # of prooph, as esx has one of that name too
    async with EventStore.connect(empty_dsn18) as store:
        await store.init(beside_others=True)
    [message_db, other, own] = ndjson(esx("stores", "--json", "-d", empty_dsn18).stdout)
    await connection.close()
    assert own == {
        "store": "public.events",
        "kind": "esx",
        "title": "esx",
        "events": 0,
        "events_exact": False,
        "problem": None,
    }
    assert message_db == {
        "store": "message_store.messages",
        "kind": "messagedb",
        "title": "Message DB",
        "events": 457,
        "events_exact": False,
        "problem": None,
    }
    assert (other["store"], other["kind"], other["events"]) == ("public.event_streams", "prooph", 420)
    shown = esx("stores", "-d", empty_dsn18).stdout
    assert re.search(r"message_store.messages +Message DB +~457", shown)


async def test_where_there_is_none_the_tables_that_look_like_one_are_named(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    done = esx("stores", "-d", empty_dsn18)
    assert (done.stdout, done.stderr, done.returncode) == ("", "no event store in this database\n", 0)
    await connection.execute(
        "CREATE TABLE nearly (global_seq bigint, stream_id text, stream_seq bigint, event_type text, data jsonb)"
    )
    await connection.close()
    done = esx("stores", "-d", empty_dsn18)
    assert done.stderr == (
        "no event store in this database\npublic.nearly looks like a store of esx, but lacks metadata, created_at\n"
    )


async def test_one_store_is_opened_of_several_one_has_to_be_chosen(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await load(connection, "messagedb")
    done = esx("read", "$all", "--json", "-d", empty_dsn18)
    assert len(ndjson(done.stdout)) == 457
    assert done.stderr == "reading the store of Message DB in message_store.messages (docs/stores.md)\n"
    await connection.execute(
        "CREATE SCHEMA second; CREATE TABLE second.messages (LIKE message_store.messages INCLUDING ALL)"
    )
    await connection.close()
    error = one_line_error(esx("read", "$all", "-d", empty_dsn18), 1)
    assert "message_store.messages (Message DB), second.messages (Message DB)" in error
    assert "--store" in error
    assert "esx stores" in error
    chosen = esx("read", "$all", "--json", "-d", empty_dsn18, "--store", "second.messages")
    assert (chosen.stdout, chosen.returncode) == ("", 0)


async def test_esx_s_own_store_comes_first(dsn18: str) -> None:
    await load_into(dsn18, "messagedb")
    own = esx("read", "$all", "--json", "-d", dsn18)
    assert "reading the store" not in own.stderr
    assert ndjson(own.stdout) == []
    by_kind = ndjson(esx("read", "$all", "--json", "-d", dsn18, "--store", "messagedb").stdout)
    assert len(by_kind) == 457


@pytest.mark.parametrize("command", [["append", "s", "T"], ["import", "-"]])
async def test_nothing_is_written_to_another_store(command: list[str], empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await load(connection, "messagedb")
    before = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
    error = one_line_error(esx(*command, "-d", empty_dsn18), 1)
    assert "belongs to a store of Message DB: esx only reads it" in error
    assert ("`esx init`" in error) == (command[0] == "import")
    assert before is not None
    assert await connection.fetchval("SELECT count(*) FROM message_store.messages") == 457
    await connection.close()


def test_the_kinds_have_names_of_their_own() -> None:
    names = [kind.name for kind in (OWN, *kinds.KINDS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("column", "kind"), [("position", "numeric"), ("stream_name", "integer")])
async def test_a_column_of_another_type_is_named(column: str, kind: str, empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await connection.execute(
        "CREATE TABLE messages (global_position bigserial, position bigint, time timestamp, stream_name text, "
        f"type text, data jsonb, metadata jsonb, id uuid); ALTER TABLE messages DROP COLUMN {column};"
        f"ALTER TABLE messages ADD COLUMN {column} {kind}"
    )
    await connection.close()
    error = one_line_error(esx("streams", "-d", empty_dsn18), 1)
    assert error == (
        "esx: public.messages looks like a store of Message DB, but its column "
        f"{column} is of type {kind}: esx cannot read it"
    )
