"""What a hostile owner may reach a superuser by that no catalog tells at first sight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from esx import EventStore, NewEvent, OwnerNotTrusted, WrongVersion
from esx.postgres.connection import Connector
from esx.postgres.timings import Timings
from tests.support.hostile import hostile_database
from tests.support.roles import new_role
from tests.support.stores import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.embedded import EmbeddedServer
    from tests.support.hostile import Hostile

_COLUMNS = "global_seq, stream_id, stream_seq, event_type, metadata, created_at, event_id"
_INDEX = "CREATE INDEX ON {} ({}) WHERE public.hers('x') IS NULL"


@pytest_asyncio.fixture
async def hostile(server: EmbeddedServer) -> AsyncIterator[Hostile]:
    async with hostile_database(server) as database:
        await database.plant("text", "public.hers", volatility="IMMUTABLE")
        yield database


async def set_for_all(hostile: Hostile, setting: str) -> None:
    """Set what she may set where the database is hers too."""
    database = await hostile.admin.fetchval("SELECT quote_ident(current_database())")
    await hostile.admin.execute(f"ALTER DATABASE {database} SET {setting}")


async def test_the_role_that_sessions_begin_with_makes_nobody_else_trusted(hostile: Hostile) -> None:
    await hostile.hers.execute(_INDEX.format("events", "stream_id"))
    await set_for_all(hostile, f"role = {hostile.owner.name}")
    async with EventStore.connect(hostile.dsn, read_only=True) as store:
        with pytest.raises(OwnerNotTrusted):
            await store.version("order-1")
    assert not hostile.sprung


@pytest.mark.parametrize(
    "condition", ["query_to_xml('SELECT public.spring()', true, true, '') IS NOT NULL", "lo_export(1, '/x') IS NULL"]
)
async def test_a_view_of_hers_calls_no_function_that_does_what_only_a_superuser_may(
    hostile: Hostile, condition: str
) -> None:
    await hostile.hers.execute(f"CREATE VIEW v AS SELECT {_COLUMNS}, data FROM events WHERE {condition}")
    async with EventStore.connect(hostile.dsn, read_only=True, store="v") as store:
        with pytest.raises(OwnerNotTrusted):
            await store.head()


async def test_a_cast_to_json_is_found_behind_to_jsonb(hostile: Hostile) -> None:
    await hostile.hers.execute("CREATE TYPE t AS (a bigint)")
    await hostile.plant("t", "public.tj", "json")
    await hostile.hers.execute(
        "CREATE CAST (t AS json) WITH FUNCTION public.tj(t);"
        f"CREATE VIEW v AS SELECT {_COLUMNS}, to_jsonb(row(global_seq)::t) AS data FROM events"
    )
    try:
        async with EventStore.connect(hostile.dsn, read_only=True, store="v") as store:
            with pytest.raises(OwnerNotTrusted):
                _ = [event async for event in store.read_all()]
    finally:
        await hostile.hers.execute("DROP CAST (t AS json)")
    assert not hostile.sprung


async def test_an_ordinary_view_opens_without_a_question(hostile: Hostile) -> None:
    await hostile.hers.execute(f"CREATE VIEW v AS SELECT {_COLUMNS}, data || '{{}}' AS data FROM events")
    async with EventStore.connect(hostile.dsn, read_only=True, store="v") as store:
        assert len([event async for event in store.read_all()]) == 5


async def test_what_a_policy_looks_at_is_looked_at(hostile: Hostile) -> None:
    async with new_role(hostile.dsn) as reader:
        await reader.grant("pg_write_server_files")
        await hostile.hers.execute(
            f"CREATE TABLE other (x text); {_INDEX.format('other', 'x')};"
            "CREATE POLICY p ON events USING (NOT EXISTS (SELECT FROM other));"
            "ALTER TABLE events ENABLE ROW LEVEL SECURITY; GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC"
        )
        async with EventStore.connect(reader.dsn(hostile.dsn), read_only=True) as store:
            with pytest.raises(OwnerNotTrusted):
                await store.head()
    assert not hostile.sprung


async def test_the_doctor_asks_where_the_table_is_none_that_can_be_read(hostile: Hostile) -> None:
    await hostile.hers.execute(
        "CREATE TYPE kind AS ENUM ('Placed'); ALTER TABLE events ALTER event_type TYPE kind USING event_type::kind;"
        + _INDEX.format("events", "stream_id")
    )
    async with EventStore.connect(hostile.dsn, read_only=True) as store:
        with pytest.raises(OwnerNotTrusted):
            await store.doctor(full=True)
    assert not hostile.sprung


async def test_a_session_that_is_not_guarded_yet_finds_nothing_of_hers(hostile: Hostile) -> None:
    await set_for_all(hostile, "search_path = public, pg_catalog")
    await hostile.plant("text, text", "public.same", "boolean")
    await hostile.hers.execute("CREATE OPERATOR public.= (FUNCTION = same, LEFTARG = text, RIGHTARG = text)")
    dsn = f"{hostile.dsn}{'&' if '?' in hostile.dsn else '?'}options=-c%20statement_timeout%3D5000"
    async with EventStore.connect(dsn, read_only=True, statement_timeout=30) as store:
        assert await store.head() == 5
    assert not hostile.sprung


async def test_a_store_that_may_be_written_to_is_looked_at_as_often(hostile: Hostile) -> None:
    async with await open_store(Connector(hostile.dsn, "test", timings=Timings(check=0.0))) as store:
        assert await store.head() == 5
        await hostile.hers.execute(_INDEX.format("events", "stream_id"))
        with pytest.raises(OwnerNotTrusted):
            await store.head()


@pytest.mark.parametrize(("limit", "state"), [("999ms", "idle"), ("0", "idle in transaction")])
async def test_no_transaction_stays_open_after_a_read_where_the_server_ends_idle_ones_soon(
    hostile: Hostile, limit: str, state: str
) -> None:
    await set_for_all(hostile, f"idle_in_transaction_session_timeout = '{limit}'")
    connector = Connector(hostile.dsn, "reader", timings=Timings(rest=3600))
    async with await open_store(connector, read_only=True) as store:
        assert await store.head() == 5
        states = await hostile.admin.fetch("SELECT state FROM pg_stat_activity WHERE application_name = 'reader'")
        assert [row["state"] for row in states] == [state]


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
async def test_triggers_for_each_statement_find_what_the_user_does(hostile: Hostile, when: str) -> None:
    await hostile.hers.execute(
        "CREATE TABLE audit (x int); CREATE FUNCTION aud() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO audit VALUES (1); RETURN NULL; END $$;"
        f"CREATE TRIGGER a {when} INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION aud()"
    )
    async with EventStore.connect(hostile.owner.dsn(hostile.dsn)) as store:
        await store.append("order-1", [NewEvent("Placed")])
        with pytest.raises(WrongVersion):
            await store.append("order-1", [NewEvent("Placed")] * 2, expected=77)
