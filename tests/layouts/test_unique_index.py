"""What a store found out when it was opened, changed by another session while it is open."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    EsxError,
    EventIdsReused,
    EventStore,
    InvalidEvent,
    NewEvent,
    OutcomeUnknown,
    SchemaMissing,
    StoreFailed,
    Strategy,
    StreamAppend,
    WrongVersion,
)
from esx.filters import StreamFilter
from esx.store.append.retries import Retries
from esx.store.views.streams import StreamsView
from tests.store.append.test_retries import MOMENTS
from tests.support.proxy import Proxy, proxied
from tests.support.roles import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from esx.expected import ExpectedVersion
    from tests.support.proxy import Moment

IDS = "CREATE UNIQUE INDEX ids ON events (event_id)"
KEY = "events_stream_id_stream_seq_key"
DROP = f"ALTER TABLE events DROP CONSTRAINT {KEY}"
INSERT = (
    "INSERT INTO events (stream_id, stream_seq, event_type, data, event_id) "
    "VALUES ($1, $2, 'T', '{}', gen_random_uuid())"
)


@contextlib.asynccontextmanager
async def opened(dsn: str, sql: asyncpg.Connection, schema: str = "SELECT") -> AsyncIterator[tuple[Proxy, EventStore]]:
    """Open a store, behind a proxy, that has appended to a table changed by `schema`: it knows what that is like."""
    await sql.execute(schema)
    with tempfile.TemporaryDirectory() as directory:
        async with proxied(dsn, Path(directory)) as (proxy, address), EventStore.connect(address) as store:
            for stream in ("warm", "warmer"):
                await store.append(stream, [NewEvent("T")], expected=NO_STREAM)
                await store.append(stream, [NewEvent("T"), NewEvent("T")], expected=0)
            yield proxy, store


async def stored(sql: asyncpg.Connection, stream: str = "warm") -> int:
    """Return how many events a stream has, by counting them."""
    return int(await sql.fetchval("SELECT count(*) FROM events WHERE stream_id = $1", stream))


async def waits_for_a_lock(sql: asyncpg.Connection, task: asyncio.Future[Any]) -> None:
    async with asyncio.timeout(120):
        while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not task.done()
            await asyncio.sleep(0.01)


async def race(store: EventStore, sql: asyncpg.Connection, append: Callable[[], Awaitable[object]]) -> object:
    """Let an append to stream `warm` at version 2 lose against another writer; return what came of it."""
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(INSERT, "warm", 3)
    losing = asyncio.ensure_future(append())
    await waits_for_a_lock(sql, losing)
    await transaction.commit()
    [outcome] = await asyncio.gather(losing, return_exceptions=True)
    return outcome


@pytest.mark.one_older
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("expected", [ANY, STREAM_EXISTS], ids=str)
@pytest.mark.parametrize("count", [1, 2])
async def test_nothing_is_repeated_that_no_index_recognises_any_more(
    dsn: str, sql: asyncpg.Connection, moment: Moment, expected: ExpectedVersion, count: int
) -> None:
    async with opened(dsn, sql, IDS) as (proxy, store):
        await sql.execute("DROP INDEX ids")
        proxy.cut = moment
        with pytest.raises(OutcomeUnknown):
            await store.append("warm", [NewEvent("T")] * count, expected=expected)
        assert await stored(sql) in {"before the reply": (3 + count,), "before the request": (3,)}.get(
            moment, (3, 3 + count)
        )
        # The next one is not taken for a repetition.
        await store.append("warm", [NewEvent("T")], expected=expected)


async def test_an_index_that_is_about_to_go_recognises_nothing(dsn: str, sql: asyncpg.Connection) -> None:
    """Whoever drops it concurrently marks it as invalid, waits for others, and only then takes it away."""
    async with opened(dsn, sql, IDS) as (proxy, store):
        other = await asyncpg.connect(dsn)
        reading = sql.transaction()
        await reading.start()
        await sql.execute("SELECT FROM events LIMIT 1")
        dropping = asyncio.ensure_future(other.execute("DROP INDEX CONCURRENTLY ids"))
        await waits_for_a_lock(sql, dropping)
        proxy.cut = "before the reply"
        with pytest.raises(OutcomeUnknown):
            await store.append("warm", [NewEvent("T")])
        await reading.rollback()
        await dropping
        assert await stored(sql) == 4
        await other.close()


@pytest.mark.one_older
@pytest.mark.parametrize(
    "change",
    [
        "ALTER INDEX ids RENAME TO others",
        "DROP INDEX ids; CREATE UNIQUE INDEX ids ON events (event_id)",
        "REINDEX INDEX ids",
        "DROP INDEX ids; ALTER TABLE events ADD UNIQUE (event_id) DEFERRABLE INITIALLY DEFERRED",
        "DROP INDEX ids; CREATE UNIQUE INDEX ids ON events (event_id) INCLUDE (stream_id)",
    ],
)
async def test_an_index_that_was_built_again_recognises_what_is_repeated(
    dsn: str, sql: asyncpg.Connection, change: str
) -> None:
    async with opened(dsn, sql, IDS) as (proxy, store):
        await sql.execute(change)
        for count, version in ((1, 3), (2, 5)):
            proxy.cut = "before the reply"
            assert (await store.append("warm", [NewEvent("T") for _ in range(count)])).version == version
        assert (proxy.losses, await stored(sql)) == (2, 6)


@pytest.mark.parametrize(
    "change",
    [
        "DROP INDEX ids; CREATE INDEX ids ON events (event_id)",
        "DROP INDEX ids; CREATE UNIQUE INDEX ids ON events (event_id) WHERE stream_id <> 'warm'",
        "DROP INDEX ids; CREATE UNIQUE INDEX ids ON events (event_id, stream_seq)",
        "DROP INDEX ids; CREATE UNIQUE INDEX ids ON events (md5(event_id::text))",
    ],
)
async def test_an_index_that_keeps_less_unique_recognises_nothing(
    dsn: str, sql: asyncpg.Connection, change: str
) -> None:
    async with opened(dsn, sql, IDS) as (proxy, store):
        await sql.execute(change)
        proxy.cut = "before the reply"
        with pytest.raises(OutcomeUnknown):
            await store.append("warm", [NewEvent("T")])
        assert await stored(sql) == 4


async def test_ids_that_became_unique_meanwhile_are_known_by_their_refusal(
    store: EventStore, sql: asyncpg.Connection
) -> None:
    events = [NewEvent("A"), NewEvent("B")]
    done = await store.append("s", events)
    await sql.execute(IDS)
    assert await store.append("s", events) == done
    with pytest.raises(EventIdsReused):
        await store.append("t", events)
    with pytest.raises(InvalidEvent, match="id of another"):
        await store.append("t", [(new := NewEvent("C")), new])


async def test_a_repetition_that_is_refused_leaves_the_outcome_unknown(dsn: str, sql: asyncpg.Connection) -> None:
    """That the second attempt stored nothing says nothing about the first."""
    async with opened(dsn, sql, IDS) as (proxy, store):
        await sql.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF EXISTS "
            "(SELECT FROM events WHERE event_id = NEW.event_id) THEN RAISE 'not again'; END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        proxy.cut = "before the reply"
        with pytest.raises(OutcomeUnknown, match=r"not again.*not known"):
            await store.append("warm", [NewEvent("T")])
        assert await stored(sql) == 4


@pytest.mark.one_older
@pytest.mark.parametrize(
    "change",
    [
        f"ALTER INDEX {KEY} RENAME TO other",
        f"REINDEX INDEX {KEY}",
        f"REINDEX INDEX CONCURRENTLY {KEY}",
        f"{DROP}; CREATE UNIQUE INDEX other ON events (stream_seq, stream_id)",
        f"{DROP}; CREATE UNIQUE INDEX \"{KEY}\" ON events (stream_id, stream_seq) INCLUDE (event_type)",
        f"{DROP}; ALTER TABLE events ADD UNIQUE (stream_id, stream_seq) DEFERRABLE INITIALLY DEFERRED",
        f"{DROP}; ALTER TABLE events ADD CONSTRAINT \"it's\" UNIQUE (stream_id, stream_seq) DEFERRABLE",
        f"{DROP}; CREATE UNIQUE INDEX first ON events (stream_id, stream_seq);"
        f"ALTER TABLE events ADD CONSTRAINT {KEY} UNIQUE (stream_id, stream_seq)",
        "ALTER TABLE events ALTER COLUMN stream_id TYPE VARCHAR(300)",
        "ALTER TABLE events RENAME TO old; CREATE TABLE events (LIKE old INCLUDING ALL);"
        "INSERT INTO events SELECT * FROM old",
        "CREATE SCHEMA attic; CREATE TABLE copy (LIKE events INCLUDING ALL); INSERT INTO copy SELECT * FROM events;"
        "ALTER TABLE events SET SCHEMA attic; ALTER TABLE copy RENAME TO events",
    ],
)  # fmt: skip
async def test_one_of_two_writers_wins_in_whichever_way_the_index_has_changed(
    dsn: str, sql: asyncpg.Connection, change: str
) -> None:
    async with opened(dsn, sql) as (_, store):
        for statement in change.split(";"):
            await sql.execute(statement)
        lost = await race(store, sql, lambda: store.append("warm", [NewEvent("T")], expected=2))
        assert isinstance(lost, WrongVersion)
        assert lost.actual == 3
        assert (await store.append("warm", [NewEvent("T"), NewEvent("T")], expected=3)).version == 5
        assert (await store.append("warm", [NewEvent("T")], strategy=Strategy.ROW_LOCK)).version == 6
        assert await stored(sql) == 7


@pytest.mark.parametrize("expected", [2, ANY], ids=str)
async def test_a_race_that_is_lost_at_the_commit_is_lost(
    dsn: str, sql: asyncpg.Connection, expected: ExpectedVersion
) -> None:
    """A constraint that is deferred lets an INSERT pass, and refuses its transaction."""
    deferred = f"{DROP}; ALTER TABLE events ADD UNIQUE (stream_id, stream_seq) DEFERRABLE INITIALLY DEFERRED"
    async with opened(dsn, sql, deferred) as (_, store):
        part = StreamAppend("warm", [NewEvent("T")], expected)
        outcome = await race(store, sql, lambda: store.append_to_streams([part]))
        if expected is ANY:
            assert isinstance(outcome, list)
            assert outcome[0].version == 4
        else:
            assert isinstance(outcome, WrongVersion)
        assert await stored(sql) == (5 if expected is ANY else 4)

        async def locking() -> None:
            async with store.lock_stream("warmer") as stream:
                transaction = sql.transaction()
                await transaction.start()
                await sql.execute(INSERT, "warmer", 3)
                await stream.append([NewEvent("T")])
                await transaction.commit()

        with pytest.raises(WrongVersion):
            await locking()
        assert await stored(sql, "warmer") == 4


@pytest.mark.one_older
@pytest.mark.parametrize(
    "change",
    [
        DROP,
        f"{DROP}; CREATE INDEX {KEY} ON events (stream_id, stream_seq)",
        f"{DROP}; CREATE UNIQUE INDEX {KEY} ON events (stream_id, stream_seq) WHERE stream_seq > 5",
        f"{DROP}; CREATE UNIQUE INDEX {KEY} ON events (stream_id, stream_seq, event_id)",
        f"{DROP}; CREATE UNIQUE INDEX {KEY} ON events (stream_id, (stream_seq + 0))",
    ],
)
async def test_where_both_of_two_writers_could_win_none_does(dsn: str, sql: asyncpg.Connection, change: str) -> None:
    async with opened(dsn, sql) as (_, store):
        await sql.execute(change)
        part = StreamAppend("warm", [NewEvent("T")])

        async def locked() -> None:
            async with store.lock_stream("warm") as stream:
                await stream.append([NewEvent("T")])

        appends: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: store.append("warm", [NewEvent("T")], expected=2),
            lambda: store.append("warm", [NewEvent("T"), NewEvent("T")]),
            lambda: store.append("warm", [NewEvent("T")], strategy=Strategy.ROW_LOCK),
            lambda: store.append_to_streams([part]),
            locked,
            lambda: store.import_ndjson([b'{"stream_id": "warm", "stream_seq": 3, "event_type": "T", "data": 1}']),
        )
        for append in appends:
            with pytest.raises(StoreFailed, match=r"no unique index on \(stream_id, stream_seq\).*esx doctor"):
                await append()
        assert await stored(sql) == 3
        # Once it is mended, the store goes on.
        await sql.execute(f"DROP INDEX IF EXISTS {KEY}; ALTER TABLE events ADD UNIQUE (stream_id, stream_seq)")
        assert (await store.append("warm", [NewEvent("T")], expected=2)).version == 3


async def test_an_index_that_is_about_to_go_decides_nothing(dsn: str, sql: asyncpg.Connection) -> None:
    async with opened(dsn, sql, f"{DROP}; CREATE UNIQUE INDEX plain ON events (stream_id, stream_seq)") as (_, store):
        other = await asyncpg.connect(dsn)
        reading = sql.transaction()
        await reading.start()
        await sql.execute("SELECT FROM events LIMIT 1")
        dropping = asyncio.ensure_future(other.execute("DROP INDEX CONCURRENTLY plain"))
        await waits_for_a_lock(sql, dropping)
        with pytest.raises(StoreFailed, match="no unique index"):
            await store.append("warm", [NewEvent("T")], expected=2)
        await reading.rollback()
        await dropping
        await other.close()


async def test_the_index_of_the_table_that_was_there_before_decides_nothing(dsn: str, sql: asyncpg.Connection) -> None:
    """It is still there by its name, and unique, but of another table."""
    async with opened(dsn, sql) as (_, store):
        await sql.execute(
            "ALTER TABLE events RENAME TO old; CREATE TABLE events (LIKE old INCLUDING DEFAULTS);"
            "INSERT INTO events SELECT * FROM old"
        )
        with pytest.raises(StoreFailed, match="no unique index"):
            await store.append("warm", [NewEvent("T")], expected=2)
        assert await stored(sql) == 3


async def test_what_cannot_be_recognised_any_more_when_it_is_repeated_is_unknown(
    dsn: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt was stored with an id, by which the second one cannot look: it is no conflict."""
    wait = Retries.wait

    async def waiting(self: Retries, error: EsxError, relied_on: Any) -> None:
        await wait(self, error, relied_on)
        await sql.execute("ALTER TABLE events DROP COLUMN IF EXISTS event_id")

    async with opened(dsn, sql) as (proxy, store):
        monkeypatch.setattr(Retries, "wait", waiting)
        proxy.cut = "before the reply"
        with pytest.raises(OutcomeUnknown):
            await store.append("new", [NewEvent("T")], expected=NO_STREAM)
        assert await stored(sql, "new") == 1


