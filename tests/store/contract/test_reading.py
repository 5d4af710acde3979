"""Reading a store with known contents: the same answers from every layout, each by the table's own indexes."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from esx import EventStore
from esx.embedded import EmbeddedServer
from esx.filters import Filter
from esx.glob import glob_to_regex
from esx.model import Event, category_of
from esx.positions import Position
from tests.conftest import Servers
from tests.store.contract.contents import DIGITS, HOT, NAMES, START, contents
from tests.store.contract.layouts import LAYOUTS, Layout
from tests.support.connections import NOT_UTC, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

COUNT = 2000
"""Of which the hot stream has more than a page of a thousand."""
FEW = 20
EVENTS = contents(COUNT)
STREAMS = {name: [event for event in EVENTS if event.stream_id == name] for name in sorted(NAMES, key=str.encode)}


class Own:
    """A store of some layout that holds the events."""

    def __init__(self, layout: Layout, dsn: str, store: EventStore) -> None:
        self.layout = layout
        self.dsn = dsn
        self.store = store


CASES = [(name, version) for name in LAYOUTS for version in (16, 18) if version == 18 or name not in ("named", "view")]
"""PostgreSQL 16 is not asked for what differs from another layout in names alone, or as a view does from its table."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize(("layout", "version"), CASES, indirect=["layout"], ids=[f"{name}-pg{v}" for name, v in CASES])


@pytest.fixture
def layout(request: pytest.FixtureRequest) -> Layout:
    return LAYOUTS[request.param]


@pytest_asyncio.fixture
async def server(version: int, servers: Servers) -> EmbeddedServer:
    return await servers.get(version)


async def make(layout: Layout, dsn: str, events: Sequence[Event] = EVENTS) -> None:
    async with connected(dsn) as connection:
        await connection.execute(NOT_UTC)
        await layout.create(dsn, connection)
        await layout.fill(connection, events)


@pytest_asyncio.fixture
async def store(layout: Layout, server: EmbeddedServer, servers: Servers) -> AsyncIterator[EventStore]:
    """A store that the tests have in common, as they only read it."""
    name = next(name for name, each in LAYOUTS.items() if each is layout)
    dsn = await servers.kept(server.version, re.sub(r"\W", "_", name), lambda dsn: make(layout, dsn))
    async with EventStore.connect(dsn, store=layout.store) as store:
        yield store


@pytest_asyncio.fixture
async def own(layout: Layout, empty_dsn: str) -> AsyncIterator[Own]:
    """A store of one test, to write into, with the first few events."""
    await make(layout, empty_dsn, EVENTS[:FEW])
    async with EventStore.connect(empty_dsn, store=layout.store) as store:
        yield Own(layout, empty_dsn, store)


