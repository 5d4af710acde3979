"""Numbers of events and streams: exact, or not far off, or only what was counted; over stores of all shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx.eventstore import EventStore
from esx.layouts.layout import Layout
from esx.store.read.estimates import COUNTED, COUNTED_STREAMS, Estimate, Sample, count_events, count_streams, places
from esx.store.read.event_list import EventList
from tests.conftest import fresh_database
from tests.support.clusters import TEMPLATE
from tests.support.connections import connected

if TYPE_CHECKING:
    import asyncpg

    from tests.conftest import Servers

pytestmark = pytest.mark.slow

INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data) "
# Each makes a store; the truth is counted, once.
STORES: dict[str, list[str]] = {
    "as many streams as events": [f"{INSERT} SELECT 'account-' || n, 0, 'T', '{{}}' FROM generate_series(1, 30001) n"],
    "few huge streams and many tiny ones": [
        f"{INSERT} SELECT CASE WHEN n % 10 < 8 THEN 'huge-' || n % 3 ELSE 'tiny-' || n END, n, 'T', '{{}}' "
        "FROM generate_series(1, 45000) n"
    ],
    "tiny streams after huge ones": [
        f"{INSERT} SELECT CASE WHEN n < 35000 THEN 'huge-' || n % 2 ELSE 'tiny-' || n END, n, 'T', '{{}}' "
        "FROM generate_series(1, 40000) n"
    ],
    "streams of seven": [f"{INSERT} SELECT 's-' || n / 7, n % 7, 'T', '{{}}' FROM generate_series(0, 34999) n"],
    "streams of forty": [f"{INSERT} SELECT 's-' || n % 2100, n, 'T', '{{}}' FROM generate_series(0, 83999) n"],
    "streams of seventy": [f"{INSERT} SELECT 's-' || n % 2010, n, 'T', '{{}}' FROM generate_series(0, 140699) n"],
    "few streams": [f"{INSERT} SELECT 's-' || n % 1000, n, 'T', '{{}}' FROM generate_series(1, 25000) n"],
    "most events deleted, here and there": [
        f"{INSERT} SELECT 's-' || n / 10, n, 'T', '{{}}' FROM generate_series(1, 45000) n",
        "ANALYZE events",
        "DELETE FROM events WHERE global_seq % 4 <> 0",
    ],
    "nine tenths deleted in a block": [
        f"{INSERT} SELECT 's-' || n / 2, n, 'T', '{{}}' FROM generate_series(1, 60000) n",
        "ANALYZE events",
        "DELETE FROM events WHERE global_seq BETWEEN 3000 AND 52500",
    ],
    "all deleted": [
        f"{INSERT} SELECT 's-' || n, 0, 'T', '{{}}' FROM generate_series(1, 30000) n",
        "DELETE FROM events",
    ],
    "truncated, and filled anew": [
        f"{INSERT} SELECT 's-' || n, 0, 'T', '{{}}' FROM generate_series(1, 30000) n",
        "ANALYZE events",
        "TRUNCATE events",
        f"{INSERT} SELECT 't-' || n % 3000, n, 'T', '{{}}' FROM generate_series(1, 15000) n",
    ],
    "grown a hundredfold since it was analysed": [
        f"{INSERT} SELECT 'old', n, 'T', '{{}}' FROM generate_series(1, 400) n",
        "ANALYZE events",
        f"{INSERT} SELECT 's-' || n / 2, n, 'T', '{{}}' FROM generate_series(1, 40000) n",
    ],
    "a leap in the numbers": [
        f"{INSERT} SELECT 's-' || n / 2, n, 'T', '{{}}' FROM generate_series(1, 12000) n",
        "SELECT setval('events_global_seq_seq', 1000000000)",
        f"{INSERT} SELECT 't-' || n / 2, n, 'T', '{{}}' FROM generate_series(1, 12000) n",
    ],
}

_THE_TRUTH = "CREATE TEMP TABLE truth AS SELECT stream_id, count(*) AS events FROM events GROUP BY stream_id"


def fits(estimate: Estimate, truth: int, bound: int) -> bool:
    """Return whether nothing untrue is told of it."""
    if estimate.exact:
        return estimate.count == truth
    if estimate.known:
        return truth / 2 <= estimate.count <= truth * 2
    return bound < estimate.low <= truth


# Of these it is told how many streams they have, and of this not.
TOLD = {
    "as many streams as events": True,
    "few huge streams and many tiny ones": True,
    "streams of seven": True,
    "streams of seventy": False,
}


@pytest.mark.parametrize(
    ("version", "case"), [*((18, case) for case in STORES), (16, "few huge streams and many tiny ones")]
)
async def test_an_estimate_is_never_far_off(servers: Servers, version: int, case: str) -> None:
    """With the statistics as they are then, and after ANALYZE."""
    async with fresh_database(await servers.get(version), TEMPLATE) as dsn, connected(dsn) as sql:
        await _estimate(dsn, sql, case)


async def _estimate(dsn: str, sql: asyncpg.Connection, case: str) -> None:
    await sql.execute(
        "ALTER TABLE events DISABLE TRIGGER events_doorbell; ALTER TABLE events SET (autovacuum_enabled = off)"
    )
    for statement in (*STORES[case], _THE_TRUTH):
        await sql.execute(statement)
    async with EventStore.connect(dsn) as store:
        await check_estimates(store, sql)
        if case in TOLD:
            streams = await store.count_streams()
            assert streams.known is TOLD[case]
            assert streams.text.startswith("~" if TOLD[case] else f"more than {COUNTED_STREAMS:,}")
            assert (await store.health()).events.known
    await sql.execute("ANALYZE events")
    async with EventStore.connect(dsn) as store:
        await check_estimates(store, sql)


async def check_estimates(store: EventStore, sql: asyncpg.Connection) -> None:
    row = await sql.fetchrow("SELECT coalesce(sum(events), 0)::bigint, count(*) FROM truth")
    assert row is not None
    events, streams = row
    told = (await store.health()).events
    assert fits(told, events, COUNTED), told
    assert fits(await store.count_streams(), streams, COUNTED_STREAMS)
    for prefix in ("s-", "huge-", "tiny-", "account-1", "none"):
        truth = await sql.fetchval("SELECT count(*) FROM truth WHERE starts_with(stream_id, $1)", prefix)
        assert fits(await store.count_streams(prefix=prefix), truth, COUNTED_STREAMS), prefix
    for category in [category async for category in store.categories()]:
        truth = await sql.fetchval(
            "SELECT count(*) FROM truth WHERE split_part(stream_id, '-', 1) = $1", category.category
        )
        assert fits(category.streams, truth, 100), category


async def test_the_events_of_a_part_of_a_list(store18: EventStore, sql18: asyncpg.Connection) -> None:
    for statement in STORES["few huge streams and many tiny ones"]:
        await sql18.execute(statement)
    layout = Layout()
    assert await count_events(sql18, layout, EventList(), 100, 200) == Estimate.counted(100)
    assert (await count_events(sql18, layout, EventList(), 15_000, 40_000)).count == pytest.approx(25_000, rel=0.01)
    huge = await count_events(sql18, layout, EventList("huge-1"))
    assert huge.count == pytest.approx(12_000, rel=0.2), "whose stream_seq have holes"
    assert await count_events(sql18, layout, EventList("tiny-9")) == Estimate.counted(1)
    assert await count_events(sql18, layout, EventList(), 10**9) == Estimate.counted(0)
    assert await count_streams(sql18, layout, "huge-") == Estimate.counted(3)


def test_places_are_spread_over_all_numbers() -> None:
    drawn = places(5, 1_000_004, 1000)
    assert drawn == places(5, 1_000_004, 1000), "the same ones again: a figure does not tremble"
    assert all(5 + part * 1000 <= place < 5 + (part + 1) * 1000 for part, place in enumerate(drawn))
    assert len({place % 1000 for place in drawn}) > 500, "not the same place in each"
    assert places(1, 1000, 1000) == list(range(1, 1001))


def test_what_a_sample_can_and_cannot_tell() -> None:
    whole = Sample(3, 3, (("a", 0.5), ("a", 0.5), ("b", 1.0)))
    assert whole.streams(1) == Estimate.counted(2)
    one_hit = Sample(1_000_000, 1000, (("a", 1.0),))
    assert not one_hit.streams(2001).known
    assert one_hit.streams(2001).text == "more than 2,000"
    many = Sample(1_000_000, 1000, tuple((f"s-{n}", 0.5) for n in range(400)))
    estimate = many.streams(2001)
    assert estimate.text == "~200,000"
    assert estimate.low < 200_000 < (estimate.high or 0)
    assert not many.streams(2001, lambda name: name == "s-1").known
    # Of all numbers drawn each has an event: a few of the others may have none.
    assert not Sample(10**6, 1000, (("a", 1.0),) * 1000).events(10_001).exact
    assert Estimate.counted(5).text == "5"
    assert Estimate.at_least(101).text == "more than 100"


def test_the_bounds_of_an_estimate() -> None:
    full = Sample(10**6, 1000, (("a", 1.0),) * 1000)
    # What was not looked at may lack a few, and there cannot be more events than numbers.
    assert full.events(1) == Estimate(10**6, 995_005, 10**6 + 1)
    assert full.events(999_000) == Estimate(10**6, 999_000, 10**6 + 1)
    half = Sample(10**6, 1000, tuple((f"s-{n}", 0.5) for n in range(400))).streams(2001)
    assert [half.low, half.high] == pytest.approx([178_972, 225_124], abs=2)
    # What was counted is never contradicted by what chance has hit.
    assert Sample(1000, 100, (("a", 1.0),) * 10).events(5000) == Estimate(5000, 5000, 5001)
    assert Sample(0, 0, ()).events(3) == Estimate.at_least(3)
    one_hit = Sample(10**6, 1000, (("a", 1.0),)).streams(2001)
    assert one_hit.count == one_hit.low == 2001
    assert one_hit.high is not None
    assert one_hit.high > 2001


@pytest.mark.parametrize(
    ("estimate", "known"),
    [
        (Estimate(10, 5, 20), True),
        (Estimate(10, 4, 20), False),
        (Estimate(10, 5, 21), False),
        (Estimate(10, 10, None), False),
        (Estimate(10, 10, 10), True),
    ],
)
def test_what_is_off_by_no_more_than_a_factor_of_two_is_known(estimate: Estimate, known: bool) -> None:
    assert estimate.known is known