async def test_a_value_that_looks_like_a_place_is_none(store18: EventStore, sql18: asyncpg.Connection) -> None:
    looks = "(stream_id, stream_seq)=(s, 0)"
    await sql18.execute("CREATE UNIQUE INDEX orders ON events ((data ->> 'order'))")
    await store18.append("s", [NewEvent("T", {"order": looks})])
    async with asyncio.timeout(120):
        with pytest.raises(StoreFailed, match='"orders"'):
            await store18.append("other", [NewEvent("T", {"order": looks})])


async def test_event_ids_come_and_go(store: EventStore, sql: asyncpg.Connection) -> None:
    first, second, third = NewEvent("A"), NewEvent("B"), NewEvent("C")
    await store.append("s", [first])
    await sql.execute("ALTER TABLE events DROP COLUMN event_id")
    await store.append("s", [second])
    assert [event.event_id async for event in store.read("s")] == [None, None]
    await sql.execute("ALTER TABLE events ADD COLUMN event_id UUID NOT NULL DEFAULT gen_random_uuid()")
    done = await store.append("s", [third], expected=1)
    assert await store.append("s", [third], expected=1) == done
    assert (await sql.fetchval("SELECT event_id FROM events WHERE stream_seq = 2")) == third.event_id


async def test_a_table_that_is_gone_is_said_and_one_that_comes_back_is_used(
    store: EventStore, sql: asyncpg.Connection
) -> None:
    await store.append("s", [NewEvent("T")])
    await sql.execute("ALTER TABLE events RENAME TO elsewhere")
    with pytest.raises(SchemaMissing, match="esx init"):
        await store.append("s", [NewEvent("T")])
    await sql.execute("ALTER TABLE elsewhere RENAME TO events")
    assert (await store.append("s", [NewEvent("T")])).version == 1


