"""Making a read model again where names, schemas or other users are hostile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import Event, EventStore, NewEvent, RowBreak, StoreFailed
from esx.errors import InvalidQuery
from tests.store.consume.test_projection import at, running
from tests.store.operate.test_rebuild import BOTH, MODEL, balances, book, deposit, project
from tests.support.roles import new_role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

# Each fits better than PostgreSQL's own, or is found before it, where the user's search_path is used.
EVIL = """
CREATE SCHEMA evil;
CREATE FUNCTION evil.fail() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'shadowed'; END $$;
CREATE FUNCTION evil.names(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT evil.fail()';
CREATE FUNCTION evil.joined(name, name) RETURNS text LANGUAGE sql AS 'SELECT evil.fail()::text';
CREATE FUNCTION evil.number(oid, int4) RETURNS boolean LANGUAGE sql AS 'SELECT evil.fail()';
CREATE FUNCTION evil.class(oid, regclass) RETURNS boolean LANGUAGE sql AS 'SELECT evil.fail()';
CREATE FUNCTION evil.oids(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT evil.fail()';
CREATE FUNCTION evil.to_jsonb(public.balances) RETURNS jsonb LANGUAGE sql AS 'SELECT evil.fail()::text::jsonb';
CREATE FUNCTION evil.to_jsonb(public.movements) RETURNS jsonb LANGUAGE sql AS 'SELECT evil.fail()::text::jsonb';
CREATE FUNCTION evil.jsonb_build_array(text) RETURNS jsonb LANGUAGE sql AS 'SELECT evil.fail()::text::jsonb';
CREATE FUNCTION evil.nextval(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT evil.fail()::int::bigint';
CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT evil.fail()::text';
CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT evil.fail()::text';
CREATE FUNCTION evil.to_regclass(text) RETURNS regclass LANGUAGE sql AS 'SELECT evil.fail()::text::regclass';
CREATE FUNCTION evil.setval(regclass, bigint, boolean) RETURNS bigint LANGUAGE sql AS 'SELECT evil.fail()::int::bigint';
CREATE OPERATOR evil.~~ (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.names);
CREATE OPERATOR evil.!~~ (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.names);
CREATE OPERATOR evil.|| (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.joined);
CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = int4, FUNCTION = evil.number);
CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = evil.class);
CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.oids);
"""
ODD = "od\"d\\'; $esx$ --"
"""A name that would end a string, a quoted name, and a function's body."""


