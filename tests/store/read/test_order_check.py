"""Times that do not rise along a list: what is asked by time is found all the same, or the doubt is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from esx.filters import Filter
from esx.positions import Position
from esx.store.read import order_check
from esx.store.search.plan import SearchLimits

if TYPE_CHECKING:
    import asyncpg

    from esx.eventstore import EventStore
    from esx.store.search.plan import SearchPlan

pytestmark = pytest.mark.slow

START = datetime(2024, 8, 7, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

Block = tuple[int, timedelta]
"""So many events from that time after START on."""
NEW: Block = (1500, timedelta(days=30))
APART = timedelta(seconds=2)
LISTS: dict[str, list[Block]] = {
    "a clock that was set back": [(2000, timedelta(days=30)), (2000, timedelta(days=30, minutes=-50))],
    "older events imported after the newer ones": [NEW, (5000, timedelta())],
    "older events imported in between": [NEW, (2500, timedelta()), (1500, timedelta(days=30, hours=1))],
    "newer events far below": [(1250, timedelta()), (1500, timedelta(days=31)), (4500, timedelta(hours=1))],
    "a long transaction": [NEW, (2000, timedelta(days=30, minutes=-5)), (1500, timedelta(days=30, minutes=50))],
    "in order": [(2000, timedelta()), NEW, (1500, timedelta(days=31))],
}
MOMENTS = [timedelta(days=30), timedelta(days=30, minutes=20), timedelta(minutes=30), timedelta(days=31, seconds=100)]


async def fill(
    sql: asyncpg.Connection, blocks: list[Block], streams: int = 2, apart: timedelta = timedelta(seconds=1)
) -> None:
    await sql.execute("ALTER TABLE events DISABLE TRIGGER events_doorbell")
    for events, begin in blocks:
        await sql.execute(
            """
            INSERT INTO events (stream_id, stream_seq, event_type, data, created_at)
            SELECT 's-' || n % $3, last.number + n / $3 + 1, 'T', '{}', $2::timestamptz + n * $4::interval
            FROM generate_series(0, $1::int - 1) n
            LEFT JOIN LATERAL (SELECT coalesce(max(stream_seq), -1) AS number FROM events
                               WHERE stream_id = 's-' || n % $3) last ON true
            ORDER BY n
            """,
            events,
            START + begin,
            streams,
            apart,
        )
    await sql.execute("ANALYZE events")


class Truth:
    """The numbers of the events of a list that are between two times, asked of the table once each."""

    def __init__(self, sql: asyncpg.Connection) -> None:
        self._sql = sql
        self._known: dict[object, list[int]] = {}

    async def __call__(self, stream: str | None, since: datetime | None, until: datetime | None) -> list[int]:
        if (stream, since, until) not in self._known:
            key = "global_seq" if stream is None else "stream_seq"
            rows = await self._sql.fetch(
                f"SELECT {key} FROM events WHERE ($1::text IS NULL OR stream_id = $1) AND ($2::timestamptz IS NULL "
                f"OR created_at >= $2) AND ($3::timestamptz IS NULL OR created_at < $3) ORDER BY 1",
                stream,
                since,
                until,
            )
            self._known[stream, since, until] = [row[0] for row in rows]
        return self._known[stream, since, until]


async def found(store: EventStore, plan: SearchPlan) -> list[int]:
    numbers: list[int] = []
    async for part in store.search(plan):
        numbers += [event.global_seq if plan.within.stream_id is None else event.stream_seq for event in part.events]
    return numbers


@pytest.mark.one_older
@pytest.mark.parametrize("case", LISTS)
async def test_all_events_of_a_time_are_found_or_the_doubt_is_told(
    store: EventStore, sql: asyncpg.Connection, case: str
) -> None:
    await fill(sql, LISTS[case], apart=APART)
    truth = Truth(sql)
    await _all_are_found(store, truth)
    store.search_limits = SearchLimits(look=0.0)
    await _a_sample_tells(store, truth, in_order=case == "in order")


async def _all_are_found(store: EventStore, truth: Truth) -> None:
    for stream in (None, "s-1"):
        for after in MOMENTS:
            moment = START + after
            place = await store.locate(Position(moment=moment), stream=stream)
            later = await truth(stream, moment, None)
            assert (place.first, place.doubt, place.end_doubt) == (min(later, default=None), None, None)
            earlier = await truth(stream, None, moment)
            assert place.end > max(earlier, default=-1)
            for since, until in ((moment, None), (None, moment), (moment, moment + 20 * MINUTE)):
                plan = await store.plan_search(Filter(), stream=stream, since=since, until=until)
                assert plan.doubt is None
                assert await found(store, plan) == await truth(stream, since, until), (stream, since, until)


async def _a_sample_tells(store: EventStore, truth: Truth, *, in_order: bool) -> None:
    """Check it where looking through is too dear.

    What is out of order by a part that a sample cannot miss is found by looking at all; else nothing is certain.
    """
    for after in MOMENTS:
        moment = START + after
        for since, until in ((moment, None), (None, moment), (moment, moment + 20 * MINUTE)):
            plan = await store.plan_search(Filter(), since=since, until=until)
            assert await found(store, plan) == await truth(None, since, until), (since, until)
            if plan.doubt is not None:
                assert not plan.doubt.broken
                assert "USING brin (created_at)" in plan.doubt.text
        place = await store.locate(Position(moment=moment))
        first = min(await truth(None, moment, None), default=None)
        if place.first != first:
            assert place.doubt is not None
            assert place.doubt.broken
            assert "CREATE INDEX CONCURRENTLY ON events (created_at)" in place.doubt.text
        if in_order and len(await truth(None, None, moment)) > 0:
            assert place.first == first
            assert place.doubt is not None
            assert not place.doubt.broken


async def test_a_search_through_all_tells_its_cost(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await fill(sql18, [(3000, timedelta(days=30)), (20_000, timedelta())])
    since = START + timedelta(days=30)
    for look in (order_check.LOOK, 0.0):
        store18.search_limits = SearchLimits(large=0.02, look=look)
        plan = await store18.plan_search(Filter(), since=since)
        assert plan.large
        assert plan.cost.startswith("looks at ~23,000 events: ")
    await sql18.execute("TRUNCATE events")
    await fill(sql18, LISTS["in order"])
    assert not (await store18.plan_search(Filter(), since=since)).large


async def test_an_index_on_created_at_makes_it_certain(store18: EventStore, sql18: asyncpg.Connection) -> None:
    """A few events of today below twenty thousand old ones: too few for a sample, and too dear to look for."""
    # Dearer than to follow an index, cheaper than to look through the table.
    store18.search_limits = SearchLimits(look=1000.0)
    month = timedelta(days=30)
    await fill(sql18, [(20_000, timedelta()), (3, month), (40_000, timedelta(hours=10)), (3000, month)])
    since = START + month
    expected = await Truth(sql18)(None, since, None)
    plan = await store18.plan_search(Filter(), since=since)
    assert plan.doubt is not None
    assert await found(store18, plan) == expected[3:], "which is why it says so"
    assert (await store18.locate(Position(moment=since))).doubt == plan.doubt
    for index in ("btree (created_at)", "brin (created_at) WITH (pages_per_range = 16)"):
        store18.search_limits = SearchLimits(look=1000.0)
        await sql18.execute(f"CREATE INDEX by_time ON events USING {index}")
        await sql18.execute("ANALYZE events")
        plan = await store18.plan_search(Filter(), since=since)
        assert plan.doubt is None, index
        assert await found(store18, plan) == expected
        assert (await store18.locate(Position(moment=since))).first == expected[0]
        store18.search_limits = SearchLimits(look=0.0)
        plan = await store18.plan_search(Filter(), since=since)
        assert plan.doubt is not None
        assert plan.doubt.index is None, "no second one is asked for"
        await sql18.execute("DROP INDEX by_time")


@pytest.mark.one_older
@pytest.mark.parametrize("look", [order_check.LOOK, 0.0])
async def test_times_that_are_none_lead_nobody_astray(store: EventStore, sql: asyncpg.Connection, look: float) -> None:
    """An event without a time, or an infinite one, is not where a time is reached; a far one is where it says."""
    store.search_limits = SearchLimits(look=look)
    await fill(sql, [(12_000, timedelta())], streams=1)
    await sql.execute("ALTER TABLE events ALTER COLUMN created_at DROP NOT NULL")
    # The very ones that a bisection hits first.
    for number, time in ((6001, "infinity"), (3001, None), (9001, "-infinity"), (1, "infinity"), (12_000, None)):
        await sql.execute("UPDATE events SET created_at = $2::text::timestamptz WHERE global_seq = $1", number, time)
    truth = Truth(sql)
    for stream, offset in ((None, 1), ("s-0", 0)):
        for second in (0, 1, 2999, 3001, 5999, 6001, 11_000):
            moment = START + timedelta(seconds=second)
            place = await store.locate(Position(moment=moment), stream=stream)
            expected = second + offset + (second in (0, 3000, 6000, 9000))
            assert place.first == expected or (place.doubt is not None and place.doubt.broken), second
            plan = await store.plan_search(Filter(), stream=stream, since=moment)
            numbers = await truth(stream, moment, None)
            assert all(plan.first <= number < plan.end for number in numbers) or plan.doubt is not None
    if look:
        assert (await store.locate(Position(moment=START + timedelta(days=1)))).first is None
        for far in ("20000-01-01", "0044-03-15 BC"):
            await sql.execute("UPDATE events SET created_at = $1::text::timestamptz WHERE global_seq = 7", far)
            first = 7 if far[0] == "2" else None
            assert (await store.locate(Position(moment=START + timedelta(days=1)))).first == first


async def test_global_seq_that_fall_within_a_stream(store18: EventStore, sql18: asyncpg.Connection) -> None:
    """Numbers drawn by hand: the event of the list with that number or a higher one is the first such."""
    await fill(sql18, [(5000, timedelta())], streams=1)
    await sql18.execute("UPDATE events SET global_seq = global_seq + 10000 WHERE stream_seq < 2000")
    place = await store18.locate(Position(global_seq=4000), stream="s-0")
    assert (place.first, place.doubt) == (0, None)
    place = await store18.locate(Position(global_seq=11_000), stream="s-0")
    assert (place.first, place.end) == (999, 5000)


def test_a_doubt_says_what_would_end_it() -> None:
    doubt = order_check.Doubt(False, "CREATE INDEX x")
    assert doubt.text.endswith("an index makes it certain: CREATE INDEX x")
    assert "index" not in replace(doubt, index=None).text
    assert "may stand elsewhere" in replace(doubt, broken=True).text