@pytest.mark.slow
async def test_the_right_to_lock_comes_and_goes(dsn18: str, sql18: asyncpg.Connection, role: Role) -> None:
    await role.grant("SELECT, INSERT ON events", "USAGE ON SEQUENCE events_global_seq_seq")
    async with EventStore.connect(role.dsn(dsn18), max_connections=20) as guest:
        await guest.append("hot", [NewEvent("T")])
        await role.grant("SELECT, INSERT, UPDATE ON stream_locks")
        assert (await guest.append("hot", [NewEvent("T")], strategy=Strategy.ROW_LOCK)).version == 1
        async with guest.lock_stream("hot") as stream:
            await stream.append([NewEvent("T")])
        await sql18.execute(f"REVOKE ALL ON stream_locks FROM {role.name}")
        # Who loses a race would queue on a row, had it the right to.
        await asyncio.gather(*(guest.append("hot", [NewEvent("T")]) for _ in range(100)))
        assert await guest.version("hot") == 102
        with pytest.raises(StoreFailed, match="ON stream_locks"):
            await guest.append("hot", [NewEvent("T")], strategy=Strategy.ROW_LOCK)
        await role.grant("SELECT, INSERT, UPDATE ON stream_locks")
        async with guest.lock_stream("hot") as stream:
            await stream.append([NewEvent("T")])
        assert (await guest.append_to_streams([StreamAppend("hot", [NewEvent("T")])]))[0].version == 104
        await sql18.execute("DROP FUNCTION esx_lock_stream")
        await asyncio.gather(*(guest.append("hot", [NewEvent("T")]) for _ in range(100)))
        assert await guest.version("hot") == 204


