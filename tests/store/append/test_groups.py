"""Grouped appends: what goes in one commit, and that each append keeps its own outcome."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import asyncpg
import pytest

from esx import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendResult,
    EventStore,
    InvalidEvent,
    NewEvent,
    OutcomeUnknown,
    StreamAppend,
    WrongVersion,
)
from esx.errors import EventIdsReused, StoreClosed, StoreFailed
from esx.layouts.detection import detect_layout
from esx.layouts.unique_index import find_arbiter
from esx.postgres.literals import literal
from esx.store.append.group_statement import GroupStatement, Unit
from esx.store.append.groups import Alone, GroupLimits, Groups, Members
from esx.store.append.refusals import event_rows
from esx.store.append.versions import HIGHEST_BEFORE
from esx.store.known_table import KnownTable
from tests.support.connections import connected
from tests.support.proxy import proxied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.errors import EsxError
    from esx.expected import ExpectedVersion

WHERE_THEY_WERE_COMMITTED = "SELECT count(DISTINCT xmin::text) FROM events WHERE stream_id LIKE $1"


async def together(store: EventStore, *appends: StreamAppend) -> list[AppendResult | BaseException]:
    """Append all in one group: the first of them, to a stream of its own, keeps the others waiting."""
    first = StreamAppend("first", [NewEvent("T")], ANY)
    tasks = [
        asyncio.create_task(store.append(each.stream_id, each.events, expected=each.expected))
        for each in (first, *appends)
    ]
    return (await asyncio.gather(*tasks, return_exceptions=True))[1:]


def one(stream_id: str, data: object = None, expected: ExpectedVersion = ANY) -> StreamAppend:
    return StreamAppend(stream_id, [NewEvent("T", data)], expected)


async def test_appends_that_wait_are_committed_together(store: EventStore, sql: asyncpg.Connection) -> None:
    await store.version("s-0")  # so that the table is known
    done = await together(store, *(one(f"s-{n}") for n in range(15)))  # more go in two groups
    assert [each for each in done if isinstance(each, BaseException)] == []
    assert await sql.fetchval(WHERE_THEY_WERE_COMMITTED, "s-%") == 1
    assert await sql.fetchval("SELECT count(DISTINCT created_at) FROM events WHERE stream_id LIKE 's-%'") == 1


@pytest.mark.parametrize("how", ["append", "store"])
async def test_they_are_not_where_that_is_not_wanted(dsn18: str, sql18: asyncpg.Connection, how: str) -> None:
    async with EventStore.connect(dsn18, grouping=how != "store") as store:
        await store.version("s")
        await asyncio.gather(*(store.append(f"s-{n}", [NewEvent("T")], grouped=how != "append") for n in range(12)))
    assert await sql18.fetchval(WHERE_THEY_WERE_COMMITTED, "s-%") == 12


async def test_each_append_of_a_group_has_its_own_outcome(store: EventStore) -> None:
    taken = NewEvent("Taken")
    await store.append("two", [NewEvent("T"), taken])
    await store.append("one", [NewEvent("T")])
    done = await together(
        store,
        one("new", expected=NO_STREAM),
        one("two", expected=0),
        one("two", expected=1),
        one("two", expected=1),
        StreamAppend("two", [NewEvent("T"), NewEvent("T")], 2),
        one("one", expected=NO_STREAM),
        one("missing", expected=STREAM_EXISTS),
        one("one", expected=STREAM_EXISTS),
        one("nul", {"text": "\0"}),
        one("surrogate", {"text": "\ud800"}),
        StreamAppend("reused", [taken], NO_STREAM),
    )

    def told(each: AppendResult | BaseException) -> object:
        if isinstance(each, WrongVersion):
            return each.stream_id, each.expected, each.actual
        return (each.stream_id, each.version) if isinstance(each, AppendResult) else type(each)

    assert [told(each) for each in done] == [
        ("new", 0),
        ("two", 0, 1),
        ("two", 2),
        ("two", 1, 2),
        ("two", 4),
        ("one", NO_STREAM, 0),
        ("missing", STREAM_EXISTS, -1),
        ("one", 1),
        InvalidEvent,
        InvalidEvent,
        ("reused", 0),
    ]
    assert await store.version("nul") == await store.version("missing") == -1
    for each in done:
        if isinstance(each, AppendResult):
            event = await store.event(each.global_seq)
            assert event is not None
            assert (event.stream_id, event.stream_seq) == (each.stream_id, each.version)


async def test_appends_to_one_stream_are_stored_in_the_order_of_the_calls(store18: EventStore) -> None:
    await store18.version("s")
    streams = ["a", "b", "a", "a", "c", "b"] * 20
    asked = [(stream, random.Random(n).randint(1, 3)) for n, stream in enumerate(streams)]
    done = await together(
        store18,
        *(StreamAppend(stream, [NewEvent("T", n)] * size, ANY) for n, (stream, size) in enumerate(asked)),
    )
    assert [each for each in done if isinstance(each, BaseException)] == []
    for stream in set(streams):
        stored = [event.data async for event in store18.read(stream)]
        assert stored == [n for n, (each, size) in enumerate(asked) if each == stream for _ in range(size)]


@pytest.mark.parametrize("events", [1, 2])
async def test_a_group_is_stored_in_the_order_of_the_streams(store18: EventStore, events: int) -> None:
    """All do it in one order, so that no two of them can each wait for the other."""
    await store18.version("s")
    streams = ["b", "d", "a", "c"]
    done = await together(store18, *(StreamAppend(each, [NewEvent("T")] * events, ANY) for each in streams))
    stored = [each for each in done if isinstance(each, AppendResult)]
    assert [each.stream_id for each in sorted(stored, key=attrgetter("global_seq"))] == ["a", "b", "c", "d"]
    numbered = await store18.events([each.global_seq for each in stored])
    assert [
        (event.stream_id, event.stream_seq) for event in map(numbered.__getitem__, (r.global_seq for r in stored))
    ] == [(each, events - 1) for each in streams]


async def test_appends_that_follow_each_other_are_committed_together(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    """Each accepts whatever those before it leave, so that all of them can be stored at once."""
    await store18.version("s")
    following: list[ExpectedVersion] = [NO_STREAM, 0, 1, ANY, STREAM_EXISTS, ANY, STREAM_EXISTS]
    done = await together(store18, *(one("s", n, expected) for n, expected in enumerate(following)))
    assert [each.version for each in done if isinstance(each, AppendResult)] == list(range(7))
    assert [event.data async for event in store18.read("s")] == list(range(7))
    any_version = [ANY, STREAM_EXISTS, ANY]
    await together(store18, *(one("t", n, expected) for n, expected in enumerate(any_version)))
    assert [event.data async for event in store18.read("t")] == [0, 1, 2]
    for stream in "st":
        assert await sql18.fetchval(WHERE_THEY_WERE_COMMITTED, stream) == 1


async def test_a_group_answers_as_the_same_appends_do_one_after_the_other(dsn18: str) -> None:
    """Also while the table is not known yet."""
    for seed in range(8):
        async with EventStore.connect(dsn18) as store:
            await _answers_as_one_after_the_other(store, seed)


async def _answers_as_one_after_the_other(store: EventStore, seed: int) -> None:
    draw = random.Random(seed)
    in_groups, one_by_one = f"grouped-{seed}", f"singly-{seed}"
    appends: list[StreamAppend] = []
    for _ in range(24):
        if appends and draw.random() < 0.3:
            again = draw.choice(appends)
            appends.append(StreamAppend(in_groups, again.events, draw.choice([again.expected, draw.randrange(9)])))
        else:
            events = [NewEvent("T") for _ in range(draw.randint(1, 3))]
            expected = draw.choice([ANY, STREAM_EXISTS, NO_STREAM, *range(12)])
            appends.append(StreamAppend(in_groups, events, expected))
    done = await together(store, *appends)

    def told(each: object) -> object:
        if isinstance(each, WrongVersion):
            return each.expected, each.actual
        return each.version if isinstance(each, AppendResult) else type(each)

    singly: list[object] = []
    for each in appends:
        try:
            singly.append(await store.append(one_by_one, each.events, expected=each.expected, grouped=False))
        except (WrongVersion, EventIdsReused) as refusal:
            singly.append(refusal)
    assert list(map(told, done)) == list(map(told, singly)), seed
    ids = {name: [event.event_id async for event in store.read(name)] for name in (in_groups, one_by_one)}
    assert ids[in_groups] == ids[one_by_one], seed


async def test_a_repetition_is_recognised_in_a_group(store18: EventStore) -> None:
    events = [NewEvent("A"), NewEvent("B")]
    first = await store18.append("s", events, expected=NO_STREAM)
    again, other = await together(
        store18, StreamAppend("s", events, NO_STREAM), StreamAppend("s", [events[0], NewEvent("C")], NO_STREAM)
    )
    assert again == first
    assert isinstance(other, EventIdsReused)
    # Behind one that is not, and that it would follow.
    third = StreamAppend("s", [NewEvent("C")], 1)
    stored = await store18.append("s", third.events, expected=1)
    refused, again = await together(store18, one("s", expected=0), third)
    assert isinstance(refused, WrongVersion)
    assert again == stored
    # The same append twice at once.
    twice = StreamAppend("t", [NewEvent("A")], NO_STREAM)
    left, right = await together(store18, twice, twice)
    assert left == right == AppendResult("t", 0, left.global_seq if isinstance(left, AppendResult) else -1)
    # And where one is sent by itself, and the other waits for it.
    events = [NewEvent("A"), NewEvent("B")]
    queued, again, other = await asyncio.gather(
        *(store18.append("u", each, expected=NO_STREAM) for each in (events, events, [events[0], NewEvent("C")])),
        return_exceptions=True,
    )
    assert queued == again
    assert isinstance(other, EventIdsReused)


async def test_a_trigger_that_refuses_one_event_refuses_no_other(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await sql18.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no % here', NEW.event_type; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.event_type = 'Bad')
        EXECUTE FUNCTION refuse()
        """
    )
    await store18.version("s")
    bad = StreamAppend("s-3", [NewEvent("Bad")], ANY)
    done = await together(store18, *(one(f"s-{n}") for n in range(3)), bad, *(one(f"s-{n}") for n in range(3, 6)))
    assert [str(each) for each in done if isinstance(each, BaseException)] == [str(done[3])]
    assert "no Bad here" in str(done[3])
    assert await sql18.fetchval("SELECT count(*) FROM events WHERE stream_id LIKE 's-%'") == 6


