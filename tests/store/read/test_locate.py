"""Going to a point in time, or to a global_seq, in a list of events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esx.layouts.layout import Layout
from esx.positions import Position
from esx.store.read.event_list import EventList
from esx.store.read.locate import place_of_moment
from tests.support.rounds import rounds

if TYPE_CHECKING:
    from esx.eventstore import EventStore

pytestmark = pytest.mark.slow

START = datetime(2026, 8, 7, tzinfo=UTC)
ROWS = """
    INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data, created_at)
    SELECT global_seq, stream_id, row_number() OVER (PARTITION BY stream_id ORDER BY global_seq) - 1, 'T', '{}', at
    FROM unnest($1::bigint[], $2::text[], $3::timestamptz[]) rows (global_seq, stream_id, at)
"""
# Some numbers are never used (a gap between two), and a transaction may have begun up to a minute before its turn.
EVENTS = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from(["a-1", "b-1"]), st.integers(0, 30), st.integers(0, 60)), max_size=60
)


@settings(max_examples=rounds(12, 30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, seconds=st.integers(-70, 1000), number=st.integers(0, 200))
async def test_the_first_event_at_a_time_or_number(
    dsn18: str, store18: EventStore, events: list[tuple[int, str, int, int]], seconds: int, number: int
) -> None:
    """Holes in global_seq and times out of order by less than what is looked at near by change nothing."""
    rows: list[tuple[int, str, datetime]] = []
    at, global_seq = START, 0
    for gap, of_stream, later, early in events:
        global_seq += gap
        at += timedelta(seconds=later)
        rows.append((global_seq, of_stream, at - timedelta(seconds=early)))
    connection = await asyncpg.connect(dsn18)
    try:
        await connection.execute("TRUNCATE events RESTART IDENTITY")
        await connection.execute(ROWS, *([row[column] for row in rows] for column in range(3)))
        moment = START + timedelta(seconds=seconds)
        streams: tuple[str | None, ...] = (None, "a-1")
        for stream in streams:
            listed = [row for row in rows if stream is None or row[1] == stream]
            numbered = [(row[0] if stream is None else place, *row) for place, row in enumerate(listed)]
            since = [key for key, _, _, created in numbered if created >= moment]
            before = [key for key, _, _, created in numbered if created < moment]
            assert (await store18.locate(Position(moment=moment), stream=stream)).first == min(since, default=None)
            place = await place_of_moment(connection, Layout(), EventList(stream), moment)
            assert all(key < place.end for key in before)
            from_number = [key for key, _, _, _ in numbered if key >= number]
            assert (await store18.locate(Position(number=number), stream=stream)).first == min(
                from_number, default=None
            )
            from_global = [key for key, seq, _, _ in numbered if seq >= number]
            assert (await store18.locate(Position(global_seq=number), stream=stream)).first == min(
                from_global, default=None
            )
    finally:
        await connection.close()


async def test_it_takes_as_many_probes_as_the_store_has_doublings(dsn18: str, store18: EventStore) -> None:
    """A million numbers, most of them missing, are searched in some twenty probes of the primary key."""
    connection = await asyncpg.connect(dsn18)
    try:
        await connection.execute(
            "INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data, created_at) "
            "SELECT n * 100, 's', n, 'T', '{}', $1::timestamptz + n * interval '1 second' "
            "FROM generate_series(1, 10000) n",
            START,
        )
        await connection.execute("ANALYZE events")
        found = (await store18.locate(Position(moment=START + timedelta(seconds=7000.5)))).first
        assert found == 700_100
        assert (await store18.locate(Position(moment=START + timedelta(seconds=7000.5)), stream="s")).first == 7001
        async with connection.transaction():
            await connection.execute("SET LOCAL track_functions = 'none'")
            before = await connection.fetchval("SELECT pg_stat_get_xact_tuples_fetched('events'::regclass)")
            await place_of_moment(connection, Layout(), EventList(), START + timedelta(seconds=7000.5))
            after = await connection.fetchval("SELECT pg_stat_get_xact_tuples_fetched('events'::regclass)")
        assert after - before < 20 + 2 * 1000 + 10
    finally:
        await connection.close()
