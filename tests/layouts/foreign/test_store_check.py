"""`esx stores check` says what a store has, what it lacks, where it is slow and what it does not promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx import EventStore, SchemaMissing
from esx.layouts.foreign.own import OwnLayout
from tests.cli.support import esx, ndjson, one_line_error
from tests.layouts.foreign.fixtures import load, load_into
from tests.layouts.foreign.own import layout_of, make
from tests.support.connections import connected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OF_STREAMS = {"streams by recent activity", "a page of a stream", "a stream at a glance", "streams by name"}
OF_ALL = {
    "a page of all events",
    "one event",
    "a step of the feed",
    "streams by recent activity",
    "the place of a time",
}


async def states(dsn: str, store: str | None = None, layouts: Sequence[OwnLayout] = ()) -> dict[str, tuple[str, str]]:
    async with EventStore.connect(dsn, store=store, layouts=layouts) as opened:
        return {each.about: (each.state.value, each.text) for each in await opened.check_store()}


async def test_an_index_that_is_dropped_makes_its_shapes_slow(empty_dsn: str, config: Path) -> None:
    layout = layout_of(config)
    async with connected(empty_dsn) as connection:
        await make(connection)
        found = await states(empty_dsn, "shop", [layout])
        assert {state for state, _ in found.values()} == {"ok"}
        assert found.keys() > OF_STREAMS | OF_ALL
        for change, slow, text in (
            # An index that chooses, but does not order; one that orders, but does not choose; one that does both.
            ("CREATE INDEX choosing ON shop.log (tenant, subject)", OF_STREAMS, "its index choosing"),
            ("DROP INDEX shop.choosing; CREATE INDEX ordering ON shop.log (n)", OF_STREAMS, "does not have tenant and"),
            ("CREATE INDEX ON shop.log (tenant, subject, n)", set(), ""),
            ("ALTER TABLE shop.log DROP CONSTRAINT log_pkey", OF_ALL, "reads all of log: it needs an index on (no)"),
        ):
            await connection.execute(f"DROP INDEX IF EXISTS shop.of_subject; {change}")
            found = await states(empty_dsn, "shop", [layout])
            named = {about: text for about, (state, text) in found.items() if state == "slow"}
            assert named.keys() - {"streams by prefix"} == slow, change
            assert not slow or any(text in said for said in named.values()), change
            assert found["places"][0] == "not promised"


async def test_the_command_prints_a_line_for_each_part_and_exits_by_what_it_found(
    empty_dsn18: str, config: Path
) -> None:
    async with connected(empty_dsn18) as connection:
        await make(connection)
        done = esx("stores", "check", "shop", "-d", empty_dsn18)
        assert (done.returncode, done.stderr) == (0, "")
        assert "ok  a page of a stream          an index serves it\n" in done.stdout
        await connection.execute("ALTER TABLE shop.words DROP CONSTRAINT words_pkey")
    layout_of(config, ('metadata = "about"', ""), ("first = 1", 'rule = "not promised"'))
    done = esx("stores", "check", "--json", "--store", "shop", "-d", empty_dsn18)
    found = {line["about"]: (line["state"], line["text"]) for line in ndjson(done.stdout)}
    assert done.returncode == 4
    assert "not promised: order, metadata" in done.stderr
    assert found["order"] == (
        "not promised",
        "in a store of the shop no position is safe, as layouts.shop in the config file says",
    )
    assert found["one event"] == ("slow", "reads all of words: it needs an index on what it is found by")
    assert "a step of the feed" not in found
    allowed = esx("stores", "check", "--allow-partial", "shop", "-d", empty_dsn18)
    assert allowed.returncode == 0


async def test_the_order_is_said_as_the_layout_says_it(empty_dsn18: str, config: Path) -> None:
    async with connected(empty_dsn18) as connection:
        await make(connection)
        layout = layout_of(config, ("first = 1", 'order = "serialised"'))
        found = await states(empty_dsn18, "shop", [layout])
        assert found["order"] == ("ok", "numbers appear in their order, as layouts.shop says")
        await connection.execute("ALTER TABLE shop.log ALTER no DROP IDENTITY")
        found = await states(empty_dsn18, "shop", [layout_of(config)])
        assert found["order"][1].endswith("no sequence belongs to the column")


async def test_what_is_missing_is_listed_and_the_store_cannot_be_read(empty_dsn18: str, config: Path) -> None:
    async with connected(empty_dsn18) as connection:
        await make(connection)
        await load(connection, "messagedb")
        await connection.execute("ALTER TABLE message_store.messages DROP COLUMN metadata")
    layout_of(config, ('"n"', '"version"'), ('"ref"', '"uid"'))
    done = esx("stores", "check", "shop", "-d", empty_dsn18)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "missing  tables  shop.log as a store of the shop lacks column uid",
        "missing  tables  shop.log as a store of the shop lacks column version",
    ]
    done = esx("stores", "check", "messagedb", "--json", "-d", empty_dsn18)
    assert done.returncode == 1
    assert ndjson(done.stdout) == [
        {
            "about": "tables",
            "state": "missing",
            "text": "message_store.messages as a store of Message DB lacks column metadata",
        }
    ]
    assert "there is no" not in one_line_error(esx("stores", "check", "marten", "-d", empty_dsn18), 1)
    assert "--json belongs after" in one_line_error(esx("stores", "--json", "check", "-d", empty_dsn18), 2)


async def test_ids_that_do_not_sort_by_bytes_have_no_ranges(empty_dsn18: str, config: Path) -> None:
    layout = layout_of(config, ('["tenant", "subject"]', '["what", "n"]'))
    async with connected(empty_dsn18) as connection:
        await make(connection)
        await connection.execute("CREATE INDEX ON shop.log (what, n)")
    found = await states(empty_dsn18, "shop", [layout])
    assert found["streams by name"][0] == "ok"
    assert found["streams by prefix"][0] == "slow"
    assert "no range of an index" in found["streams by prefix"][1]


async def test_what_is_no_column_is_not_named_like_one(empty_dsn18: str, config: Path) -> None:
    layout = layout_of(config, ('["tenant", "subject"]', '["lower(r.tenant)", "subject"]'))
    async with connected(empty_dsn18) as connection:
        await make(connection)
    found = await states(empty_dsn18, "shop", [layout])
    assert found["tables"][1] == "shop.log, read as a store of the shop by no, subject, n"
    assert "no unique index on an expression and subject and n alone" in found["places"][1]
    assert found["streams by name"] == ("slow", "reads all of log: it needs an index on what it is found by")


@pytest.mark.parametrize("rows", [0, 1, 2])
async def test_a_handful_of_rows_makes_nothing_slow(rows: int, empty_dsn: str, config: Path) -> None:
    layout = layout_of(config)
    async with connected(empty_dsn) as connection:
        await make(connection)
        await connection.execute("DELETE FROM shop.words WHERE id > $1", rows)
        await connection.execute("VACUUM ANALYZE shop.words")
    found = await states(empty_dsn, "shop", [layout])
    assert {about for about, (state, _) in found.items() if state != "ok"} == set()


@pytest.mark.slow
async def test_what_indexes_serve_is_not_slow_and_what_they_lack_is(empty_dsn: str) -> None:
    async with connected(empty_dsn) as connection:
        await load(connection, "rails_event_store")
        found = await states(empty_dsn)
        assert {about for about, (state, _) in found.items() if state == "slow"} == set()
        assert found["a page of a stream"][1].startswith("an index finds the stream, of which all events are sorted")
        assert found["one event"][1] == "an index serves it"
        await connection.execute("DROP INDEX index_event_store_events_in_streams_on_event_id")
        found = await states(empty_dsn)
        slow = {about for about, (state, _) in found.items() if state == "slow"}
        assert slow == OF_ALL | {"streams by name", "streams by prefix"}
        assert found["one event"][1].startswith("looks for rows along all of event_store_events_in_streams by its")


@pytest.mark.slow
async def test_a_trail_without_metadata_is_not_denied(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "eventsourcing")
    found = await states(empty_dsn18, "public.shop_events")
    assert found["metadata"] == (
        "not promised",
        "events have none; the trail finds the ids of correlation and causation elsewhere in them",
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["commanded", "marten", "messagedb"])
async def test_the_stores_of_other_tools_have_the_indexes_that_esx_needs(name: str, empty_dsn18: str) -> None:
    await load_into(empty_dsn18, name)
    found = await states(empty_dsn18)
    assert {about for about, (state, _) in found.items() if state != "ok"} == set()


async def test_esx_s_own_store_can_be_checked_and_none_is_an_error(dsn18: str, empty_dsn18: str) -> None:
    assert {state for state, _ in (await states(dsn18)).values()} == {"ok"}
    with pytest.raises(SchemaMissing):
        await states(empty_dsn18)
