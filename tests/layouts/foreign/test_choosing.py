"""Which store is meant, and what is said where it is none that esx can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx import EventStore, SchemaMissing, StoreFailed
from esx.layouts.detection import detect_layout
from esx.layouts.foreign.opening import find_again
from esx.layouts.foreign.recognition import read_tables
from esx.text import size_of
from tests.cli.support import esx, ndjson, one_line_error
from tests.layouts.foreign.fixtures import expected, load, load_into
from tests.support.connections import connected
from tests.support.oddities import SQL_ASCII, database
from tests.support.roles import new_role

if TYPE_CHECKING:
    from tests.conftest import Servers

_OWN = (
    "CREATE TABLE {} (global_seq bigint, stream_id text, stream_seq bigint, event_type text, data jsonb, "
    "metadata jsonb, created_at timestamptz)"
)


async def stores(dsn: str) -> list[tuple[str, str, str | None]]:
    async with EventStore.connect(dsn) as store:
        found, _ = await store.stores()
    return [(each.table.quoted, each.kind.name, each.problem) for each in found]


async def test_the_doctor_says_why_a_store_cannot_be_read_and_does_not_make_one(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "messagedb")
        await connection.execute("ALTER TABLE message_store.messages ALTER COLUMN position TYPE numeric")
    async with EventStore.connect(empty_dsn18) as store:
        findings = await store.doctor()
        [table] = [finding for finding in findings if finding.check == "table"]
        assert table.severity.wrong
        assert table.message == (
            "message_store.messages looks like a store of Message DB, but its column position is of type numeric: "
            "esx cannot read it"
        )
        assert "esx init" not in str(findings)
        assert "connections" in {finding.check for finding in findings}  # what does not need the table is looked at
        assert await store.hidden() == table.message


async def test_a_table_like_esxs_own_and_another_store_are_told_apart_by_the_user(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "messagedb")
        await connection.execute(_OWN.format("audit_log"))
        async with EventStore.connect(empty_dsn18) as store:
            with pytest.raises(SchemaMissing, match=r"message_store.messages \(Message DB\), public.audit_log \(esx\)"):
                await store.head()
        await connection.execute(_OWN.format("events"))
        async with EventStore.connect(empty_dsn18) as store:
            assert await store.head() == 0


async def test_tables_that_inherit_from_a_store_are_parts_of_it(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "messagedb")
        await connection.execute(
            "CREATE TABLE a_child () INHERITS (message_store.messages); CREATE TABLE a_grandchild () INHERITS (a_child)"
        )
    assert await stores(empty_dsn18) == [("message_store.messages", "messagedb", None)]
    async with EventStore.connect(empty_dsn18) as store:
        assert (await store.health()).events.count == 457
    async with EventStore.connect(empty_dsn18, store="a_child") as store:
        with pytest.raises(SchemaMissing, match="no unique index"):  # named, it is looked at alone
            await store.head()


@pytest.mark.slow
async def test_names_that_are_no_text_are_shown_escaped(servers: Servers) -> None:
    async with database(await servers.get(18), SQL_ASCII.name) as dsn:
        async with connected(dsn) as connection:
            await connection.execute(
                "DROP TABLE events CASCADE; CREATE TABLE messages (global_position bigserial PRIMARY KEY, position "
                "bigint, time timestamp, stream_name text, type text, data jsonb, metadata jsonb, id uuid, "
                "UNIQUE (stream_name, position))"
            )
            name = f"{SQL_ASCII.sql('odd', SQL_ASCII.bad)}"
            await connection.execute(
                f"DO $$BEGIN EXECUTE format('CREATE TABLE %I (LIKE messages)', {name}); "
                f"EXECUTE format('ALTER TABLE messages ADD COLUMN %I text', {name}); END$$"
            )
        shown = esx("stores", "-d", dsn).stdout
        assert f'public."odd{SQL_ASCII.visible}"' in shown
        assert [problem for *_, problem in await stores(dsn)] == [
            None,
            "its name is no text in the encoding of the database",
        ]
        async with EventStore.connect(dsn, store="messages") as store:
            assert await store.head() == 0
        async with EventStore.connect(dsn) as store:
            with pytest.raises(SchemaMissing, match=r'there are public\.messages .*, public\."odd'):
                await store.head()


async def test_rights_on_the_columns_are_enough_and_those_that_lack_are_named(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "messagedb")
    async with new_role(empty_dsn18) as role:
        dsn = role.dsn(empty_dsn18)
        await role.grant("SELECT (global_position) ON message_store.messages")
        assert [problem for *_, problem in await stores(dsn)] == ["this user may not use schema message_store"]
        await role.grant(
            "USAGE ON SCHEMA message_store",
            "SELECT (position, stream_name, type, time, id) ON message_store.messages",
        )
        problem = "this user may not read its column data, metadata"
        assert [problem for *_, problem in await stores(dsn)] == [problem]
        async with EventStore.connect(dsn, trust_owner=True) as store:
            with pytest.raises(SchemaMissing, match=problem):
                await store.head()
            await role.grant("SELECT (data, metadata) ON message_store.messages")
            assert len([event async for event in store.read_all()]) == 457
            assert (await store.streams_page(recent=True)).streams
            assert (await store.health()).events.count == 457
            feed = await store.feed()
            assert sum([len(batch.events) async for batch in feed.to_safe_position()]) == 457


async def test_projections_are_not_kept_beside_another_store(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "messagedb")
    async with EventStore.connect(empty_dsn18) as store:
        for change in (
            store.pause_projection,
            store.resume_projection,
            store.reset_projection,
            store.accept_history,
            store.delete_projection,
        ):
            with pytest.raises(StoreFailed, match="belongs to a store of Message DB: esx only reads it"):
                await change("p")


async def test_a_store_that_is_read_is_looked_at_again_without_a_search_for_others(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "messagedb")
        known = await detect_layout(connection)
        assert await find_again(connection, known) == known
        await connection.execute("ALTER TABLE message_store.messages ALTER COLUMN position TYPE numeric")
        with pytest.raises(SchemaMissing, match="position is of type numeric"):
            await find_again(connection, known)
        await connection.execute("ALTER TABLE message_store.messages DROP COLUMN data")
        assert await find_again(connection, known) is None
        assert known.base is not None
        assert [table.oid for table in await read_tables(connection, [known.base])] == [known.base]


@pytest.mark.slow
async def test_init_makes_no_tables_beside_another_store_without_a_yes(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "messagedb")
    asked = one_line_error(esx("init", "-d", empty_dsn18), 2)
    assert "message_store.messages (Message DB), and esx would make tables of its own in schema public" in asked
    assert "--yes" in asked
    async with EventStore.connect(empty_dsn18) as store:
        with pytest.raises(StoreFailed, match=r"message_store\.messages \(Message DB\).*esx init --yes"):
            await store.init()
        assert [kind for _, kind, _ in await stores(empty_dsn18)] == ["messagedb"]
    assert "created table events" in esx("init", "--yes", "-d", empty_dsn18).stdout
    async with EventStore.connect(empty_dsn18) as store:
        assert await store.init() == []  # its tables are there: nothing to ask


async def test_init_never_changes_the_table_events_of_another_tool(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await connection.execute("CREATE TABLE events (id serial, stream varchar(100), name text, data json)")
        async with EventStore.connect(empty_dsn18) as store:
            with pytest.raises(StoreFailed, match="table events there is not esx's, as it has no column global_seq"):
                await store.init(beside_others=True)
        columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'events'::regclass AND attnum > 0"
        assert await connection.fetchval(columns) == 4
        await connection.execute("CREATE SCHEMA apart")
    async with EventStore.connect(f"{empty_dsn18}&options=-csearch_path%3Dapart") as store:
        assert "created table events" in await store.init()


@pytest.mark.parametrize("name", ["commanded", "rails_event_store", "prooph_single", "emmett"])
async def test_a_store_of_several_tables_is_counted_and_sized_by_all_of_them(name: str, empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, name)
        [found] = ndjson(esx("stores", "--json", "-d", empty_dsn18).stdout)
        assert (found["events"], found["events_exact"]) == (expected(name)["events"], False)
        # Their indexes and what is stored apart count as well.
        bytes_of = await connection.fetchval(
            """
            SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'r' AND n.nspname = 'public' AND c.relname = ANY ($1)
        """,
            TABLES_READ.get(name, []),
        )
    [health] = ndjson(esx("health", "--json", "-d", empty_dsn18).stdout)
    if bytes_of is not None:
        assert health["table_bytes"] + health["index_bytes"] == bytes_of
        said = esx("doctor", "-d", empty_dsn18).stdout
        assert f"its tables have {size_of(health['table_bytes'])}, its indexes {size_of(health['index_bytes'])}" in said


TABLES_READ = {
    "commanded": ["stream_events", "streams", "events"],
    "rails_event_store": ["event_store_events", "event_store_events_in_streams"],
}


async def test_the_number_of_events_follows_the_size_of_the_table(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "commanded")
        # Ten times as many, without an ANALYZE.
        await connection.execute("""
            ALTER TABLE events SET (autovacuum_enabled = off);
            INSERT INTO events (event_id, event_type, data, metadata, created_at)
            SELECT gen_random_uuid(), event_type, data, metadata, created_at FROM events, generate_series(1, 9)
        """)
        [found] = ndjson(esx("stores", "--json", "-d", empty_dsn18).stdout)
        assert found["events"] > 2 * 416
        await connection.execute("TRUNCATE events CASCADE")
        [found] = ndjson(esx("stores", "--json", "-d", empty_dsn18).stdout)
        assert found["events"] == 0