async def listed(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


# -- events -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_all_events_in_both_directions(store: EventStore) -> None:
    """Every column is as it was stored: numbers, texts, JSON with every digit, times in UTC, ids."""
    assert await listed(store.read_all()) == EVENTS
    assert await listed(store.read_all(backwards=True)) == EVENTS[::-1]
    assert await listed(store.read_all(after=20, before=80, limit=11)) == EVENTS[10:21]
    assert await listed(store.read_all(before=80, limit=3, backwards=True)) == EVENTS[38:35:-1]
    assert await listed(store.read_all(limit=1001)) == EVENTS[:1001]
    for backwards in (False, True):
        pages: list[Event] = []
        previews = []
        while page := await store.read_all_page(
            position=pages[-1].global_seq if pages else None, limit=170, backwards=backwards
        ):
            previews += await store.preview_all_page(
                position=pages[-1].global_seq if pages else None, limit=170, backwards=backwards
            )
            pages += page
        assert pages == EVENTS[:: -1 if backwards else 1]
        assert [each[:5] for each in previews] == [(*event[:4], event.created_at) for event in pages]
        assert [each.data_start for each in previews] == [event.data_json for event in pages]


async def test_each_stream_in_both_directions(store: EventStore) -> None:
    for name, events in STREAMS.items():
        assert await listed(store.read(name)) == events
        assert await listed(store.read(name, backwards=True)) == events[::-1]
        assert await listed(store.read(name, start=1, limit=2)) == events[1:3]
        assert await listed(store.read(name, start=1, backwards=True)) == events[1::-1]
        pages: list[Event] = []
        while page := await store.read_page(name, start=len(pages), limit=130):
            assert [each[:3] for each in await store.preview_page(name, start=len(pages), limit=130)] == [
                event[:3] for event in page
            ]
            pages += page
        assert pages == events
        assert await store.version(name) == events[-1].stream_seq
    assert await listed(store.read(HOT, start=10, limit=1200)) == STREAMS[HOT][10:1210]
    assert await listed(store.read(HOT, limit=0)) == await listed(store.read("none")) == []
    assert await store.version("none") == -1


async def test_single_events(store: EventStore) -> None:
    for event in EVENTS[:6]:
        assert await store.event(event.global_seq) == event
    assert await store.event(1) is None
    numbers = [event.global_seq for event in EVENTS]
    assert await store.events([*numbers, 1, 3]) == dict(zip(numbers, EVENTS, strict=True))
    rare = EVENTS[99]
    before = await store.previous_event(rare.stream_id, rare.stream_seq)
    assert before == STREAMS[rare.stream_id][STREAMS[rare.stream_id].index(rare) - 1]
    assert await store.previous_event(HOT, 10**6, event_type="none") is None


async def test_json_keeps_every_digit_and_times_are_utc(store: EventStore) -> None:
    event = await store.event(EVENTS[4].global_seq)
    assert event is not None
    assert event.data_json == DIGITS
    assert json.loads(event.data_json, parse_float=Decimal)["exact"].as_tuple().digits == (1, 1, 0)
    assert event.data["large"] == 123456789012345678901234567890
    assert isinstance(event.created_at, datetime)
    assert event.created_at.tzinfo is UTC
    assert '"created_at": "2026-03-29T00:35:00.000005Z"' in event.to_json()


# -- streams and categories ---------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_streams_by_name_in_both_directions(store: EventStore) -> None:
    streams = await listed(store.streams())
    assert [stream.stream_id for stream in streams] == list(STREAMS)
    for stream in streams:
        events = STREAMS[stream.stream_id]
        last = events[-1]
        assert stream[1:] == (last.stream_seq, len(events), last.event_type, last.created_at, last.global_seq)
        assert await store.summary(stream.stream_id) == stream
    for backwards in (False, True):
        found = []
        page = await store.streams_page(limit=3, backwards=backwards)
        found += page.streams
        while page.next_after is not None:
            page = await store.streams_page(after=page.next_after, limit=3, backwards=backwards)
            found += page.streams
        assert found == streams[:: -1 if backwards else 1]


@pytest.mark.parametrize("recent", [False, True])
async def test_streams_that_are_chosen(store: EventStore, recent: bool) -> None:
    def expected(chosen: Any) -> list[str]:
        names = [name for name in STREAMS if chosen(name)]
        return sorted(names, key=lambda name: -STREAMS[name][-1].global_seq) if recent else names

    async def ids(**options: Any) -> list[str]:
        return [stream.stream_id async for stream in store.streams(recent=recent, **options)]

    assert await ids() == expected(lambda _: True)
    assert await ids(prefix="order-1") == expected(lambda name: name.startswith("order-1"))
    for glob in ("*-1", "[oO]rder-?", "a%_b", "ünï*", "it's {odd} \\\\ $1 %s"):
        matches = re.compile(glob_to_regex(glob))
        assert await ids(match=glob) == expected(matches.search) != [], glob
    for text in ("1", "rde", "{odd}", "%"):
        assert await ids(contains=text) == expected(lambda name: text in name) != []  # noqa: B023
    assert await ids(prefix="none") == []
    assert await ids(limit=2) == expected(lambda _: True)[:2]


async def test_categories_and_counts(store: EventStore) -> None:
    sizes = Counter(map(category_of, STREAMS))
    found = await listed(store.categories())
    assert {each.category: each.streams.count for each in found} == sizes
    assert [each.category for each in found] == sorted(sizes, key=str.encode)
    back = await store.categories_page(backwards=True)
    assert back.categories == found[::-1]
    assert (await store.count_streams()).count == len(STREAMS)
    assert (await store.count_streams(prefix="order-")).count == 3
    assert await store.count_events("order-") == sum(len(STREAMS[f"order-{n}"]) for n in (1, 2, 10))
    assert await store.stream_outside("order-") in set(STREAMS) - {"order-1", "order-2", "order-10"}
    places = [each[:3] async for page in store.stored_ids("order-", page=4) for each in page]
    assert places == [(e.stream_id, e.stream_seq, e.global_seq) for n in (1, 10, 2) for e in STREAMS[f"order-{n}"]]
    health = await store.health()
    assert (health.events.count, health.first, health.last) == (COUNT, 2, COUNT * 2)
    assert health.last_created_at == EVENTS[-1].created_at


# -- finding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backwards", [False, True])
async def test_searches(store: EventStore, backwards: bool) -> None:
    since, until = START + timedelta(minutes=40), START + timedelta(minutes=160)
    searches: list[tuple[Filter, dict[str, Any], Any]] = [
        (Filter(event_type="Rare"), {}, lambda e: e.event_type == "Rare"),
        (Filter(event_type="R?re"), {"stream": HOT}, lambda e: e.event_type == "Rare" and e.stream_id == HOT),
        (Filter(where="$.n > 100"), {}, lambda e: e.data_json.startswith('{"n"') and e.data["n"] > 100),
        (Filter(where='$metadata.correlation_id == "c-3"'), {}, lambda e: e.metadata == {"correlation_id": "c-3"}),
        (Filter(stream="order-*"), {}, lambda e: e.stream_id.startswith("order-")),
        (Filter(), {"since": since, "until": until}, lambda e: since <= e.created_at < until),
        (Filter(), {"stream": "order-1", "since": since}, lambda e: e.stream_id == "order-1" and e.created_at >= since),
    ]
    for where, options, passes in searches:
        plan = await store.plan_search(where, **options)
        found = [event async for part in store.search(plan, backwards=backwards) for event in part.events]
        assert found == [event for event in EVENTS if passes(event)][:: -1 if backwards else 1], (where, options)


@pytest.mark.slow
async def test_places_in_a_list(store: EventStore) -> None:
    for name, events in (("order-1", STREAMS["order-1"]), (None, EVENTS)):
        for event in events[::37]:
            number = event.global_seq if name is None else event.stream_seq
            assert event.created_at is not None
            for position in (Position(moment=event.created_at), Position(global_seq=event.global_seq)):
                assert (await store.locate(position, stream=name)).first == number
    assert (await store.locate(Position(moment=START + timedelta(days=2)))).first is None


async def test_a_correlation(store: EventStore) -> None:
    members = [event.global_seq for event in EVENTS if event.metadata == {"correlation_id": "c-3"}]
    for of in (members[1], "c-3", str(EVENTS[members[0] // 2 - 1].event_id)):
        trail = await store.trail(of)
        assert (trail.field, trail.correlation) == ("correlation_id", "c-3")
        assert [node.event.global_seq for node in trail.nodes] == members


# -- the feed -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_feed_and_the_export_from_start_to_end(store: EventStore) -> None:
    feed = await store.feed()
    assert [event async for batch in feed.to_safe_position() for event in batch.events] == EVENTS
    feed = await store.feed(after=100, where=Filter(stream="order-*"))
    assert [event async for batch in feed.to_safe_position() for event in batch.events] == [
        event for event in EVENTS if event.global_seq > 100 and event.stream_id.startswith("order-")
    ]
    export = await store.export()
    exported = b"".join([piece async for piece in export])
    assert exported.decode() == "".join(f"{event.to_json()}\n" for event in EVENTS)
    assert (export.until, export.gap) == (COUNT * 2, None)


@pytest.mark.slow
async def test_a_feed_waits_for_an_open_writer(own: Own) -> None:
    """What is written in a transaction that commits late is delivered in its place."""
    late, next_ = contents(FEW + 2)[-2:]
    writer, other = await asyncpg.connect(own.dsn), await asyncpg.connect(own.dsn)
    insert = own.layout.insert.replace("{table}", own.layout.table)
    await writer.execute("BEGIN")
    await writer.execute(insert, *late)
    await other.execute(insert, *next_)
    feed = await own.store.feed(after=FEW * 2)
    seen: list[Event] = []
    async with asyncio.timeout(120):
        async for batch in feed.follow():
            seen += batch.events
            if batch.gap is not None and not seen and writer.is_in_transaction():
                await writer.execute("COMMIT")
            if len(seen) == 2:
                break
    assert seen == [late, next_]
    await writer.close()
    await other.close()


# -- plans --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_pages_are_read_by_the_tables_own_indexes(layout: Layout, empty_dsn: str) -> None:
    """At 5,000 events no page of a list looks through a table: the server's own counters say so."""
    connection = await asyncpg.connect(empty_dsn)
    await layout.create(empty_dsn, connection)
    await layout.fill(connection, contents(5_000))
    await connection.close()
    before = await table_scans(empty_dsn)
    async with EventStore.connect(empty_dsn, store=layout.store) as store:
        for backwards in (False, True):
            await store.read_all_page(position=5_000, limit=50, backwards=backwards)
            await store.preview_all_page(position=5_000, limit=50, backwards=backwards)
            await store.read_page(HOT, start=1_500, limit=50, backwards=backwards)
            await store.preview_page(HOT, start=1_500, limit=50, backwards=backwards)
            await store.streams_page(prefix="order-", limit=50, backwards=backwards)
        await store.streams_page(recent=True, limit=5)
        await store.categories_page(limit=3)
        await store.version(HOT)
        await store.summary(HOT)
        await store.event(5_000)
        await store.locate(Position(moment=START + timedelta(minutes=2_500)))
        async for batch in (await store.feed(after=9_500)).to_safe_position():
            assert batch.events
    assert await table_scans(empty_dsn) == before


async def table_scans(dsn: str) -> int:
    """Return how many times large tables were looked through."""
    connection = await asyncpg.connect(dsn)
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with asyncio.timeout(120):
        # A session hands its counters over when it ends.
        while await connection.fetchval(others):
            await asyncio.sleep(0.02)
    large = "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE n_live_tup + n_tup_ins > 1000"
    scans = int(await connection.fetchval(large))
    await connection.close()
    return scans
