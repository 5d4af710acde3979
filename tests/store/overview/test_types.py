"""The types of a store: all of a small one, a sample of a large one, all by an index or by looking at each event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from esx import NewEvent

if TYPE_CHECKING:
    import asyncpg

    from esx import EventStore


async def fill_many(sql: asyncpg.Connection) -> None:
    """12,000 events of two types, one of a third in the middle; the data get another member half-way."""
    await sql.execute(
        """
        INSERT INTO events (stream_id, stream_seq, event_type, data, created_at)
        SELECT CASE WHEN n % 3 = 0 THEN 'carts-' ELSE 'orders-' END || n, 0,
               CASE WHEN n = 4001 THEN 'Rare' WHEN n % 3 = 0 THEN 'CartMade' ELSE 'OrderPlaced' END,
               CASE WHEN n > 6000 THEN '{"total": 1, "channel": "app"}' ELSE '{"total": 1}' END::jsonb,
               now() - interval '12001 s' + n * interval '1 s'
        FROM generate_series(1, 12000) n
        """
    )


async def test_all_types_of_a_small_store(store18: EventStore) -> None:
    assert (await store18.types()).types == ()
    await store18.append("orders-1", [NewEvent("Placed", {"a": 1}), NewEvent("Paid"), NewEvent("Placed", {"a": 2})])
    await store18.append("carts-1", [NewEvent("Placed", {"a": 3})])
    survey = await store18.types()
    assert survey.complete
    assert [(one.event_type, one.events.count, one.events.exact) for one in survey.types] == [
        ("Placed", 3, True),
        ("Paid", 1, True),
    ]
    placed = survey.types[0]
    assert (placed.first.global_seq, placed.last.global_seq, placed.exact) == (1, 4, True)
    assert placed.categories == ("orders", "carts")
    assert placed.rate is not None
    assert placed.rate > 0
    assert [event.data for event in survey.sample["Placed"]] == [{"a": 1}, {"a": 2}, {"a": 3}]


async def test_large_data_are_left_out_of_the_sample(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T", {"a": [str(n) for n in range(30_000)]}), NewEvent("T")])
    survey = await store18.types()
    assert (len(survey.sample["T"]), survey.large) == (1, 1)


async def test_a_large_store_is_sampled_and_says_so(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await fill_many(sql18)
    survey = await store18.types()
    assert not survey.complete
    assert survey.looked_at < 5_100
    common = {one.event_type: one for one in survey.types}
    assert common["OrderPlaced"].events.low <= 7_999 <= (common["OrderPlaced"].events.high or 0)
    assert not common["OrderPlaced"].events.exact
    assert (common["OrderPlaced"].first.global_seq, common["CartMade"].last.global_seq) == (1, 12_000)
    assert 3 <= len(survey.sample["CartMade"]) <= 100

    full = await store18.types(full=True)
    assert full.complete
    counts = {one.event_type: one.events.count for one in full.types}
    assert counts == {"OrderPlaced": 7_999, "CartMade": 4_000, "Rare": 1}
    recent = await store18.types(since=datetime.now(UTC) - timedelta(seconds=500))
    assert recent.complete
    assert 300 < sum(one.events.count for one in recent.types) < 520

    await sql18.execute("CREATE INDEX ON events (event_type, global_seq)")
    indexed = await store18.types()
    assert indexed.complete
    rare = next(one for one in indexed.types if one.event_type == "Rare")
    assert (rare.events.count, rare.events.exact, rare.first.global_seq, rare.exact) == (1, True, 4001, True)
    assert len(indexed.sample["Rare"]) == 1
