"""Searching events by type, JSONPath and time: the same answer on any way there, and the cost told beforehand."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esx.errors import InvalidQuery
from esx.eventstore import EventStore
from esx.filters import Filter
from esx.glob import glob_to_regex
from esx.layouts.layout import Layout
from esx.model import JsonText, NewEvent
from esx.store.filter_sql import filter_sql
from esx.store.search.plan import SearchLimits
from esx.store.search.slices import slice_sql
from tests.support.rounds import rounds

if TYPE_CHECKING:
    from esx.store.search.plan import SearchPlan

pytestmark = pytest.mark.slow

START = datetime(2026, 8, 7, tzinfo=UTC)

PATHS = [
    "$.n > 3",
    "$.n == 3",
    '$.tags[*] == "a"',
    '$.tags ? (@ == "b")',
    "$.n ? (@ > 2)",
    "$.flag",
    "$.missing",
    "!exists($.flag)",
    "($.n > 3) is unknown",
    "strict $.n",
    "strict $.n > 3",
    "strict $.tags[*].x",
    "$.n + 1",
    "$.tags.size() > 1",
    '$metadata.user == "ann"',
    "$metadata.user",
    "!exists($metadata.user)",
    "$metadata == null",
    '$metadata.user starts with "b" && $metadata.at > 1',
    "$.n == $metadata.at",
    "exists($.n ? (@ > $metadata.at))",
    '$."$n" == "$metadata"',
    "true",
    "$",
]


async def fill(store: EventStore, sql: asyncpg.Connection) -> None:
    """Eighty events of two streams: types, payloads with and without each member, times a little out of order."""
    payloads = [
        '{"n": %d}',
        '{"n": %d, "flag": true}',
        '{"n": "%d", "tags": ["a", "b"]}',
        '{"tags": "a", "flag": null}',
    ]
    payloads += ['[{"n": %d}]', '{"flag": false, "tags": [{"x": null}], "n": %d}', '{"$n": "$metadata", "n": [1, %d]}']
    metadata = [None, '{"user": "ann", "at": 3}', '{"user": "bob", "at": %d}', "[]", '{"user": ["ann"]}']
    for n in range(80):
        payload, about = payloads[n % 7], metadata[n % 5]
        event = NewEvent(
            ["Opened", "Closed", "Operated"][n % 3],
            JsonText(payload % (n % 9) if "%d" in payload else payload),
            None if about is None else JsonText(about % (n % 9) if "%d" in about else about),
        )
        await store.append(f"a-{n % 4 // 3}", [event])
    await sql.execute(
        "UPDATE events SET created_at = $1::timestamptz + (global_seq + global_seq % 5) * '1s'::interval", START
    )
    await sql.execute("DELETE FROM events WHERE global_seq % 11 = 0")
    await sql.execute("ANALYZE events")


@settings(max_examples=rounds(25, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    event_type=st.sampled_from([None, "Opened", "Op*", "*e?", "\\Opened", "None*"]),
    stream_glob=st.sampled_from([None, None, "a-*", "a-1"]),
    path=st.none() | st.sampled_from(PATHS),
    stream=st.sampled_from([None, None, "a-0", "a-9"]),
    seconds=st.tuples(st.none() | st.integers(-3, 90), st.none() | st.integers(-3, 90)),
    backwards=st.booleans(),
    scan=st.integers(1, 50),
    limit=st.integers(1, 20),
)
async def test_any_search_finds_what_a_query_over_all_events_finds(
    store18: EventStore,
    sql18: asyncpg.Connection,
    event_type: str | None,
    stream_glob: str | None,
    path: str | None,
    stream: str | None,
    seconds: tuple[int | None, int | None],
    backwards: bool,
    scan: int,
    limit: int,
) -> None:
    """In slices of any size, in both directions, and on each of the ways that an index may open."""
    if not await store18.head():
        await fill(store18, sql18)
    where = Filter(stream_glob, event_type, path)
    since, until = (None if second is None else START + timedelta(seconds=second) for second in seconds)
    conditions, arguments = filter_sql(where, 4)
    rows = await sql18.fetch(
        "SELECT global_seq FROM events e WHERE ($1::text IS NULL OR stream_id = $1) "
        "AND ($2::timestamptz IS NULL OR created_at >= $2) AND ($3::timestamptz IS NULL OR created_at < $3) "
        f"AND {' AND '.join(conditions) or 'true'} ORDER BY global_seq {'DESC' if backwards else ''}",
        stream,
        since,
        until,
        *arguments,
    )
    expected = [row[0] for row in rows]
    plan = await store18.plan_search(where, stream=stream, since=since, until=until)
    ways = [plan]
    if plan.path is not None and plan.path.indexable(1) is not None:
        ways.append(replace(plan, by_path=True))
    if event_type is not None:
        regex = glob_to_regex(event_type)
        types = [name for name in ("Opened", "Closed", "Operated") if re.fullmatch(regex, name)]
        ways.append(replace(plan, types=tuple(types)))
    for way in ways:
        found: list[int] = []
        looked_at, position = 0, None
        while True:
            at = {"before" if backwards else "after": position}
            part = await store18.search_slice(way, **at, limit=limit, scan=scan, backwards=backwards)
            assert len(part.events) <= min(limit, part.looked_at)
            assert part.looked_at <= scan
            found += [event.global_seq for event in part.events]
            looked_at += part.looked_at
            if part.position is None:
                break
            position = part.position
        assert found == expected
        assert looked_at <= 80


async def test_a_search_stops_at_its_limit_and_says_how_far_it_looked(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("Rare" if n % 1000 == 999 else "Usual") for n in range(9000)])
    plan = await store18.plan_search(Filter(event_type="Rare"))
    parts = [part async for part in store18.search(plan)]
    assert [event.stream_seq for part in parts for event in part.events] == list(range(999, 9000, 1000))
    assert sum(part.looked_at for part in parts) == 9000
    assert len(parts) > 1
    parts = [part async for part in store18.search(plan, start=8999, limit=3, backwards=True)]
    assert [event.stream_seq for part in parts for event in part.events] == [7999, 6999, 5999]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("$.a >", "syntax error"),
        ("$.a == $other", "could not find jsonpath variable"),
        ("$.a ? (@ == $other)", "only variable there is is $metadata"),
        ("", "invalid input syntax"),
        ('$.a like_regex "("', "invalid regular expression"),
        ("$.\x1b[2J", "jsonpath"),
    ],
)
async def test_a_path_that_is_none_is_named_in_one_line(store18: EventStore, path: str, reason: str) -> None:
    with pytest.raises(InvalidQuery) as refused:
        await store18.plan_search(Filter(where=path))
    message = str(refused.value)
    assert repr(path) in message
    assert reason in message
    assert "\n" not in message


async def large(sql: asyncpg.Connection, events: int) -> None:
    await sql.execute("ALTER TABLE events DISABLE TRIGGER events_doorbell")
    await sql.execute(
        """
        INSERT INTO events (stream_id, stream_seq, event_type, data, metadata)
        SELECT 's-' || n % 1000, n / 1000,
               CASE WHEN n % 5000 = 0 THEN 'Rare' WHEN n % 3 = 0 THEN 'Often' ELSE 'Usual' END,
               jsonb_build_object('amount', n, 'owner', jsonb_build_object('name', 'user ' || n % 2000)),
               jsonb_build_object('user', 'u' || n % 1000)
        FROM generate_series(0, $1::bigint - 1) n
        """,
        events,
    )
    await sql.execute("ANALYZE events")


async def looked_at(store: EventStore, where: Filter) -> tuple[SearchPlan, int, int]:
    """Return how a search is planned, and how many events it finds and looks at, to the end."""
    plan = await store.plan_search(where)
    parts = [part async for part in store.search(plan)]
    return plan, sum(len(part.events) for part in parts), sum(part.looked_at for part in parts)


async def test_the_cost_is_told_and_the_index_advised_is_the_one_that_helps(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    """At 40,000 events: without it all are looked at, with it, made word for word, only those that match."""
    store18.search_limits = SearchLimits(large=0.02)
    await large(sql18, 40_000)
    searches = {
        Filter(event_type="Rare"): 8,
        Filter(event_type="Ra*e"): 8,
        Filter(event_type="Rare", where="$.amount > 20000"): 3,
        Filter(where="$.amount > 39900"): 99,
        Filter(where='$.owner.name == "user 7"'): 20,
        Filter(where='$metadata.user == "u7"'): 40,
        Filter(where='$.owner ? (@.name like_regex "^user 19[0-9]$").name'): 200,
    }
    for where, matches in searches.items():
        plan, found, seen = await looked_at(store18, where)
        assert (found, seen) == (matches, 40_000), where
        assert plan.large
        assert 36_000 < plan.reads <= plan.total < 44_000
        assert plan.index is None
        for statement in plan.advice[:1]:
            # CONCURRENTLY waits for every other transaction of the server, those of other tests too.
            await sql18.execute(statement.replace("CONCURRENTLY ", ""))
        plan, found, seen = await looked_at(store18, where)
        assert plan.index is not None, where
        assert not plan.large
        assert plan.index in plan.cost
        assert (found, seen) == (matches, 8 if where.event_type else matches), where
        for index in await sql18.fetch(
            "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indrelid = 'events'::regclass AND "
            "indexrelid::regclass::text NOT IN ('events_pkey', 'events_stream_id_stream_seq_key', "
            "'events_correlation_id_idx')"
        ):
            await sql18.execute(f"DROP INDEX {index['name']}")
    # What nothing helps is not advised; what is found soon, or in a small list, is not large.
    assert (await store18.plan_search(Filter(where="$.amount == $metadata.user"))).advice == ()
    assert (await store18.plan_search(Filter(event_type="Usual"))).advice == ()
    assert not (await store18.plan_search(Filter(event_type="Usual"), wanted=200)).large
    assert not (await store18.plan_search(Filter(event_type="Rare"), stream="s-0")).large
    assert not (await store18.plan_search(Filter())).large


async def test_a_slice_looks_at_no_more_than_it_may(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await large(sql18, 30_000)
    for stream in (None, "s-7"):
        for where in (Filter(event_type="Rare"), Filter(where="$.amount == 1"), Filter("s-1*", "O*", "$.amount > 1")):
            plan = await store18.plan_search(where, stream=stream)
            for backwards in (False, True):
                sql, arguments = slice_sql(Layout(), plan, backwards=backwards)
                text = await sql18.fetchval(
                    f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", 30, 28_000, 500, 10, *arguments
                )
                for node in nodes(json.loads(text)[0]["Plan"]):
                    if node.get("Relation Name") == "events":
                        assert node["Node Type"] == "Index Scan", text
                        assert node["Actual Rows"] * node["Actual Loops"] <= 500, text
                        assert node.get("Rows Removed by Filter", 0) == 0, text


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


async def test_cancelling_a_slice_ends_its_query(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    await store18.append("s", [NewEvent("T")])
    running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%looked AS%' "
    running += "AND state = 'active' AND pid <> pg_backend_pid()"
    busy = await asyncpg.connect(dsn18)
    async with EventStore.connect(dsn18, max_connections=1) as store:
        plan = await store.plan_search(Filter(event_type="R*"))
        async with busy.transaction():
            # A query that takes long: it waits for us.
            await busy.execute("LOCK TABLE events")
            slice_ = asyncio.create_task(store.search_slice(plan))
            while not await sql18.fetchval(running):
                assert not slice_.done()
            slice_.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slice_
            async with asyncio.timeout(120):
                while await sql18.fetchval(running):
                    pass
        assert await store.head() == 1
    await busy.close()