class LooksAgain(EventStore):
    """A store that looks at its table each time that it is read."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, look_again_after=-1.0)


async def test_readers_look_again_after_a_while(dsn: str, sql: asyncpg.Connection) -> None:
    """Where ids may be in another order than their bytes, a prefix is no range of them."""
    async with LooksAgain.connect(dsn) as store:
        for stream in ("a-1", "A-2", "a-3", "b-1"):
            await store.append(stream, [NewEvent("T")])
        view = StreamsView(StreamFilter(prefix="a-"))
        assert ">= 'a-'" in await store.sql(view)
        await sql.execute('ALTER TABLE events ALTER COLUMN stream_id TYPE TEXT COLLATE "default"')
        assert [found.stream_id async for found in store.streams(prefix="a-")] == ["a-1", "a-3"]
        assert ">= 'a-'" not in await store.sql(view)


PARTITIONED = (
    "DROP TABLE events; CREATE TABLE events (global_seq BIGSERIAL, stream_id TEXT NOT NULL, stream_seq BIGINT, "
    "event_type TEXT, data JSONB, metadata JSONB, created_at TIMESTAMPTZ DEFAULT now(), event_id UUID NOT NULL"
)


@pytest.mark.parametrize(
    "table",
    [
        f"{PARTITIONED}, UNIQUE (stream_id, stream_seq)) PARTITION BY HASH (stream_id)",
        f"{PARTITIONED}) PARTITION BY HASH (upper(stream_id))",
    ],
)
async def test_the_index_of_each_partition_decides(store: EventStore, sql: asyncpg.Connection, table: str) -> None:
    await sql.execute(table)
    for part in range(2):
        await sql.execute(f"CREATE TABLE part_{part} PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER {part})")
    if "upper" in table:
        for part in range(2):
            with pytest.raises(StoreFailed, match="no unique index"):
                await store.append("warm", [NewEvent("T")])
            await sql.execute(f"CREATE UNIQUE INDEX ON part_{part} (stream_id, stream_seq)")
    await store.append("warm", [NewEvent("T")] * 3, expected=NO_STREAM)
    lost = await race(store, sql, lambda: store.append("warm", [NewEvent("T")], expected=2))
    assert isinstance(lost, WrongVersion)
    assert (await store.append("warm", [NewEvent("T")])).version == 4
