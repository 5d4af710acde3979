"""A page of a list touches a number of rows bounded by the page, whatever the store's size: the plans say so."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from esx.eventstore import EventStore
from esx.expected import ANY
from esx.filters import StreamFilter
from esx.layouts.detection import detect_layout
from esx.layouts.layout import Layout
from esx.layouts.unique_index import find_arbiter
from esx.model import NewEvent
from esx.store.append.appender import Appender
from esx.store.bulk.erase import Eraser, Mark, NotMarked
from esx.store.feed.cursor import Cursor
from esx.store.feed.gap_barrier import Barrier
from esx.store.feed.survey import check_start
from esx.store.known_table import KnownTable
from esx.store.read.categories import SHARED
from esx.store.read.estimates import COUNTED, COUNTED_STREAMS, DRAWS, count_events
from esx.store.read.event_list import EventList
from esx.store.read.facet import Reads
from esx.store.read.pages import streams_by_name, streams_by_recent
from tests.support.oddities import database
from tests.support.partitions import HASH, make

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.embedded import EmbeddedServer

pytestmark = pytest.mark.slow

EVENTS = 100_000
PAGE = 50
SCAN = 500
# Looked at elsewhere, made of pages, or not of the table.
NOT_BOUNDED = {
    "without_number", "streams_page", "streams", "categories", "name_scale", "event_in", "first_version", "passes_over",
    "unlisted_streams",
}  # fmt: skip


class Explained:
    """Runs queries as a connection does, and counts the rows that their scans touch, by custom and by generic plans."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.touched = 0.0
        self.scans: set[str] = set()
        self.nodes: set[str] = set()
        self.parts: set[str] = set()
        """The tables of events that were looked at."""

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        given = f"({', '.join(map(literal, arguments))})" if arguments else ""
        for mode in ("force_custom_plan", "force_generic_plan"):
            await self._connection.execute(f"SET plan_cache_mode = {mode}; PREPARE asked AS {query}")
            explained = await self._connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked{given}")
            await self._connection.execute("DEALLOCATE asked")
            self._count(json.loads(explained)[0]["Plan"])
        return await self._connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> asyncpg.Record | None:
        rows = await self.fetch(query, *arguments)
        return rows[0] if rows else None

    repeat = fetch

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        row = await self.fetchrow(query, *arguments)
        return None if row is None else row[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def anew(self) -> None:
        self.touched = 0.0
        for seen in (self.scans, self.nodes, self.parts):
            seen.clear()

    def _count(self, node: dict[str, Any]) -> None:
        # What a plan has left out as it ran is in its text.
        if node["Actual Loops"]:
            self.nodes.add(node["Node Type"])
            if node.get("Relation Name", "").startswith("events"):
                self.parts.add(node["Relation Name"])
        if "Relation Name" in node or "Index Name" in node:
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            self.touched += max(node["Actual Rows"] + removed, 1) * node["Actual Loops"]
            self.scans.add(node["Node Type"])
        for child in node.get("Plans", ()):
            self._count(child)


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, UUID):
        return f"'{value}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, list):
        # Of whichever type the statement takes there.
        return literal("{" + ",".join("null" if each is None else json.dumps(str(each)) for each in value) + "}")
    return str(value)


class OnConnection(EventStore):
    """A store that reads on a connection that is given."""

    def __init__(self, connection: Any, layout: Layout) -> None:
        self._lent = connection, layout
        self._table = KnownTable(layout, None, ())

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[tuple[Any, Layout]]:
        yield self._lent


