"""Values that PostgreSQL holds and Python, JSON or UTF-8 does not hide no others, and are shown themselves."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import pytest
import pytest_asyncio

from esx.errors import InvalidQuery, UnreadableValue
from esx.eventstore import EventStore
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.model import NewEvent
from esx.moment import FarTime
from esx.positions import Position
from esx.postgres import values
from esx.store.bulk.erase import Eraser, Mark
from esx.store.trail.trail import extent, since
from tests.support.oddities import (
    CORRELATED,
    ENCODINGS,
    EUC_JP,
    INSERT,
    SQL_ASCII,
    TIMES,
    WIN1252,
    Encoding,
    database,
    fill_bytes,
    fill_times,
    run_sql,
)
from tests.support.stores import opened_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.embedded import EmbeddedServer
    from esx.model import Event


@pytest_asyncio.fixture
async def times(server: EmbeddedServer) -> AsyncIterator[EventStore]:
    """A store with odd times; one connection, so that one that is not as good as before would show."""
    async with database(server) as dsn:
        await fill_times(dsn)
        async with EventStore.connect(dsn, max_connections=1) as store:
            yield store


class Bad(NamedTuple):
    """A store with bytes that are no text in its encoding."""

    store: EventStore
    encoding: Encoding
    dsn: str


@pytest_asyncio.fixture(params=ENCODINGS, ids=lambda encoding: encoding.name)
async def bad(request: pytest.FixtureRequest, server: EmbeddedServer) -> AsyncIterator[Bad]:
    """A store with bytes that are no text, and its encoding."""
    async with database(server, request.param.name) as dsn:
        await fill_bytes(dsn, request.param)
        async with EventStore.connect(dsn, max_connections=1) as store:
            yield Bad(store, request.param, dsn)


async def each_way(store: EventStore, streams: list[str]) -> dict[str, list[Event]]:
    """Read all events in every way that there is, in their global order."""
    plan = await store.plan_search(Filter(event_type="T*"))
    feed = await store.feed()
    ways: dict[str, list[Event]] = {
        "read_all": [event async for event in store.read_all()],
        "read_all backwards": [event async for event in store.read_all(backwards=True)][::-1],
        "read_all_page": await store.read_all_page(),
        "read": [event for stream in streams async for event in store.read(stream)],
        "read_page": [event for stream in streams for event in await store.read_page(stream)],
        "event": [found for n in range(1, 20) if (found := await store.event(n)) is not None],
        "events": list((await store.events(range(1, 20))).values()),
        "search": [event async for part in store.search(plan) for event in part.events],
        "feed": [event async for batch in feed.to_safe_position() for event in batch.events],
    }
    subscription = store.subscribe()
    ways["subscribe"] = [await anext(subscription) for _ in ways["read_all"]]
    await subscription.aclose()  # type: ignore[attr-defined]
    return {way: sorted(events) for way, events in ways.items()}


async def exported(store: EventStore, **chosen: Any) -> list[str]:
    return b"".join([piece async for piece in await store.export(**chosen)]).decode().splitlines()


# -- times ----------------------------------------------------------------------------------------------------------


async def test_a_time_that_python_cannot_hold_comes_as_what_postgresql_calls_it(times: EventStore) -> None:
    ways = await each_way(times, [f"t-{n}" for n in range(10)])
    for way, events in ways.items():
        assert [event.global_seq for event in events] == list(range(1, 11)), way
        assert [str(event.created_at) for event in events[1:-1]] == list(TIMES.values()), way
        assert all(isinstance(event.created_at, FarTime) for event in events[1:-1]), way
        for event in (events[0], events[-1]):
            assert event.created_at is not None
            assert abs(event.created_at - datetime.now(UTC)) < timedelta(minutes=10), way
            assert not isinstance(event.created_at, FarTime), way
        assert [event.data["n"] for event in events] == list(range(10)), way


async def test_json_says_of_a_time_what_an_export_says(times: EventStore) -> None:
    lines = [event.to_json() async for event in times.read_all()]
    assert lines == await exported(times)
    assert [json.loads(line)["created_at"] for line in lines][1:-1] == list(TIMES.values())


async def test_what_is_exported_with_an_odd_time_is_imported_again(times: EventStore, empty_dsn: str) -> None:
    lines = await exported(times)
    async with EventStore.connect(empty_dsn) as other:
        await other.init()
        await other.import_ndjson(line.encode() + b"\n" for line in lines)
        assert [json.loads(line)["created_at"] for line in await exported(other)] == [
            json.loads(line)["created_at"] for line in lines
        ]


async def test_lists_show_an_odd_time(times: EventStore) -> None:
    expected = list(TIMES.values())
    by_name = [stream async for stream in times.streams()]
    by_activity = [stream async for stream in times.streams(recent=True)]
    summaries = [await times.summary(f"t-{n}") for n in range(10)]
    for streams in (by_name, by_activity[::-1], summaries):
        assert [str(stream.last_created_at) for stream in streams[1:-1] if stream is not None] == expected
    assert [json.loads(stream.to_json())["last_created_at"] for stream in by_name[1:-1]] == expected
    plan = await times.plan_search(Filter(event_type="T"))
    previews = [
        await times.preview_all_page(),
        [preview for n in range(10) for preview in await times.preview_page(f"t-{n}")],
        (await times.search_previews(plan)).events,
    ]
    for page in previews:
        assert [str(preview.created_at) for preview in page[1:-1]] == expected
    before = await times.previous_event("t-1", 1, event_type="T")
    assert before is not None
    assert str(before.created_at) == "infinity"


async def test_a_trail_shows_odd_times_and_measures_the_others(times: EventStore) -> None:
    for of in ("c", 2):
        trail = await times.trail(of)
        assert [str(node.event.created_at) for node in trail.nodes[1:-1]] == list(TIMES.values())
        assert extent(trail) == "10 events of 10 streams in 0 ms"
        assert [since(trail, node) for node in trail.nodes] == [
            "+0 ms", "+∞", "-∞", "far", "far", "far", "BC", "BC", "BC", "+0 ms",
        ]  # fmt: skip


async def test_a_time_is_found_among_odd_ones(times: EventStore) -> None:
    plan = await times.plan_search(Filter(), since=datetime(2000, 1, 1, tzinfo=UTC))
    found = [event.global_seq async for part in times.search(plan) for event in part.events]
    assert found == [1, 2, 4, 5, 6, 10]
    assert await times.locate(Position(moment=datetime(2000, 1, 1, tzinfo=UTC))) is not None


@pytest.mark.parametrize("time", ["infinity", "-infinity", "20000-01-01Z", "0044-03-15Z BC"])
async def test_health_and_the_projections_survive_an_odd_time(dsn: str, store: EventStore, time: str) -> None:
    async def handler(_connection: asyncpg.Connection, _events: object) -> None:
        raise ValueError("no")

    await run_sql(dsn, f"{INSERT} ('a', 0, 'T', '{{}}', NULL, '{time}')")
    with pytest.raises(Exception, match="no"):
        await store.project("p", handler)
    health = await store.health()
    assert isinstance(health.last_created_at, FarTime)
    [status] = await store.projections()
    assert json.dumps(status.lag_seconds, allow_nan=False)
    assert (status.lag, status.last_error) == (1, "ValueError: no")


async def test_a_projection_is_given_odd_times_and_can_store_them(dsn: str, store: EventStore) -> None:
    await fill_times(dsn)
    await run_sql(dsn, "CREATE TABLE seen (n bigint, at timestamptz, text text)")

    class Enough(Exception):
        pass

    async def handler(connection: asyncpg.Connection, event: Event) -> None:
        assert event.created_at is not None
        assert event.created_at.tzinfo is UTC
        await connection.execute(
            "INSERT INTO seen VALUES ($1, $2, $3)", event.global_seq, event.created_at, str(event.created_at)
        )
        if event.global_seq == 10:
            raise Enough

    with pytest.raises(Exception, match="Enough"):
        await store.project("seen", handler)
    [status] = await store.projections()
    assert (status.position, status.lag) == (9, 1)
    connection = await asyncpg.connect(dsn)
    texts = [row[0] for row in await connection.fetch("SELECT text FROM seen ORDER BY n")]
    stored = [row[0] for row in await connection.fetch("SELECT at::text FROM seen WHERE NOT isfinite(at) ORDER BY n")]
    await connection.close()
    assert texts[1:] == list(TIMES.values())
    assert stored == ["infinity", "-infinity"], "the nearest time of one that ends must not say that it never does"


def test_a_far_time_is_a_datetime_for_code_that_does_not_know_it() -> None:
    now = datetime.now(UTC)
    for text in TIMES.values():
        far: Any = FarTime.of(text)
        early = text.endswith("BC") or text.startswith("-")
        assert (far < now) == early
        assert ((now - far) > timedelta(0)) == early
        assert str(far) == far.isoformat() == far.text == f"{far}" == text
        assert far.astimezone() == far
        assert far.tzinfo is UTC
        assert pickle.loads(pickle.dumps(far)).text == text
        assert type(far.replace(microsecond=0)) is datetime
        assert type(far + timedelta(days=1 if early else -1)) is datetime
        assert far.timestamp() == pytest.approx((far - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
        assert len(far.brief) <= 19
        assert len(far.age) <= 4


async def test_nothing_is_read_twice_where_every_value_is_sound(
    store18: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store18.append("a-é", [NewEvent("Té", {"n": "é"}, {"correlation_id": "c"})])

    async def never(*_given: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(values, "_carefully", never)  # what reads again
    ways = await each_way(store18, ["a-é"])
    assert all([event.stream_id for event in events] == ["a-é"] for events in ways.values())
    with pytest.raises(InvalidQuery):
        await store18.plan_search(Filter(where="$.["))


# -- bytes ----------------------------------------------------------------------------------------------------------


async def test_bytes_that_are_no_text_come_one_by_one(bad: Bad) -> None:
    store, encoding, _ = bad
    char, shown = encoding.character, encoding.shown
    odd = f"b{shown}-{char} {shown}"
    ways = await each_way(store, [f"s-{char}", odd])
    for way, events in ways.items():
        assert [event.stream_id for event in events] == [f"s-{char}", odd, f"s-{char}"], way
        assert [event.event_type for event in events] == [f"T{char}", f"T{shown}", f"T{char}"], way
        assert [event.data for event in events] == [{"x": char}, {"x": f"{char} {shown}"}, {"x": char}], way
        assert [event.metadata for event in events] == [None, {"correlation_id": shown}, None], way
        assert all(type(event.created_at) is datetime for event in events), way


async def test_an_export_goes_on_behind_bytes_that_are_no_text(bad: Bad) -> None:
    store, encoding, _ = bad
    lines = await exported(store)
    assert lines == [event.to_json() async for event in store.read_all()]
    names = [json.loads(line)["stream_id"] for line in lines]
    char, visible = encoding.character, encoding.visible
    assert names == [f"s-{char}", f"b{visible}-{char} {visible}", f"s-{char}"]
    assert json.loads(lines[1])["data"] == {"x": f"{char} {visible}"}
    assert await exported(store, after=1) == lines[1:]
    assert await exported(store, after=2) == lines[2:]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", [SQL_ASCII, WIN1252], ids=lambda encoding: encoding.name)
async def test_an_export_of_much_has_each_event_once(servers: Any, encoding: Encoding) -> None:
    e = encoding
    async with database(await servers.get(18), e.name) as dsn:
        name = f"CASE WHEN n IN (1, 3000, 3001, 9000) THEN {e.sql('b', e.bad)} ELSE {e.sql('s', e.good)} END"
        # The page after a large event has such a name, too.
        size = "CASE n WHEN 1500 THEN 60000 ELSE 100 END"
        rows = f"SELECT {name}, n, 'T', jsonb_build_object('n', repeat('x', {size})) FROM generate_series(1, 9000) n"
        await run_sql(dsn, f"INSERT INTO events (stream_id, stream_seq, event_type, data) {rows}")
        async with EventStore.connect(dsn) as store:
            export = await store.export()
            lines = b"".join([piece async for piece in export]).decode().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["global_seq"] for event in events] == list(range(1, 9001))
    odd = [event["global_seq"] for event in events if event["stream_id"] != f"s{e.character}"]
    assert odd == [1, 3000, 3001, 9000]
    assert (export.events, export.position) == (9000, 9000)


async def test_lists_hold_names_that_are_no_text_and_go_on_from_them(bad: Bad) -> None:
    store, encoding, _ = bad
    char, shown = encoding.character, encoding.shown
    odd, sound = f"b{shown}-{char} {shown}", f"s-{char}"
    assert [stream.stream_id async for stream in store.streams()] == [odd, sound]
    assert [stream.stream_id async for stream in store.streams(recent=True)] == [sound, odd]
    # A page each, so that the next one goes on from the odd name, in either direction.
    first = await store.streams_page(limit=1)
    second = await store.streams_page(limit=1, after=first.next_after)
    assert [first.streams[0].stream_id, second.streams[0].stream_id] == [odd, sound]
    back = await store.streams_page(limit=1, after=second.next_after, backwards=True)
    assert [stream.stream_id for stream in back.streams] == [odd]
    last = await store.streams_page(limit=2, backwards=True)
    assert [stream.stream_id for stream in last.streams] == [sound, odd]
    for prefix, found in (("b", [odd]), (f"b{shown}", [odd]), (f"b{shown}-{char}", [odd]), ("s", [sound]), ("c", [])):
        assert [stream.stream_id async for stream in store.streams(prefix=prefix)] == found, prefix
    assert [(each.category, each.streams.count) async for each in store.categories()] == [(f"b{shown}", 1), ("s", 1)]
    page = await store.categories_page(backwards=True)
    assert [each.category for each in page.categories] == ["s", f"b{shown}"]
    assert (await store.category(f"b{shown}-")) is not None
    assert await store.version(odd) == 0
    summary = await store.summary(odd)
    assert summary is not None
    assert (summary.stream_id, summary.last_event_type) == (odd, f"T{shown}")
    assert json.loads(summary.to_json())["stream_id"] == f"b{encoding.visible}-{char} {encoding.visible}"
    previews = await store.preview_page(odd)
    assert [preview.data_start for preview in previews] == [f'{{"x": "{char} {shown}"}}']
    assert set(await store.common_types()) <= {f"T{char}", f"T{shown}"}


async def test_a_trail_and_a_search_hold_names_that_are_no_text(bad: Bad) -> None:
    store, encoding, _ = bad
    shown = encoding.shown
    for of in (2, shown):
        trail = await store.trail(of)
        assert (trail.correlation, [node.event.event_type for node in trail.nodes]) == (shown, [f"T{shown}"])
    plan = await store.plan_search(Filter(event_type=f"T{shown}"))
    assert [event.global_seq async for part in store.search(plan) for event in part.events] == [2]
    assert [preview.event_type for preview in (await store.search_previews(plan)).events] == [f"T{shown}"]
    feed = await store.feed(where=Filter(stream=f"b{shown}*"))
    assert [event.global_seq async for batch in feed.to_safe_position() for event in batch.events] == [2]


@pytest.mark.slow
async def test_the_doctor_looks_at_events_whose_names_are_no_text(bad: Bad) -> None:
    store, encoding, _ = bad
    findings = await store.doctor(full=True)
    wrong = {finding.check for finding in findings if finding.severity.wrong} - {"encoding"}
    assert wrong == {"fsync"}
    sql = f"UPDATE events SET stream_seq = 5 WHERE stream_id <> {encoding.sql('s-', encoding.good)}"
    unique = "events_stream_id_stream_seq_key"
    await run_sql(bad.dsn, f"{sql}; ALTER TABLE events DROP CONSTRAINT {unique}")
    by_sorting = [finding for finding in await store.doctor(full=True) if finding.check == "stream-seq"]
    await run_sql(bad.dsn, f"ALTER TABLE events ADD CONSTRAINT {unique} UNIQUE (stream_id, stream_seq)")
    by_index = [finding for finding in await store.doctor(full=True) if finding.check == "stream-seq"]
    assert by_sorting == by_index
    assert encoding.visible in by_index[0].message


async def test_what_a_load_test_left_is_deleted_beside_names_that_are_no_text(bad: Bad) -> None:
    store, encoding, _ = bad
    await store.append("load-1", [NewEvent("T", {}, {"run": "1"})])
    async with opened_pool(bad.dsn) as pool, pool.lend(guarded=False) as connection:
        layout = Layout(encoding=encoding.name)
        eraser = Eraser(connection, layout, "load-", Mark("run", "1"))
        assert (await eraser.look()).events == 1
        assert await eraser.delete() == 1
        odd = Eraser(connection, layout, "b", Mark("run", "1"))
        with pytest.raises(Exception, match=r"event 2 of stream b.*does not carry"):
            await odd.look()


async def test_the_cause_of_a_failure_is_kept_whatever_the_encoding(bad: Bad) -> None:
    dsn = bad.dsn

    async def handler(_connection: asyncpg.Connection, _events: object) -> None:
        raise ValueError("日本語 → …")

    async with EventStore.connect(dsn, max_connections=5) as other:
        with pytest.raises(Exception, match="stopped at event 1"):
            await other.project("p", handler)
        [status] = await other.projections()
    assert status.last_error is not None
    assert status.last_error.startswith("ValueError: ")


async def test_a_name_that_the_encoding_rules_out_is_refused_in_a_line(server: EmbeddedServer) -> None:
    async with database(server) as dsn, EventStore.connect(dsn) as store:
        for name in ("a\udcff", "a\ud800"):
            with pytest.raises(InvalidQuery, match="encoding"):
                await store.version(name)
            with pytest.raises(InvalidQuery, match="encoding"):
                await store.read_page(name)
        assert await store.version("a") == -1


# -- the encoding itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("LATIN1", ["p", "pé-1", "pé-2", "pÿ", "pÿÿÿ", "q"]),
        ("WIN1252", ["p", "pé-1", "pé-2", "pÿ", "q", "€"]),
        ("KOI8R", ["p", "pЪ", "pЪЪ", "q"]),
        ("ISO_8859_7", ["p", "pώ", "q"]),
        ("EUC_JP", ["p", "p堯", "p煕", "pあ-1", "q"]),
        ("SQL_ASCII", ["p", "pé-1", "p\U0010ffff", "p\udcff\udcfe", "q"]),
        ("UTF8", ["p", "pé-1", "p\U0010ffff", "q"]),
    ],
)
async def test_a_prefix_is_a_range_in_every_encoding(server: EmbeddedServer, encoding: str, names: list[str]) -> None:
    async with database(server, encoding) as dsn, EventStore.connect(dsn) as store:
        for name in names:
            if "\udcff" in name:
                raw = name.encode("utf-8", "surrogateescape").hex()
                text = f"convert_from('\\x{raw}'::bytea, 'SQL_ASCII')"
                await run_sql(dsn, f"{INSERT} ({text}, 0, 'T', '{{}}', NULL, now())")
            else:
                await store.append(name, [NewEvent("T")])
        listed = [stream.stream_id async for stream in store.streams()]
        assert sorted(listed) == sorted(names)
        with_p = [name for name in listed if name.startswith("p")]
        assert [stream.stream_id async for stream in store.streams(prefix="p")] == with_p
        page = await store.streams_page(prefix="p", backwards=True)
        assert [stream.stream_id for stream in page.streams] == with_p[::-1]
        assert [stream.stream_id async for stream in store.streams(match="p*")] == with_p
        assert await _counted(store, "p") == (len(with_p), with_p, True)
        assert await _counted(store, "") == (len(listed), listed, False)
        categories = {name.partition("-")[0] for name in names}
        assert {each.category async for each in store.categories()} == categories
        backwards = await store.categories_page(backwards=True)
        assert {each.category for each in backwards.categories} == categories


async def _counted(store: EventStore, prefix: str) -> tuple[int, list[str], bool]:
    """Return how many events have the prefix, their streams, and whether others do not."""
    ids = [each.stream_id async for page in store.stored_ids(prefix) for each in page]
    return await store.count_events(prefix), ids, await store.stream_outside(prefix) is not None


async def test_what_an_encoding_has_no_character_for_is_named(server: EmbeddedServer) -> None:
    async with database(server, "LATIN1") as dsn, EventStore.connect(dsn) as store:
        await store.append("a", [NewEvent("T")])
        with pytest.raises(InvalidQuery, match='no equivalent in encoding "LATIN1"'):
            await store.read_page("日本")
        assert [event.stream_id async for event in store.read_all()] == ["a"]


async def test_characters_are_converted_as_postgresql_does_beside_bytes_that_are_none(server: EmbeddedServer) -> None:
    """Where Python's table of an encoding differs from PostgreSQL's, a sound value must not show that it was reread."""
    circled = bytes.fromhex("ada1")  # ① to PostgreSQL, nothing to Python
    with pytest.raises(UnicodeDecodeError):
        circled.decode("euc_jp")
    async with database(server, "EUC_JP") as dsn:
        rows = (f"({EUC_JP.sql(part, '-1')}, 0, 'T', '{{}}', NULL, now())" for part in (circled, EUC_JP.bad))
        await run_sql(dsn, INSERT + ", ".join(rows))
        async with EventStore.connect(dsn) as store:
            names = [event.stream_id async for event in store.read_all()]
            assert names == ["①-1", f"{EUC_JP.shown}-1"]
            assert [[event.global_seq async for event in store.read(name)] for name in names] == [[1], [2]]


# -- columns of another type ------------------------------------------------------------------------------------------


async def test_a_column_of_type_json_is_one_line(dsn: str, store: EventStore) -> None:
    await run_sql(
        dsn,
        "ALTER TABLE events ALTER data TYPE json, ALTER metadata TYPE json",
        f"{INSERT} ('a', 0, 'T', E'{{\"a\": 1,\n\t\"a\":\r2}}', '{{}}', now()), "
        "('a', 1, 'T', '{\"s\": \"\\ud800\"}', NULL, now())",
    )
    lines = [event.to_json() async for event in store.read_all()]
    assert await exported(store) == lines
    assert [json.loads(line)["data"] for line in lines] == [{"a": 2}, {"s": "\ud800"}]


async def test_a_time_without_a_zone_is_one_in_utc(dsn: str, store: EventStore) -> None:
    await run_sql(
        dsn,
        "ALTER TABLE events ALTER created_at TYPE timestamp",
        f"{INSERT} ('a', 0, 'T', '{{}}', NULL, '2026-08-07 14:00'), ('a', 1, 'T', '{{}}', NULL, 'infinity')",
    )
    expected = ["2026-08-07T14:00:00.000000Z", "infinity"]
    for _ in range(2):
        lines = [event.to_json() async for event in store.read_all()]
        assert await exported(store) == lines
        assert [json.loads(line)["created_at"] for line in lines] == expected
        # Now so that the page has to be read again.
        await run_sql(dsn, f"{INSERT} ('b', {len(lines)}, 'T', '{{}}', NULL, '0044-03-15 BC')")
        expected.append("0044-03-15T00:00:00+00:00 BC")


async def test_a_time_that_is_a_text_is_shown_as_it_is(dsn: str, store: EventStore) -> None:
    await run_sql(
        dsn,
        "ALTER TABLE events ALTER created_at DROP DEFAULT, ALTER created_at TYPE text",
        f"""{INSERT} ('a', 0, 'T', '{{}}', NULL, 'the "ides" of March')""",
    )
    [event] = [event async for event in store.read_all()]
    assert json.loads(event.to_json())["created_at"] == 'the "ides" of March'
    assert await exported(store) == [event.to_json()]


async def test_what_is_missing_is_null(dsn: str, store: EventStore) -> None:
    await run_sql(
        dsn,
        "ALTER TABLE events ALTER data DROP NOT NULL, ALTER created_at DROP NOT NULL, ALTER event_id DROP NOT NULL",
        "INSERT INTO events (stream_id, stream_seq, event_type, data, created_at, event_id) "
        "VALUES ('a', 0, 'T', NULL, NULL, NULL)",
    )
    ways = await each_way(store, ["a"])
    for way, events in ways.items():
        assert [(event.data, event.data_json, event.created_at) for event in events] == [(None, "null", None)], way
    assert await exported(store) == [ways["feed"][0].to_json()]
    assert [(each.data_start, each.data_bytes) for each in await store.preview_page("a")] == [("null", 0)]


async def test_an_event_id_that_is_no_uuid_is_json_as_well(dsn: str, store: EventStore) -> None:
    await run_sql(
        dsn,
        "ALTER TABLE events ALTER event_id TYPE text",
        "INSERT INTO events (stream_id, stream_seq, event_type, data, event_id) "
        "VALUES ('a', 0, 'T', '{}', E'no \"id\\\\')",
    )
    [event] = [event async for event in store.read_all()]
    assert json.loads(event.to_json())["event_id"] == 'no "id\\'
    assert await exported(store) == [event.to_json()]


async def test_numbers_that_are_far_apart_stop_no_list(dsn: str, store: EventStore) -> None:
    most = 2**63 - 1
    await run_sql(
        dsn,
        "INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data) VALUES "
        f"(1, 'a', 0, 'T', '{{}}'), ({most - 1}, 'b', -3, 'T', '{{}}'), ({most}, 'b', {most}, 'T', '{{}}'), "
        f"(-9, 'c', {-most}, 'T', '{{}}')",
    )
    for recent in (False, True):
        streams = {stream.stream_id: stream.events async for stream in store.streams(recent=recent)}
        assert streams == {"a": 1, "b": most, "c": 1}
    summary = await store.summary("b")
    assert summary is not None
    assert (summary.version, summary.events) == (most, most)
    assert (await store.health()).last == most
    assert [event.global_seq async for event in store.read_all(backwards=True)] == [most, most - 1, 1]
    assert [event.global_seq for event in await store.read_all_page(position=most, backwards=True)][:1] == [most - 1]
    plan = await store.plan_search(Filter(event_type="T"))
    assert [event.global_seq async for part in store.search(plan) for event in part.events] == [1, most - 1, most]
    await run_sql(dsn, "ANALYZE events")
    assert [each.category async for each in store.categories()] == ["a", "b", "c"]


@pytest.mark.slow
async def test_data_that_are_nested_too_deep_are_named(dsn: str, store: EventStore) -> None:
    deep, digits = 5000, 100_000
    await run_sql(
        dsn,
        f"{INSERT} ('a', 0, 'T', (repeat('[', {deep}) || repeat(']', {deep}))::jsonb, "
        f"(repeat('[', {deep}) || repeat(']', {deep}))::jsonb, now()), "
        f"('a', 1, 'T', repeat('9', {digits})::jsonb, '{CORRELATED}', now())",
    )
    first, second = [event async for event in store.read_all()]
    for column in ("data", "metadata"):
        with pytest.raises(UnreadableValue, match=f"^{column} of event 1 .*use {column}_json") as failure:
            getattr(first, column)
        assert (failure.value.global_seq, failure.value.column) == (1, column)
        assert str(pickle.loads(pickle.dumps(failure.value))) == str(failure.value)
    assert first.data_json == "[" * deep + "]" * deep
    assert second.data == 10**digits - 1
    assert await exported(store) == [first.to_json(), second.to_json()]


async def test_a_list_of_names_that_are_no_text_is_given_back_as_it_was(servers: Any) -> None:
    names = ["good", "\udcff\udcfe", "b\udcffd"]
    async with database(await servers.get(18), SQL_ASCII.name) as dsn:
        connection = await asyncpg.connect(dsn)
        rows = await values.fetch(connection, "SELECT unnest($1::text[])", names)
        await connection.close()
    assert [row[0] for row in rows] == names


async def test_in_a_transaction_of_the_caller_the_error_is_the_first_one(sql18: asyncpg.Connection) -> None:
    """It has failed with the query, so that another query could only be told that."""
    with pytest.raises(asyncpg.UntranslatableCharacterError):
        async with sql18.transaction():
            await values.fetch(sql18, r"""SELECT '{"a": "\u0000"}'::json ->> 'a'""")
