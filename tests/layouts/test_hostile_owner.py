"""A superuser opens the store of a hostile owner: nothing of hers runs, or esx asks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import EventStore, OwnerNotTrusted, SchemaMissing
from esx.filters import Filter
from esx.positions import parse_position
from esx.postgres.connection import Connector
from esx.postgres.timings import Timings
from tests.support.hostile import hostile_database
from tests.support.pgbouncer import needs_pgbouncer, pooled
from tests.support.roles import new_role
from tests.support.stores import open_store, opened_pool, store_and_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.embedded import EmbeddedServer
    from tests.support.hostile import Hostile


@pytest_asyncio.fixture
async def hostile(server: EmbeddedServer) -> AsyncIterator[Hostile]:
    async with hostile_database(server) as database:
        yield database


async def read_all_there_is(store: EventStore) -> list[object]:
    """Read in every way that a store offers, and return what was read."""
    seen: list[object] = [event async for event in store.read("order-1")]
    seen += [event async for event in store.read_all()]
    seen += [event async for event in store.read_all(backwards=True)]
    seen += await store.preview_page("order-1")
    seen += await store.preview_all_page(backwards=True)
    seen += [await store.event(1), await store.events([1, 2]), await store.version("order-1")]
    seen += [await store.summary("order-0"), await store.previous_event("order-1", 3, event_type="Placed")]
    seen += [stream async for stream in store.streams(contains="der")]
    seen += [stream async for stream in store.streams(recent=True)]
    seen += [each async for each in store.categories()]
    where = Filter(stream="order-*", event_type="Pl*", where='$.n > 1 && $metadata.correlation_id == "c"')
    feed = await store.feed(where=where)
    async for batch in feed.to_safe_position():
        seen += [event.global_seq for event in batch.events]
    plan = await store.plan_search(where)
    seen += [len(part.events) async for part in store.search(plan)]
    trail = await store.trail(3)
    seen.append(len(trail.nodes))
    async for piece in await store.export(where=where):
        seen.append(piece)
    seen += [await store.count_events("order-"), await store.common_types()]
    seen.append(await store.locate(parse_position("-1h")))
    health = await store.health()
    seen.append(health.head)
    seen += [finding.check for finding in await store.doctor(full=True)]
    seen += await store.projections()
    await store.pressure("esx")
    return seen


@pytest.mark.slow
async def test_what_is_planted_in_the_search_path_is_not_found(hostile: Hostile) -> None:
    async with EventStore.connect(hostile.dsn, read_only=True) as store:
        before = await read_all_there_is(store)
    await hostile.plant_everywhere()
    assert not hostile.sprung
    for read_only in (True, False):
        async with EventStore.connect(hostile.dsn, read_only=read_only) as store:
            assert await read_all_there_is(store) == before
    assert not hostile.sprung


async def test_the_trap_works(hostile: Hostile) -> None:
    """Where names are found as the user does, what is planted runs: else the test above could not fail."""
    await hostile.plant("jsonb", "public.pg_column_size", "integer")
    async with opened_pool(hostile.dsn) as pool, pool.lend(guarded=False) as connection:
        await connection.execute("SELECT pg_column_size(data) FROM events")
    assert hostile.sprung


_WHERE_CODE_RUNS = {
    "an index": "CREATE INDEX ON events ((public.hers(event_type)))",
    "the predicate of an index": "CREATE INDEX ON events (stream_id) WHERE public.hers(event_type) IS NULL",
    "statistics": "CREATE STATISTICS s ON (public.hers(event_type)), stream_id FROM events",
    "a CHECK": "ALTER TABLE events ADD CONSTRAINT c CHECK (public.hers(event_type) IS NULL) NOT VALID",
    "a policy": "CREATE POLICY p ON events USING (public.hers(event_type) IS NULL)",
    "the operator of an index": (
        "CREATE FUNCTION public.same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS "
        "'SELECT public.hers($1) IS NULL';"
        "CREATE OPERATOR public.=== (FUNCTION = public.same, LEFTARG = text, RIGHTARG = text);"
        "CREATE INDEX ON events ((event_type OPERATOR(public.===) 'x'))"
    ),
    "the index of a table of schema.sql": "CREATE INDEX ON consumers ((public.hers(name)))",
    "the domain of a column": (
        "CREATE DOMAIN kind AS text CHECK (public.hers(VALUE) IS NULL);ALTER TABLE events ADD COLUMN kind kind"
    ),
    "the domain of a column's domain": (
        "CREATE DOMAIN kind AS text CHECK (public.hers(VALUE) IS NULL); CREATE DOMAIN kinds AS kind[];"
        "ALTER TABLE events ADD COLUMN kinds kinds"
    ),
    "the domain of an index's expression": (
        "CREATE DOMAIN kind AS text CHECK (public.hers(VALUE) IS NULL);"
        "CREATE INDEX ON events ((event_type::public.kind::text)) WHERE event_type IS NULL"
    ),
    "a rule": "CREATE RULE r AS ON INSERT TO events DO ALSO SELECT public.hers(NEW.event_type)",
    "a generated column": "ALTER TABLE events ADD COLUMN g text GENERATED ALWAYS AS (public.hers(event_type)) STORED",
}


_WITHOUT_IT = (
    "DROP FUNCTION public.hers CASCADE; DROP FUNCTION IF EXISTS public.same CASCADE; "
    "DROP DOMAIN IF EXISTS kinds, kind CASCADE"
)


@pytest.mark.slow
async def test_an_owner_of_code_in_a_table_is_named_before_it_runs(hostile: Hostile) -> None:
    for place, put in _WHERE_CODE_RUNS.items():
        async with EventStore.connect(hostile.dsn, read_only=True) as store:
            assert await store.head() == 5, f"before {place}"
        await hostile.hers.execute(
            f"CREATE FUNCTION public.hers(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1'; {put};"
            "CREATE OR REPLACE FUNCTION public.hers(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS "
            "$$ BEGIN PERFORM public.spring(); RETURN NULL; END $$"
        )
        async with EventStore.connect(hostile.dsn, read_only=True) as store:
            for read in (store.head, store.health, store.doctor, lambda store=store: store.version("order-1")):
                with pytest.raises(OwnerNotTrusted) as told:
                    await read()
                assert told.value.owner == hostile.owner.bare, place
                assert "--trust-owner" in str(told.value)
                assert "\n" not in str(told.value), place
        assert not hostile.sprung, place
        # She may read her own store, and so may a user who trusts her.
        async with EventStore.connect(hostile.owner.dsn(hostile.dsn), read_only=True) as store:
            assert await store.head() == 5, place
        assert not hostile.sprung, place
        async with EventStore.connect(hostile.dsn, read_only=True, trust_owner=True) as store:
            assert await store.head() == 5, place
        await hostile.hers.execute(_WITHOUT_IT)


async def test_code_in_a_view_or_in_a_partition_key_is_found(hostile: Hostile) -> None:
    await hostile.hers.execute(
        "CREATE FUNCTION public.hers(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
        "CREATE VIEW public.seen AS SELECT * FROM events WHERE public.hers(event_type) IS NOT NULL;"
        "CREATE TABLE public.parted (LIKE events INCLUDING DEFAULTS) PARTITION BY LIST ((public.hers(event_type)))"
    )
    for name, place in (("public.seen", "rule "), ("public.parted", "the definition of ")):
        async with EventStore.connect(hostile.dsn, read_only=True, store=name) as store:
            with pytest.raises(OwnerNotTrusted, match=place):
                await store.version("order-1")


_RIGHTS = {
    "to make databases": "ALTER ROLE {user} CREATEDB",
    "to make roles": "ALTER ROLE {user} CREATEROLE",
    "to replicate": "ALTER ROLE {user} REPLICATION",
    "to pass by policies": "ALTER ROLE {user} BYPASSRLS",
    "those of another role": "GRANT pg_read_all_settings TO {user}",
    "an object of his own": "CREATE SCHEMA his AUTHORIZATION {user}",
    "to read another table": "CREATE TABLE public.his (n int); GRANT SELECT ON public.his TO {user}",
    "to use another schema": "CREATE SCHEMA others; GRANT USAGE ON SCHEMA others TO {user}",
    "to make schemas": "GRANT CREATE ON DATABASE {database} TO {user}",
}


@pytest.mark.slow
async def test_only_a_user_with_more_rights_than_the_owner_is_asked(hostile: Hostile) -> None:
    await hostile.hers.execute(
        "CREATE FUNCTION public.hers(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
        "CREATE INDEX ON events ((public.hers(event_type)))"
    )
    database = await hostile.admin.fetchval("SELECT current_database()")
    for more, right in _RIGHTS.items():
        async with new_role(hostile.dsn) as user:
            await user.grant("SELECT ON events")
            async with EventStore.connect(user.dsn(hostile.dsn), read_only=True) as store:
                assert await store.version("order-1") == 1, f"before the right {more}"
            await hostile.admin.execute(right.format(user=user.name, database=f'"{database}"'))
            async with EventStore.connect(user.dsn(hostile.dsn), read_only=True) as store:
                with pytest.raises(OwnerNotTrusted):
                    await store.version("order-1")


async def test_an_owner_who_may_become_the_user_gains_nothing(hostile: Hostile) -> None:
    await hostile.hers.execute(
        "CREATE FUNCTION public.hers(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
        "CREATE INDEX ON events ((public.hers(event_type)))"
    )
    await hostile.owner.grant("postgres")
    async with EventStore.connect(hostile.dsn, read_only=True) as store:
        assert await store.head() == 5


async def test_code_that_is_put_in_later_is_found_too(hostile: Hostile) -> None:
    connector = Connector(hostile.dsn, "test", timings=Timings(check=0.0))
    async with await open_store(connector, read_only=True) as store:
        assert await store.head() == 5
        await hostile.hers.execute(
            "CREATE FUNCTION public.hers(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
            "CREATE INDEX ON events ((public.hers(event_type)))"
        )
        with pytest.raises(OwnerNotTrusted):
            await store.head()


async def test_an_owner_who_was_not_trusted_is_not_trusted_at_the_next_read_either(hostile: Hostile) -> None:
    async with store_and_pool(hostile.dsn, read_only=True) as (store, pool):
        assert await store.head() == 5
        await hostile.plant_in_an_index()
        pool.checked_at = 0.0  # it is time to look again
        for _ in range(2):
            with pytest.raises(OwnerNotTrusted):
                await store.head()
    assert not hostile.sprung


async def test_a_table_that_becomes_a_view_between_two_looks_is_not_read(hostile: Hostile) -> None:
    known = await hostile.admin.fetchval("SELECT current_setting('restrict_nonsystem_relation_kind', true)")
    if known is None:
        pytest.skip("this PostgreSQL has no restrict_nonsystem_relation_kind")
    async with EventStore.connect(hostile.dsn, read_only=True) as store:
        assert await store.version("order-1") == 1
        await hostile.plant("text", "public.hers")
        await hostile.hers.execute(
            "BEGIN; ALTER TABLE events RENAME TO aside;"
            "CREATE VIEW events AS SELECT * FROM aside WHERE public.hers(event_type) IS NULL; COMMIT"
        )
        with pytest.raises(Exception, match="view"):
            await store.version("order-1")
    assert not hostile.sprung


async def test_a_policy_behind_a_view_that_is_made_between_two_looks_is_not_run(hostile: Hostile) -> None:
    await hostile.hers.execute("CREATE VIEW public.seen AS SELECT * FROM events")
    async with EventStore.connect(hostile.dsn, read_only=True, store="public.seen") as store:
        assert await store.version("order-1") == 1
        await hostile.plant("text", "public.hers")
        await hostile.hers.execute(
            "BEGIN; CREATE POLICY p ON events USING (public.hers(event_type) IS NULL);"
            "ALTER TABLE events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; COMMIT"
        )
        with pytest.raises(Exception, match="row-level security"):
            await store.version("order-1")
    assert not hostile.sprung


async def test_an_ordinary_store_opens_without_a_question(hostile: Hostile) -> None:
    """It has functions of its owner's, but none that reading runs."""
    async with EventStore.connect(hostile.dsn, read_only=True) as store:
        assert len(await read_all_there_is(store)) > 20