async def reads(c: Any, layout: Layout) -> AsyncIterator[tuple[str, int]]:
    """Read each kind of page, and yield its name and how many rows it may touch."""
    store = OnConnection(c, layout)
    for back in (False, True):
        for start in (None, 15_000):
            await store.read_page("hot", start=start, limit=PAGE, backwards=back)
            yield "read_page", PAGE
            await store.preview_page("hot", start=start, limit=PAGE, backwards=back)
            yield "preview_page", PAGE
            await store.read_all_page(position=start, limit=PAGE, backwards=back)
            yield "read_all_page", PAGE
            await store.preview_all_page(position=start, limit=PAGE, backwards=back)
            yield "preview_all_page", PAGE
            assert len([event async for event in store.read("hot", start=start, limit=PAGE, backwards=back)]) == PAGE
            yield "read", PAGE
            bound = {"before" if back else "after": start} if start else {}
            assert len([event async for event in store.read_all(**bound, limit=PAGE, backwards=back)]) == PAGE
            yield "read_all", PAGE
        for after in (None, "s-5"):
            for prefix, match, scan in (("", None, PAGE), ("s-", None, PAGE), ("s-1", "*7", SCAN), ("no", "x", SCAN)):
                page = await streams_by_name(
                    c, layout, StreamFilter(prefix, match), after=after, limit=PAGE, scan=scan, backwards=back
                )
                assert page.looked <= scan
                # To find the next id, and both ends of each stream found.
                yield "streams_by_name", scan + 2 * PAGE + 2
        for place in (None, "s-"):
            found = await store.categories_page(after=place, limit=3, backwards=back)
            assert len(found.categories) <= 3
            # To count, and to draw events and look at the first of their streams.
            yield "categories_page", SHARED + 3 * 4 + DRAWS * 12
    for before in (None, 90_000):
        for match in (None, "*7"):
            await streams_by_recent(c, layout, StreamFilter(match=match), before=before, limit=PAGE, scan=SCAN)
            # For each event, whether a later one of its stream is there; where the scan ended; where the streams begin.
            yield "streams_by_recent", 3 * SCAN + PAGE
    await store.category("s-")
    yield "category", SHARED + 4 + DRAWS * 12
    assert not (await count_events(c, layout, EventList())).exact
    yield "estimates.count_events", COUNTED + 2 * DRAWS + 4
    assert not (await store.count_streams()).exact
    yield "count_streams", COUNTED_STREAMS + DRAWS * 12 + 2
    await store.previous_event("hot", 20_000, event_type="none such", scan=SCAN)
    yield "previous_event", SCAN
    await store.previous_event("hot", 20_000)
    yield "previous_event", 1
    await store.event(70_000)
    yield "event", 1
    await store.events([1, 500, 90_000])
    yield "events", 3
    await store.head()
    yield "head", 1
    await c.fetchval(layout.version(), "hot")
    yield "version", 1
    await store.summary("hot")
    yield "summary", 2
    async for _ in store.stored_ids("s-", page=PAGE):
        break
    yield "stored_ids", PAGE
    await store.stream_outside("s-")
    yield "stream_outside", 2


