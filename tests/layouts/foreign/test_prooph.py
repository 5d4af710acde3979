"""The tables of prooph's streams are read as one store."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from esx import EventStore, OwnerNotTrusted, SchemaMissing
from esx.postgres.connection import Connector
from esx.postgres.pool import Pool
from tests.cli.support import esx, ndjson, one_line_error
from tests.layouts.foreign.fixtures import load
from tests.support.connections import connected
from tests.support.roles import new_role

if TYPE_CHECKING:
    import asyncpg


def table_of(stream: str) -> str:
    return f"_{hashlib.sha1(stream.encode(), usedforsecurity=False).hexdigest()}"


async def add(connection: asyncpg.Connection, stream: str, *metadata: str, index: str = "", json: str = "json") -> None:
    """Make a stream with an event for each metadata, as the tool does."""
    table = table_of(stream)
    await connection.execute(
        f"CREATE TABLE {table} (no bigserial PRIMARY KEY, event_id uuid NOT NULL UNIQUE, event_name varchar(100), "
        f"payload {json} NOT NULL, metadata jsonb NOT NULL, created_at timestamp(6) NOT NULL);{index.format(table)}"
    )
    for each in metadata:
        await connection.execute(
            f"INSERT INTO {table} (event_id, event_name, payload, metadata, created_at) "
            "VALUES (gen_random_uuid(), 'Done', '{}', $1, '2026-01-01')",
            each,
        )
    await connection.execute("INSERT INTO event_streams (real_stream_name, stream_name) VALUES ($1, $2)", stream, table)


def of(type_: str, id_: str, version: int) -> str:
    escaped = type_.replace("\\", "\\\\")
    return f'{{"_aggregate_type": "{escaped}", "_aggregate_id": "{id_}", "_aggregate_version": {version}}}'


MANY = (
    "CREATE UNIQUE INDEX ON {} ((metadata ->> '_aggregate_type'), (metadata ->> '_aggregate_id'), "
    "(metadata ->> '_aggregate_version'))"
)


async def test_all_strategies_can_be_in_one_store(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "prooph_single")
        await add(connection, "all of {them}", "{}", "{}", json="jsonb")
        await add(connection, "cart-A", '{"_aggregate_version": 1}')
        await add(connection, "empty-1")
        lists = [of("wish-list", "a-1", 1), of("wish-list", "a-1", 2), of("wish-list", "b", 1), of("Zoo\\Cart", "1", 1)]
        await add(connection, "lists", *lists, index=MANY)
        ten = [of("ten", "x", number) for number in range(1, 12)]
        await add(connection, "ten", *ten, index=MANY)
    async with EventStore.connect(empty_dsn18) as store:
        names = [stream.stream_id async for stream in store.streams()]
        assert len(names) == len({*names}) == 137 + 2 + 3 + 1
        assert {"all of {them}", "cart-A", "wish_list-a-1", "wish_list-b", "cart_-1", "ten-x"} < {*names}
        back = await store.streams_page(limit=1000, backwards=True)
        assert names == [stream.stream_id for stream in back.streams][::-1]
        for name, versions in {"all of {them}": [1, 2], "wish_list-a-1": [1, 2], "ten-x": [*range(1, 12)]}.items():
            assert [event.stream_seq async for event in store.read(name)] == versions
            assert await store.version(name) == versions[-1]
        for prefix in ("a", "all of {them}", "cart", "cart-", "cart-A", "wish_list-a", "ten-x", "none"):
            found = [stream.stream_id async for stream in store.streams(prefix=prefix)]
            assert found == [name for name in names if name.startswith(prefix)]
            assert (await store.count_streams(prefix=prefix)).count == len(found)
        counted = {each.category: each.streams.count async for each in store.categories()}
        assert counted["cart"] == 57 + 1
        assert counted["wish_list"] == 2
        assert counted["all of {them}"] == 1


async def test_streams_that_come_and_go_are_noticed(empty_dsn18: str) -> None:
    connector = Connector(empty_dsn18, "esx")
    pool = Pool(connector.open, 2, connector.where)
    async with (
        connected(empty_dsn18) as connection,
        EventStore(pool, connector, retry_for=1, read_only=True, look_again_after=0.0) as store,
    ):
        await load(connection, "prooph_aggregate")
        assert await store.version("cart-new") == -1
        await add(connection, "cart-new", "{}")
        assert await store.version("cart-new") == 1
        await connection.execute(
            f"DROP TABLE {table_of('cart-new')}; DELETE FROM event_streams WHERE real_stream_name = 'cart-new'"
        )
        assert await store.version("cart-new") == -1
        assert len([stream async for stream in store.streams()]) == 53
        async with connection.transaction():
            await connection.execute(
                f"LOCK TABLE {table_of('cart-00a694e8-f50d-50b9-89e9-82526c1cca60')} IN ROW EXCLUSIVE MODE"
            )
            assert len((await store.health()).writers) == 1


@pytest.mark.slow
async def test_more_tables_than_esx_reads_as_one_are_refused(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute(
            "CREATE TABLE event_streams (no bigint, real_stream_name text, stream_name text, metadata jsonb, "
            "category text); DO $$BEGIN FOR n IN 1..201 LOOP EXECUTE format('CREATE TABLE %I (no bigint, event_id "
            "uuid, event_name text, payload json, metadata jsonb, created_at timestamp)', '_' || lpad(n::text, 40, "
            "'0')); END LOOP; END$$"
        )
    reason = (
        "its events are in 201 tables, and esx reads up to 200 as one store: describe one of them in the config file, "
        "as docs/stores.md shows"
    )
    [store] = ndjson(esx("stores", "--json", "-d", empty_dsn18).stdout)
    assert store["problem"] == reason
    assert one_line_error(esx("streams", "-d", empty_dsn18), 1) == (
        f"esx: public.event_streams belongs to a store of prooph or Ecotone: {reason}"
    )


async def test_each_of_the_tables_must_be_readable_and_of_an_owner_who_is_trusted(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, new_role(empty_dsn18) as role:
        await load(connection, "prooph_single")
        table = table_of("cart_stream")
        await role.grant("SELECT ON ALL TABLES IN SCHEMA public", "CREATE, USAGE ON SCHEMA public")
        await connection.execute(f"REVOKE SELECT ON {table} FROM {role.name}")
        async with EventStore.connect(role.dsn(empty_dsn18)) as store:
            with pytest.raises(SchemaMissing, match=f"this user may not read public.{table}"):
                await store.streams_page()
        await connection.execute(f"ALTER TABLE {table} OWNER TO {role.name}")
        async with connected(role.dsn(empty_dsn18)) as owner:
            await owner.execute(
                "CREATE FUNCTION spy(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
                f"CREATE INDEX ON {table} (spy(event_name))"
            )
        async with EventStore.connect(empty_dsn18) as store:
            with pytest.raises(OwnerNotTrusted, match=f"{table} uses function public.spy"):
                await store.streams_page()