async def test_functions_of_a_superuser_are_no_question(hostile: Hostile) -> None:
    await hostile.admin.execute(
        "CREATE FUNCTION public.his(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
        "CREATE INDEX ON public.events ((public.his(event_type)))"
    )
    async with EventStore.connect(hostile.dsn, read_only=True) as store:
        assert await store.head() == 5


async def test_a_type_that_is_none_of_postgresqls_own_is_refused(hostile: Hostile) -> None:
    """Compared as text, which is all that is found, an id would be another one."""
    await hostile.admin.execute(
        "CREATE TYPE public.kind AS ENUM ('Placed');"
        "ALTER TABLE public.events ALTER event_type TYPE public.kind USING event_type::public.kind"
    )
    async with EventStore.connect(hostile.dsn, read_only=True) as store:
        with pytest.raises(SchemaMissing, match=r"event_type is of type public\.kind"):
            await store.head()


async def test_a_domain_is_what_it_is_made_of(hostile: Hostile) -> None:
    await hostile.hers.execute("CREATE DOMAIN name AS text; CREATE DOMAIN short AS name")
    await hostile.hers.execute("ALTER TABLE public.events ALTER event_type TYPE public.short")
    async with EventStore.connect(hostile.dsn, read_only=True) as store:
        assert await store.head() == 5
        assert [event.event_type async for event in store.read("order-1")] == ["Placed"] * 2


async def test_what_switches_the_session_writable_still_cannot_write(hostile: Hostile) -> None:
    """As a function would that ran after all: the session goes on writable, its transactions do not."""
    async with store_and_pool(hostile.dsn, read_only=True, max_connections=1) as (store, pool):
        for _ in range(2):
            async with pool.lend() as connection:
                await connection.execute("SET default_transaction_read_only = off")
                for statement in ("DELETE FROM public.events", "SET transaction_read_only = off"):
                    with pytest.raises(asyncpg.PostgresError, match=r"read-only|read-write"):
                        async with connection.transaction():
                            await connection.execute(statement)
        assert await store.head() == 5


@needs_pgbouncer
async def test_nor_is_it_behind_a_pooler_where_nothing_may_stay_set(hostile: Hostile) -> None:
    await hostile.plant("jsonb", "public.pg_column_size", "integer")
    await hostile.plant("text, jsonb", "public.jsonb_build_object", "jsonb")
    async with pooled(hostile.dsn) as address:
        for read_only in (True, False):
            async with EventStore.connect(address, read_only=read_only) as store:
                assert store.pooler is not None
                assert len(await read_all_there_is(store)) > 20
    assert not hostile.sprung