async def test_events_that_a_trigger_moves_to_another_stream_are_stored_once(
    store: EventStore, sql: asyncpg.Connection
) -> None:
    """Of what such a trigger has stored nobody could tell whose it is."""
    await sql.execute(
        """
        CREATE FUNCTION lower_case() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.stream_id := lower(NEW.stream_id); RETURN NEW; END $$;
        CREATE TRIGGER lower_case BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION lower_case()
        """
    )
    await store.version("s")
    singles = await together(store, one("A"), one("b"))
    several = await together(store, StreamAppend("C", [NewEvent("T"), NewEvent("T")], ANY), one("d"))
    assert [each.version for each in (*singles, *several) if isinstance(each, AppendResult)] == [0, 0, 1, 0]
    assert [await store.version(stream) for stream in "abcd"] == [0, 0, 1, 0]
    # Also where it is the stream of another of the group.
    layout = await detect_layout(sql)
    statement = GroupStatement(KnownTable(layout, await find_arbiter(sql, layout)))
    for rows in (1, 2):
        units = [Unit(each, -1, -1, [("T", "1", None, uuid4()) for _ in range(rows)]) for each in "Ee"]
        with pytest.raises(asyncpg.DivisionByZeroError):
            await statement.send(cast("Any", Fetching(sql)), units)
    assert await store.version("e") == -1