async def test_each_page_touches_a_bounded_number_of_rows(dsn: str, store: EventStore) -> None:
    """With and without statistics, on 100,000 events: 60,000 in 10,000 streams, and 40,000 in one that is hot."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "ALTER TABLE events DISABLE TRIGGER USER; ALTER TABLE events SET (autovacuum_enabled = off)"
    )
    await connection.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT CASE WHEN n % 10 < 4 THEN 'hot' ELSE 's-' || (n / 10 * 6 + n % 10 - 4) % 10000 END, "
        "CASE WHEN n % 10 < 4 THEN n / 10 * 4 + n % 10 ELSE (n / 10 * 6 + n % 10 - 4) / 10000 END, 'T', '{}' "
        f"FROM generate_series(0, {EVENTS - 1}) n"
    )
    layout = Layout()
    for statement in ("SELECT 1", "ANALYZE events"):
        await connection.execute(statement)
        explained = Explained(connection)
        seen = set()
        async for name, bound in reads(explained, layout):
            # Two plans, and a row or two beyond the page where a scan looks whether there is more.
            assert explained.touched <= 2 * (bound + 3), (name, statement, explained.touched, bound)
            seen.add(name)
            explained.touched = 0
        assert not {scan for scan in explained.scans if "Index" not in scan and "Bitmap" not in scan}
        own = {name for name in vars(Reads) if not name.startswith("_")}
        assert own - seen == NOT_BOUNDED, "a new query: say here how many rows it may touch"
    await connection.execute("DEALLOCATE ALL; RESET plan_cache_mode")
    await connection.reload_schema_state()
    for _ in range(20):
        await streams_by_recent(connection, layout, StreamFilter(), before=None, limit=PAGE, scan=SCAN)
    plans = "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE custom_plans + generic_plans = 20"
    [(custom, generic)] = await connection.fetch(plans)
    assert (custom, generic) == (5, 15), "planned anew for each page, at half of its cost"
    await connection.close()


@pytest.mark.one_older
@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "EUC_JP"])
async def test_a_prefix_is_a_range_of_the_index_in_every_encoding(server: EmbeddedServer, encoding: str) -> None:
    """Of 5,000 streams before it, 100 with the prefix and 5,000 behind it, no more than those 100 are touched."""
    async with database(server, encoding) as dsn:
        connection = await asyncpg.connect(dsn)
        await connection.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data) SELECT p || n, 0, 'T', '{}' FROM "
            "(VALUES ('a-', 5000), ('p-', 100), ('z-', 5000)) v (p, m), generate_series(1, m) n; ANALYZE events"
        )
        layout = Layout(encoding=encoding)
        explained: Any = Explained(connection)
        store = OnConnection(explained, layout)
        reads: dict[str, Any] = {
            "stored_ids": lambda: anext(store.stored_ids("p-", page=1000)),
            "count_events": lambda: store.count_events("p-"),
            "stream_outside": lambda: store.stream_outside(""),
            "look": lambda: Eraser(explained, layout, "p-", Mark("run", "1")).look(),
        }
        for backwards in (False, True):
            reads[f"streams_by_name {backwards}"] = partial(
                streams_by_name, explained, layout, StreamFilter("p-"),
                after=None, limit=1000, scan=1000, backwards=backwards,
            )  # fmt: skip
        for name, read in reads.items():
            with contextlib.suppress(NotMarked):
                await read()
            # By two plans; each stream found is probed for, and for both of its ends.
            most = 2 * (3 * 100 + 3)
            assert 0 < explained.touched <= most, (name, explained.touched)
            explained.touched = 0
        await connection.close()


async def test_partitions_by_stream_are_read_as_one_table(empty_dsn: str) -> None:
    """Of 3 partitions with 30,000 events: one holds a stream, and a page of all events merges what their indexes give.

    With and without statistics. Sorting would read all that there is.
    """
    await make(empty_dsn, HASH)
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(
        "ALTER TABLE events DISABLE TRIGGER USER; INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT CASE WHEN n % 3 = 0 THEN 'hot' ELSE 's-' || n % 3000 END, "
        "n / CASE WHEN n % 3 = 0 THEN 3 ELSE 3000 END, "
        "'T', '{}' FROM generate_series(0, 29999) n"
    )
    for statement in ("SELECT 1", "ANALYZE events"):
        await connection.execute(statement)
        await _read_as_one_table(connection)
    await connection.close()


async def _read_as_one_table(connection: asyncpg.Connection) -> None:
    layout = await detect_layout(connection)
    arbiter = await find_arbiter(connection, layout)
    home = await connection.fetchval("SELECT tableoid::regclass::text FROM events WHERE stream_id = 'hot' LIMIT 1")
    explained: Any = Explained(connection)
    store = OnConnection(explained, layout)

    def check(most: int, parts: set[str]) -> None:
        # By two plans; of each partition a row more, to see whether it comes next.
        assert 0 < explained.touched <= 2 * (most + 3 + 3), (explained.touched, most)
        assert explained.parts == parts
        assert not {scan for scan in explained.scans if "Index" not in scan and "Bitmap" not in scan}
        explained.anew()

    everywhere = {"events_0", "events_1", "events_2"}
    for back in (False, True):
        for start in (None, 5_000):
            await store.read_page("hot", start=start, limit=PAGE, backwards=back)
            check(PAGE, {home})
            await store.read_all_page(position=start, limit=PAGE, backwards=back)
            assert "Merge Append" in explained.nodes
            assert "Sort" not in explained.nodes
            check(PAGE, everywhere)
    await explained.fetchval(layout.version(), "hot")
    check(1, {home})
    await store.summary("hot")
    check(2, {home})
    assert await store.event(20_000) is not None
    check(1, everywhere)
    # The head of a user who may not ask the sequence, and of a reader who looks whether its position is beyond.
    await check_start(explained, layout, 1)
    check(3, everywhere)
    barrier = Barrier(layout, Cursor(20_000))
    await barrier.step(connection, 1)  # which knows the history now, and whether there is an order
    assert len((await barrier.step(explained, PAGE)).events) == PAGE
    assert "Merge Append" in explained.nodes
    explained.anew()
    assert len((await barrier.step(explained, PAGE)).events) == PAGE
    check(PAGE, everywhere)
    appender = Appender(KnownTable(layout, arbiter))
    for events in ([NewEvent("T", {})], [NewEvent("T", {}), NewEvent("T", {})]):
        before = await connection.fetchval("SELECT max(stream_seq) FROM events WHERE stream_id = 'hot'")
        # By two plans, and then for good.
        assert (await appender.append(explained, "hot", events, ANY)).version == before + 3 * len(events)
        assert "Seq Scan" not in explained.scans
        assert explained.parts <= {home, "events"}
        assert explained.touched <= 2 * 40
        explained.anew()
