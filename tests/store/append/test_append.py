"""Appending: which expected versions pass, what a refused append says, and which writer wins a race."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
from collections.abc import Sequence
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esx import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendResult,
    EventStore,
    InvalidEvent,
    JsonText,
    NewEvent,
    StreamAppend,
    WrongVersion,
)
from esx.errors import EventIdsReused, StoreFailed
from esx.expected import ExpectedVersion, parse_expected
from esx.model import Strategy
from esx.postgres.session import Session
from tests.support.roles import Role
from tests.support.rounds import rounds
from tests.support.stores import store_and_pool

# Too long for an index, also when compressed.
LONG = "".join(random.Random(1).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=6000))


async def test_expected_version_decides(store: EventStore) -> None:
    for expected, on_missing, on_version_1 in (
        (ANY, True, True),
        (NO_STREAM, True, False),
        (STREAM_EXISTS, False, True),
        (0, False, False),
        (1, False, True),
        (2, False, False),
    ):
        for count in (1, 3):
            missing, there = (f"{name}-{expected}-{count}" for name in ("missing", "there"))
            await store.append(there, [NewEvent("A"), NewEvent("B")], expected=NO_STREAM)
            for stream, passes, before in ((missing, on_missing, -1), (there, on_version_1, 1)):
                events = [NewEvent("C", {"n": n}) for n in range(count)]
                if passes:
                    done = await store.append(stream, events, expected=expected)
                    assert done.version == before + count, stream
                    assert await store.version(stream) == done.version
                    last = await store.event(done.global_seq)
                    assert last is not None
                    assert (last.stream_id, last.stream_seq) == (stream, done.version)
                else:
                    with pytest.raises(WrongVersion) as caught:
                        await store.append(stream, events, expected=expected)
                    refused = caught.value
                    assert (refused.stream_id, refused.expected, refused.actual) == (stream, expected, before)
                    assert await store.version(stream) == before, stream


async def test_an_event_comes_back_as_it_was(store: EventStore) -> None:
    event = NewEvent("Opened", {"amount": 100, "who": "José"}, {"user": "ann"}, uuid4())
    done = await store.append("account-1", [event])
    [stored] = await store.read_page("account-1")
    assert stored.global_seq == done.global_seq
    assert (stored.event_type, stored.data, stored.metadata) == ("Opened", event.data, event.metadata)
    assert stored.event_id == event.event_id
    assert stored.created_at is not None
    assert stored.created_at.utcoffset() is not None


async def test_every_digit_of_json_text_is_kept(store18: EventStore) -> None:
    text = '{"price": 1.10, "huge": 12345678901234567890123}'
    await store18.append("s", [NewEvent("T", JsonText(text), JsonText('{"rate": 0.00}'))])
    [stored] = await store18.read_page("s")
    assert stored.data_json == '{"huge": 12345678901234567890123, "price": 1.10}'
    assert stored.metadata_json == '{"rate": 0.00}'
    assert '"price": 1.10' in stored.to_json()


async def test_of_a_name_given_twice_the_last_counts(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T", JsonText('{"a": 1, "b": {"c": 1, "c": 2}, "a": 3}'))])
    [stored] = await store18.read_page("s")
    assert stored.data_json == '{"a": 3, "b": {"c": 2}}'


async def test_an_event_as_deep_as_postgresql_takes_it_comes_back(store18: EventStore) -> None:
    text = "[" * 3000 + "]" * 3000
    await store18.append("s", [NewEvent("T", JsonText(text))])
    [stored] = await store18.read_page("s")
    assert stored.data_json == text
    assert json.loads(stored.to_json()[: stored.to_json().index('"data"')].rstrip(", ") + "}")["stream_seq"] == 0
    assert text in stored.to_json()


async def test_a_batch_keeps_its_order_in_both_sequences(store: EventStore) -> None:
    await asyncio.gather(
        *(store.append(f"s-{k}", [NewEvent("T", {"n": n}) for n in range(200)], expected=NO_STREAM) for k in range(8))
    )
    for k in range(8):
        events = [event async for event in store.read(f"s-{k}")]
        assert [event.data["n"] for event in events] == list(range(200))
        assert [event.stream_seq for event in events] == list(range(200))
        assert sorted(event.global_seq for event in events) == [event.global_seq for event in events]


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_a_batch_is_in_order_whichever_way_its_events_come(
    dsn: str, sql: asyncpg.Connection, strategy: Strategy
) -> None:
    """A set has no order, though the plans of today happen to keep that of an array."""
    sent: list[str] = []

    def backwards(query: str) -> str:
        if "ROWS FROM (" not in query:
            return query
        sent.append(query)
        arrays = query[query.index("ROWS FROM (") : query.index(" AS new (")]
        return query.replace(arrays, f"(SELECT * FROM {arrays} AS u (a, b, c, d, ord) ORDER BY ord DESC OFFSET 0)")

    events = [NewEvent("T") for _ in range(5)]
    async with store_and_pool(dsn) as (store, pool):
        assert not await store.head()  # the store has looked at its table, which says how queries are rewritten
        pool.rewrite = backwards
        await store.append("s", events, strategy=strategy)
    assert len(sent) == 1
    stored = await sql.fetch("SELECT global_seq, stream_seq, event_id FROM events ORDER BY global_seq")
    assert [tuple(row) for row in stored] == [(n + 1, n, event.event_id) for n, event in enumerate(events)]


async def test_one_of_32_writers_at_one_version_wins(store: EventStore) -> None:
    await store.append("hot", [NewEvent("Start")], expected=NO_STREAM)
    for version in range(10):
        outcomes = await asyncio.gather(
            *(store.append("hot", [NewEvent("Race", {"writer": w})], expected=version) for w in range(32)),
            return_exceptions=True,
        )
        winners = [outcome for outcome in outcomes if isinstance(outcome, AppendResult)]
        losers = [outcome for outcome in outcomes if isinstance(outcome, WrongVersion)]
        assert (len(winners), len(losers)) == (1, 31)
        assert {loser.actual for loser in losers} == {version + 1}
        stored = await store.event(winners[0].global_seq)
        assert stored is not None
        assert stored.data["writer"] == outcomes.index(winners[0])
    assert await store.count_events("hot") == 11


@pytest.mark.slow
async def test_racing_batches_are_never_torn(store: EventStore) -> None:
    async def writer(name: int) -> int:
        won = 0
        for _ in range(15):
            version = await store.version("hot")
            batch = [NewEvent("T", {"writer": name}) for _ in range(3)]
            try:
                await store.append("hot", batch, expected=NO_STREAM if version < 0 else version)
            except WrongVersion:
                continue
            won += 3
        return won

    acknowledged = sum(await asyncio.gather(*(writer(name) for name in range(16))))
    events = [event async for event in store.read("hot")]
    assert len(events) == acknowledged
    assert [event.stream_seq for event in events] == list(range(acknowledged))
    writers = [event.data["writer"] for event in events]
    assert all(len(set(writers[at : at + 3])) == 1 for at in range(0, acknowledged, 3))


@pytest.mark.slow
@pytest.mark.parametrize("expected", [ANY, STREAM_EXISTS])
async def test_a_writer_that_accepts_any_version_never_loses_a_race(
    store18: EventStore, expected: ExpectedVersion
) -> None:
    await store18.append("hot", [NewEvent("Start")])
    await asyncio.gather(*(store18.append("hot", [NewEvent("T")], expected=expected) for _ in range(200)))
    assert await store18.version("hot") == 200
    assert await store18.count_events("hot") == 201


UNSTORABLE: list[tuple[NewEvent, str]] = [
    (NewEvent("T", {"a": "\0"}), "u0000"),
    (NewEvent("T", {}, {"a": "\0"}), "u0000"),
    (NewEvent("T", {"a": "\ud800"}), "surrogate"),
    (NewEvent("\ud800"), "surrogate"),
    (NewEvent("T\0"), "0x00"),
    (NewEvent("T", {"a": float("nan")}), "not JSON"),
    (NewEvent("T", {"a": object()}), "not JSON"),
    (NewEvent("T", JsonText("{'a': 1}")), "json"),
    (NewEvent("T", JsonText("[" * 20000 + "]" * 20000)), "stack depth"),
    (NewEvent(""), "type is empty"),
    (NewEvent("T", event_id="7"), "event_id '7' is not a uuid"),  # type: ignore[arg-type]
    (NewEvent("T", metadata={"correlation_id": LONG}), "index row"),
]


async def test_what_cannot_be_stored_is_named_by_its_place(store: EventStore) -> None:
    for event, reason in UNSTORABLE:
        with pytest.raises(InvalidEvent, match=reason) as caught:
            await store.append("s", [NewEvent("Fine"), event, NewEvent("Fine")])
        assert caught.value.index == 1, reason
        assert "\n" not in str(caught.value)
        with pytest.raises(InvalidEvent, match=reason) as alone:
            await store.append("s", [event])
        assert alone.value.index == 0, reason
        assert await store.version("s") == -1, reason


async def test_stream_ids_that_cannot_be(store18: EventStore) -> None:
    for stream in ("", "$all", "a\0b", "a\ud800", LONG):
        with pytest.raises(InvalidEvent):
            await store18.append(stream, [NewEvent("T")])
    with pytest.raises(ValueError, match="at least one"):
        await store18.append("s", [])
    with pytest.raises(ValueError, match="NO_STREAM"):
        await store18.append("s", [NewEvent("T")], expected=-1)


async def test_a_repeated_append_is_recognised_by_its_event_ids(store: EventStore) -> None:
    for stream, strategy, count in ((f"{each}-{count}", each, count) for each in Strategy for count in (1, 3)):
        first = [NewEvent("A", {"n": n}) for n in range(count)]
        second = [NewEvent("B", {"n": n}) for n in range(count)]
        one = await store.append(stream, first, expected=NO_STREAM, strategy=strategy)
        two = await store.append(stream, second, expected=one.version, strategy=strategy)
        assert await store.append(stream, first, expected=NO_STREAM, strategy=strategy) == one, stream
        assert await store.append(stream, second, expected=one.version, strategy=strategy) == two, stream
        assert await store.count_events(stream) == 2 * count
        with pytest.raises(WrongVersion):
            await store.append(stream, [NewEvent("A")], expected=NO_STREAM, strategy=strategy)


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_a_retry_that_waits_for_its_own_first_attempt_is_recognised(
    store: EventStore, sql: asyncpg.Connection, strategy: Strategy
) -> None:
    event = NewEvent("T")
    async with sql.transaction():
        await sql.execute("SELECT esx_lock_stream('s')")
        await sql.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data, event_id) VALUES ('s', 0, 'T', '{}', $1)",
            event.event_id,
        )
        retry, other = (
            asyncio.create_task(
                store.append("s", [each], expected=NO_STREAM, strategy=strategy, grouped=False)  # both at once
            )
            for each in (event, NewEvent("T"))
        )
        while await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:
            await asyncio.sleep(0.01)
    assert (await retry).version == 0
    with pytest.raises(WrongVersion) as conflict:
        await other
    assert conflict.value.actual == 0


async def test_a_unique_index_of_the_users_own_is_not_taken_for_that_of_the_event_ids(
    store18: EventStore, sql18: asyncpg.Connection
) -> None:
    await sql18.execute(
        "CREATE UNIQUE INDEX ids ON events (event_id); CREATE UNIQUE INDEX orders ON events ((data ->> 'order'))"
    )
    await store18.append("s", [NewEvent("T", {"order": 1})])
    with pytest.raises(StoreFailed, match='"orders"'):
        await store18.append("other", [NewEvent("T", {"order": 1})])
    twice = NewEvent("T")
    with pytest.raises(InvalidEvent, match=r"event 2 .* id of another"):
        await store18.append("other", [twice, NewEvent("T"), twice])


async def test_a_table_that_others_made_is_appended_to(empty_dsn: str) -> None:
    """Smaller numbers, a name of their own for the sequence, holes in the stream, no event ids."""
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(
        "CREATE SEQUENCE numbers; CREATE TABLE events (global_seq BIGINT PRIMARY KEY DEFAULT nextval('numbers'), "
        "stream_id VARCHAR(50), stream_seq INT, event_type TEXT, data JSONB, metadata JSONB, "
        "created_at TIMESTAMPTZ, UNIQUE (stream_id, stream_seq));"
        "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 5, 'T', '{}'), ('s', 9, 'T', '{}')"
    )
    await connection.close()
    async with EventStore.connect(empty_dsn) as store:
        assert (await store.append("s", [NewEvent("T")])).version == 10
        assert (await store.append("s", [NewEvent("T"), NewEvent("T")], expected=10)).version == 12
        assert (await store.append("new", [NewEvent("T")], expected=NO_STREAM)).version == 0
        with pytest.raises(WrongVersion) as conflict:
            await store.append("s", [NewEvent("T")], expected=9)
        assert conflict.value.actual == 12
        feed = await store.feed()
        numbers = [event.stream_seq async for batch in feed.to_safe_position() for event in batch.events]
        assert numbers == [5, 9, 10, 11, 12, 0]
        state = await feed.state()
        assert (state.cursor, state.safe, state.head) == (6, 6, 6)


@pytest.mark.parametrize(
    "columns", ["stream_id, stream_seq", "stream_seq, stream_id", "stream_id, stream_seq) INCLUDE (id"]
)
async def test_a_unique_index_decides_as_well_as_a_constraint(empty_dsn18: str, columns: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await connection.execute(
        "CREATE TABLE events (global_seq BIGSERIAL PRIMARY KEY, id INT, stream_id TEXT, stream_seq BIGINT, "
        "event_type TEXT, data JSONB, metadata JSONB, created_at TIMESTAMPTZ DEFAULT now());"
        "CREATE UNIQUE INDEX partial ON events (stream_id, stream_seq) WHERE event_type = 'Rare';"
        "CREATE UNIQUE INDEX one ON events (stream_id) INCLUDE (stream_seq) WHERE stream_seq = 7;"
        f"CREATE UNIQUE INDEX mine ON events ({columns})"
    )
    async with EventStore.connect(empty_dsn18) as store:
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}')"
            )
            waiting = asyncio.create_task(store.append("s", [NewEvent("T")], expected=NO_STREAM))
            async with asyncio.timeout(120):
                while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.01)
        with pytest.raises(WrongVersion):
            await waiting
    await connection.close()


async def test_a_column_called_id_does_not_confuse_the_lock(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute("ALTER TABLE events ADD COLUMN id INT; ALTER TABLE stream_locks ADD COLUMN id INT")
    for version in range(2):
        done = await store18.append("s", [NewEvent("T")], strategy=Strategy.ROW_LOCK)
        assert done.version == version


@pytest.mark.slow
async def test_a_writer_that_may_not_lock_still_appends_at_any_version(
    store18: EventStore, dsn18: str, role: Role
) -> None:
    await role.grant("SELECT, INSERT ON events", "USAGE ON SEQUENCE events_global_seq_seq")
    async with EventStore.connect(role.dsn(dsn18), max_connections=20) as guest:
        await asyncio.gather(*(guest.append("hot", [NewEvent("T")]) for _ in range(100)))
        assert await guest.version("hot") == 99
        for append in (
            guest.append("hot", [NewEvent("T")], strategy=Strategy.ROW_LOCK),
            guest.append_to_streams([StreamAppend("hot", [NewEvent("T")])]),
        ):
            with pytest.raises(StoreFailed, match="SELECT, INSERT, UPDATE ON stream_locks"):
                await append
    await role.grant("SELECT, INSERT, UPDATE ON stream_locks")
    async with EventStore.connect(role.dsn(dsn18)) as guest:
        assert (await guest.append("hot", [NewEvent("T")], strategy=Strategy.ROW_LOCK)).version == 100


async def test_any_suits_up_to_the_highest_version(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute(
        "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', $1, 'T', '{}')", 2**63 - 2
    )
    assert (await store18.append("s", [NewEvent("T")])).version == 2**63 - 1


async def test_a_retry_that_is_not_the_same_batch_is_refused(store18: EventStore) -> None:
    events = [NewEvent("A"), NewEvent("B")]
    await store18.append("s", events, expected=NO_STREAM)
    with pytest.raises(EventIdsReused, match="new ids"):
        await store18.append("s", [events[0], NewEvent("C")], expected=NO_STREAM)
    with pytest.raises(EventIdsReused):
        await store18.append("s", [*events, NewEvent("C")], expected=NO_STREAM)


async def test_unique_event_ids_make_any_repeatable_too(store: EventStore, sql: asyncpg.Connection) -> None:
    await sql.execute("CREATE UNIQUE INDEX ids ON events (event_id)")
    events = [NewEvent("A"), NewEvent("B")]
    one = await store.append("s", events)
    await store.append("s", [NewEvent("C")])
    assert await store.append("s", events) == one
    assert await store.append("s", events[:1]) == one._replace(version=0, global_seq=one.global_seq - 1)
    assert await store.count_events("s") == 3
    with pytest.raises(EventIdsReused):
        await store.append("other", events)
    three = [NewEvent("A"), NewEvent("B"), NewEvent("C")]
    await store.append("s", three)
    with pytest.raises(EventIdsReused):
        await store.append("s", [three[0], three[2]])


@pytest.mark.slow
async def test_writers_of_both_strategies_lose_nothing_together(store18: EventStore) -> None:
    async def writer(name: int) -> int:
        strategy = Strategy.ROW_LOCK if name % 2 else Strategy.CONDITIONAL
        won = 0
        for turn in range(10):
            try:
                if turn % 2:
                    await store18.append("hot", [NewEvent("T")], strategy=strategy)
                else:
                    version = await store18.version("hot")
                    expected = NO_STREAM if version < 0 else version
                    await store18.append("hot", [NewEvent("T")], expected=expected, strategy=strategy)
            except WrongVersion:
                continue
            won += 1
        return won

    acknowledged = sum(await asyncio.gather(*(writer(name) for name in range(24))))
    assert [event.stream_seq async for event in store18.read("hot")] == list(range(acknowledged))


async def test_a_writer_that_waits_for_the_row_sees_what_was_committed_meanwhile(
    store: EventStore, sql: asyncpg.Connection
) -> None:
    await store.append("s", [NewEvent("T")], strategy=Strategy.ROW_LOCK)
    first = sql.transaction()
    await first.start()
    assert await sql.fetchval("SELECT esx_lock_stream('s')") == 0
    waiting = asyncio.create_task(store.append("s", [NewEvent("T")], expected=1, strategy=Strategy.ROW_LOCK))
    while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0)
    await sql.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 1, 'T', '{}')")
    await first.commit()
    assert (await waiting).version == 2


async def test_a_stricter_default_isolation_changes_nothing(dsn: str, sql: asyncpg.Connection) -> None:
    name = await sql.fetchval("SELECT current_database()")
    for level in ("repeatable read", "serializable"):
        await sql.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
        async with EventStore.connect(dsn) as strict:
            for strategy in Strategy:
                for version in range(-1, 4):
                    expected = NO_STREAM if version < 0 else version
                    appends = (
                        strict.append(f"{level} {strategy}", [NewEvent("T")], expected=expected, strategy=strategy)
                        for _ in range(8)
                    )
                    outcomes = await asyncio.gather(*appends, return_exceptions=True)
                    kinds = [type(outcome) for outcome in outcomes]
                    assert (kinds.count(AppendResult), kinds.count(WrongVersion)) == (1, 7), (level, strategy)


async def test_a_plain_insert_by_others_counts(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}')")
    with pytest.raises(WrongVersion):
        await store18.append("s", [NewEvent("T")], expected=NO_STREAM)
    assert (await store18.append("s", [NewEvent("T")], expected=0)).version == 1


async def test_a_lost_race_inside_a_waiting_transaction(store: EventStore, sql: asyncpg.Connection) -> None:
    """The second face of wrong version: both pass the check, the second waits on the unique index."""
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}')")
    waiting = asyncio.create_task(store.append("s", [NewEvent("T")], expected=NO_STREAM))
    while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"):
        await asyncio.sleep(0)
    await transaction.commit()
    with pytest.raises(WrongVersion) as caught:
        await waiting
    assert caught.value.actual == 0


@pytest.mark.parametrize(("expected", "stored"), [(1, 1), (STREAM_EXISTS, 0)])
async def test_what_was_refused_a_moment_too_early_is_stored(
    store18: EventStore, dsn18: str, monkeypatch: pytest.MonkeyPatch, expected: ExpectedVersion, stored: int
) -> None:
    """Another writer comes between the refusal and the question where the stream is."""
    sent: list[str] = []
    repeat = Session.repeat

    async def repeating(self: Session, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        rows = await repeat(self, query, *arguments)
        sent.append(query)
        if len(sent) == 1:
            async with EventStore.connect(dsn18) as other:
                await other.append("s", [NewEvent("Other") for _ in range(stored + 1)])
        return rows

    await store18.has_schema()
    monkeypatch.setattr(Session, "repeat", repeating)
    done = await store18.append("s", [NewEvent("T")], expected=expected)
    assert done.version == stored + 1
    assert [event.event_type for event in await store18.read_page("s")] == ["Other"] * (stored + 1) + ["T"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(Strategy))
async def test_a_table_that_takes_no_event_is_an_error_and_no_endless_loop(
    store18: EventStore, sql18: asyncpg.Connection, strategy: Strategy
) -> None:
    await sql18.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    for expected in (NO_STREAM, ANY):
        for events in ([NewEvent("T")], [NewEvent("T"), NewEvent("T")]):
            async with asyncio.timeout(120):
                with pytest.raises(StoreFailed, match="took no event though the stream's version fits"):
                    await store18.append("s", events, expected=expected, strategy=strategy)


def test_errors_survive_being_pickled() -> None:
    error = pickle.loads(pickle.dumps(WrongVersion("s", NO_STREAM, 3)))
    assert (error.stream_id, error.expected, error.actual) == ("s", NO_STREAM, 3)


def test_expected_versions_as_text() -> None:
    assert [parse_expected(text) for text in ("any", "none", "exists", "7")] == [ANY, NO_STREAM, STREAM_EXISTS, 7]
    for text in ("", "-1", "ANY", "1.0", "٣"):
        with pytest.raises(ValueError, match="expected version"):
            parse_expected(text)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(-(2.0**53), 2.0**53).filter(lambda number: number == 0 or abs(number) > 1e-300)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=rounds(25, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=_json, metadata=_json)
async def test_any_json_comes_back_equal(store18: EventStore, data: object, metadata: object) -> None:
    done = await store18.append("s", [NewEvent("T", data, metadata)])
    event = await store18.event(done.global_seq)
    assert event is not None
    assert event.data == data
    assert event.metadata == metadata


@pytest.mark.parametrize(
    "when", ["BEFORE INSERT ON events", "BEFORE INSERT ON events FOR EACH ROW", "AFTER INSERT ON events"]
)
async def test_triggers_find_names_as_the_user_does(dsn: str, sql: asyncpg.Connection, when: str) -> None:
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"""ALTER DATABASE {name} SET search_path = 'it''s {{odd}} %s', public""")
    await sql.execute(
        "CREATE TABLE seen (path text);"
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO seen VALUES (current_setting('search_path')); RETURN NEW; END $$;"
        f"CREATE TRIGGER sees {when} EXECUTE FUNCTION see()"
    )
    seen = 0

    async def is_seen() -> None:
        nonlocal seen
        paths = [row[0] for row in await sql.fetch("SELECT path FROM seen")]
        assert len(paths) > seen
        assert set(paths) == {'"it\'s {odd} %s", public'}
        seen = len(paths)

    async with EventStore.connect(dsn) as store:
        for strategy in Strategy:
            for events in ([NewEvent("T")], [NewEvent("T"), NewEvent("T")]):
                await store.append("s", events, strategy=strategy)
                await is_seen()
        await store.append_to_streams(
            [StreamAppend("a", [NewEvent("T")], ANY), StreamAppend("b", [NewEvent("T")], ANY)]
        )
        await is_seen()
        async with store.lock_stream("s") as stream:
            await stream.append([NewEvent("T")])
        await is_seen()
        await store.import_ndjson([b'{"stream_id": "i", "event_type": "T", "data": {}}\n'])
        await is_seen()
        # Reading goes on without it.
        assert await store.head() == 10


async def test_a_trigger_that_comes_while_a_store_is_open(store18: EventStore, sql18: asyncpg.Connection) -> None:
    await store18.append("s", [NewEvent("T")])
    await sql18.execute(
        "CREATE SEQUENCE attempts;"
        "CREATE FUNCTION count_attempt() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM nextval('attempts'); RETURN NULL; END $$;"
        "CREATE TRIGGER attempt BEFORE INSERT ON events EXECUTE FUNCTION count_attempt()"
    )
    assert (await store18.append("s", [NewEvent("T")])).version == 1
    assert await sql18.fetchval("SELECT is_called FROM attempts")


async def test_a_strategy_by_its_text_is_that_strategy_and_another_text_is_refused(store18: EventStore) -> None:
    for text in Strategy:
        done = await store18.append("s", [NewEvent("T")], strategy=str(text))  # type: ignore[arg-type]
        assert done.stream_id == "s"
    with pytest.raises(ValueError, match="optimistic"):
        await store18.append("s", [NewEvent("T")], strategy="optimistic")  # type: ignore[arg-type]
    assert await store18.version("s") == len(Strategy) - 1