async def test_who_changes_a_list_of_events_meanwhile_harms_no_other(store18: EventStore) -> None:
    await store18.version("s")
    changed = [NewEvent("T")]
    waiting = asyncio.create_task(together(store18, one("a"), StreamAppend("b", changed, ANY), one("c")))
    await passes()
    changed.extend([NewEvent("T"), NewEvent("T")])
    assert [each.version for each in await waiting if isinstance(each, AppendResult)] == [0, 0, 0]


async def test_an_open_append_of_somebody_stops_its_stream_only(store18: EventStore, dsn18: str) -> None:
    await store18.version("s")
    async with connected(dsn18) as other, asyncio.timeout(60):
        transaction = other.transaction()
        await transaction.start()
        insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, $2, 'Other', '1')"
        await other.execute(insert, "s-2", 0)
        waiting = asyncio.create_task(together(store18, *(one(f"s-{n}") for n in range(5))))
        for n in (0, 1, 3, 4):
            while await store18.version(f"s-{n}") < 0:
                await asyncio.sleep(0)
        later = [asyncio.create_task(store18.append("s-2", [NewEvent("T", n)])) for n in range(3)]
        # The others go on in groups, also those that come later.
        done = await together(store18, *(one(f"s-{n}") for n in (0, 1, 3, 4)))
        assert [each.version for each in done if isinstance(each, AppendResult)] == [1, 1, 1, 1]
        assert not waiting.done()
        await transaction.commit()
        assert [type(each) for each in await waiting] == [AppendResult] * 5
        assert [each.version for each in await asyncio.gather(*later)] == [2, 3, 4]
    assert [event.event_type async for event in store18.read("s-2")] == ["Other", "T", "T", "T", "T"]


