"""Categories that another tool keeps in a column, as Marten does the types of its streams."""

from __future__ import annotations

from typing import Any

import pytest

from esx import EventStore, InvalidQuery
from esx.filters import StreamFilter
from esx.store.views.streams import StreamsView
from esx.tui.lists.categories import StreamsByCategory
from esx.tui.lists.window import Window
from tests.cli.support import esx, ndjson
from tests.layouts.foreign.fixtures import expected, load_into
from tests.support.connections import connected
from tests.tui.helpers import browse, explorer, text_of, until
from tests.tui.test_sources import walk

_RARE = ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]
_TWO = f"VALUES ('{_RARE[0]}'::uuid, 'rare', 1), ('{_RARE[1]}', 'rare', 1)"
_MANY = "SELECT md5(n::text)::uuid, 'account', 1 FROM generate_series(1, 5500) n"
_MORE = """
    INSERT INTO mt_streams (id, type, version) {};
    INSERT INTO mt_events (seq_id, id, stream_id, version, data, type)
    SELECT nextval('mt_events_sequence'), gen_random_uuid(), s.id, 1, '{{}}', 'T'
    FROM mt_streams s WHERE s.version = 1 AND NOT EXISTS (SELECT FROM mt_events e WHERE e.stream_id = s.id)
"""


@pytest.mark.slow
async def test_with_very_many_streams_a_bounded_number_is_looked_at_and_that_is_said(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "marten")
    async with connected(empty_dsn18) as connection:
        await connection.execute(_MORE.format(_TWO))
        async with EventStore.connect(empty_dsn18) as store:
            sql = await store.sql(StreamsView(StreamFilter(category="rare")))
        # Before there are many: it goes from id to id, which takes long where they are read as texts.
        assert [str(row[0]) for row in await connection.fetch(sql)] == _RARE
        await connection.execute(_MORE.format(_MANY))
    async with EventStore.connect(empty_dsn18) as store:
        page = await store.categories_page()
        assert page.looked is not None
        assert 2000 < page.looked < 3100
        streams = {category.category: category.streams for category in page.categories}
        assert 3000 < streams["account"].count < 11_000
        assert not streams["account"].exact
        # Between them are more streams than are looked at for a page.
        first = await store.streams_page(category="rare")
        assert ([stream.stream_id for stream in first.streams], first.looked) == (_RARE[:1], 5000)
        assert [stream.stream_id async for stream in store.streams(category="rare")] == _RARE
        tree: Window[Any, Any] = Window(StreamsByCategory(store, {"rare"}), page=100)
        for up in (False, True):
            await (tree.end() if up else tree.home())
            await walk(tree, up=up)
            assert [row.label.strip() for row in tree.rows if row.under == "rare"] == _RARE
    done = esx("streams", "--categories", "--json", "-d", empty_dsn18)
    assert done.returncode == 4
    assert done.stderr.endswith("streams that were looked at: others may have others\n")
    assert {line["category"] for line in ndjson(done.stdout)} >= {"account", "order"}
    done = esx("streams", "--category=rare", "--json", "-d", empty_dsn18)
    assert (done.returncode, [line["stream_id"] for line in ndjson(done.stdout)]) == (0, _RARE)
    done = esx("streams", "--category=rare", "--sort=recent", "-d", empty_dsn18)
    assert (done.returncode, done.stdout) == (2, "")
    assert "listed by name" in done.stderr
    async with explorer(empty_dsn18) as (app, pilot):
        await until(pilot, lambda: "streams by name" in text_of(app), "for the streams")
        await pilot.press("c")
        await until(pilot, lambda: f"of {page.looked:,} streams looked at" in text_of(app), "for the note")


async def test_streams_of_a_category_are_chosen_only_where_a_column_has_it(store18: EventStore) -> None:
    with pytest.raises(InvalidQuery, match=r"ids start with order-$"):
        await store18.streams_page(category="order")


async def test_the_tree_of_the_explorer(empty_dsn18: str) -> None:
    await load_into(empty_dsn18, "marten")
    facts = expected("marten")["categories"]
    async with EventStore.connect(empty_dsn18) as store:
        for opened in (set(), {"", "account", "payment"}):
            order = [stream.stream_id async for stream in store.streams(category="account")]
            for page in (1, 7, 300):
                down: Window[Any, Any] = Window(StreamsByCategory(store, opened), page=page)
                await down.home()
                await walk(down, up=False)
                up: Window[Any, Any] = Window(StreamsByCategory(store, opened), page=page)
                await up.end()
                await walk(up, up=True)
                assert up.rows == down.rows
                headings = [row.label for row in down.rows if row.category is not None]
                assert [label[2:] for label in headings] == ["(none)", "account", "cart", "order", "payment"]
                within = [row.label.strip() for row in down.rows if row.under == "account"]
                assert within == (order if opened else [])
                assert len(down.rows) == 1 + 5 + (1 + 12 + facts["payment"]["streams"] if opened else 0)
    async with explorer(empty_dsn18) as (app, pilot):
        await until(pilot, lambda: "streams by name" in text_of(app), "for the streams")
        await pilot.press("c")
        await until(pilot, lambda: "▸ payment" in text_of(app), "for the categories")
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: "▾ account" in text_of(app) and "▸ cart" in text_of(app), "for its streams")
        rows = browse(app).streams_panel.table.rows
        assert [row.label.strip() for row in rows if row.under == "account"] == order