@pytest_asyncio.fixture
async def model(dsn18: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(MODEL)
    yield connection
    await connection.close()


async def test_nothing_of_another_schema_runs(store18: EventStore, model: asyncpg.Connection, dsn18: str) -> None:
    await deposit(store18, "account-1", 50, 60)
    await project(store18, 2)
    await model.execute("UPDATE balances SET balance = 1")
    await model.execute(EVIL)
    database = await model.fetchval("SELECT quote_ident(current_database())")
    await model.execute(f"ALTER DATABASE {database} SET search_path = evil, public, pg_catalog")
    # The trap works: this is what a query would run into.
    connection = await asyncpg.connect(dsn18)
    with pytest.raises(asyncpg.RaiseError, match="shadowed"):
        await connection.fetch("SELECT FROM pg_class WHERE oid = to_regclass('balances')")
    await connection.close()
    async with EventStore.connect(dsn18) as store:
        async with store.step_projection("p", book, BOTH) as stepper:
            taken = await stepper.step()
            assert taken is not None
            assert len(taken.changes) == 2
            await stepper.back()
            assert await stepper.step() is not None
        report = await store.audit_projection("p", book, BOTH)
        assert [each.events for each in report.differences] == [(1, 2)]
        await store.rebuild_projection("p", book, BOTH)
        assert (await store.audit_projection("p", book, BOTH)).same
        await store.reset_consumer("p", truncate=BOTH)
    assert await balances(model) == {}


async def test_names_end_no_statement(store18: EventStore, model: asyncpg.Connection, dsn18: str) -> None:
    odd = '"' + ODD.replace('"', '""') + '"'
    await model.execute(f"CREATE TABLE {odd} ({odd} text PRIMARY KEY, n numeric)")
    await deposit(store18, "account-1", 50, 60)

    async def count(connection: asyncpg.Connection, event: Event) -> None:
        await connection.execute(
            f"INSERT INTO {odd} AS o VALUES ($1, 1) ON CONFLICT ({odd}) DO UPDATE SET n = o.n + 1", event.stream_id
        )

    async with running(store18.project("p", count)) as task:
        await at(store18, 2, task)
    await model.execute(f"UPDATE {odd} SET n = 7")
    database = await model.fetchval("SELECT quote_ident(current_database())")
    for setting in ("standard_conforming_strings = off", "quote_all_identifiers = on"):
        await model.execute(f"ALTER DATABASE {database} SET {setting}")
    async with EventStore.connect(dsn18) as store:
        [difference] = (await store.audit_projection("p", count, [odd])).differences
        assert difference.events == (1, 2)
        async with store.step_projection("p", count, [odd]) as stepper:
            await stepper.step()
            taken = await stepper.step()
            assert taken is not None
            [change] = taken.changes
            assert (json.loads(change.before or ""), json.loads(change.after or "")) == (
                {ODD: "account-1", "n": 1},
                {ODD: "account-1", "n": 2},
            )
        await store.rebuild_projection("p", count, [odd])
    assert await model.fetchval(f"SELECT n FROM {odd}") == 2


@pytest.mark.parametrize(
    ("meanwhile", "refused"),
    [
        (
            "CREATE TABLE child (account text REFERENCES balances ON DELETE CASCADE); "
            "INSERT INTO child VALUES ('account-1')",
            "is referenced by foreign key child_account_fkey",
        ),
        (
            "CREATE TRIGGER t BEFORE DELETE ON balances FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "has trigger t",
        ),
        ("ALTER TABLE balances ADD note text DEFAULT 'kept'", "were altered meanwhile"),
        ("DROP TABLE other; ALTER TABLE balances RENAME TO other", "were altered meanwhile"),
    ],
)
async def test_what_changes_the_tables_on_the_way_is_noticed_before_the_swap(
    store18: EventStore, model: asyncpg.Connection, meanwhile: str, refused: str
) -> None:
    await deposit(store18, "account-1", 50)
    await project(store18, 1)
    await model.execute("UPDATE balances SET balance = 7")

    async def changes(connection: asyncpg.Connection, event: Event) -> None:
        await book(connection, event)
        await model.execute(meanwhile)

    with pytest.raises((InvalidQuery, StoreFailed), match=refused):
        await store18.rebuild_projection("p", changes, BOTH)
    name = "other" if "RENAME" in meanwhile else "balances"
    assert await model.fetchval(f"SELECT balance FROM {name}") == 7
    if "child" in meanwhile:
        assert await model.fetchval("SELECT count(*) FROM child") == 1


async def test_a_schema_of_another_user_is_not_dropped(
    store18: EventStore, model: asyncpg.Connection, dsn18: str
) -> None:
    await deposit(store18, "account-1", 50)
    await project(store18, 1)
    number = await model.fetchval("SELECT id FROM consumers")
    async with new_role(dsn18) as role:
        await model.execute(f"CREATE SCHEMA esx_rebuild_{number} AUTHORIZATION {role.name}")
        await model.execute(f"CREATE TABLE esx_rebuild_{number}.kept ()")
        with pytest.raises(StoreFailed, match=f"schema esx_rebuild_{number}, .* belongs to {role.bare}"):
            await store18.rebuild_projection("p", book, BOTH)
        assert await model.fetchval("SELECT to_regclass($1) IS NOT NULL", f"esx_rebuild_{number}.kept")
        await model.execute(f"DROP SCHEMA esx_rebuild_{number} CASCADE")
        await store18.rebuild_projection("p", book, BOTH)


async def test_numbers_that_python_makes_no_integers_of(store18: EventStore, model: asyncpg.Connection) -> None:
    await store18.append("account-1", [NewEvent("Deposited", {"amount": 1}) for _ in range(2)])

    async def large(connection: asyncpg.Connection, event: Event) -> None:
        await connection.execute(
            "INSERT INTO balances AS b VALUES ('a', repeat('9', 5000)::numeric) "
            "ON CONFLICT (account) DO UPDATE SET balance = 0.1"
        )

    async with running(store18.project("p", large)) as task:
        await at(store18, 2, task)
    async with store18.step_projection("p", large, BOTH) as stepper:
        taken = await stepper.run_to(row=RowBreak.parse('balances:{"account": "a", "balance": 0.1}'))
        assert taken is not None
        assert taken.event.global_seq == 2