async def test_a_batch_that_meets_a_faster_writer_in_its_middle_is_not_stored_in_part(
    store: EventStore, dsn: str
) -> None:
    """The other's second event is visible only when the group has read the version before it."""
    await store.append("s", [NewEvent("T")])
    async with connected(dsn) as other:
        transaction = other.transaction()
        await transaction.start()
        insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 2, 'Other', '1')"
        await other.execute(insert)
        waiting = asyncio.create_task(
            together(store, StreamAppend("s", [NewEvent("A"), NewEvent("B"), NewEvent("C")], 0), one("t"))
        )
        while await store.version("t") < 0:
            await asyncio.sleep(0)
        await transaction.commit()
        done, beside = await waiting
    assert isinstance(done, WrongVersion)
    assert isinstance(beside, AppendResult)
    assert [event.event_type async for event in store.read("s")] == ["T", "Other"]


async def test_the_statement_stores_no_part_of_a_batch(
    dsn18: str, sql18: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it waits until the other has committed, which a group does only if that takes no longer than a moment."""
    monkeypatch.setattr("esx.store.append.group_statement.LOCK_TIMEOUT", 60_000)
    layout = await detect_layout(sql18)
    statement = GroupStatement(KnownTable(layout, await find_arbiter(sql18, layout)))
    units = [Unit(each, -1, -1, [("T", "1", None, uuid4()) for _ in range(3)]) for each in "st"]
    async with connected(dsn18) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 1, 'Other', '1')"
        )
        sent = asyncio.create_task(statement.send(cast("Any", Fetching(sql18)), units))
        while not await other.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            await asyncio.sleep(0)
        await transaction.commit()
        with pytest.raises(asyncpg.DivisionByZeroError):
            await sent
    assert await sql18.fetchval("SELECT count(*) FROM events") == 1


async def test_a_caller_that_gives_up_in_the_queue_has_stored_nothing(store18: EventStore) -> None:
    await store18.version("s")
    tasks = [asyncio.create_task(store18.append(f"s-{n}", [NewEvent("T")])) for n in range(6)]
    await asyncio.sleep(0)
    for given_up in tasks[1::2]:
        given_up.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, AppendResult) for each in done] == [True, False] * 3
    assert [await store18.version(f"s-{n}") for n in range(6)] == [0, -1] * 3


async def test_callers_that_give_up_at_any_moment_stop_no_others(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await store18.version("s")
    draw = random.Random(3)
    kept = [asyncio.create_task(store18.append(f"s-{n % 7}", [NewEvent("T")])) for n in range(100)]
    for _ in range(100):
        task = asyncio.create_task(store18.append(f"s-{draw.randrange(7)}", [NewEvent("T")]))
        for _ in range(draw.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
    async with asyncio.timeout(60):
        done = await asyncio.gather(*kept)
    assert len({each.global_seq for each in done}) == 100
    holes = "SELECT stream_id FROM events GROUP BY 1 HAVING count(*) <> max(stream_seq) + 1"
    assert await sql18.fetch(holes) == []


async def test_a_caller_that_gives_up_while_its_group_is_sent_harms_no_other(store18: EventStore) -> None:
    await store18.version("s")
    appends = [one("first"), one("a", expected=7), one("b"), one("c")]
    tasks = [
        asyncio.create_task(store18.append(each.stream_id, each.events, expected=each.expected)) for each in appends
    ]
    while "a" not in store18._groups._under_way:
        await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in done] == [AppendResult, *[asyncio.CancelledError] * 2, AppendResult]


@pytest.mark.parametrize("last", [-5, -1])
async def test_a_stream_that_counts_below_zero_is_refused_as_by_itself(
    store18: EventStore, sql18: asyncpg.Connection, last: int
) -> None:
    await sql18.execute(f"INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', {last}, 'T', '1')")
    appends = [one("s", 1, expected) for expected in (ANY, NO_STREAM, STREAM_EXISTS, 0)]
    *done, beside = await together(store18, *appends, one("t"))
    assert isinstance(beside, AppendResult)
    for each, told in zip(appends, done, strict=True):
        with pytest.raises((WrongVersion, StoreFailed)) as singly:
            await store18.append("s", each.events, expected=each.expected, grouped=False)
        assert repr(told) == repr(singly.value)


async def test_closing_the_store_ends_what_waits(dsn18: str, sql18: asyncpg.Connection) -> None:
    store = await EventStore.connect(dsn18, max_connections=1)
    await store.version("s")
    tasks = [asyncio.create_task(store.append(f"s-{n}", [NewEvent("T")])) for n in range(20)]
    await asyncio.sleep(0)
    await store.close()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "esx-appends"] == []
    async with asyncio.timeout(60):
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in done} <= {StoreClosed, OutcomeUnknown}
    assert [type(each) for each in done].count(OutcomeUnknown) <= 1
    stored = await sql18.fetchval("SELECT count(*) FROM events")
    assert stored <= 1


async def test_of_a_group_whose_connection_is_lost_each_append_is_found_by_its_ids(
    dsn18: str, sql18: asyncpg.Connection
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with proxied(dsn18, Path(directory)) as (proxy, address), EventStore.connect(address) as store:
            await together(store, *(one(f"warm-{n}") for n in range(3)))
            for moment in ("before the request", "in flight", "before the reply"):
                proxy.about, proxy.cut = b"lost-", moment
                streams = [f"lost-{moment}-{n}" for n in range(5)]
                done = await together(
                    store, *(one(each, expected=NO_STREAM) for each in streams), one(f"lost-{moment}")
                )
                assert proxy.cut is None
                assert [each.version for each in done[:5] if isinstance(each, AppendResult)] == [0] * 5
                assert isinstance(done[5], OutcomeUnknown), moment  # nothing tells an ANY append from another one
    twice = "SELECT stream_id FROM events GROUP BY 1 HAVING count(*) > 1 AND stream_id LIKE 'lost%'"
    assert await sql18.fetch(twice) == []


@pytest.mark.parametrize(
    "index",
    [
        "ALTER TABLE events ADD CONSTRAINT later UNIQUE (stream_id, stream_seq) DEFERRABLE INITIALLY DEFERRED",
        "CREATE RULE nothing AS ON UPDATE TO events DO INSTEAD NOTHING",
    ],
    ids=["deferrable", "rule"],
)
async def test_where_the_index_cannot_be_named_each_goes_by_itself(
    dsn18: str, sql18: asyncpg.Connection, index: str
) -> None:
    if "DEFERRABLE" in index:
        await sql18.execute("ALTER TABLE events DROP CONSTRAINT events_stream_id_stream_seq_key")
    await sql18.execute(index)
    async with EventStore.connect(dsn18) as store:
        await store.version("s")
        done = await together(store, *(one(f"s-{n % 3}") for n in range(9)))
    assert [each for each in done if isinstance(each, BaseException)] == []
    assert await sql18.fetchval(WHERE_THEY_WERE_COMMITTED, "s-%") == 9


async def test_an_index_that_is_dropped_meanwhile_is_noticed(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await together(store18, one("s"), one("t"))
    await sql18.execute("ALTER TABLE events DROP CONSTRAINT events_stream_id_stream_seq_key")
    done = await together(store18, one("s"), one("t"))
    assert ["no unique index" in str(each) for each in done] == [True, True]
    assert await store18.version("s") == 0


async def test_who_holds_a_lock_of_a_stream_waits_in_no_queue(dsn18: str) -> None:
    async with EventStore.connect(dsn18, max_connections=2) as store:
        await store.version("s")

        async def decide(n: int) -> None:
            async with store.lock_stream(f"s-{n}") as stream:
                await store.append(f"note-{n}", [NewEvent("T")])
                await stream.append([NewEvent("T")])

        async with asyncio.timeout(60):
            await asyncio.gather(*(decide(n) for n in range(6)))
        assert [await store.version(f"note-{n}") for n in range(6)] == [0] * 6


async def test_two_stores_that_group_on_the_same_streams_lose_nothing(dsn18: str, sql18: asyncpg.Connection) -> None:
    async def write(store: EventStore, seed: int) -> list[AppendResult]:
        draw = random.Random(seed)
        done: list[AppendResult] = []
        for _ in range(10):
            stream = f"s-{draw.randrange(6)}"
            expected = await store.version(stream) if draw.random() < 0.3 else ANY
            try:
                events = [NewEvent("T") for _ in range(draw.randint(1, 2))]
                done.append(await store.append(stream, events, expected=NO_STREAM if expected == -1 else expected))
            except WrongVersion:
                continue
        return done

    async with EventStore.connect(dsn18) as left, EventStore.connect(dsn18) as right, asyncio.timeout(100):
        written = await asyncio.gather(*(write(store, n) for n in range(12) for store in (left, right)))
    done = [each for every in written for each in every]
    stored = {
        (row[0], row[1], row[2]) for row in await sql18.fetch("SELECT stream_id, stream_seq, global_seq FROM events")
    }
    assert {tuple(each) for each in done} <= stored
    assert len({each.global_seq for each in done}) == len(done)
    holes = "SELECT stream_id FROM events GROUP BY 1 HAVING count(*) <> max(stream_seq) + 1"
    assert await sql18.fetch(holes) == []


async def test_a_deadlock_is_a_passing_fault(store18: EventStore, dsn18: str) -> None:
    await store18.version("s")
    insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, 0, 'Other', '1')"
    async with connected(dsn18) as other, asyncio.timeout(60):
        await other.execute("SET deadlock_timeout = '100s'")  # so that it is not the other one that ends it
        transaction = other.transaction()
        await transaction.start()
        await other.execute(insert, "a")
        both = asyncio.create_task(
            store18.append_to_streams(
                [StreamAppend("b", [NewEvent("T")], ANY), StreamAppend("a", [NewEvent("T")], ANY)]
            )
        )
        while not await other.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            await asyncio.sleep(0)
        await other.execute(insert, "b")
        await transaction.commit()
        assert [each.version for each in await both] == [1, 1]


class Recorder:
    """Takes groups, and answers them when it is told; what `leaves` are has to be sent by itself."""

    def __init__(self) -> None:
        self.groups: list[list[tuple[str, list[object]]]] = []
        self.open = asyncio.Event()
        self.blocked = asyncio.Event()
        self.leaves: set[str] = set()
        self.alone: list[tuple[str, object]] = []

    async def send(self, group: list[Members]) -> None:
        self.groups.append([(each.stream_id, [queued.events[0].data for queued in each.appends]) for each in group])
        await self.open.wait()
        for members in group:
            for queued in members.appends:
                if members.stream_id in self.leaves:
                    queued.by_itself = Alone()
                elif not queued.answer.done():
                    queued.answer.set_result(AppendResult(queued.stream_id, 0, 1))

    async def by_itself(self, stream_id: str, lost: EsxError | None) -> AppendResult:
        assert lost is None
        self.alone.append((stream_id, None))
        await (self.blocked if stream_id == "blocked" else self.open).wait()
        return AppendResult(stream_id, 0, 1)

    def append(
        self, groups: Groups, stream_id: str, data: object, expected: ExpectedVersion = ANY, *, size: int = 1
    ) -> asyncio.Task[AppendResult]:
        events = [NewEvent("T", data)] * size
        return asyncio.create_task(
            groups.append(stream_id, events, expected, lambda lost: self.by_itself(stream_id, lost))
        )


async def passes(turns: int = 5) -> None:
    """Let the tasks run until each of them waits."""
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (GroupLimits(beside=1), [30]),
        (GroupLimits(events=10, beside=1), [10, 10, 10]),
        (GroupLimits(size=40, beside=1), [25, 5]),  # the first ten have one character
        (GroupLimits(ahead=3, beside=1), [30]),
        (GroupLimits(), [15, 15]),
        (GroupLimits(least=20), [30]),
    ],
    ids=["none", "events", "size", "made when needed", "two beside each other", "too few for two"],
)
async def test_groups_are_bounded(limits: GroupLimits, sizes: Sequence[int]) -> None:
    recorder = Recorder()
    groups = Groups(recorder.send, event_rows, limits)
    tasks = [recorder.append(groups, f"s-{n}", n if n < 10 else n % 10 + 10) for n in range(-1, 30)]
    await passes()
    assert groups._ahead <= limits.ahead
    recorder.open.set()
    await asyncio.gather(*tasks)
    assert [len(group) for group in recorder.groups] == sizes
    assert [stream for group in recorder.groups for stream, _ in group] == [f"s-{n}" for n in range(30)]
    assert groups._ahead == 0


async def test_what_would_only_be_sent_again_waits() -> None:
    """Of two appends for any version, with one for an exact version between them, a group can store one."""
    recorder = Recorder()
    groups = Groups(recorder.send, event_rows)
    expected: list[ExpectedVersion] = [5, ANY, STREAM_EXISTS, 5, 6, ANY, 7, ANY]
    tasks = [recorder.append(groups, "x", 0), *(recorder.append(groups, "a", n, e) for n, e in enumerate(expected))]
    tasks.append(recorder.append(groups, "b", 8))
    await passes()
    recorder.open.set()
    await asyncio.gather(*tasks)
    assert recorder.groups == [[("a", [0, 1, 2, 3, 4]), ("b", [8])], [("a", [5, 6])]]
    assert recorder.alone == [("x", None), ("a", None)]


async def test_an_append_that_takes_long_by_itself_is_overtaken() -> None:
    recorder = Recorder()
    groups = Groups(recorder.send, event_rows, GroupLimits(patience=0.0))
    blocked = recorder.append(groups, "blocked", 0)
    await passes()
    tasks = [recorder.append(groups, stream, n) for n, stream in enumerate(["a", "blocked", "b", "a"])]
    async with asyncio.timeout(60):
        while not recorder.groups:
            await asyncio.sleep(0)
    assert recorder.groups == [[("a", [0, 3]), ("b", [2])]]
    assert not blocked.done()
    recorder.open.set()
    recorder.blocked.set()
    await asyncio.gather(blocked, *tasks)


async def test_nothing_overtakes_an_append_to_its_own_stream() -> None:
    recorder = Recorder()
    groups = Groups(recorder.send, event_rows, GroupLimits(large=100, patience=0.0))
    recorder.open.set()
    async with asyncio.timeout(60):
        blocked = recorder.append(groups, "blocked", 0)
        await passes()
        await recorder.append(groups, "a", 1)
        waiting = [recorder.append(groups, "blocked", data) for data in ("long" * 100, 3)]
        await recorder.append(groups, "a", 4)  # nothing but the blocked one is under way
        assert recorder.alone == [("blocked", None), ("a", None), ("a", None)]
        waiting[0].cancel()
        recorder.blocked.set()
        await asyncio.gather(blocked, waiting[1])
    assert recorder.alone[3:] == [("blocked", None)]
    assert recorder.groups == []


@pytest.mark.parametrize("beside", [[], ["b"]], ids=["by itself", "left by a group"])
async def test_a_caller_that_gives_up_in_any_turn_of_the_loop_leaves_its_stream_free(beside: list[str]) -> None:
    for turns in range(12):
        recorder = Recorder()
        recorder.leaves = {"a"}
        groups = Groups(recorder.send, event_rows)
        others = [recorder.append(groups, "x", 0)]
        given_up = recorder.append(groups, "a", 1)
        others += [recorder.append(groups, each, 2) for each in (*beside, "a")]
        await passes()
        recorder.open.set()
        await passes(turns)
        given_up.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(*others, recorder.append(groups, "a", 3))
        assert (groups._waiting, groups._under_way, groups._ahead, groups._single) == ({}, set(), 0, None)


async def test_a_group_that_fails_in_an_unforeseen_way_stops_no_later_one(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    failing = [LookupError("unforeseen")]

    async def send(group: list[Members]) -> None:
        if failing:
            tasks[1].cancel()
            raise failing.pop()
        await recorder.send(group)

    groups = Groups(send, event_rows)
    tasks = [recorder.append(groups, stream, n) for n, stream in enumerate("xabc")]
    await passes()
    recorder.open.set()
    async with asyncio.timeout(60):
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in done] == [AppendResult, asyncio.CancelledError, LookupError, LookupError]
        recorder.open.clear()
        tasks = [recorder.append(groups, stream, n) for n, stream in enumerate("xabc")]
        await passes()
        recorder.open.set()
        await asyncio.gather(*tasks)
    assert [[stream for stream, _ in group] for group in recorder.groups] == [["a", "b", "c"]]
    assert "esx-appends failed" in caplog.text


async def test_events_that_cannot_be_sent_fail_their_own_append_whenever_they_are_made() -> None:
    for ahead in (0, 1000):
        recorder = Recorder()
        groups = Groups(recorder.send, event_rows, GroupLimits(ahead=ahead))
        tasks = [recorder.append(groups, "s" if n % 2 else "t", n if n != 3 else {1, 2}) for n in range(8)]
        await passes()
        recorder.open.set()
        async with asyncio.timeout(60):
            done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [n for n, each in enumerate(done) if not isinstance(each, AppendResult)] == [3]
        assert isinstance(done[3], InvalidEvent)
        assert groups._ahead == 0


async def test_what_a_queue_of_one_sends_by_itself_is_under_way_too() -> None:
    recorder = Recorder()
    groups = Groups(recorder.send, event_rows, GroupLimits(events=1))
    tasks = [recorder.append(groups, stream, n) for n, stream in enumerate(["x", "a", "blocked"])]
    await passes()
    recorder.open.set()
    await asyncio.gather(*tasks[:2])
    await passes()
    tasks.append(recorder.append(groups, "b", 3))
    await passes()
    # While others wait, one that is sent for them all is a group, which has an end.
    assert recorder.groups == [[("a", [1])]]
    assert recorder.alone == [("x", None), ("blocked", None)]
    recorder.blocked.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("limits", [GroupLimits(large=100), GroupLimits(events=3)], ids=["size", "events"])
async def test_nothing_overtakes_a_large_append(limits: GroupLimits) -> None:
    recorder = Recorder()
    groups = Groups(recorder.send, event_rows, limits)
    tasks = [recorder.append(groups, "x", 0), recorder.append(groups, "blocked", "long" * 10, size=4)]
    tasks.append(recorder.append(groups, "b", 1))
    await passes()
    recorder.open.set()
    await asyncio.gather(tasks[0], tasks[2])
    tasks.append(recorder.append(groups, "blocked", 2))
    await passes()
    assert (recorder.alone, recorder.groups) == ([("x", None), ("blocked", None), ("b", None)], [])
    recorder.blocked.set()
    await asyncio.gather(*tasks)


async def test_a_large_append_goes_by_itself_in_its_turn() -> None:
    recorder = Recorder()
    groups = Groups(recorder.send, event_rows, GroupLimits(large=100))
    tasks = [recorder.append(groups, *each) for each in (("x", 0), ("a", 1), ("a", "long" * 100), ("a", 2), ("b", 3))]
    await passes()
    recorder.open.set()
    await asyncio.gather(*tasks)
    assert recorder.alone[:2] == [("x", None), ("a", None)]
    assert recorder.groups[0] == [("a", [1]), ("b", [3])]


class Fetching:
    """Runs statements as the driver does."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.repeat = connection.fetch


class Explaining:
    """Runs statements by PREPARE, first explained with the plan that a session keeps."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.nodes: list[tuple[str, str | None]] = []

    async def repeat(self, query: str, *arguments: Sequence[object] | None) -> list[asyncpg.Record]:
        given = ", ".join("NULL" if each is None else literal(_array_text(each)) for each in arguments)
        await self._connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE asked AS {query}")
        told = await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked({given})")
        rows: list[asyncpg.Record] = await self._connection.fetch(f"EXECUTE asked({given})")
        await self._connection.execute("DEALLOCATE asked")
        self._note(json.loads(told)[0]["Plan"])
        return rows

    def _note(self, plan: dict[str, Any]) -> None:
        if plan.get("Relation Name") == "events" and plan["Node Type"] != "ModifyTable":
            self.nodes.append((plan["Node Type"], plan.get("Index Name")))
        for each in plan.get("Plans", ()):
            self._note(each)


def _array_text(values: Sequence[object]) -> str:
    return "{" + ",".join("NULL" if each is None else json.dumps(str(each)) for each in values) + "}"


async def test_a_group_finds_versions_by_the_index(sql: asyncpg.Connection) -> None:
    """With and without statistics."""
    await sql.execute(
        "ALTER TABLE events DISABLE TRIGGER USER; INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT 's-' || n % 1000, n / 1000, 'T', '{}' FROM generate_series(0, 19999) n"
    )
    event = ("T", '{"n": 1}', None)
    for statistics, first in (("SELECT 1", 0), ("ANALYZE events", 100)):
        await sql.execute(statistics)
        layout = await detect_layout(sql)
        statement = GroupStatement(KnownTable(layout, await find_arbiter(sql, layout)))
        explaining: Any = Explaining(sql)
        singles = [Unit(f"s-{first + n}", -1, HIGHEST_BEFORE, [(*event, uuid4())]) for n in range(3)]
        assert [each.version for each in await statement.send(explaining, singles)] == [19, 19, 19]
        several = [Unit(f"s-{first + 1}", at, at, [(*event, uuid4()), (*event, uuid4())]) for at in (19, 20)]
        found = await statement.send(explaining, several)
        assert [(each.version, each.numbers is not None) for each in found] == [(20, False), (20, True)]
        assert {node for node, _ in explaining.nodes} <= {"Index Scan", "Index Only Scan"}, statistics
        assert {index for _, index in explaining.nodes} == {"events_stream_id_stream_seq_key"}, statistics


async def test_who_loses_a_race_asks_again_before_who_won_it(dsn18: str) -> None:
    """With the winner first, the same task would win again and again."""
    won = [0] * 8

    async with EventStore.connect(dsn18) as store:
        await store.append("hot", [NewEvent("T")])

        async def race(number: int) -> None:
            at = 0
            while sum(won) < 200:
                try:
                    at = (await store.append("hot", [NewEvent("T")], expected=at)).version
                except WrongVersion as wrong:
                    at = wrong.actual
                else:
                    won[number] += 1

        async with asyncio.timeout(60):
            await asyncio.gather(*(race(number) for number in range(len(won))))
    assert min(won) >= 200 / len(won) / 4, won
