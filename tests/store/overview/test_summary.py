"""What happened in a time window, against the one before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from esx.errors import InvalidQuery
from esx.filter_language import parse_filter
from esx.store.bulk.copy import ImportedEvent
from esx.store.overview import summary
from esx.store.overview.summary import Happened
from esx.store.read.estimates import Estimate

if TYPE_CHECKING:
    import asyncpg

    from esx import EventStore

START = datetime(2026, 8, 7, 12, tzinfo=UTC)


async def fill(store: EventStore) -> None:
    """An event a minute for half an hour; payments only in the last ten."""
    await store.import_events(
        ImportedEvent(
            f"{'payments' if n >= 20 and n % 2 else 'orders'}-{n}",
            0,
            "PaymentTaken" if n >= 20 and n % 2 else "OrderPlaced",
            f'{{"n": {n}}}',
            None,
            START + timedelta(minutes=n),
            uuid4(),
        )
        for n in range(30)
    )


async def test_a_window_against_the_one_before(store18: EventStore) -> None:
    await fill(store18)
    found = await store18.happened(START + timedelta(minutes=20), START + timedelta(minutes=30))
    assert (found.events.count, found.before.count) == (10, 10)
    counted = Estimate.counted
    assert found.rows == (
        Happened("orders", "OrderPlaced", counted(5), counted(10)),
        Happened("payments", "PaymentTaken", counted(5), counted(0)),
    )
    assert found.categories == [("orders", 5, 10), ("payments", 5, 0)]
    chosen = await store18.happened(
        START + timedelta(minutes=20), START + timedelta(minutes=30), where=parse_filter("payments-* $.n > 25")
    )
    assert [(row.category, row.events.count) for row in chosen.rows] == [("payments", 2)]
    empty = await store18.happened(START - timedelta(hours=2), START - timedelta(hours=1))
    assert (empty.rows, empty.events.text) == ((), "0")
    with pytest.raises(InvalidQuery, match="ends before it begins"):
        await store18.happened(START, START)


async def test_a_large_window_is_estimated(
    store18: EventStore, sql18: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data, created_at) "
        "SELECT CASE WHEN n % 4 = 0 THEN 'a-' ELSE 'b-' END || n, 0, 'T', '{}', "
        "$1::timestamptz + n * interval '1 s' FROM generate_series(1, 12000) n",
        START,
    )
    monkeypatch.setattr(summary, "COUNTED_OF_WINDOW", 10_500)
    monkeypatch.setattr(summary, "DRAWN", 3_000)
    found = await store18.happened(START, START + timedelta(seconds=12_001))
    by_category = {row.category: row.events for row in found.rows}
    for category, true in (("a", 3_000), ("b", 9_000)):
        estimate = by_category[category]
        assert not estimate.exact
        assert estimate.known
        assert estimate.low <= true <= (estimate.high or 0)
    assert found.before.count == 0
