from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx.filters import Filter
from esx.model import NewEvent
from esx.tui.lists.categories import StreamsByCategory
from esx.tui.lists.search_results import SearchResults
from esx.tui.lists.sources import EventRows, Page, StreamsByActivity, StreamsByName, stream_filter
from esx.tui.lists.window import Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.eventstore import EventStore

from tests.tui.helpers import fill


async def walk(window: Window[Any, Any], *, up: bool) -> None:
    for _ in range(1000):
        if window.top if up else window.bottom:
            return
        await window.grow(up=up)
    raise AssertionError("the list never ends")


async def test_events_from_either_end(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T", {"n": n}) for n in range(95)])
    for source in (
        EventRows(store18, "s", newest_first=False),
        EventRows(store18, "s", newest_first=True),
        EventRows(store18, None, newest_first=True),
        EventRows(store18, None, newest_first=False),
    ):
        down: Window[Any, int] = Window(source, page=10)
        await down.home()
        assert down.top
        await walk(down, up=False)
        up: Window[Any, int] = Window(source, page=10)
        await up.end()
        assert up.bottom
        await walk(up, up=True)
        assert up.rows == down.rows
        numbers = [row.stream_seq for row in down.rows]
        assert numbers == (list(range(94, -1, -1)) if source.newest_first else list(range(95)))


async def test_the_window_is_bounded_and_forgets_nothing_for_good(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T", {}) for _ in range(300)])
    window: Window[Any, int] = Window(EventRows(store18, "s", newest_first=False), page=20, most=50)
    await window.home()
    while not window.bottom:
        assert await window.grow(up=False) == 0
        assert len(window.rows) <= 50
    assert (window.rows[0].stream_seq, window.rows[-1].stream_seq) == (window.first, 299)
    assert not window.top
    await walk(window, up=True)
    assert window.rows[0].stream_seq == 0
    assert len(window.rows) == 50
    await walk(window, up=False)
    assert window.rows[-1].stream_seq == 299


async def test_what_was_found_is_counted_once_though_not_all_of_it_is_kept(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("Even" if n % 2 == 0 else "Odd", {}) for n in range(400)])
    plan = await store18.plan_search(Filter(event_type="Even"), stream="s")
    source = SearchResults(store18, plan, newest_first=False)
    window: Window[Any, int] = Window(source, page=20, most=50)
    await window.home()
    assert (window.found, window.looked, window.whole) == (20, 39, False)
    for up in (False, True, False):
        await walk(window, up=up)
        assert len(window.rows) == 50
        assert (window.found, window.looked, window.whole) == (200, 400, True)
        assert source.progress(window, busy=False, stopped=False) == "200 found"
    await window.end()
    assert (window.found, window.whole) == (20, False)
    for up in (True, False, True):
        await walk(window, up=up)
        assert (window.found, window.looked, window.whole) == (200, 400, True)
    assert await window.around(window.source.key(window.rows[30]), window.first + 30)
    await walk(window, up=True)
    await walk(window, up=False)
    assert (window.found, window.whole) == (200, True)


async def test_streams_by_name_from_either_end_with_all_on_top(store18: EventStore) -> None:
    await fill(store18, 35, 1)
    down: Window[Any, Any] = Window(StreamsByName(store18), page=10)
    await down.home()
    await walk(down, up=False)
    up: Window[Any, Any] = Window(StreamsByName(store18), page=10)
    await up.end()
    await walk(up, up=True)
    assert [row.label for row in down.rows] == ["$all", *(f"s-{n:03d}" for n in range(35))]
    assert up.rows == down.rows
    for row in (down.rows[0], down.rows[1], down.rows[17], down.rows[-1]):
        around: Window[Any, Any] = Window(StreamsByName(store18), page=10)
        await around.around(around.source.key(row), 0)
        assert row in around.rows
        await walk(around, up=True)
        await walk(around, up=False)
        assert around.rows == down.rows


async def test_filters(store18: EventStore) -> None:
    await fill(store18, 30, 1)
    await store18.append("other-1", [NewEvent("T")])

    async def found(text: str) -> list[str]:
        window: Window[Any, Any] = Window(StreamsByName(store18, stream_filter(text)), page=7)
        await window.home()
        await walk(window, up=False)
        return [row.label for row in window.rows]

    assert await found("s-02") == [f"s-{n:03d}" for n in range(20, 30)]
    assert await found("*-??1") == ["s-001", "s-011", "s-021"]
    assert await found("*-1") == ["other-1"]
    assert await found("none") == []
    assert await found("~-01") == [f"s-{n:03d}" for n in range(10, 20)]
    assert len(await found("~")) == 32


async def test_streams_by_activity_in_both_directions(store18: EventStore) -> None:
    await fill(store18, 40, 2)
    await store18.append("s-005", [NewEvent("Late")])
    source = StreamsByActivity(store18)
    window: Window[Any, Any] = Window(source, page=8, most=20)
    await window.home()
    assert [row.label for row in window.rows[:3]] == ["$all", "s-005", "s-039"]
    await walk(window, up=False)
    assert window.rows[-1].label == "s-000"
    assert not window.top
    await walk(window, up=True)
    names = [f"s-{n:03d}" for n in range(39, -1, -1) if n != 5]
    assert [row.label for row in window.rows] == ["$all", "s-005", *names][: len(window.rows)]


async def sources(store: EventStore, dsn: str) -> list[Any]:
    """Return a source of each kind over one store: its streams may lack their first events, its numbers have gaps."""
    await store.append("long", [NewEvent("Even" if n % 2 == 0 else "Odd", {}) for n in range(50)])
    await store.append("cut", [NewEvent("T") for _ in range(16)])
    await store.append("s-004", [NewEvent("T")])
    await fill_names(store)
    connection = await asyncpg.connect(dsn)
    await connection.execute("SET session_replication_role = replica")
    await connection.execute("DELETE FROM events WHERE stream_id = 'cut' AND stream_seq < 6")
    await connection.execute("ANALYZE events")
    await connection.close()
    plan = await store.plan_search(Filter(event_type="Even"), stream="long")
    everywhere = await store.plan_search(Filter(event_type="Even"))
    return [
        *(EventRows(store, stream, newest_first=new) for stream in ("long", "cut", None) for new in (False, True)),
        *(SearchResults(store, plan, newest_first=newest_first) for newest_first in (False, True)),
        SearchResults(store, everywhere, newest_first=True),
        *(StreamsByName(store, stream_filter(text)) for text in ("", "s-", "*1*", "~-02", "none")),
        *(StreamsByActivity(store, stream_filter(text)) for text in ("", "s-", "*1*", "~-02", "none")),
        *(StreamsByCategory(store, opened) for opened in (set(), {"s-"}, {"s-", "b-", "c", "long"})),
    ]


class SteadyPace(contextlib.nullcontext[None]):
    """Looks at the same number of events in each slice."""

    def __init__(self, scan: int) -> None:
        super().__init__()
        self.scan = scan


async def fill_names(store: EventStore) -> None:
    for name in (*(f"s-{n:03d}" for n in (*range(10, 30), *range(10))), "s", "b-1", "b-2", "c"):
        await store.append(name, [NewEvent("T")])


def jumps(window: Window[Any, Any], whole: list[Any]) -> list[tuple[int | None, Callable[[], Awaitable[bool]]]]:
    """Return jumps to all parts of a list, each with the row number it leads to, if there is one."""
    count = len(whole)
    places = sorted({0, 1, count // 2, count - 10, count - 1, count, count + 1000})
    return [
        (0, window.home),
        (count if window.source.ends_anywhere else None, window.end),
        *((min(at, max(count - 1, 0)), partial(window.seek, at)) for at in places),
        *((at, partial(window.around, window.source.key(whole[at]), at)) for at in places if 0 <= at < count),
    ]


def check_run(window: Window[Any, Any], whole: list[Any], *, exact: bool) -> None:
    """Check that the loaded rows are one part of the list, without a gap, and that their numbers are right."""
    start = whole.index(window.rows[0]) if window.rows else window.first
    assert window.rows == whole[start : start + len(window.rows)]
    if exact or window.top:
        assert window.first == start
    if window.top:
        assert start == 0
    if window.bottom and window.rows:
        assert window.rows[-1] == whole[-1]


@pytest.mark.parametrize(
    ("page", "most", "scan"),
    [
        (1, 10_000, 5),
        (7, 10_000, 1000),
        (7, 20, 5),
        (7, 20, 1000),
        (10, 10_000, 5),
        (100, 10_000, 1000),
    ],
)
async def test_after_any_jump_each_row_is_read_once(
    store18: EventStore, dsn18: str, monkeypatch: pytest.MonkeyPatch, page: int, most: int, scan: int
) -> None:
    for name in ("_RECENT_SCAN", "_SEARCH_SCAN"):
        monkeypatch.setattr(f"esx.store.read.facet.{name}", scan)
    monkeypatch.setattr("esx.tui.lists.search_results.Pace", lambda _most: SteadyPace(scan))
    for source in await sources(store18, dsn18):
        reference: Window[Any, Any] = Window(source, page=1000)
        await reference.home()
        await walk(reference, up=False)
        whole = list(reference.rows)
        assert len(set(map(source.key, whole))) == len(whole)
        exact = isinstance(source, EventRows) and source.stream_id is not None
        window: Window[Any, Any] = Window(source, page=page, most=most)
        await window.measure()
        for place, jump in jumps(window, whole):
            if not window.loaded:
                await window.home()
            assert await jump()
            check_run(window, whole, exact=exact)
            if exact:
                assert window.joint == place
            for up in (True, False, True):
                while not (window.top if up else window.bottom):
                    await window.grow(up=up)
                    check_run(window, whole, exact=exact)
            if most >= len(whole):
                assert window.rows == whole
                assert (window.first, window.length) == (0, len(whole))
            assert window.whole


class SlowSource:
    """Answers when it is told to."""

    ends_anywhere = True

    def __init__(self) -> None:
        self.gates: list[asyncio.Event] = []

    async def page(self, after: int | None, *, backwards: bool, limit: int) -> Page[int, int]:
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        start = 0 if after is None else after + 1
        return Page(list(range(start, start + limit)) if not backwards else list(range(-limit, 0)), start + limit - 1)

    async def measure(self) -> None:
        return

    def key(self, row: int) -> int:
        return row

    name_of = key


async def test_a_jump_overtakes_what_is_being_loaded() -> None:
    source = SlowSource()
    window: Window[int, int] = Window(source, page=3)

    async def start(load: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(load)
        await asyncio.sleep(0)
        return task

    home = await start(window.home())
    source.gates[0].set()
    assert await home
    grow = await start(window.grow(up=False))
    end = await start(window.end())
    source.gates[2].set()
    assert await end
    source.gates[1].set()
    assert await grow is None
    assert window.rows == [-3, -2, -1]


async def test_jumps_by_place(store18: EventStore, dsn18: str) -> None:
    """Row numbers lead to a row, exactly in a stream, about so among names; reading on from there fits."""
    await store18.append("long", [NewEvent("T") for _ in range(3000)])
    connection = await asyncpg.connect(dsn18)
    await connection.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT 'name-' || n, 0, 'T', '{}' FROM generate_series(1, 3000) n"
    )
    await connection.execute("ANALYZE events")
    await connection.close()
    for newest_first in (False, True):
        stream: Window[Any, int] = Window(EventRows(store18, "long", newest_first=newest_first), page=50)
        await stream.measure()
        for place in (1700, 2990, 3, 10**6):
            await stream.seek(place)
            assert stream.length == 3000
            assert stream.first <= min(place, 2999) < stream.first + len(stream.rows)
            at = stream.rows[min(place, 2999) - stream.first].stream_seq
            assert at == (2999 - min(place, 2999) if newest_first else min(place, 2999))
            numbers = [row.stream_seq for row in stream.rows]
            assert numbers == sorted(range(min(numbers), max(numbers) + 1), reverse=newest_first), "none is missing"
    all_events: Window[Any, int] = Window(EventRows(store18, None, newest_first=True), page=50)
    await all_events.measure()
    await all_events.seek(1000)
    assert all_events.rows[0].global_seq == 5000
    everything: Window[Any, Any] = Window(StreamsByName(store18), page=200, most=10_000)
    await everything.home()
    await walk(everything, up=False)
    names: Window[Any, Any] = Window(StreamsByName(store18), page=50, most=10_000)
    await names.measure()
    assert names.length == pytest.approx(3002, rel=0.05)
    for part in (0.1, 0.5, 0.9):
        place = round(part * names.length)
        await names.seek(place)
        assert names.first <= place < names.first + len(names.rows)
        # PostgreSQL's histogram counts events, of which half are in one stream, so this is only about right.
        assert everything.rows.index(names.rows[0]) == pytest.approx(place, abs=0.06 * 3002)
    await walk(names, up=True)
    await walk(names, up=False)
    assert names.first == 0
    assert names.rows == everything.rows


async def test_categories_open_and_close(store18: EventStore) -> None:
    for stream in ("a", *(f"a-{n:02d}" for n in range(25)), "b-1", "c", "d-1", "d-2"):
        await store18.append(stream, [NewEvent("T")])
    many = [f"  a-{n:02d}" for n in range(25)]
    opened = {"a-", "c", "d-"}
    expected = [
        "$all",
        "▾ a",
        "  a",
        *many,
        "▸ b",
        "▾ c",
        "  c",
        "▾ d",
        "  d-1",
        "  d-2",
    ]
    for page in (1, 2, 7, 100):
        down: Window[Any, Any] = Window(StreamsByCategory(store18, opened), page=page)
        await down.home()
        await walk(down, up=False)
        assert [row.label for row in down.rows] == expected
        up: Window[Any, Any] = Window(StreamsByCategory(store18, opened), page=page)
        await up.end()
        await walk(up, up=True)
        assert up.rows == down.rows
    around: Window[Any, Any] = Window(StreamsByCategory(store18, opened), page=3)
    for row in down.rows[1:]:
        await around.around(around.source.key(row), 0)
        assert row in around.rows
