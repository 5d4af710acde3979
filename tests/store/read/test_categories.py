"""Streams by category, and searching ids."""

from __future__ import annotations

import asyncpg
import pytest

from esx import EventStore
from esx.errors import InvalidQuery
from esx.store.read.categories import CategorySummary
from esx.store.read.estimates import Estimate

pytestmark = pytest.mark.slow

IDS = [
    "a", "a!-1", "a-1", "a-2", "ab", "b-1-x", "b-2", "-odd", "", "z", "Ünï-1", "plain", "c-",
    *(f"many-{n:03d}" for n in range(500)),
]  # fmt: skip


async def fill(dsn: str, ids: list[str]) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT id, n, 'T', '{}' FROM unnest($1::text[]) id, generate_series(0, 2) n",
        ids,
    )
    await connection.execute("ANALYZE events")
    await connection.close()


async def test_categories_from_either_end(dsn18: str, store18: EventStore) -> None:
    await fill(dsn18, IDS)
    found = [category async for category in store18.categories()]
    assert {category.category: category.streams.count for category in found if category.streams.exact} == {
        "": 2, "a": 3, "a!": 1, "ab": 1, "b": 2, "c": 1, "plain": 1, "z": 1, "Ünï": 1,
    }  # fmt: skip
    [many] = [category for category in found if not category.streams.exact]
    assert many.category == "many"
    assert many.streams.known
    assert many.streams.count == pytest.approx(500, rel=0.3)
    forwards: list[CategorySummary] = []
    backwards: list[CategorySummary] = []
    for rows, back in ((forwards, False), (backwards, True)):
        after: str | None = None
        while True:
            page = await store18.categories_page(after=after, limit=2, backwards=back)
            rows.extend(page.categories)
            if page.next_after is None:
                break
            after = page.next_after
    assert forwards == backwards[::-1]
    # The fewer there are on a page, the further each is counted.
    assert forwards == [many._replace(streams=Estimate.counted(500)) if c is many else c for c in found]
    for category in forwards:
        assert await store18.category(category.place) == category
    assert await store18.category("missing-") is None


async def test_few_categories_are_counted_and_longer_ones_estimated_by_how_long_their_streams_are(
    dsn18: str, store18: EventStore
) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("ALTER TABLE events SET (autovacuum_enabled = off)")
    # Half of the events are in one category, in few streams, of which some are longer than others.
    await connection.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT 'order-' || s, n, 'T', '{}'::jsonb FROM generate_series(1, 6000) s, generate_series(0, 1) n UNION ALL "
        "SELECT 'account-' || s, n, 'T', '{}' "
        "FROM generate_series(1, 2500) s, generate_series(0, 2 + s % 5 / 4 * 8) n UNION ALL "
        "SELECT 'cart-' || s, 0, 'T', '{}' FROM generate_series(1, 600) s UNION ALL "
        "SELECT 'order-hot', n, 'T', '{}' FROM generate_series(0, 4999) n"
    )
    for statement in ("SELECT 1", "ANALYZE events"):
        # With statistics and without.
        await connection.execute(statement)
        accounts, carts, orders = [category async for category in store18.categories()]
        assert carts.streams == Estimate.counted(600)
        for category, streams in ((accounts, 2500), (orders, 6001)):
            assert not category.streams.exact
            assert category.streams.known
            assert category.streams.low <= streams <= (category.streams.high or 0)
            assert category.streams.count == pytest.approx(streams, rel=0.3)
    await connection.close()


async def test_ids_are_searched_a_bounded_number_at_a_time(dsn18: str, store18: EventStore) -> None:
    await fill(dsn18, [f"s-{n:05d}" for n in range(12_000)] + ["odd*one", "[x]"])
    looked: list[int] = []
    found = [s.stream_id async for s in store18.streams(contains="-1199", on_progress=looked.append)]
    assert found == [f"s-1199{n}" for n in range(10)]
    assert looked == [5000, 10000, 12002]
    first = await store18.streams_page(contains="11999")
    assert (first.streams, first.looked) == ([], 5000)
    assert [s.stream_id async for s in store18.streams(contains="d*o")] == ["odd*one"]
    assert [s.stream_id async for s in store18.streams(contains="[x")] == ["[x]"]
    page = await store18.streams_page(contains="s-", limit=10)
    assert [s.stream_id for s in page.streams] == [f"s-{n:05d}" for n in range(10)]
    assert page.looked == 12
    with pytest.raises(InvalidQuery, match="not by both"):
        await store18.streams_page(contains="x", match="y*")
