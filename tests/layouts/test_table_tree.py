"""Whoever can make an event appear holds the feed: in partitions, children and views as in a plain table."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import EventStore, NewEvent, OrderUnknown
from esx.layouts.detection import detect_layout
from esx.layouts.layout import Layout
from esx.store.feed.gap_barrier import Barrier
from esx.store.feed.writers import writers_sql
from tests.support.partitions import COLUMNS, HASH, NESTED, make

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_DEADLINE = 120.0
_VALUES = "(stream_id, stream_seq, event_type, data) VALUES ('order-slow', 0, 'T', '{}')"
_PLAIN = "SELECT 1"
_CHILD = "CREATE TABLE events_child (UNIQUE (stream_id, stream_seq)) INHERITS (events)"
_LIKE = "CREATE TABLE events_late (LIKE events INCLUDING DEFAULTS, UNIQUE (stream_id, stream_seq))"
_ATTACH = "ALTER TABLE events ATTACH PARTITION events_late FOR VALUES IN ('order')"
# With a default partition, attaching another one would keep everybody from reading until it is committed.
_WITHOUT_ORDERS = (
    f"CREATE TABLE events ({COLUMNS}) PARTITION BY LIST (split_part(stream_id, '-', 1));"
    "CREATE TABLE events_quick PARTITION OF events FOR VALUES IN ('quick');"
    "ALTER TABLE events_quick ADD UNIQUE (stream_id, stream_seq); CREATE INDEX ON events (global_seq)"
)
_UNDER_A_PARENT = (
    f"CREATE TABLE everything ({COLUMNS}) PARTITION BY LIST (event_type);"
    "CREATE TABLE events PARTITION OF everything FOR VALUES IN ('T');"
    "ALTER TABLE events ADD UNIQUE (stream_id, stream_seq), ADD PRIMARY KEY (global_seq)"
)
# As partitions were made before PostgreSQL had them: the parent has drawn the number when its trigger moves the row.
_ROUTED = (
    f"CREATE TABLE everything ({COLUMNS});"
    "CREATE TABLE events (UNIQUE (stream_id, stream_seq), PRIMARY KEY (global_seq)) INHERITS (everything);"
    "CREATE FUNCTION route() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " PERFORM pg_advisory_xact_lock_shared(42); INSERT INTO events SELECT NEW.*; RETURN NULL; END $$;"
    "CREATE TRIGGER route BEFORE INSERT ON everything FOR EACH ROW EXECUTE FUNCTION route()"
)
_STAGING = "CREATE TABLE staging (LIKE events INCLUDING DEFAULTS)"

# How the table is made, what is done to it while the store is open, and what the writer who stays open has done.
WRITERS = {
    "partition": (HASH, _PLAIN, f"INSERT INTO events_2 {_VALUES}"),
    "parent of partitions": (HASH, _PLAIN, f"INSERT INTO events {_VALUES}"),
    "partition of a partition": (NESTED, _PLAIN, f"INSERT INTO events_leaf {_VALUES}"),
    "middle of the levels": (NESTED, _PLAIN, f"INSERT INTO events_all {_VALUES}"),
    "inherited child": (_PLAIN, _CHILD, f"INSERT INTO events_child {_VALUES}"),
    "partition attached meanwhile": (
        _WITHOUT_ORDERS, f"{_LIKE}; {_ATTACH}", f"INSERT INTO events_late {_VALUES}",
    ),
    "its own partition, not yet committed": (
        _WITHOUT_ORDERS, _PLAIN, f"{_LIKE}; {_ATTACH}; INSERT INTO events_late {_VALUES}",
    ),
    "its own child, not yet committed": (_PLAIN, _PLAIN, f"{_CHILD}; INSERT INTO events_child {_VALUES}"),
    "parent of the table": (_UNDER_A_PARENT, _PLAIN, f"INSERT INTO everything {_VALUES}"),
    "table that draws from the sequence": (_PLAIN, _STAGING, f"INSERT INTO staging {_VALUES}"),
}  # fmt: skip
_MOVED = "INSERT INTO events SELECT * FROM staging"


async def reading(feed: asyncpg.Connection, barrier: Barrier, steps: int) -> list[str]:
    batches = [await barrier.step(feed, 100) for _ in range(steps)]
    return [event.stream_id for batch in batches for event in batch.events]


@pytest_asyncio.fixture
async def others(empty_dsn: str) -> AsyncIterator[list[asyncpg.Connection]]:
    connections = [await asyncpg.connect(empty_dsn) for _ in range(3)]
    yield connections
    for connection in connections:
        await connection.close()


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize("case", WRITERS.values(), ids=WRITERS.keys())
async def test_a_writer_anywhere_in_the_family_is_waited_for(
    case: tuple[str, str, str], empty_dsn: str, others: list[asyncpg.Connection]
) -> None:
    made, meanwhile, written = case
    feed, writer, admin = others
    await make(empty_dsn, made)
    async with EventStore.connect(empty_dsn) as store:
        barrier = Barrier(await detect_layout(feed))
        assert await reading(feed, barrier, 2) == []
        await admin.execute(meanwhile)
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute(written)
        await store.append("quick", [NewEvent("T")])
        assert await reading(feed, barrier, 5) == []
        assert (await barrier.step(feed, 100)).gap is not None
        if "staging" in written:
            await writer.execute(_MOVED)
        await transaction.commit()
        assert await reading(feed, barrier, 5) == ["order-slow", "quick"]


async def test_who_has_drawn_a_number_for_a_trigger_to_move_is_waited_for(
    empty_dsn: str, others: list[asyncpg.Connection]
) -> None:
    """The number is drawn before the table itself is locked."""
    feed, writer, admin = others
    await make(empty_dsn, _ROUTED)
    await admin.execute("SELECT pg_advisory_lock(42)")
    async with EventStore.connect(empty_dsn) as store:
        writing = asyncio.create_task(writer.execute(f"INSERT INTO everything {_VALUES}"))
        await until(admin, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
        # Its parent's sequence is what the table draws from as well.
        await admin.execute(
            "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('quick', 0, 'T', '{}')"
        )
        barrier = Barrier(await detect_layout(feed))
        assert await reading(feed, barrier, 5) == []
        await admin.execute("SELECT pg_advisory_unlock(42)")
        await writing
        assert await reading(feed, barrier, 5) == ["order-slow", "quick"]
        assert await store.head() == 2


async def until(connection: asyncpg.Connection, condition: str) -> None:
    async with asyncio.timeout(_DEADLINE):
        while not await connection.fetchval(condition):
            await asyncio.sleep(0.01)


async def test_who_waits_for_the_lock_has_drawn_nothing_and_holds_nothing(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    writer, feed = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    insert = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('{}', 0, 'T', '{{}}')"
    burned = sql.transaction()
    await burned.start()
    await sql.execute(insert.format("burned"))
    await burned.rollback()
    await store.append("quick", [NewEvent("T")])
    await sql.execute("BEGIN; LOCK TABLE events IN SHARE MODE")
    waiting = asyncio.create_task(writer.execute(insert.format("waiting")))
    await until(sql, "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted)")
    barrier = Barrier(Layout())
    assert await reading(feed, barrier, 2) == ["quick"]
    assert barrier.cursor.counts.dead == 1
    await sql.execute("COMMIT")
    await waiting
    assert await reading(feed, barrier, 2) == ["waiting"]
    await writer.close()
    await feed.close()


@pytest.mark.parametrize("table", ["plain", "partitioned"])
async def test_who_only_looks_after_the_table_is_no_writer(
    table: str, empty_dsn: str, others: list[asyncpg.Connection]
) -> None:
    """ANALYZE, VACUUM and building an index take the lock that attaching a partition takes, too."""
    feed, busy, admin = others
    await make(empty_dsn, HASH if table == "partitioned" else _PLAIN)
    await admin.execute("CREATE TABLE elsewhere ()")
    layout = await detect_layout(feed)
    await busy.execute("BEGIN; LOCK TABLE events IN SHARE UPDATE EXCLUSIVE MODE; ANALYZE events")
    assert await feed.fetch(writers_sql(layout)) == []
    # Whoever empties it has locked the table itself, and is waited for by everybody who reads.
    await busy.execute("COMMIT; BEGIN; INSERT INTO stream_locks VALUES ('s'); LOCK TABLE elsewhere")
    assert await feed.fetch(writers_sql(layout)) == []
    await busy.execute("COMMIT")


async def test_a_writer_to_many_partitions_is_one_writer(empty_dsn: str, others: list[asyncpg.Connection]) -> None:
    feed, writer, _ = others
    await make(empty_dsn, HASH)
    await writer.execute(
        "BEGIN; INSERT INTO events (stream_id, stream_seq, event_type, data) "
        "SELECT 's-' || n, 0, 'T', '{}' FROM generate_series(1, 30) n"
    )
    [found] = await feed.fetch(writers_sql(await detect_layout(feed)))
    assert (found["pid"], found["state"]) == (writer.get_server_pid(), "idle in transaction")
    async with EventStore.connect(empty_dsn) as store:
        assert [each.pid for each in (await store.health()).writers] == [writer.get_server_pid()]


VIEWS = {
    "all": "CREATE VIEW shown AS SELECT * FROM events",
    "some columns, under other names": (
        "CREATE VIEW shown AS SELECT global_seq, stream_id, stream_seq, event_type, data::text::jsonb AS data, "
        "coalesce(metadata, '{}') AS metadata, created_at FROM events WHERE stream_id NOT LIKE '$%'"
    ),
    "over a view": "CREATE VIEW first AS SELECT * FROM events; CREATE VIEW shown AS SELECT * FROM first",
    "sorted": "CREATE VIEW shown AS SELECT * FROM events ORDER BY global_seq",
    "of another schema": (
        "CREATE SCHEMA real; ALTER TABLE events SET SCHEMA real; CREATE VIEW shown AS SELECT * FROM real.events"
    ),
}


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize("table", ["plain", "hash"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
async def test_a_view_over_one_table_is_followed_by_the_writers_of_that(
    view: str, table: str, empty_dsn: str, others: list[asyncpg.Connection]
) -> None:
    _, writer, admin = others
    await make(empty_dsn, HASH if table == "hash" else _PLAIN)
    await admin.execute(view)
    insert = f"INSERT INTO {'real.' if 'real' in view else ''}events"
    values = "(stream_id, stream_seq, event_type, data) VALUES ('{}', 0, 'T', '{{}}')"
    async with EventStore.connect(empty_dsn, store="public.shown") as store:
        await writer.execute("BEGIN")
        await writer.execute(f"{insert} {values.format('slow')}")
        await admin.execute(f"{insert} {values.format('quick')}")
        feed = await store.feed()
        assert [batch.events async for batch in feed.to_safe_position(patience=0.05)] == [[]]
        assert feed.gap is not None
        assert [each.pid for each in feed.gap.writers] == [writer.get_server_pid()]
        assert ((await store.health()).head, (await store.health()).order_unknown) == (2, None)
        await writer.execute("COMMIT")
        seen = [event.stream_id async for batch in feed.to_safe_position() for event in batch.events]
        assert seen == ["slow", "quick"]
        export = await store.export()
        assert (b"".join([piece async for piece in export]).count(b"\n"), export.until) == (2, 2)


UNCERTAIN = {
    "two tables": "SELECT * FROM events UNION ALL SELECT * FROM events",
    "a subquery": "SELECT * FROM events WHERE stream_id NOT IN (SELECT stream_id FROM stream_locks)",
    "a later neighbour": (
        "SELECT * FROM events e WHERE EXISTS (SELECT FROM events o WHERE o.global_seq = e.global_seq + 1)"
    ),
    "the time": "SELECT * FROM events WHERE created_at < now() - interval '1 hour'",
    "the time, as text": "SELECT * FROM events WHERE created_at < ('now'::text)::timestamptz",
    "the user": "SELECT * FROM events WHERE stream_id <> current_user",
    "a setting": "SELECT * FROM events WHERE stream_id <> coalesce(current_setting('app.tenant', true), '')",
    "chance": "SELECT * FROM events WHERE random() < 2",
    "a function of its own": "SELECT * FROM events WHERE fine(stream_id)",
    "a limit": "SELECT * FROM events LIMIT 1000000",
    "a join": "SELECT e.* FROM events e JOIN stream_locks l USING (stream_id)",
    "no two alike": "SELECT DISTINCT * FROM events",
    "another number": (
        "SELECT 100 - global_seq AS global_seq, stream_id, stream_seq, event_type, data, metadata, created_at "
        "FROM events"
    ),
    "a window": "SELECT e.*, row_number() OVER () AS n FROM events e",
}


@pytest.mark.one_older
@pytest.mark.parametrize("query", UNCERTAIN.values(), ids=UNCERTAIN.keys())
async def test_a_view_of_which_more_decides_is_read_and_not_followed(
    query: str, dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("CREATE FUNCTION fine(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true'")
    await sql.execute(f"CREATE VIEW shown AS {query}")
    async with EventStore.connect(dsn) as plain, EventStore.connect(dsn, store="shown") as store:
        await plain.append("s", [NewEvent("T"), NewEvent("U")])
        read = [event async for event in store.read_all()]
        assert all(event.stream_id == "s" for event in read)
        reason = (await store.health()).order_unknown
        assert reason is not None
        assert "\n" not in reason
        assert "public.shown is a view" in reason
        assert "follow the table itself" in reason
        for asking in (store.feed(), store.feed_from_end(), store.export(), anext(store.subscribe())):
            with pytest.raises(OrderUnknown) as told:
                await asking
            assert told.value.reason == reason


async def test_a_view_with_rules_or_of_another_kind_is_not_followed(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "CREATE VIEW ruled AS SELECT * FROM events; CREATE RULE r AS ON INSERT TO ruled DO INSTEAD NOTHING;"
        "CREATE MATERIALIZED VIEW kept AS SELECT * FROM events; CREATE VIEW over AS SELECT * FROM kept"
    )
    for name in ("ruled", "kept", "over"):
        async with EventStore.connect(dsn, store=name) as store:
            assert [event async for event in store.read_all()] == []
            with pytest.raises(OrderUnknown, match=f"public.{name} is a"):
                await store.feed()


async def test_a_view_that_is_changed_while_the_store_is_open(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    await sql.execute("CREATE VIEW shown AS SELECT * FROM events")
    async with EventStore.connect(dsn, store="shown") as viewing:
        await viewing.feed()
        await sql.execute("CREATE OR REPLACE VIEW shown AS SELECT * FROM events WHERE random() < 2")
        with pytest.raises(OrderUnknown, match="connect again"):
            await viewing.feed()


async def test_a_foreign_partition_cannot_be_watched(empty_dsn: str, others: list[asyncpg.Connection]) -> None:
    _, _, admin = others
    await make(empty_dsn, _WITHOUT_ORDERS)
    await admin.execute("CREATE FOREIGN DATA WRAPPER far; CREATE SERVER away FOREIGN DATA WRAPPER far")
    async with EventStore.connect(empty_dsn) as store:
        await store.feed()
        await admin.execute("CREATE FOREIGN TABLE orders PARTITION OF events FOR VALUES IN ('order') SERVER away")
        with pytest.raises(OrderUnknown, match=r"partition public\.orders of events is a foreign table"):
            await store.feed()
