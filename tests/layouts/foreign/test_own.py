"""A store that no tool has made is read by a layout in the config file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx import EventStore, OrderUnknown, OwnerNotTrusted, SchemaMissing
from esx.config import BadConfig, load
from esx.layouts.detection import detect_layout
from esx.layouts.foreign.kind import stored
from esx.layouts.foreign.own import own_kind
from tests.cli.support import esx, ndjson, one_line_error
from tests.layouts.foreign.contract import check_all
from tests.layouts.foreign.fixtures import load as load_store
from tests.layouts.foreign.own import LAYOUT, facts, layout_of, make
from tests.support.connections import connected
from tests.support.roles import new_role

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("expression", "name"),
    [("r.n", "n"), ('r."we""ird"', 'we"ird'), ("lower(r.n)", ""), ("r.n + 1", ""), ("v.n", "")],
)
def test_the_name_of_a_column_is_that_of_an_expression_which_is_nothing_else(expression: str, name: str) -> None:
    assert stored(expression) == name


async def test_a_store_of_ones_own_is_read_like_any_other(empty_dsn: str, config: Path) -> None:
    layout = layout_of(config)
    async with connected(empty_dsn) as connection:
        await make(connection)
        found = await detect_layout(connection, "shop", [own_kind(layout)])
    async with EventStore.connect(empty_dsn, store="shop", layouts=[layout]) as store:
        await check_all(store, found, facts())


async def test_the_layout_says_where_the_ids_of_a_trail_are(empty_dsn18: str, config: Path) -> None:
    ids = 'event_id = "ref"\ncorrelation = "tenant"\ncausation = "r.no - 6"'
    layout = layout_of(config, ('event_id = "ref"', ids))
    async with connected(empty_dsn18) as connection:
        await make(connection)
    async with EventStore.connect(empty_dsn18, store="shop", layouts=[layout]) as store:
        trail = await store.trail("t1")
        assert (trail.field, trail.correlation, len(trail.nodes)) == ("tenant", "t1", 24)
        parents = [None if node.parent is None else trail.nodes[node.parent].event.global_seq for node in trail.nodes]
        assert parents == [n - 6 if n > 6 else None for n in (node.event.global_seq for node in trail.nodes)]


async def test_commands_list_and_read_it_by_its_name(empty_dsn18: str, config: Path) -> None:
    async with connected(empty_dsn18) as connection:
        await make(connection)
        await connection.execute("CREATE VIEW shop.shown AS SELECT * FROM shop.log")
    [store] = ndjson(esx("stores", "--json", "-d", empty_dsn18).stdout)
    assert (store["store"], store["kind"], store["title"], store["problem"]) == ("shop.log", "shop", "the shop", None)
    connections = f'[connections.one]\ndsn = "{empty_dsn18}"\nstore = "shop"\n'
    config.write_text(LAYOUT + connections)
    named = [("-d", empty_dsn18, "--store", "shop"), ("-d", empty_dsn18, "--store", "shop.log"), ("-d", "one")]
    for options in (*named, ("-d", empty_dsn18)):
        assert len(ndjson(esx("read", "$all", "--json", *options).stdout)) == 48
    # Numbers of a view may come from anywhere: it is read where it is named, and not followed.
    layout_of(config, ("shop.log", "shop.shown"))
    assert one_line_error(esx("read", "$all", "-d", empty_dsn18), 1).startswith("esx: database")
    seen = esx("read", "$all", "--json", "-d", empty_dsn18, "--store", "shop")
    assert len(ndjson(seen.stdout)) == 48
    assert seen.stderr == (
        "shop.shown is a view or a foreign table of user postgres, and what its owner has put into it runs when it is "
        "read\n"
    )
    assert "shop.shown is no table" in esx("tail", "-d", empty_dsn18, "--store", "shop").stderr
    health = esx("health", "--json", "-d", empty_dsn18, "--store", "shop")
    assert (health.returncode, ndjson(health.stdout)[0]["head"]) == (0, 48)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            (('"n"', '"version"'),),
            "layouts.shop in the config file names column version, which",
        ),
        ((("shop.log", "shop.none"),), "there is no shop.none in this database, which layouts.shop in the config file"),
        ((('"w.word"', '"w.name"'),), "layouts.shop.event_type in the config file: column w.name does not exist"),
        ((("JOIN", "JOYN"),), 'layouts.shop.joins in the config file: syntax error at or near "JOYN"'),
        (
            (('"no"', '"tenant"'),),
            "layouts.shop.global_seq in the config file is of type text, which esx",
        ),
        (
            (('"ref"', '"n"'),),
            "layouts.shop.event_id in the config file is of type int4, which esx",
        ),
    ],
)
async def test_what_is_not_there_is_named_with_its_setting(
    changes: tuple[tuple[str, str], ...], problem: str, empty_dsn18: str, config: Path
) -> None:
    layout = layout_of(config, *changes)
    async with connected(empty_dsn18) as connection:
        await make(connection)
        with pytest.raises(SchemaMissing) as error:
            await detect_layout(connection, "shop", [own_kind(layout)])
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            (("[layouts.shop]", "[layouts.marten]"),),
            "layouts.marten has the name of a kind that esx knows",
        ),
        ((('"shop.log"', '"log"'),), "layouts.shop.relation must name a table with its schema"),
        ((('stream_seq = "n"', ""),), "layouts.shop has no stream_seq: write stream_seq"),
        ((('"no"', "true"),), 'layouts.shop.global_seq must be text: write global_seq = "..."'),
        ((('"no"', 'false\norder = "sequence"'),), 'layouts.shop.order must be "none" where global_seq is false'),
        ((("first = 1", 'first = 1\nrule = "maybe"'),), '"locks", "none needed" or "not promised"'),
        ((("first = 1", 'streams = { relation = "shop.words" }'),), "layouts.shop.streams must have both"),
    ],
)
def test_a_wrong_setting_is_named_with_the_remedy(
    changes: tuple[tuple[str, str], ...], problem: str, config: Path
) -> None:
    with pytest.raises(BadConfig) as error:
        layout_of(config, *changes)
    assert str(error.value).startswith(f"{config}: layouts.")
    assert problem in str(error.value)


async def test_the_hint_of_postgresql_is_in_the_line(empty_dsn18: str, config: Path) -> None:
    layout_of(config, ('"w.word"', '"w.wrd"'))
    async with connected(empty_dsn18) as connection:
        await make(connection)
    assert one_line_error(esx("streams", "--store", "shop", "-d", empty_dsn18), 1).rstrip() == (
        "esx: layouts.shop.event_type in the config file: column w.wrd does not exist "
        '(Perhaps you meant to reference the column "w.word".)'
    )


async def test_a_layout_whose_relation_is_not_there_is_told_where_nothing_else_is(
    empty_dsn18: str, config: Path
) -> None:
    layout_of(config, ("shop.log", "shop.lgo"))
    async with connected(empty_dsn18) as connection:
        await make(connection)
        wrong = "layouts.shop in the config file names shop.lgo, which is not there"
        for command in (["streams"], ["read", "$all"], ["stores", "check"]):
            assert wrong in one_line_error(esx(*command, "-d", empty_dsn18), 1)
        listed = esx("stores", "-d", empty_dsn18)
        assert (listed.returncode, listed.stderr) == (0, f"no event store in this database\n{wrong}\n")
        # The layout of another database says nothing of a store that is there.
        await load_store(connection, "messagedb")
    assert wrong not in esx("streams", "-d", empty_dsn18).stderr
    assert wrong in esx("stores", "-d", empty_dsn18).stderr


async def test_names_of_streams_from_another_table_and_columns_in_capitals(empty_dsn18: str, config: Path) -> None:
    config.write_text(
        '[layouts.orders]\nrelation = "public.\\"OrderEvents\\""\nglobal_seq = false\nstream_id = "OrderId"\n'
        'stream_seq = "Version"\nevent_type = "\'Changed\'"\ndata = "r.\\"Body\\" -> \'data\'"\n'
        'streams = { relation = "public.\\"Orders\\"", column = "Id" }\n'
    )
    async with connected(empty_dsn18) as connection:
        await connection.execute(
            'CREATE TABLE "Orders" ("Id" text COLLATE "C" PRIMARY KEY);'
            'CREATE TABLE "OrderEvents" ("OrderId" text, "Version" smallint, "Body" jsonb,'
            'UNIQUE ("OrderId", "Version"));'
            "INSERT INTO \"Orders\" VALUES ('a-1'), ('a-2'), ('b-1');"
            """INSERT INTO "OrderEvents" SELECT 'a-1', n, '{"data": {"n": 1}}' FROM generate_series(0, 2) n"""
        )
    async with EventStore.connect(empty_dsn18, layouts=load().layouts) as store:
        assert [(each.stream_id, each.version) async for each in store.streams(prefix="a-")] == [("a-1", 2)]
        events = [event async for event in store.read("a-1")]
        assert [(event.stream_seq, event.event_type, event.data) for event in events] == [
            (n, "Changed", {"n": 1}) for n in range(3)
        ]
        with pytest.raises(OrderUnknown, match="no global order"):
            await store.feed()


async def test_integers_may_name_a_stream(empty_dsn18: str, config: Path) -> None:
    layout = layout_of(config, ('["tenant", "subject"]', '["what", "n"]'), ('separator = ":"', ""))
    async with connected(empty_dsn18) as connection:
        await make(connection)
    async with EventStore.connect(empty_dsn18, layouts=[layout]) as store:
        assert {event.stream_id async for event in store.read("2/4")} == {"2/4"}
        assert [stream.stream_id async for stream in store.streams(prefix="2/")] == ["2/1", "2/4", "2/7"]
        assert await store.version("2/x") == -1


async def test_numbers_may_be_below_zero(empty_dsn18: str, config: Path) -> None:
    layout = layout_of(config)
    async with connected(empty_dsn18) as connection:
        await make(connection)
        await connection.execute("UPDATE shop.log SET n = n - 5 WHERE tenant = 't0'")
        await connection.execute(
            "INSERT INTO shop.log (no, tenant, subject, n, what, body) OVERRIDING SYSTEM VALUE "
            "VALUES (-7, 't9', gen_random_uuid(), -2, 1, '{}')"
        )
    async with EventStore.connect(empty_dsn18, store="shop", layouts=[layout]) as store:
        assert (await anext(store.read_all())).global_seq == -7
        [stream] = [stream async for stream in store.streams(prefix="t9")]
        assert [event.stream_seq async for event in store.read(stream.stream_id)] == [-2]
        first = await anext(store.streams())
        assert [event.stream_seq async for event in store.read(first.stream_id)] == [*range(-4, 4)]


async def test_owners_of_joined_tables_count_too(empty_dsn18: str, config: Path) -> None:
    async with connected(empty_dsn18) as connection, new_role(empty_dsn18) as role:
        await make(connection)
        await role.grant("CREATE, USAGE ON SCHEMA shop")
        async with connected(role.dsn(empty_dsn18)) as owner:
            await owner.execute(
                "CREATE FUNCTION shop.spy(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
                "CREATE TABLE shop.others (id smallint, word text); CREATE INDEX ON shop.others (shop.spy(word))"
            )
        layout = layout_of(config, ("shop.words", "shop.others"))
        async with EventStore.connect(empty_dsn18, store="shop", layouts=[layout]) as store:
            with pytest.raises(OwnerNotTrusted, match=r"shop\.others uses function shop\.spy"):
                await store.head()


def test_the_settings_in_effect_are_a_config_file(config: Path) -> None:
    names = 'streams = { relation = "shop.names", column = "name" }\ncaution = """one\ntwo"""\n'
    layout = layout_of(config, ("first = 1", f"first = 1\n{names}"))
    config.write_text(esx("config").stdout)
    assert load().layouts == (layout,)
    layout = layout_of(config, ('"no"', "false"), ("first = 1", ""))
    config.write_text(esx("config").stdout)
    assert load().layouts == (layout,)
