"""Trails: what shares a correlation id, and what caused what."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from esx import EventStore, NewEvent
from esx.errors import NotFound
from esx.layouts.layout import Layout
from esx.store.trail.ids import find_ids
from esx.store.trail.queries import correlated_sql
from esx.store.trail.trail import COMMON_FIELDS, Causation, FieldNames, TrailEvent, make_trail


def node(number: int, cause: str | None, own: str | None = None) -> TrailEvent:
    return TrailEvent(number, "s", number, "T", "{}", None, None, own or f"id-{number}", cause)


def made(*events: TrailEvent) -> Any:
    return make_trail(events, field=None, correlation=None, anchor=None, more=False, scan=None)


def drawn(trail: Any) -> list[str]:
    return [f"{trail.rails(index)}{trail.nodes[index].event.global_seq}" for index in trail.tree]


def test_the_tree_is_drawn_by_cause_and_siblings_by_order() -> None:
    trail = made(node(1, None), node(2, "id-1"), node(3, "id-1"), node(4, "id-2"), node(5, "id-4"), node(6, None))
    assert drawn(trail) == ["● 1", "├─ 2", "│  ↓ 4", "│  ↓ 5", "└─ 3", "● 6"]
    assert [found.depth for found in trail.nodes] == [0, 1, 1, 2, 3, 0]


def test_circles_and_absent_causes_are_told_as_such() -> None:
    trail = made(
        node(1, "id-3"), node(2, "id-1"), node(3, "id-2"), node(4, "id-4"), node(5, "id-4"), node(6, "who knows")
    )
    assert [found.link for found in trail.nodes] == [
        Causation.CIRCLE, Causation.CAUSED, Causation.CAUSED, Causation.CIRCLE, Causation.CAUSED, Causation.ABSENT,
    ]  # fmt: skip
    assert drawn(trail) == ["↻ 1", "↓ 2", "↓ 3", "↻ 4", "↓ 5", "◌ 6"]


def test_branches_within_branches_are_cut_where_they_leave_the_screen() -> None:
    chain = made(*(node(number, f"id-{number - 1}" if number > 1 else None) for number in range(1, 10_001)))
    assert chain.nodes[-1].depth == 9_999
    assert chain.rails(9_999) == "↓ "
    comb = made(*(node(number, f"id-{(number - 1) // 2 * 2}" if number > 1 else None) for number in range(0, 10_000)))
    deepest = max(range(len(comb.nodes)), key=lambda place: comb.nodes[place].depth)
    assert comb.rails(deepest).startswith("…")
    assert len(comb.rails(deepest)) < 50


async def follow(store: EventStore, names: tuple[str, str], streams: list[str], **also: Any) -> tuple[str, list[UUID]]:
    """Append a chain of events, each caused by the one before it."""
    correlation, ids = str(uuid4()), [uuid4() for _ in streams]
    for at, stream in enumerate(streams):
        metadata = {names[0]: correlation, **({names[1]: str(ids[at - 1])} if at else {}), **also}
        await store.append(stream, [NewEvent("Step", {"at": at}, metadata, ids[at])])
        await store.append("noise", [NewEvent("Other", {}, {names[0]: str(uuid4())})])
    return correlation, ids


async def test_from_any_event_its_id_or_its_correlation_id(store: EventStore) -> None:
    correlation, ids = await follow(store, ("correlation_id", "causation_id"), ["a", "b", "a"])
    for of in (3, str(ids[2]), str(ids[1]).upper(), correlation):
        trail = await store.trail(of)
        assert [found.event.global_seq for found in trail.nodes] == [1, 3, 5], of
        assert (trail.field, trail.correlation) == ("correlation_id", correlation)
        assert drawn(trail) == ["● 1", "↓ 3", "↓ 5"]
        # Only an index on event ids would have found the event without looking for it.
        assert (trail.scan is None) == (of in (3, correlation))
        assert not trail.more
    first = await store.trail(correlation, limit=2)
    assert first.more
    assert [found.event.global_seq for found in first.nodes] == [1, 3]
    for missing in (99, "nobody", str(uuid4())):
        with pytest.raises(NotFound, match=str(missing)):
            await store.trail(missing)


@pytest.mark.parametrize("names", [("correlationId", "causationId"), ("$correlationId", "$causationId")])
async def test_other_conventions_are_found_by_looking_within_a_bound(store18: EventStore, names: Any) -> None:
    correlation, ids = await follow(store18, names, ["a", "b", "a"])
    for of in (3, correlation, str(ids[1])):
        trail = await store18.trail(of)
        assert drawn(trail) == ["● 1", "↓ 3", "↓ 5"]
        assert trail.scan is not None
        assert trail.scan.whole
        assert trail.scan.looked >= 5
    bounded = await store18.trail(3, scan=1)
    assert bounded.scan is not None
    assert not bounded.scan.whole
    with pytest.raises(NotFound, match="newest 2 events"):
        await store18.trail(correlation, scan=2, fields=FieldNames(correlation=("other",)))


async def test_the_index_that_is_advised_is_used(store18: EventStore, dsn18: str) -> None:
    await follow(store18, ("it's an id", "causedBy"), ["a", "b"])
    fields = FieldNames(correlation=("it's an id",), causation=("causedBy",))
    scan = (await store18.trail(3, fields=fields)).scan
    assert scan is not None
    connection = await asyncpg.connect(dsn18)
    for index in scan.indexes:
        await connection.execute(index)
    await connection.close()
    trail = await store18.trail(3, fields=fields)
    assert trail.scan is None
    assert drawn(trail) == ["● 1", "↓ 3"]


@pytest.mark.parametrize("indexed", [False, True])
async def test_without_a_correlation_id_causes_and_effects_are_followed(
    store18: EventStore, dsn18: str, indexed: bool
) -> None:
    ids = [uuid4() for _ in range(5)]
    causes = [None, 0, 1, 2, 0]
    for at, cause in enumerate(causes):
        metadata = None if cause is None else {"causation_id": str(ids[cause])}
        await store18.append(f"s-{at}", [NewEvent("T", {}, metadata, ids[at])])
    if indexed:
        scan = (await store18.trail(2)).scan
        assert scan is not None
        connection = await asyncpg.connect(dsn18)
        for index in scan.indexes:
            await connection.execute(index)
        await connection.close()
    trail = await store18.trail(2)
    assert trail.correlation is None
    # Its sibling, 5, is neither a cause nor an effect of it.
    assert drawn(trail) == ["● 1", "↓ 2", "↓ 3", "↓ 4"]
    assert (trail.scan is None) == indexed


async def test_metadata_of_any_shape_do_no_harm(store18: EventStore) -> None:
    for metadata in (None, [1], "text", {"correlation_id": {"a": 1}}, {"correlation_id": None}, {"correlation_id": 7}):
        await store18.append("odd", [NewEvent("T", {}, metadata)])
    assert [len((await store18.trail(number)).nodes) for number in range(1, 7)] == [1] * 6
    assert (await store18.trail("7")).correlation == "7"


@pytest.mark.slow
async def test_a_page_of_a_trail_touches_its_own_rows(sql: asyncpg.Connection, store: EventStore) -> None:
    await sql.execute("ALTER TABLE events DISABLE TRIGGER USER")
    await sql.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data, metadata) "
        "SELECT 's-' || (n % 1000), n / 1000, 'T', '{}', jsonb_build_object('correlation_id', 'c-' || (n % 20)) "
        "FROM generate_series(0, 29999) n"
    )
    ids = await find_ids(sql, Layout(), COMMON_FIELDS)
    query = correlated_sql(Layout(), ids, [each for each in ids.correlation if each.indexed])
    for analysed in (False, True):
        if analysed:
            await sql.execute("ANALYZE events")
        plan = json.loads(await sql.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", "c-7", 15_000, 100))
        text = json.dumps(plan)
        assert "Seq Scan" not in text
        assert "events_correlation_id_idx" in text
        assert plan[0]["Plan"]["Actual Rows"] == 100
        assert '"Rows Removed by Filter"' not in text


@pytest.mark.slow
async def test_a_long_chain_without_an_index_is_followed_within_one_reading(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data, metadata, event_id) "
        "SELECT 'chain', n, 'T', '{}', jsonb_build_object('causation_id', lpad((n - 1)::text, 32, '0')::uuid), "
        "lpad(n::text, 32, '0')::uuid FROM generate_series(1, 3000) n"
    )
    async with asyncio.timeout(120):
        for number in (1, 1500, 3000):
            trail = await store18.trail(number)
            assert [node.event.global_seq for node in trail.nodes] == list(range(1, 3001))
            assert trail.nodes[-1].depth == 2999
