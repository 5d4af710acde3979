"""How far the consumers of another tool's store are, by what that tool keeps beside its events."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import EventStore
from esx.layouts.detection import detect_layout
from esx.layouts.foreign.checkpoints import checkpoint_tables, surroundings
from esx.layouts.foreign.kinds import KINDS
from esx.layouts.foreign.recognition import heads, read_tables, recognise
from esx.metrics.exposition import expose
from esx.metrics.figures import Observer
from esx.store.consume.ages import read_ages
from tests.cli.support import esx, ndjson
from tests.layouts.foreign.fixtures import load, load_into
from tests.support.connections import connected
from tests.support.roles import new_role

if TYPE_CHECKING:
    from tests.conftest import Servers

pytestmark = pytest.mark.slow
KEPT: dict[str, dict[str, str]] = {
    "axon_jdbc": {"com.example.shop.query": '400 {"index":400,"gaps":[397]} owner 12@host'},
    "commanded": {"AccountingHandler": "200", "OrderProjector": "420", "limits": "5 of 32 in account-1000"},
    "commanded_bytea": {"AccountingHandler": "200", "OrderProjector": "260", "limits": "5 of 11 in account-1000"},
    "disintegrate": {"orders": "300"},
    "emmett": {"accounting": "0000000000000000250 stopped"},
    "eventsourcing": {"accounting: Shop": "120", "accounting: __migration__": "1 version of the tables, no consumer"},
    "marten": {"Accounting:All": "426", "HighWaterMark": "426", "OrderView:All": "300"},
    "messagedb": {"payment:position-accounting": "300"},
    "patchlevel": {"orders": "200 active"},
    "prooph_aggregate": {"account_projection": '{"account-a832d69c-09a8-5786-b2bd-3569c253635b": 12} idle'},
    "prooph_single": {"account_projection": '{"account_stream": 12} idle'},
    "sequent": {"Shop::AccountProjector": "in the transaction that appends version 1"},
}
"""What the tools have kept in the fixtures: position, token, state and owner of each consumer."""


@pytest.mark.parametrize("name", KEPT)
async def test_what_each_tool_keeps_is_found(name: str, empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, name)
        await connection.execute("SET search_path = ''")
        found = heads(recognise(await read_tables(connection)))
        store = next(each for each in found if not each.table.name.startswith("accounting"))
        tables = await surroundings(connection, store.kind, store.table.oid)
        assert tables is not None
        [kept], left_out = checkpoint_tables(store.kind, tables)
        assert (kept.problem, left_out) == (None, [])
        rows = await connection.fetch(kept.query(100))
    assert {row[0]: said(row) for row in rows} == KEPT[name]


def said(row: asyncpg.Record, noted: str | None = None) -> str:
    """Return what a consumer has kept: its position, its token, its state and its owner, and when, if that is told."""
    return " ".join(filter(None, [*row[1:4], row[4] and f"owner {row[4]}", noted and f"noted {noted}"]))


async def consumers(dsn: str, code: int = 0) -> tuple[dict[str, dict[str, Any]], str]:
    """Return what `esx health` says of them, by name, and what it says on stderr."""
    done = esx("health", "--json", "-d", dsn)
    assert done.returncode == code, done.stderr
    [health] = ndjson(done.stdout)
    assert health["projections"] == []
    return {each.pop("name"): each for each in health["consumers"]}, done.stderr


async def test_health_shows_how_far_consumers_are_behind(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "marten")
        # A mark from another database, one of a consumer that has not begun, and times that Python does not have.
        await connection.execute(
            "INSERT INTO mt_event_progression VALUES ('Restored', 500, 'infinity'), (E'New\\n', NULL, '0044-03-15 BC')"
        )
    found, _ = await consumers(empty_dsn18)
    assert found["OrderView:All"] == {
        "position": 300,
        "at": None,
        "beyond_head": 0,
        "lag": 126,
        "lag_exact": False,
        "lag_seconds": found["OrderView:All"]["lag_seconds"],
        "state": None,
        "owner": None,
        "last_error": None,
        "updated_at": "2026-03-29T03:06:54.336778Z",
    }
    assert (found["HighWaterMark"]["lag"], found["HighWaterMark"]["lag_exact"]) == (0, True)
    assert (found["Restored"]["lag"], found["Restored"]["beyond_head"]) == (0, 74)
    assert (found["New\n"]["position"], found["New\n"]["lag"], found["New\n"]["updated_at"]) == (None, None, None)
    shown = esx("health", "-d", empty_dsn18).stdout
    assert re.search(r"OrderView:All: at 300, ~126 behind \([^)]+ d[^)]*\), noted ", shown)
    assert "Restored: at 500, 74 beyond the head" in shown
    assert "not begun" in shown
    assert "projections" not in shown


@pytest.fixture
async def dsn_of_marten(servers: Servers) -> str:
    """A database with a store of Marten, for tests that only read."""
    return await servers.kept(18, "consumers_of_marten", lambda dsn: load_into(dsn, "marten"))


def checked(dsn: str, *options: str, code: int) -> str:
    done = esx("check", *options, "-d", dsn)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout


async def test_the_age_of_the_oldest_event_that_is_not_handled_is_known(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "marten")
        old = await connection.fetchval(
            "SELECT extract(epoch FROM clock_timestamp() - timestamp)::float8 FROM mt_events "
            "WHERE seq_id > 300 ORDER BY seq_id LIMIT 1"
        )
    found, _ = await consumers(empty_dsn18)
    assert found["OrderView:All"]["lag_seconds"] == pytest.approx(old, abs=600)
    assert found["Accounting:All"]["lag_seconds"] == 0
    said = checked(empty_dsn18, "--max-age", "30s", code=2)
    assert said.startswith("ESX CRITICAL - OrderView:All is about 126 behind (")
    assert f"max_age={int(old / 1000)}" in said
    assert checked(empty_dsn18, "--max-age", "none", code=0).startswith("ESX OK - 3 consumers, at most 126 events")
    listed = esx("consumers", "-d", empty_dsn18).stdout.splitlines()
    assert re.search(r" ~126 +\d+ d ", next(each for each in listed if each.startswith("OrderView")))
    assert re.search(r" 0 +- ", next(each for each in listed if each.startswith("Accounting")))
    async with EventStore.connect(empty_dsn18) as store:
        text = expose(await Observer(store).measure(), "")[0].decode()
    assert 'esx_consumer_lag_seconds{consumer="OrderView:All",kind="other"}' in text
    assert 'esx_consumer_lag_seconds{consumer="Accounting:All",kind="other"} 0.0' in text


@pytest.mark.parametrize("name", ["messagedb", "commanded", "axon_jdbc", "emmett", "disintegrate", "patchlevel"])
async def test_what_is_behind_has_an_age_in_the_stores_of_many_tools(name: str, empty_dsn18: str) -> None:
    await load_into(empty_dsn18, name)
    found, _ = await consumers(empty_dsn18)
    behind = [each for each in found.values() if each["lag"]]
    assert behind
    assert all(each["lag_seconds"] > 3600 for each in behind)


async def test_ages_that_take_too_long_are_not_known_and_end_nothing(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "marten")
        await connection.execute("SET search_path = ''")
        layout = await detect_layout(connection)
        slow = layout.table.replace("r.timestamp AS", "r.timestamp + (pg_sleep(60)::text || '0')::interval AS")
        assert slow != layout.table
    async with EventStore.connect(empty_dsn18, read_only=True) as store, store._reading() as (session, _):
        begun = time.monotonic()
        assert await read_ages(session, replace(layout, table=slow), [300], patience=0.05) == {}
        assert time.monotonic() - begun < 50
        found = await read_ages(session, layout, [300, 200, 300, 10**12])
        assert found.keys() == {200, 300}
        assert found[200] >= found[300] > 0
        assert await session.fetchval("SELECT current_setting('statement_timeout')") != "2s"


async def test_a_lag_that_no_number_tells_is_unknown_to_monitoring(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "prooph_aggregate")
    said = checked(empty_dsn18, code=3)
    assert said.startswith("ESX UNKNOWN - how far account_projection is behind is not known")
    assert "max_lag=U;" in said
    assert "max_age=U;" in said
    said = checked(empty_dsn18, "--max-lag", "none", "--max-age", "none", code=0)
    assert said.startswith("ESX OK - 1 consumer, how far not known | max_lag=U;;;0")
    async with EventStore.connect(empty_dsn18) as store:
        text = expose(await Observer(store).measure(), "")[0].decode()
    assert 'consumer="account_projection"' not in text
    assert "esx_consumers_left_out 1.0" in text


@pytest.mark.parametrize("command", ["pause", "resume", "reset", "skip", "delete", "retry", "parked"])
async def test_a_consumer_of_another_tool_is_shown_and_never_changed(command: str, dsn_of_marten: str) -> None:
    yes = () if command == "parked" else ("--yes",)
    said = esx("consumers", command, "OrderView:All", *yes, "-d", dsn_of_marten)
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1] == (
        "esx: OrderView:All is a consumer of Marten: esx only shows how far it is, and cannot pause, move or repair it"
    )
    unknown = esx("consumers", command, "Bogus", *yes, "-d", dsn_of_marten)
    assert "there is no consumer Bogus" in unknown.stderr


async def test_what_reads_another_store_is_not_judged(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "sequent")
    assert checked(empty_dsn18, code=0).startswith("ESX OK - 0 consumers")
    assert esx("consumers", "-d", empty_dsn18).stdout.count("Shop::AccountProjector") == 1


async def test_consumers_that_cannot_be_read_are_unknown_to_monitoring(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "marten")
    async with new_role(empty_dsn18) as guest:
        await guest.grant("SELECT ON mt_events, mt_streams")
        assert "ESX UNKNOWN - this user may not read" in checked(guest.dsn(empty_dsn18), code=3)
        async with EventStore.connect(guest.dsn(empty_dsn18)) as store:
            text = expose(await Observer(store, doctor_every=0).measure(), "")[0].decode()
        assert "esx_consumers " not in text


async def test_of_many_tables_of_checkpoints_twenty_are_read_and_it_is_said(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, EventStore.connect(empty_dsn18) as store:
        await load(connection, "marten")
        for n in range(20):
            await connection.execute(f"CREATE TABLE progress_{n} (LIKE mt_event_progression)")
        others = await store.other_consumers()
        assert others.notes == ("there are more tables of checkpoints than 20, whose consumers are not listed",)


async def test_a_consumer_of_one_stream_has_no_lag_in_the_global_order(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "commanded")
    found, _ = await consumers(empty_dsn18)
    assert (found["limits"]["position"], found["limits"]["lag"]) == (None, None)
    assert found["limits"]["at"] == "5 of 32 in account-1000"
    assert "limits: at 5 of 32 in account-1000" in esx("health", "-d", empty_dsn18).stdout


async def test_positions_that_are_no_numbers_hide_no_others(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "messagedb")
        await connection.execute("""
            INSERT INTO message_store.messages (stream_name, position, type, data) VALUES
                ('order:position-a', 0, 'Recorded', '{"position": "far"}'),
                ('order:position-b', 0, 'Recorded', '{"position": 1e300}'), ('order:position-c', 0, 'Recorded', NULL),
                ('order:position-d', 0, 'Recorded', '{"position": 7}'),
                ('order:command+position-e', 0, 'Recorded', '{"position": 8}'),
                ('order:position+other-f', 0, 'Recorded', '{"position": 8}'),
                ('order:position-d', 1, 'Recorded', '{"position": 9}')
        """)
    found, _ = await consumers(empty_dsn18)
    positions = {name: (each["position"], each["at"] and each["at"][:3]) for name, each in found.items()}
    assert positions == {
        "order:position-a": (None, "far"),
        "order:position-b": (None, "100"),
        "order:position-c": (None, None),
        "order:position-d": (9, None),
        "order:command+position-e": (8, None),
        "payment:position-accounting": (300, None),
    }


async def test_what_finds_no_consumers_is_told(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "messagedb")
        await connection.execute("DROP INDEX message_store.messages_category")
        # One of a part of the messages finds only those.
        await connection.execute(
            "CREATE INDEX ON message_store.messages (message_store.category(stream_name)) WHERE position > 0"
        )
    found, told = await consumers(empty_dsn18, 4)
    assert found == {}
    assert "no index on the category finds them" in told


async def test_a_search_that_ends_early_is_told(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "messagedb")
        await connection.execute(
            "INSERT INTO message_store.messages (stream_name, position, type) "
            "SELECT 'c' || n || '-1', 0, 'T' FROM generate_series(1, 2100) n"
        )
    found, told = await consumers(empty_dsn18, 4)
    assert found == {}, "they are behind all these categories"
    assert "only the first 2,000 categories are searched for positions of consumers" in told


async def test_a_user_who_may_not_read_checkpoints_is_told(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "marten")
    async with new_role(empty_dsn18) as guest:
        await guest.grant("SELECT ON mt_events, mt_streams", "SELECT (name) ON mt_event_progression")
        found, told = await consumers(guest.dsn(empty_dsn18), 4)
        assert found == {}
        assert "this user may not read column last_seq_id, last_updated of public.mt_event_progression" in told


async def test_checkpoints_of_an_owner_who_is_not_trusted_are_not_read(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as admin, new_role(empty_dsn18) as guest:
        await load(admin, "marten")
        await admin.execute(f"GRANT CREATE ON SCHEMA public TO {guest.name}")
        async with connected(guest.dsn(empty_dsn18)) as connection:
            await connection.execute("""
                CREATE FUNCTION spy(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE ''ran''; END';
                CREATE TABLE a_trap (name text, last_seq_id bigint); CREATE INDEX ON a_trap (spy(last_seq_id));
                GRANT SELECT ON a_trap TO PUBLIC
            """)
        found, told = await consumers(empty_dsn18, 4)
        assert {*found} == {"Accounting:All", "HighWaterMark", "OrderView:All"}
        assert "public.a_trap uses" in told
        assert "trust the owner" in told


async def test_at_most_a_thousand_are_listed_and_more_are_told(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        await load(connection, "marten")
        await connection.execute(
            "INSERT INTO mt_event_progression SELECT 'View' || n, n FROM generate_series(1, 1100) n"
        )
    async with EventStore.connect(empty_dsn18) as store:
        others = await store.other_consumers()
    assert len(others.consumers) == 1000
    assert others.notes == ("there are more consumers than 1,000, which are not listed",)


async def test_esx_s_own_store_has_none_of_these(dsn18: str) -> None:
    async with EventStore.connect(dsn18) as store:
        assert (await store.other_consumers()).consumers == ()


MADE: dict[str, tuple[str, dict[str, str]]] = {
    "act_pg": (
        "CREATE TABLE {0}_streams (stream varchar, at int, retry smallint, blocked boolean, leased_by uuid);"
        "INSERT INTO {0}_streams VALUES ('cart', 7, 3, true, NULL)",
        {"cart": "7 blocked"},
    ),
    "akka_jdbc": (
        "CREATE TABLE akka_projection_offset_store (projection_name varchar, projection_key varchar, "
        "current_offset varchar, manifest varchar, mergeable boolean, last_updated bigint);"
        "INSERT INTO akka_projection_offset_store VALUES ('carts', 'carts-0', '41', 'SEQ', false, 1774760731282)",
        {"carts carts-0": "41 noted 2026-03-29 05:05:31.282"},
    ),
    "akka_r2dbc": (
        "CREATE TABLE akka_projection_timestamp_offset_store (projection_name varchar, projection_key varchar, "
        "slice int, persistence_id varchar, seq_nr bigint, timestamp_offset timestamptz);"
        "INSERT INTO akka_projection_timestamp_offset_store SELECT 'carts', '0-511', n, 'Cart|' || n, 1, "
        "'2026-03-29 05:05:31Z'::timestamptz - n * interval '1 s' FROM generate_series(0, 3) n",
        {"carts 0-511": "2026-03-29 05:05:31"},
    ),
    "axon_jpa": (
        "CREATE TABLE token_entry (processor_name varchar, segment int, owner varchar, timestamp varchar, token oid, "
        "token_type varchar); INSERT INTO token_entry VALUES ('query', 1, 'me', 'no time', 500001, 'T')",
        {"query/1": "large object 500001: it is gone, or this user lacks SELECT on it owner me noted no time"},
    ),
    "axon5": (
        "CREATE TABLE token_entry (processor_name varchar, segment int, owner varchar, timestamp varchar, token bytea, "
        "token_type varchar); INSERT INTO token_entry (processor_name, segment, token) VALUES "
        """('a', 0, '{"currentToken":{"globalIndex":10},"tokenAtReset":{"globalIndex":15}}'),"""
        """('b', 0, '{"currentToken":null,"tokenAtReset":{"globalIndex":15}}'), ('c', 0, '\\xff00'), ('d', 0, NULL),"""
        "('e', 0, '<T><index>4</index><gaps><long>3</long></gaps></T>')",
        {
            "a": "10 replaying",
            "b": "replaying",
            "c": "",
            "d": "",
            "e": "4 <T><index>4</index><gaps><long>3</long></gaps></T>",
        },
    ),
    "eventuous": (
        "CREATE TABLE checkpoints (id varchar, position bigint); INSERT INTO checkpoints VALUES ('Carts', 12);"
        "CREATE TABLE other (id int, position int); INSERT INTO other VALUES (1, 2)",
        {"Carts": "12"},
    ),
    "evtstore": (
        "CREATE TABLE marks (bookmark varchar, position bigint); INSERT INTO marks VALUES ('carts', 5)",
        {"carts": "5"},
    ),
    "messagedb": (
        "CREATE TABLE propulsion_checkpoint (source text, tranche text, consumer_group text, position bigint);"
        "INSERT INTO propulsion_checkpoint VALUES ('cart', '0', 'views', 9)",
        {"views cart 0": "9"},
    ),
    "pg_eventstore": (
        "CREATE TABLE subscriptions (id int, set varchar, name varchar, current_position bigint, state varchar, "
        "last_error jsonb, locked_by bigint, updated_at timestamp);"
        "INSERT INTO subscriptions VALUES (1, 'Main', 'Carts', 8, 'running', '{}', 3, '2026-03-29 05:05:31')",
        {"Main Carts": "8 running owner 3 noted 2026-03-29 05:05:31"},
    ),
    "prooph": (
        "CREATE TABLE ecotone_projection_state (projection_name text, partition_key text, last_position text);"
        "INSERT INTO ecotone_projection_state VALUES ('carts', 'cart-1', '17'), ('all', NULL, '40:2')",
        {"carts cart-1": "17", "all": "40:2"},
    ),
}
"""Tables of checkpoints as the tools' sources make them, with what is read from them."""


async def test_what_tools_keep_whose_tables_are_made_from_their_sources(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection:
        by_name = {kind.name: kind for kind in KINDS}
        for name, (script, _) in MADE.items():
            kind = by_name[name]
            await connection.execute(f"CREATE SCHEMA of_{name}; SET search_path = of_{name}")
            for table, columns in {name: kind.has, **kind.beside}.items():
                listed = ", ".join(f'"{each}" text' for each in columns)
                await connection.execute(f"CREATE TABLE {table} ({listed})")
            await connection.execute(script.replace("{0}", name))
        await connection.execute("SET search_path = ''; SET timezone = 'Asia/Tokyo'")
        for name, (_, known) in MADE.items():
            oid = await connection.fetchval("SELECT $1::text::regclass::oid", f"of_{name}.{name}")
            tables = await surroundings(connection, by_name[name], oid)
            assert tables is not None
            found = {}
            for kept in checkpoint_tables(by_name[name], tables)[0]:
                for row in await connection.fetch(kept.query(100)):
                    found[row[0]] = said(row, noted=row[6])
            assert found == known
