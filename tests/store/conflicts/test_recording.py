"""Recording conflicts: what a row says, that no answer waits for it, and that nothing grows without bound."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import NO_STREAM, STREAM_EXISTS, EventStore, JsonText, NewEvent, StreamAppend, WrongVersion
from esx.store.conflicts.recorder import ConflictRecorder, RecorderLimits
from tests.support.connections import connected
from tests.support.oddities import database
from tests.support.pgbouncer import needs_pgbouncer, pooled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Servers
    from tests.support.roles import Role

QUICK = RecorderLimits(every=0.01, limit=0.5, last_pause=0.02, closing=1.0)


async def opened(dsn: str, limits: RecorderLimits = QUICK, **options: Any) -> EventStore:
    """Return a store that records its conflicts, within these limits."""
    store = await EventStore.connect(dsn, record_conflicts=True, **options)
    store.__dict__["_recorder"] = ConflictRecorder(store._conflict_pool, lambda: store._table, limits)
    return store


async def lose(store: EventStore, stream_id: str, *events: NewEvent, expected: Any = NO_STREAM) -> WrongVersion:
    with pytest.raises(WrongVersion) as caught:
        await store.append(stream_id, events, expected=expected)
    return caught.value


async def state_is(store: EventStore, wanted: Callable[[Any], bool]) -> None:
    """Wait until recording is in a state that stays."""
    while not wanted(store.recording):
        await asyncio.sleep(0.01)


async def rows_of(sql: asyncpg.Connection) -> list[asyncpg.Record]:
    return list(await sql.fetch("SELECT * FROM conflicts ORDER BY id"))


@pytest.mark.parametrize("grouping", [True, False], ids=["grouped", "each by itself"])
async def test_a_row_says_what_lost_to_what_and_by_whom(dsn18: str, sql18: asyncpg.Connection, grouping: bool) -> None:
    async with EventStore.connect(dsn18, record_conflicts=True, grouping=grouping) as store:
        won = NewEvent("Deposited", metadata={"user_id": "ann", "correlation_id": "c-1"})
        await store.append("account-1", [NewEvent("Opened")], expected=NO_STREAM)
        done = await store.append("account-1", [won, NewEvent("Audited"), NewEvent("Deposited")], expected=0)
        lost = NewEvent("Withdrawn", metadata={"user": "bob", "correlationId": 7})
        await lose(store, "account-1", lost, NewEvent("Withdrawn"), NewEvent("Closed"), expected=0)
        assert store.recording is not None
        assert (store.recording.seen, store.recording.problem) == (1, None)
    [row] = await rows_of(sql18)
    assert (row["stream_id"], row["expected"], row["actual"]) == ("account-1", 0, 3)
    assert (row["lost_types"], row["lost_user"], row["lost_correlation"]) == (["Withdrawn", "Closed"], "bob", "7")
    assert (row["won_types"], row["won_user"], row["won_correlation"]) == (["Deposited", "Audited"], "ann", "c-1")
    assert (row["won_seq"], row["stands_for"]) == (done.global_seq - 2, 1)
    assert store.recording is not None
    assert (store.recording.recorded, store.recording.dropped) == (1, 0)


async def test_losers_of_a_race_are_recorded_with_its_winner(dsn18: str, sql18: asyncpg.Connection) -> None:
    async with EventStore.connect(dsn18, record_conflicts=True, max_connections=8) as store:
        await store.append("s-1", [NewEvent("Made")])
        racing = [store.append("s-1", [NewEvent(f"Type{n}")], expected=0) for n in range(30)]
        outcomes = await asyncio.gather(*racing, return_exceptions=True)
    losers = {f"Type{n}" for n, outcome in enumerate(outcomes) if isinstance(outcome, WrongVersion)}
    assert len(losers) == 29
    rows = await rows_of(sql18)
    assert {row["lost_types"][0] for row in rows} == losers
    [winner] = {f"Type{n}" for n in range(30)} - losers
    assert {tuple(row["won_types"]) for row in rows} == {(winner,)}


async def test_what_lost_to_nothing_and_other_ways_to_append(dsn18: str, sql18: asyncpg.Connection) -> None:
    async with EventStore.connect(dsn18, record_conflicts=True) as store:
        await store.append("s-1", [NewEvent("Made")])
        await lose(store, "s-1", NewEvent("A"), expected=5)
        await lose(store, "nix-1", NewEvent("B"), expected=STREAM_EXISTS)
        with pytest.raises(WrongVersion):
            await store.append_to_streams(
                [StreamAppend("t-1", [NewEvent("C")], NO_STREAM), StreamAppend("s-1", [NewEvent("D")], NO_STREAM)]
            )
        with pytest.raises(WrongVersion):
            async with store.lock_stream("s-1") as locked:
                await store.append("s-1", [NewEvent("Faster")], expected=0)
                await locked.append([NewEvent("E")])

        async def decision(_history: object) -> list[NewEvent]:
            await store.append("s-1", [NewEvent("Faster")])
            return [NewEvent("F")]

        with pytest.raises(WrongVersion):
            await store.decide("s-1", decision, attempts=2)
    rows = [(row["lost_types"], row["expected"], row["won_types"], row["won_seq"]) for row in await rows_of(sql18)]
    assert rows[:2] == [(["A"], 5, [], None), (["B"], None, [], None)]
    assert [row[:3] for row in rows[2:]] == [
        (["D"], -1, ["Made"]),
        (["E"], 0, ["Faster"]),
        (["F"], 1, ["Faster"]),
        (["F"], 2, ["Faster"]),
    ]


async def test_without_asking_nothing_is_recorded(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    await store18.append("s-1", [NewEvent("Made")])
    await lose(store18, "s-1", NewEvent("A"))
    assert store18.recording is None
    assert (await store18.health()).recording is None
    assert await rows_of(sql18) == []


async def test_many_conflicts_are_a_sample_that_stands_for_all(dsn18: str, sql18: asyncpg.Connection) -> None:
    store = await opened(dsn18, RecorderLimits(every=60, sample=50))
    await store.append("s-1", [NewEvent("Made")])
    conflict = await lose(store, "s-1", NewEvent("A"))
    recorder = store._recorder
    assert recorder is not None
    for number in range(9_999):
        recorder.note(conflict, [NewEvent("A" if number < 4_999 else "B")])
    assert len(recorder._kept) == 50
    await store.close()
    rows = await rows_of(sql18)
    assert len(rows) == 50
    assert sum(row["stands_for"] for row in rows) == pytest.approx(10_000)
    # Each of them was as likely: the chance of fewer than 8 or more than 42 of those that came first is below one in a
    # million.
    assert 8 <= sum(row["lost_types"] == ["A"] for row in rows) <= 42
    assert store.recording is not None
    assert (store.recording.seen, store.recording.recorded, store.recording.dropped) == (10_000, 10_000, 0)


async def test_the_table_keeps_the_newest_rows(dsn: str, sql: asyncpg.Connection) -> None:
    store = await opened(dsn, RecorderLimits(every=0.01, keep=5))
    await store.append("s-1", [NewEvent("Made")])
    for number in range(8):
        await lose(store, "s-1", NewEvent(f"Type{number}"))
        await state_is(store, lambda state, number=number: state.recorded == number + 1)  # type: ignore[misc]
    await store.close()
    assert [row["lost_types"] for row in await rows_of(sql)] == [[f"Type{number}"] for number in range(3, 8)]


async def test_no_answer_waits_while_the_table_is_locked(
    dsn18: str, sql18: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    store = await opened(dsn18, max_connections=1)
    await store.append("s-1", [NewEvent("Made")])
    async with sql18.transaction():
        await sql18.execute("LOCK TABLE conflicts IN ACCESS EXCLUSIVE MODE")
        for _ in range(200):
            # Each has its answer while nothing can be recorded, on the only connection of the store.
            await lose(store, "s-1", NewEvent("A"))
        await state_is(store, lambda state: state.problem is not None and state.dropped > 0)
        recorder = store._recorder
        assert recorder is not None
        assert len(recorder._kept) <= 50
    await lose(store, "s-1", NewEvent("B"))
    # The kept ones are recorded a part at a time.
    await state_is(store, lambda state: state.problem is None and state.recorded + state.dropped == 201)
    state = store.recording
    assert state is not None
    assert state.seen == 201
    assert state.recorded > 0
    await store.close()
    assert "conflicts are not recorded: the database does not answer" in caplog.text


async def test_it_says_once_that_there_is_no_table_and_goes_on_when_there_is(
    dsn18: str, sql18: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await sql18.execute("DROP TABLE conflicts")
    store = await opened(dsn18)
    await store.append("s-1", [NewEvent("Made")])
    for number in range(3):
        await lose(store, "s-1", NewEvent("A"))
        await state_is(store, lambda state, number=number: state.dropped == number + 1)  # type: ignore[misc]
    health = await store.health()
    assert health.recording is not None
    assert health.recording.text == (
        "0 of 3 conflicts recorded, 3 dropped; not now: there is no table conflicts: `esx init` adds it"
    )
    assert caplog.text.count("conflicts are not recorded") == 1
    assert await store.init() == ["created index conflicts_pkey", "created table conflicts"]
    await lose(store, "s-1", NewEvent("A"))
    await state_is(store, lambda state: state.recorded == 1 and state.problem is None)
    assert "conflicts are recorded again" in caplog.text
    assert len(await rows_of(sql18)) == 1
    # Also where it was there at first.
    await sql18.execute("DROP TABLE conflicts")
    while store.recording is not None and "`esx init` adds it" not in (store.recording.problem or ""):
        await lose(store, "s-1", NewEvent("A"))
        await asyncio.sleep(0.01)
    await store.close()


async def test_what_is_noted_while_a_write_ends_is_written_too(
    dsn18: str, sql18: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "esx.conflicts")
    store = await opened(dsn18)
    loop = asyncio.get_running_loop()

    class NoteAnother(logging.Handler):
        """Notes a conflict right after the step in which a write ends."""

        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.INFO:
                loop.call_soon(store._recorder.note, conflict, [NewEvent("B")])  # type: ignore[union-attr]

    handler = NoteAnother()
    logging.getLogger("esx.conflicts").addHandler(handler)
    try:
        await store.append("s-1", [NewEvent("Made")])
        await sql18.execute("ALTER TABLE conflicts RENAME TO others")
        conflict = await lose(store, "s-1", NewEvent("A"))
        await state_is(store, lambda state: state.problem is not None)
        await sql18.execute("ALTER TABLE others RENAME TO conflicts")
        await lose(store, "s-1", NewEvent("A"))
        await state_is(store, lambda state: state.recorded == 2)
    finally:
        logging.getLogger("esx.conflicts").removeHandler(handler)
        await store.close()
    assert [row["lost_types"] for row in await rows_of(sql18)] == [["A"], ["B"]]


async def test_another_table_of_that_name_is_left_alone(empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as sql:
        await sql.execute("CREATE TABLE conflicts (id bigint PRIMARY KEY, who text)")
        store = await opened(empty_dsn18)
        assert "created table events" in await store.init()
        await store.append("s-1", [NewEvent("Made")])
        await lose(store, "s-1", NewEvent("A"))
        await state_is(store, lambda state: state.problem is not None)
        assert store.recording is not None
        assert "is not esx's" in (store.recording.problem or "")
        await store.close()
        assert await sql.fetchval("SELECT count(*) FROM conflicts") == 0


async def test_a_table_of_somebody_else_gets_nothing(dsn18: str, sql18: asyncpg.Connection, role: Role) -> None:
    await sql18.execute(
        f"CREATE TABLE ran (who text); GRANT INSERT ON ran TO PUBLIC; ALTER TABLE conflicts OWNER TO {role.name};"
        "CREATE FUNCTION hostile() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN NEW; END $$;"
        "CREATE TRIGGER t BEFORE INSERT ON conflicts FOR EACH ROW EXECUTE FUNCTION hostile()"
    )
    store = await opened(dsn18, trust_owner=True)
    await store.append("s-1", [NewEvent("Made")])
    await lose(store, "s-1", NewEvent("A"))
    await state_is(store, lambda state: state.problem is not None)
    assert store.recording is not None
    assert "another owner" in (store.recording.problem or "")
    await store.close()
    assert await sql18.fetchval("SELECT count(*) FROM ran") == 0
    await sql18.execute("ALTER TABLE conflicts OWNER TO CURRENT_USER")


async def test_who_appends_may_record_after_init_and_who_may_not_is_told(
    dsn18: str, role: Role, sql18: asyncpg.Connection
) -> None:
    await role.grant("SELECT, INSERT ON events", "USAGE ON SEQUENCE events_global_seq_seq")
    theirs = await opened(role.dsn(dsn18))
    await theirs.append("s-1", [NewEvent("Made")])
    await lose(theirs, "s-1", NewEvent("A"))
    await state_is(theirs, lambda state: state.problem is not None)
    assert theirs.recording is not None
    assert theirs.recording.problem == "it takes SELECT, INSERT and DELETE on table conflicts"
    # As for a store that had no such table before.
    await sql18.execute("DROP TABLE conflicts")
    async with EventStore.connect(dsn18) as store:
        await store.init()
    await lose(theirs, "s-1", NewEvent("A"))
    await state_is(theirs, lambda state: state.problem is None and state.recorded == 1)
    await theirs.close()
    # Policies hide events from some: who is to see conflicts is then for the owner to say.
    await sql18.execute("DROP TABLE conflicts; ALTER TABLE events ENABLE ROW LEVEL SECURITY")
    async with EventStore.connect(dsn18) as store:
        await store.init()
    assert not await sql18.fetchval("SELECT has_table_privilege($1, 'conflicts', 'SELECT')", role.bare)


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SQL_ASCII"])
async def test_texts_that_postgresql_cannot_hold_lose_no_row(servers: Servers, encoding: str) -> None:
    async with database(await servers.get(18), encoding) as dsn:
        store = await opened(dsn, RecorderLimits(every=60))
        try:
            await store.init()
            await store.append("s-ü", [NewEvent("Made", metadata={"user": "ü"})])
            recorder = store._recorder
            assert recorder is not None
            conflict = WrongVersion("s-ü", NO_STREAM, 0)
            for event_type in ("plain", "n\0ul", "lone \udc80", "→ü", "x" * 100_000):
                recorder.note(conflict, [NewEvent(event_type, metadata=JsonText('{"user": "\\ud800"}'))])
            recorder.note(conflict, [NewEvent("deep", metadata=JsonText("[" * 50_000))])
            recorder.note(conflict, [NewEvent("odd", metadata={"user": ["a"], "user_id": True, "username": "u"})])
            recorder.note(conflict, [])
            recorder.note(WrongVersion("s-\udcff", 1, 0), [NewEvent("bytes")])
        finally:
            await store.close()
        assert store.recording is not None
        assert store.recording.problem is None
        async with connected(dsn) as sql:
            rows = await rows_of(sql)
    assert len(rows) == 9
    assert [row["won_user"] for row in rows] == ["ü"] * 8 + [None]
    assert len(rows[4]["lost_types"][0]) == 500
    assert [row["lost_user"] for row in rows][-3:] == ["u", None, None]
    assert rows[7]["lost_types"] == []


async def test_closing_does_not_wait_for_a_database_that_does_not_answer(dsn18: str, sql18: asyncpg.Connection) -> None:
    store = await opened(dsn18, RecorderLimits(every=60, limit=60, closing=0.05))
    await store.append("s-1", [NewEvent("Made")])
    await lose(store, "s-1", NewEvent("A"))
    async with sql18.transaction():
        await sql18.execute("LOCK TABLE conflicts IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(5):
            await store.close()
    assert store.recording is not None
    assert (store.recording.recorded, store.recording.dropped) == (0, 1)
    await lose_after_close(store)


async def lose_after_close(store: EventStore) -> None:
    recorder = store._recorder
    assert recorder is not None
    recorder.note(WrongVersion("s-1", NO_STREAM, 0), [NewEvent("A")])
    assert recorder.state.dropped == 2


@needs_pgbouncer
@pytest.mark.slow
async def test_behind_a_pooler_conflicts_are_recorded_too(dsn18: str, sql18: asyncpg.Connection) -> None:
    async with pooled(dsn18) as address, EventStore.connect(address, record_conflicts=True) as store:
        await store.append("s-1", [NewEvent("Made", metadata={"user": "ann"})])
        await lose(store, "s-1", NewEvent("A"))
        await store.close()
        assert store.recording is not None
        assert (store.recording.problem, store.recording.recorded) == (None, 1)
    [row] = await rows_of(sql18)
    assert (row["lost_types"], row["won_types"], row["won_user"]) == (["A"], ["Made"], "ann")


async def test_a_lost_connection_drops_what_it_would_have_written_and_a_new_one_goes_on(
    dsn18: str, sql18: asyncpg.Connection
) -> None:
    store = await opened(dsn18)
    await store.append("s-1", [NewEvent("Made")])
    await lose(store, "s-1", NewEvent("A"))
    await state_is(store, lambda state: state.recorded == 1)
    ended = await sql18.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'esx conflicts'"
    )
    assert ended == 1
    while store.recording is not None and store.recording.recorded < 2:
        await lose(store, "s-1", NewEvent("B"))
        await asyncio.sleep(0.01)
    await store.close()
    assert store.recording is not None
    assert store.recording.problem is None
    assert store.recording.recorded + store.recording.dropped == store.recording.seen
